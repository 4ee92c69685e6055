"""What a training step of the ablation at 448 pixels spends its time on: ``python -m benchmarks.probe448 --out OUT``.

Prints each part, and writes OUT/probe.json, as soon as it is timed. Parts run in processes of their own, which are ended
after their time. The fastest way to compute a step is left in WORK/probe.json, for `benchmarks.evidence448`.

What a step of the main classifier needs at least, counted by hand (16 images of 448 pixels, scales 1, 0.75 and 0.5,
EfficientNet-Lite0 at stride 16, of which the stem and two stages are frozen; `counted` repeats it layer by layer):

    multiplications and additions   forward 21.7 GFLOP an image, of which the 3x3 convolution of the head is 8.4 and the
                                    depthwise layers are 0.7; backward twice the trained 20.6: 63 an image, 1.0 TFLOP a
                                    step, 3.4 ms at 300 TFLOP/s
    memory                          what convolutions read and write is 256 MB an image in bf16, forward, of which the
                                    depthwise layers have 109; with activations and backward 1.0 GB an image, 16 GB a
                                    step, 4 ms at 4 TB/s
    augmentation                    21 GFLOP in float16 as products of matrices, 0.1 ms; some 150 passes over 19 MB of
                                    pixels, 3 GB, 1 ms
    optimiser                       5 million trained weights, 0.1 GB: nothing

So about 8 ms. On an H200, in bf16 with channels last, 26 steps had not ended after 45 s, which is above 500 ms a step.
Two suspects: depthwise layers are 3 % of the operations and 40 % of the traffic, and cuDNN may take kernels for them that
are made for groups of many channels; and cuDNN plans each layer of each new shape, 27 to 44 ms each by the first steps of
the tests there: 13 to 20 s for the first step, and at 20 ms 20 minutes for the 392 shapes of batches of whole photographs,
at three scales. The first way below has neither.
"""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a fork after CUDA has begun would have no GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import evidence448, gpu_data, gpu_training
from benchmarks.evidence448 import CLASSIFIER, WAYS, Job
from benchmarks.gpu_data import Photographs
from safn.fast_layers import PhasedConv
from safn.files import write_json
from safn.loading import Augmentation

IMAGES = 64  # random photographs
MAIN = Job("classifier", "attention_1-0.75-0.5")
MOST = 20  # seconds of one process
PARTIAL = 3  # seconds of one part
# channels, side, kernel, stride, dilation, groups: layers of scale 1, named by the stage
LAYERS = {
    "depthwise 5x5, stage 2": (240, 56, 5, 1, 1, 240),
    "depthwise 5x5 dilated, stage 5": (1152, 28, 5, 1, 2, 1152),
    "1x1, stage 5": (192, 28, 1, 1, 1, 1),
    "3x3, head": (320, 28, 3, 1, 1, 1),
}
KINDS = {  # type, channels last, cuDNN, layer
    "bf16, channels last": (torch.bfloat16, True, True, None),
    "bf16": (torch.bfloat16, False, True, None),
    "bf16, without cuDNN": (torch.bfloat16, False, False, None),
    "fp16, channels last": (torch.float16, True, True, None),
    "bf16, channels last, on subgrids": (torch.bfloat16, True, True, PhasedConv),
    "bf16, as a product": (torch.bfloat16, False, False, gpu_training.ProductConv),
}
PHOTOS = [(448, 336), (448, 299), (336, 448), (448, 334), (297, 448)]  # shapes that occur


class Notes:
    """What was timed so far, printed and written at once."""

    def __init__(self, out: Path) -> None:
        self.path = out / "probe.json"

    def add(self, of: str, part: str, found: dict[str, Any]) -> None:
        numbers = ", ".join(f"{name} {value}" for name, value in found.items())
        print(f"{of}: {part}: {numbers}", flush=True)
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        known.setdefault(of, {})[part] = found
        write_json(self.path, known)


