"""The pairs that `make bench` measures, ours beside the alternative, and the rows that they make."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import timm
import torch
from PIL import Image
from torch import nn
from torchmetrics.classification import MulticlassConfusionMatrix

from benchmarks import paper_networks
from safn import SAFN, ConfusionMatrix, DeepLab, backbones, dense_crf, evaluation, inference
from safn.backbones import FixedBatchNorm, lite0_stages
from safn.data import VOCFolder
from safn.datasets import emoji
from safn.images import load_image
from safn.loading import PlainSet
from safn.network import classification_loss
from safn_book import cost
from safn_book.cost import seconds
from safn_book.environment import peak_megabytes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PHOTO = (375, 500)  # height and width in pixels of most photos of VOC 2012
SCALES = (1.0, 0.75, 0.5)
VGG_CROP, VGG_BATCH = 224, 2
Call = Callable[[], object]
Pair = tuple[Call, Call]  # ours, the other
Row = dict[str, Any]


# --- the two calls of each pair --------------------------------------------------------------------------------------


def safn(backbone: str, plain: bool = False) -> SAFN:
    """SAFN, random start; ``plain``: convolutions, batch normalisation and memory as PyTorch and timm have them."""
    torch.manual_seed(0)
    made = SAFN(backbone, 20, SCALES, weights="none")
    if not plain:
        return made.to(DEVICE, memory_format=torch.channels_last)
    if backbone == "efficientnet_lite0":  # ours has its batch normalisation folded; statistics are fixed in both
        torch.manual_seed(0)
        made.backbone = FixedBatchNorm(lite0_stages(timm.create_model("tf_efficientnet_lite0", output_stride=16)))
    for index in (2, 4):  # the two 1x1 convolutions of the head
        fast = made.head[index]
        made.head[index] = nn.Conv2d(fast.in_channels, fast.out_channels, 1)
        made.head[index].load_state_dict(fast.state_dict())
    return made.to(DEVICE)


def step(network: SAFN, batch: int, crop: int, channels_last: bool, bf16: bool = False) -> Call:
    """Forward, Eq. 3, backward and SGD on noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, crop, crop, generator=generator)
    images = images.to(DEVICE, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    labels = (torch.rand(batch, 20, generator=generator) < 0.1).float().to(DEVICE)
    optimizer = torch.optim.SGD(network.train().parameters(), lr=1e-4, momentum=0.9)

    def call() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            scores = network(images)
        classification_loss(scores.float(), labels).backward()
        optimizer.step()

    return call


def steps(backbone: str, batch: int, crop: int, bf16: bool = False) -> Pair:
    ours = step(safn(backbone), batch, crop, channels_last=True, bf16=bf16)
    return ours, step(safn(backbone, plain=True), batch, crop, channels_last=False)


def on_one_thread(pair: Pair) -> Pair:
    """The calls with one thread each, as the jobs of the emoji profile run."""

    def alone(call: Call) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            call()
        finally:
            torch.set_num_threads(threads)

    return tuple(partial(alone, call) for call in pair)


def maps() -> Pair:
    from pytorch_grad_cam import GradCAM  # pip install grad-cam: this comparison alone needs it
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    ours = safn("efficientnet_lite0").eval()
    images, labels = torch.randn(1, 3, 320, 320, device=DEVICE), torch.ones(1, 20, device=DEVICE)

    def ours_maps() -> None:
        with torch.inference_mode():
            ours.maps(images, labels)

    def grad_cam() -> None:
        with GradCAM(ours, [list(ours.backbone.children())[-1]]) as explain:
            for c in range(20):
                explain(images, [ClassifierOutputTarget(c)])

    return ours_maps, grad_cam


def probabilities(height: int, width: int, likely: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth scores of 21 classes, of which ``likely`` can win; float32 ``(21, height, width)``."""
    rng = np.random.default_rng(seed)
    scores = np.full((21, height, width), 1e-6)
    for k in range(likely):
        small = Image.fromarray(rng.random((6, 8)).astype(np.float32))
        scores[k] = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).clip(0.01, 1)
    return (scores / scores.sum(0)).astype(np.float32)


def photo(seed: int = 0) -> np.ndarray:
    """Soft colours and some grain, uint8 ``(375, 500, 3)``: the CRF takes as long as for real photos."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(60, 200, (6, 8, 3), np.uint8))
    smooth = np.asarray(small.resize(PHOTO[::-1], Image.Resampling.BICUBIC))
    return (smooth + rng.normal(0, 2, smooth.shape)).clip(0, 255).astype(np.uint8)


def photos(folder: Path, images: int) -> dict[str, Path]:
    """So many files of ``photo``."""
    paths = {f"{k}": folder / f"{k}.jpg" for k in range(images)}
    for k, path in enumerate(paths.values()):
        Image.fromarray(photo(k)).save(path)
    return paths


def refine(pool: ProcessPoolExecutor, paths: list[Path], given: list[np.ndarray]) -> list[np.ndarray]:
    """The CRF of a folder as ``inference.predict`` runs it: a process a core, probabilities sent in float16."""
    return list(pool.map(inference.crf_mask, paths, [torch.from_numpy(p).half().numpy() for p in given]))


def refine_plainly(paths: list[Path], given: list[np.ndarray]) -> list[np.ndarray]:
    """The CRF of a folder: all classes, one image after another."""
    return [dense_crf(np.asarray(load_image(path)), p, floor=0).argmax(0) for path, p in zip(paths, given)]


@contextlib.contextmanager
def started_processes(paths: list[Path], given: list[np.ndarray]):
    """A pool with a process a core, which have worked once: over a folder of hundreds their start does not count."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        refine(pool, paths[: 2 * os.cpu_count()], given[: 2 * os.cpu_count()])
        yield pool


def confusion() -> Pair:
    prediction, target = np.random.default_rng(0).integers(0, 21, (2, *PHOTO), np.uint8)
    theirs = MulticlassConfusionMatrix(21, ignore_index=255)
    tensors = torch.from_numpy(prediction).long(), torch.from_numpy(target).long()
    return lambda: ConfusionMatrix().update(prediction, target), lambda: theirs.update(*tensors)


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(pair: Pair, pairs: int, warm_ups: int = 1) -> Row:
    """Median milliseconds of each, the median ratio, the other to ours, and its quartiles; the first pair, a warm-up, does
    not count."""
    ours, other = np.array([[seconds(call) for call in pair] for _ in range(pairs + warm_ups)][warm_ups:]).T
    return summary(ours, other, other / ours)


def summary(ours: np.ndarray, other: np.ndarray, ratios: np.ndarray) -> Row:
    """Median milliseconds of each, of seconds a turn; the median and the quartiles of the ratios."""
    low, ratio, high = np.percentile(ratios, [25, 50, 75])
    found = {"ours ms": 1e3 * np.median(ours), "other ms": 1e3 * np.median(other), "value": ratio}
    return {k: round(float(v), 3) for k, v in {**found, "quartile 1": low, "quartile 3": high}.items()}


def row(what: str, against: str, goal: float, found: Row, most: bool = False) -> Row:
    """One row of the table: ``goal`` is the least value wanted, or the largest where ``most``."""
    sense = "at most" if most else "at least"
    reached = found["value"] <= goal if most else found["value"] >= goal
    return {"what": what, "against": against, "sense": sense, "goal": goal, "reached": bool(reached), **found}


def faster(what: str, against: str, goal: float, make: Callable[[], Pair]) -> Callable[[int], list[Row]]:
    return lambda pairs: [row(what, against, goal, measure(make(), pairs))]


def peak_product(kind: torch.dtype) -> Pair:
    """The same product of two 2048 x 2048 matrices by both libraries that PyTorch has: as a 1x1 convolution (oneDNN) and
    as a matrix multiplication (MKL for float32, which may be the slower one)."""
    matrix = torch.randn(2048, 2048).to(kind)
    image = matrix.t().reshape(1, 2048, 32, 64).contiguous(memory_format=torch.channels_last)
    convolution = nn.Conv2d(2048, 2048, 1, bias=False).to(kind).to(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: convolution(image)), torch.inference_mode()(lambda: matrix @ matrix)


def vgg16_share(pairs: int) -> list[Row]:
    """Share of the matrix-multiply peak of the same run and type that a training step of VGG16 reaches."""
    network = paper_networks.Architecture("03_train_safn", "vgg16", scales=SCALES)
    done, rows = VGG_BATCH * paper_networks.flops(network, (VGG_CROP, VGG_CROP), True), []
    for name, kind in {"float32": torch.float32, "bf16": torch.bfloat16}.items():
        call = step(safn("vgg16"), VGG_BATCH, VGG_CROP, channels_last=True, bf16=kind == torch.bfloat16)
        products = [measure((call, product), pairs) for product in peak_product(kind)]
        found = products[0]
        peak = 2 * 2048**3 / min(p["other ms"] for p in products)  # operations a millisecond, of the faster library
        share = {"value": round(done / found["ours ms"] / peak, 3), "ours ms": found["ours ms"]}
        share |= {"peak GFLOP/s": round(peak / 1e6), "GFLOP": round(done / 1e9)}
        rows.append(
            row(
                f"share of the peak, VGG16 step, {name}",
                "2048 x 2048 matrices multiplied by the faster library",
                0.6,
                share,
            )
        )
    return rows


def attention(pairs: int) -> list[Row]:
    """What the attention costs over average pooling (the paper: 1.011, 1.017 and 1.004)."""
    rows = []
    for backbone, crop, batch in (("vgg16", VGG_CROP, VGG_BATCH), ("efficientnet_lite0", 320, 4)):
        turns, _ = cost.turns(cost.random_networks(backbone, 20, SCALES), crop, batch, pairs)
        for column, name in ((cost.TRAINING, "training"), (cost.MAPS, "maps")):
            ours, other = turns[column]["attention"].to_numpy(), turns[column]["avg"].to_numpy()
            found = summary(ours, other, ours / other)
            rows.append(row(f"attention, {backbone}, {name}", "average pooling", 1.02, found, most=True))
    held = {}
    for aggregation in ("attention", "avg"):
        network = SAFN("vgg16", 20, SCALES, aggregation, weights="none").to(memory_format=torch.channels_last)
        held[aggregation] = cost.memory_megabytes(network, torch.randn(4, 3, 448, 448), torch.zeros(4, 20))
    found = {"value": round(held["attention"] / held["avg"], 3), **{f"{a} MB": round(mb) for a, mb in held.items()}}
    return [*rows, row("attention, vgg16, memory, 4 images of 448", "average pooling", 1.01, found, most=True)]


def map_folder(pairs: int, images: int = 16) -> list[Row]:
    """Localization maps of a folder of photos, read and written, four of a shape at once; the other: one by one."""
    network, rows = safn("efficientnet_lite0").eval(), []
    with tempfile.TemporaryDirectory() as name:
        folder = paper_networks.random_photos(Path(name) / "data", images)
        samples = PlainSet(folder, folder.ids("train_aug"), backbones.HALF, 320)

        def write(batch_size: int, workers: int = 0) -> None:
            with contextlib.redirect_stdout(io.StringIO()):  # progress
                inference.write_maps(network, samples, Path(name) / "maps", workers=workers, batch_size=batch_size)

        for what, workers in (("", 0), (", and a process that loads", 1)):
            found = measure((partial(write, 4, workers), partial(write, 1)), pairs)
            rows.append(row(f"maps over a folder, four at once{what}", "one image at a time", 1.5, found))
    return rows


def crf(pairs: int, images: int = 8) -> list[Row]:
    """The CRF over a folder, and the share of pixels on which the two agree."""
    given, made = [probabilities(*PHOTO, seed=k) for k in range(images)], {}
    with tempfile.TemporaryDirectory() as name:
        paths = list(photos(Path(name), images).values())
        with started_processes(paths, given) as pool:
            ours = lambda: made.update(ours=refine(pool, paths, given))  # noqa: E731
            other = lambda: made.update(other=refine_plainly(paths, given))  # noqa: E731
            found = measure((ours, other), pairs, warm_ups=0)  # half a minute a pair
    equal = np.mean([a == b for a, b in zip(made["ours"], made["other"])])
    against = "all 21 classes, one process, one image after another"
    return [
        row("dense CRF over a folder, 3 of 21 classes can win", against, 5, found),
        row("share of equal pixels of the two", against, 0.999, {"value": round(float(equal), 5)}),
    ]


def three_classes() -> DeepLab:
    """A segmentation network of which three of 21 classes can win, as in photos."""
    torch.manual_seed(0)
    network = DeepLab("efficientnet_lite0", num_outputs=21, weights="none", head_width=256)
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
    nn.init.constant_(last.bias[3:].data, -20)
    return inference.on_device(network, "auto")


def overlap(pairs: int, images: int = 8) -> list[Row]:
    """Multi-scale test with CRF over a folder of photos: all of it, over the slower of its two halves. In a process whose
    threads wait passively, as the stages of `make book` do: threads that spin take the cores from the CRF."""
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        call = [sys.executable, "-m", "benchmarks", "--overlap", str(pairs)]
        return json.loads(subprocess.check_output(call, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}))
    given, turns = [probabilities(*PHOTO, seed=k) for k in range(images)], []
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder, paths = Path(name), photos(Path(name), images)
        predict = partial(inference.predict, three_classes(), backbones.HALF, paths, scales=inference.TEST_SCALES)
        with (
            started_processes(list(paths.values()), given) as pool,
            mock.patch.object(inference, "ProcessPoolExecutor", lambda *_: contextlib.nullcontext(pool)),
        ):
            for turn in range(pairs + 1):
                calls = (
                    lambda t=turn: predict(folder=folder / f"network {t}"),
                    lambda: refine(pool, list(paths.values()), given),
                    lambda t=turn: predict(folder=folder / f"both {t}", refined=folder / f"CRF {t}"),
                )
                turns.append(
                    [(seconds(call), processor_seconds() - busy) for call in calls for busy in [processor_seconds()]]
                )
    return overlap_rows(np.array(turns[1:]))


def processor_seconds() -> float:
    """What this process and those that it started have kept processors busy for."""
    own = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (own, *own.children()))


def overlap_rows(turns: np.ndarray) -> list[Row]:
    """``turns``: ``(turns, 3, 2)``, of the network alone, of the CRF alone and of both side by side the seconds, and the
    seconds for which they kept processors busy."""
    network, refined, both = turns[..., 0].T
    slower, found = np.maximum(network, refined), {"network s": network, "CRF s": refined}
    found |= dict(zip(("network processor s", "CRF processor s", "both processor s"), turns[..., 1].T))
    found = {k: round(float(np.median(v)), 2) for k, v in found.items()}
    what, after = "evaluation, network and CRF side by side", network + refined
    return [
        row(what, "the slower of the two alone", 1.15, found | summary(both, slower, both / slower), most=True),
        row(f"{what}, gain", "one after the other", 1, found | summary(both, after, after / both)),
    ]


def memory(_: int) -> list[Row]:
    """Peak memory of predicting and scoring a folder, 1,000 images to 100, each in a process of its own."""
    peaks = {
        n: float(subprocess.check_output([sys.executable, "-m", "benchmarks", "--memory", str(n)])) for n in (100, 1000)
    }
    found = {"value": round(peaks[1000] / peaks[100], 3), **{f"{n} images MB": round(v) for n, v in peaks.items()}}
    return [row("memory, predicting and scoring 1,000 images", "100 images", 1.05, found, most=True)]


def memory_of(images: int) -> float:
    """Peak megabytes of this process after predicting and scoring so many scenes of 64 pixels."""
    with tempfile.TemporaryDirectory() as name:
        emoji.generate(Path(name) / "data", 20, images, 64)
        folder = VOCFolder(Path(name) / "data")
        ids, kind = folder.ids("val"), backbones.BACKBONES["efficientnet_lite0"]
        network = DeepLab("efficientnet_lite0", num_outputs=21, weights="none", head_width=32).eval()
        sys.stdout = sys.stderr  # progress
        inference.predict(network, kind.normalisation, folder.photos(ids), Path(name) / "masks")
        evaluation.score_masks(folder, ids, Path(name) / "masks")
        sys.stdout = sys.__stdout__
    return peak_megabytes()


PLAIN = "float32, contiguous, plain convolutions and batch norm"
CASES: dict[str, Callable[[int], list[Row]]] = {
    "vgg16": faster("SAFN training step, VGG16, float32", PLAIN, 1.15, lambda: steps("vgg16", VGG_BATCH, VGG_CROP)),
    "vgg16-bf16": faster(
        "SAFN training step, VGG16, bf16", PLAIN, 2, lambda: steps("vgg16", VGG_BATCH, VGG_CROP, True)
    ),
    "share": vgg16_share,
    "lite0": faster(
        "SAFN training step, EfficientNet-Lite0, 128 pixels", PLAIN, 1.5, lambda: steps("efficientnet_lite0", 8, 128)
    ),
    "lite0-one-thread": faster(
        "SAFN training step, EfficientNet-Lite0, 128 pixels, one thread",
        PLAIN,
        1.5,
        lambda: on_one_thread(steps("efficientnet_lite0", 8, 128)),
    ),
    "lite0-320": faster(
        "SAFN training step, EfficientNet-Lite0, 320 pixels", PLAIN, 1.5, lambda: steps("efficientnet_lite0", 4, 320)
    ),
    "attention": attention,
    "maps": faster("localization maps, 20 classes", "grad-cam library, same network", 3, maps),
    "map-folder": map_folder,
    "crf": crf,
    "evaluation": overlap,
    "confusion": faster("confusion matrix", "torchmetrics", 1, confusion),
    "memory": memory,
}
