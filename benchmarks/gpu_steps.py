"""Steps of the paper's networks on a GPU: the ways to take one, and how they are timed in turns."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from safn.baseline import PlainClassifier
from safn.metrics import VOID
from safn.network import SAFN, classification_loss
from safn.segmentation import DeepLab
from safn.training import downsample_masks

CLASSES = 20
SCALES = {1: (1.0,), 2: (1.0, 0.75), 3: (1.0, 0.75, 0.5)}
Call = Callable[[], object]


@dataclass(frozen=True)
class Way:
    """How a step is taken. The default is the plain way: float32 without TF32, contiguous memory, eager."""

    precision: str = "float32"  # float32, tf32, bf16 or fp16
    channels_last: bool = False
    fused: bool = False  # the optimiser
    deterministic: bool = False
    fill: bool = True  # deterministic mode fills new tensors, as PyTorch does by default
    benchmark: bool = False  # cuDNN tries its algorithms for each shape

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


PLAIN = Way()
# as `safn.training` does with 16-mixed
TRAINED = Way("fp16", channels_last=True, fused=True, deterministic=True, fill=False)
TRAINED_BF16 = replace(TRAINED, precision="bf16")
USED = Way("tf32", channels_last=True, deterministic=True)  # maps and masks, whose convolutions take TF32 by default


def set_flags(way: Way) -> None:
    """Set PyTorch's global switches as ``way`` asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer names of these two cannot be mixed with what lightning asks
        torch.backends.cudnn.allow_tf32 = way.precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = way.precision == "tf32"
    torch.backends.cudnn.benchmark = way.benchmark
    torch.use_deterministic_algorithms(way.deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = way.fill


def autocast(way: Way, device: str):
    """The context of a forward pass."""
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device, types[way.precision]) if way.precision in types else nullcontext()


@dataclass(frozen=True)
class Case:
    """A network that the paper trains, with random weights, at a crop and a batch."""

    network: str  # plain, attention, max, avg, largefov or aspp
    crop: int
    batch: int
    backbone: str = "vgg16"
    scales: int = 3

    def build(self, device: str) -> nn.Module:
        with torch.device(device):
            if self.network == "plain":
                return PlainClassifier(self.backbone, CLASSES, weights="none")
            if self.network in ("largefov", "aspp"):
                return DeepLab(self.backbone, self.network, CLASSES + 1, weights="none", crop=self.crop)
            scales = SCALES[self.scales]
            return SAFN(self.backbone, CLASSES, scales, self.network, weights="none", attention_start="random")

    @property
    def segments(self) -> bool:
        return self.network in ("largefov", "aspp")

    def noise(self, device: str) -> tuple[Tensor, Tensor]:
        """Images, and labels or masks."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, self.crop, self.crop, generator=generator)
        if self.segments:
            target = torch.randint(0, CLASSES + 1, (self.batch, self.crop, self.crop), generator=generator)
        else:
            target = (torch.rand(self.batch, CLASSES, generator=generator) < 0.1).float()
        return images.to(device), target.to(device)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return segmentation_loss(output, target) if self.segments else classification_loss(output, target)


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy on the masks, as ``safn.training.Segmenter`` takes it."""
    target = downsample_masks(masks, logits.shape[-2:])
    each = F.cross_entropy(logits.float(), target, ignore_index=VOID, reduction="none")
    return each.sum() / (target != VOID).sum().clamp(min=1)


def settle_norms(network: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of ``images``: with random weights ResNet-101 would leave the range of float16."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        network.backbone(images)
    for norm in norms:
        norm.eval()


class Step:
    """Forward, loss, backward and SGD on one batch of noise."""

    def __init__(self, case: Case, way: Way, device: str) -> None:
        set_flags(way)
        self.case, self.way, self.device = case, way, device
        self.network = case.build(device).train().to(memory_format=way.memory_format)
        images, self.target = case.noise(device)
        self.images = images.contiguous(memory_format=way.memory_format)
        settle_norms(self.network, self.images[:2])
        trained = [p for p in self.network.parameters() if p.requires_grad]
        fused = {"fused": True} if way.fused else {}
        self.optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9, weight_decay=5e-4, **fused)
        self.scaler = torch.amp.GradScaler(device, enabled=way.precision == "fp16")

    def __call__(self) -> Tensor:
        set_flags(self.way)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.way, self.device):
            output = self.network(self.images)
        loss = self.case.loss(output.float(), self.target)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


def captured(step: Step) -> Call:
    """The step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    step.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def operations(case: Case) -> int:
    """Floating-point operations of a training step for one image, a multiplication and an addition counted as two."""
    one = Case(case.network, case.crop, 1, case.backbone, case.scales)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        output = one.build("meta")(torch.empty(1, 3, case.crop, case.crop))
        output.sum().backward()
    return counter.get_total_flops()


class Clock:
    """Marks points in time: events in the GPU's queue, or the processor's clock."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def milliseconds(self, begin, end) -> float:
        return begin.elapsed_time(end) if self.cuda else 1000 * (end - begin)


def in_turns(calls: dict[str, Call], device: str, seconds: float, most: int = 25) -> pd.DataFrame:
    """Milliseconds of each call (columns), turn by turn (rows), for about ``seconds``: at least three turns.

    The calls take turns, and each turn begins with another, so that a change of the clock meets all of them. The first
    turn, a warm-up, does not count.
    """
    clock, names, rows = Clock(device), list(calls), []
    one_turn(calls, clock)
    end = time.perf_counter() + seconds
    while len(rows) < 3 or (len(rows) < most and time.perf_counter() < end):
        first = len(rows) % len(names)
        order = names[first:] + names[:first]
        rows.append(one_turn({name: calls[name] for name in order}, clock))
    return pd.DataFrame(rows, columns=names)


def one_turn(calls: dict[str, Call], clock: Clock) -> dict[str, float]:
    marks = [clock.mark()]
    for call in calls.values():
        call()
        marks.append(clock.mark())
    clock.wait()
    return {name: clock.milliseconds(*pair) for name, pair in zip(calls, zip(marks, marks[1:]))}


def spread(values: pd.Series) -> dict[str, float]:
    """Median and quartiles, and of how many."""
    low, middle, high = (float(f"{v:.5g}") for v in values.quantile([0.25, 0.5, 0.75]))
    return {"median": middle, "quartiles": [low, high], "turns": len(values)}


def with_memory(make: Callable[[], Call], device: str) -> tuple[Call, dict[str, float]]:
    """What ``make`` returns, called twice, and the megabytes that it took at most, beside what was held before."""
    if device != "cuda":
        return make(), {}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    call = make()
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    peaks = torch.cuda.max_memory_allocated() - allocated, torch.cuda.max_memory_reserved() - reserved
    return call, dict(zip(("allocated MB", "reserved MB"), (round(peak / 1e6, 1) for peak in peaks)))