def timed(call: Callable[[], object], device: torch.device, most: int = 10) -> dict[str, Any]:
    """Milliseconds of the first call, then the median of up to ``most`` more, as many as fit into ``PARTIAL`` seconds."""

    def milliseconds() -> float:
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begun)

    begun, first, more = time.perf_counter(), milliseconds(), []
    while not more or (len(more) < most and time.perf_counter() - begun < PARTIAL):
        more.append(milliseconds())
    return {"first ms": round(first, 2), "ms": round(float(np.median(more)), 3), "calls": len(more)}


def counted(s: dict[str, Any] = CLASSIFIER) -> dict[str, float]:
    """Forward operations of the main classifier for an image, and what its convolutions read and write in bf16."""
    found = dict.fromkeys(["GFLOP", "trained GFLOP", "MB", "depthwise GFLOP", "depthwise MB"], 0.0)

    def count(layer: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        reach = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
        operations, bytes_moved = 2 * output.numel() * reach / 1e9, 2 * (inputs[0].numel() + output.numel()) / 1e6
        found["GFLOP"] += operations
        found["MB"] += bytes_moved
        if layer.weight.requires_grad:
            found["trained GFLOP"] += operations
        if layer.groups > 1:
            found["depthwise GFLOP"] += operations
            found["depthwise MB"] += bytes_moved

    o = argparse.Namespace(stride=16, device="meta", ways=WAYS["cuDNN"])
    network = evidence448.classifier_network(MAIN, s | {"weights": "none"}, o, 20)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, s["crop"], s["crop"], device="meta"))
    return {name: round(value, 2) for name, value in found.items()}


# ---- processes of their own -----------------------------------------------------------------------------------------


def step(o: argparse.Namespace, way: str) -> None:
    """A training step of one network, eager, then its parts, then as a CUDA graph."""
    notes, device, s, begun = Notes(o.out), torch.device(o.device), CLASSIFIER | o.classifier, time.perf_counter()
    o.ways, o.stride, o.graph = WAYS[way], 16, False
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.enabled = o.ways["cudnn"]
    data = random_photographs(device)
    network = evidence448.classifier_network(MAIN, s | {"weights": "none"}, o, 20)
    normalisation, crop = network.normalisation, s["crop"]
    loss = gpu_training.classifier_loss(network, data, crop, normalisation, o.ways)
    eager = evidence448.step_of(loss, network, 1.0, s, o)
    samples = next(gpu_training.epochs_of(data, Augmentation(crop, s["resize"]), 0, s["batch_size"]))[0].to(device)
    notes.add(way, "begun", {"seconds": round(time.perf_counter() - begun, 1)})
    notes.add(way, "step", timed(lambda: eager(samples), device, 3))
    notes.add(way, "augmentation", timed(lambda: gpu_data.batch(data.photos, samples, crop, normalisation), device))
    images, _ = gpu_data.batch(data.photos, samples, crop, normalisation)
    images = images.contiguous(memory_format=gpu_training.memory_format(o.ways))
    calls = {
        "forward": lambda: network(images),
        "forward, backbone at scale 1": lambda: network.backbone(images),
    }
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for name, call in calls.items():
            notes.add(way, name, timed(call, device))
        features = network.backbone(images)
        notes.add(way, "forward, head at scale 1", timed(lambda: network.head(features), device))

    def with_backward() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            network(images).sum().backward()

    notes.add(way, "forward and backward", timed(with_backward, device))
    notes.add(way, "optimiser", timed(eager.optimizer.step, device))
    if device.type == "cuda":
        o.graph = True
        graphed = evidence448.step_of(loss, network, 1.0, s, o)
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(gpu_training.WARM_UP + 1):
                graphed(samples)
            notes.add(way, graphed.kind, timed(lambda: graphed(samples), device))
        notes.add(way, "memory", {"GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)})


def random_photographs(device: torch.device) -> Photographs:
    rng = np.random.default_rng(0)
    photos = torch.from_numpy(rng.integers(0, 256, (IMAGES, 3, 512, 512), np.uint8)).to(device)
    labels = torch.from_numpy(rng.integers(0, 2, (IMAGES, 20)).astype(np.float32)).to(device)
    return Photographs([""] * IMAGES, [], np.tile((375, 500), (IMAGES, 1)), labels, photos, photos[:, 0] % 21)


def layers(o: argparse.Namespace, name: str) -> None:
    """Forward and backward of one layer in each of ``KINDS``."""
    notes, device = Notes(o.out), torch.device(o.device)
    batch = (CLASSIFIER | o.classifier)["batch_size"]
    channels, side, kernel, stride, dilation, groups = LAYERS[name]
    for kind, (dtype, channels_last, cudnn, layer_type) in KINDS.items():
        if not fits(layer_type, groups, dilation):
            continue
        torch.backends.cudnn.enabled = cudnn
        form = torch.channels_last if channels_last else torch.contiguous_format
        layer = nn.Conv2d(channels, channels, kernel, stride, dilation * (kernel // 2), dilation, groups)
        if layer_type is not None:
            holder = nn.Sequential(layer)
            gpu_training.exchange(holder, {nn.Conv2d: gpu_training.ProductConv})
            layer = PhasedConv(channels, kernel, dilation) if layer_type is PhasedConv else holder[0]
        layer = layer.to(device, dtype).to(memory_format=form)
        features = torch.randn(batch, channels, side, side, device=device, dtype=dtype).to(memory_format=form)
        features.requires_grad_()
        upstream = torch.randn_like(layer(features))
        notes.add(name, f"{kind}, forward", timed(lambda x=features, f=layer: f(x.detach()), device))
        notes.add(name, f"{kind}, both", timed(lambda x=features, f=layer, g=upstream: f(x).backward(g), device))


def fits(layer_type: type | None, groups: int, dilation: int) -> bool:
    """Whether there is such a layer: products have no groups, subgrids are of dilated depthwise ones."""
    if layer_type is gpu_training.ProductConv:
        return groups == 1
    return layer_type is None or (groups > 1 and dilation > 1)


def shapes(o: argparse.Namespace, way: str) -> None:
    """A forward pass of one photograph of a new shape: the first call of each has cuDNN's plans in it."""
    notes, device = Notes(o.out), torch.device(o.device)
    o.ways, o.stride = WAYS[way], 16
    torch.backends.cudnn.enabled = o.ways["cudnn"]
    torch.set_float32_matmul_precision("high")
    network = evidence448.classifier_network(MAIN, CLASSIFIER | {"weights": "none"}, o, 20).eval()
    with torch.inference_mode():
        for height, width in PHOTOS:
            images = torch.zeros(2, 3, height, width, device=device)
            images = images.contiguous(memory_format=gpu_training.memory_format(o.ways))
            notes.add(f"{way}, a new shape", f"{height} x {width}", timed(lambda x=images: network(x), device, 2))


def processes() -> list[tuple[Callable[[argparse.Namespace, str], None], str]]:
    """What to time, what says most first."""
    names = list(WAYS)
    found = [(step, names[0])] + [(layers, name) for name in LAYERS] + [(step, names[1])]
    return found + [(shapes, names[0]), (shapes, names[1]), (step, names[3]), (step, names[2])]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe448", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "evidence448")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--seconds", type=float, default=90, help="after which it ends")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--classifier", type=json.loads, default={}, help="settings that differ, JSON")
    o = parser.parse_args(arguments)
    end = time.time() + o.seconds
    for folder in (o.work, o.out):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"an image, forward: {counted(CLASSIFIER | o.classifier)}", flush=True)
    for measure, name in processes():
        left = min(MOST, end - time.time())
        if left <= 0:
            print(f"no time left: {measure.__name__} {name}", flush=True)
            continue
        process = multiprocessing.get_context("fork").Process(target=measure, args=(o, name))
        process.start()
        process.join(left)
        if process.is_alive():
            print(f"{measure.__name__} {name}: ended after {left:.0f} s", flush=True)
        process.kill()
        process.join()
        choose(o.out / "probe.json", o.work)


def choose(notes: Path, work: Path) -> None:
    """Leave the way whose step takes least in the work folder."""
    known = json.loads(notes.read_text()) if notes.exists() else {}
    found = {way: parts.get("CUDA graph", parts["step"])["ms"] for way, parts in known.items() if "step" in parts}
    if found:
        write_json(work / "probe.json", {"way": min(found, key=found.__getitem__)})


if __name__ == "__main__":
    main()
