"""What the paper's experiment costs on a GPU: ``python -m benchmarks.gpu_cost --out FILE``.

Needs the method's own packages alone. Writes FILE after each row; rows that it holds of the same card and versions are
kept, so that the same command goes on. Images are noise and weights are random: neither changes the cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as training does, before the first product

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.gpu_steps import (
    CLASSES,
    PLAIN,
    SCALES,
    TRAINED,
    TRAINED_BF16,
    USED,
    Call,
    Case,
    Clock,
    Step,
    Way,
    autocast,
    captured,
    in_turns,
    operations,
    set_flags,
    spread,
    with_memory,
)
from safn import training
from safn.backbones import IMAGENET
from safn.data import VOC_CLASSES, VOCFolder
from safn.images import save_mask
from safn.inference import TEST_SCALES, flipped_features, multi_scale_maximum
from safn.loading import Augmentation, TrainingSet, training_loader
from safn.maps import localization_maps

PUBLISHED = {"max": (43.9, 46.9, 3461), "avg": (43.8, 46.8, 3461), "attention": (44.3, 47.6, 3475)}  # Table 5
PAPER = {"train": 10582, "val": 1449, "epochs": 15, "batch": 4, "iterations": 6000, "segmentation batch": 20}
SEEDS = 3
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Sizes of everything that is measured; ``small``: a trial of the script on a processor."""

    device: str
    small: bool = False

    def case(self, network: str, batch: int = 4, **options) -> Case:
        segments = network in ("largefov", "aspp")
        crop = 321 if segments else 448
        if self.small:
            crop, batch, options = (
                (65 if segments else 64),
                min(batch, 2),
                {**options, "backbone": "efficientnet_lite0"},
            )
        return Case(network, crop, batch, **options)

    @property
    def photo(self) -> tuple[int, int]:
        """Height and width of a whole photo; most of VOC 2012 have these."""
        return (48, 64) if self.small else (375, 500)

    def seconds(self, wanted: float) -> float:
        """How long to measure; the trial takes as few turns as there may be."""
        return 0 if self.small else wanted

    def few(self, number: int, small: int = 2) -> int:
        return small if self.small else number


# --- what the card can do ---------------------------------------------------------------------------------------------


def peak(sizes: Sizes) -> Row:
    """Products of large matrices of random numbers, in TFLOP/s, and copies within the memory, in GB/s."""
    side, found = sizes.few(8192, 256), {}
    for way, kind in ((Way("bf16"), torch.bfloat16), (Way("tf32"), torch.float32), (PLAIN, torch.float32)):
        set_flags(way)
        left, right = (torch.randn(side, side, device=sizes.device, dtype=kind) for _ in range(2))
        milliseconds = in_turns({"product": lambda a=left, b=right: a @ b}, sizes.device, sizes.seconds(0.5))
        found[f"{way.precision} TFLOP/s"] = round(2 * side**3 / milliseconds["product"].median() / 1e9, 1)
    source = torch.randn(side * side * 4, device=sizes.device)
    target = torch.empty_like(source)
    milliseconds = in_turns({"copy": lambda: target.copy_(source)}, sizes.device, sizes.seconds(0.3))
    return found | {"copy GB/s": round(2 * source.nbytes / milliseconds["copy"].median() / 1e6)}


# --- Table 5 ----------------------------------------------------------------------------------------------------------


def table_5(sizes: Sizes, batch: int, way: Way, seconds: float) -> Row:
    """Training and map extraction of the three aggregations in turns, as ratios to average pooling."""
    training_steps, extractions, row = {}, {}, {"way": vars(way)}
    for aggregation in PUBLISHED:
        case = sizes.case(aggregation, batch)
        step, memory = with_memory(lambda c=case: Step(c, way, sizes.device), sizes.device)
        _, of_maps = with_memory(lambda s=step: extraction(s), sizes.device)
        training_steps[aggregation], extractions[aggregation] = step, extraction(step)
        row[aggregation] = {"training": memory, "extraction, beside the network": of_maps}
    for name, calls in (("training", training_steps), ("extraction", extractions)):
        measured = in_turns(calls, sizes.device, sizes.seconds(seconds))
        for aggregation in calls:
            row[aggregation][f"{name} ms an image"] = spread(measured[aggregation] / case.batch)
            row[aggregation][f"{name} ratio"] = spread(measured[aggregation] / measured["avg"])
    for aggregation, published in PUBLISHED.items():
        ratios = [round(own / average, 3) for own, average in zip(published, PUBLISHED["avg"])]
        row[aggregation]["published ratios"] = dict(zip(("training", "extraction", "memory"), ratios))
    return row | {"batch": case.batch, "crop": case.crop}


def extraction(step: Step) -> Call:
    """Localization maps of the step's batch by its network, which keeps its mode: no layer of it has one."""

    @torch.inference_mode()
    def call() -> None:
        set_flags(step.way)
        with autocast(step.way, step.device):
            step.network.maps(step.images, step.target)

    return call


# --- the paper's profile ----------------------------------------------------------------------------------------------

TRAININGS = {
    "baseline": ("plain", 4, {}),
    "attention, 3 scales": ("attention", 4, {}),
    "max, 3 scales": ("max", 4, {}),
    "avg, 3 scales": ("avg", 4, {}),
    "attention, 2 scales": ("attention", 4, {"scales": 2}),
    "attention, 1 scale": ("attention", 4, {"scales": 1}),
    "vgg16-largefov": ("largefov", 20, {}),
    "resnet101-aspp": ("aspp", 20, {"backbone": "resnet101"}),
}
WAYS = {"16-mixed": TRAINED, "bf16-mixed": TRAINED_BF16, "plain": PLAIN}


def profile_step(sizes: Sizes, name: str) -> Row:
    """Milliseconds a training step of one network of the paper's profile: as it is trained, in bf16, and the plain way."""
    network, batch, options = TRAININGS[name]
    case = sizes.case(network, batch, **options)
    made = {w: with_memory(lambda y=way: Step(case, y, sizes.device), sizes.device) for w, way in WAYS.items()}
    measured = in_turns({w: step for w, (step, _) in made.items()}, sizes.device, sizes.seconds(1.5))
    row = {"batch": case.batch, "crop": case.crop, "operations an image": operations(case)}
    for way, (_, memory) in made.items():
        gained = spread(measured["plain"] / measured[way])
        row[way] = {"ms a step": spread(measured[way]), "times as fast as plain": gained, **memory}
    return row


def profile_use(sizes: Sizes) -> Row:
    """Milliseconds a photo of maps (batches of 4), of a validation, and of the tests at one scale and at five."""
    set_flags(USED)
    photos = torch.randn(4, 3, *sizes.photo, device=sizes.device).contiguous(memory_format=torch.channels_last)
    labels = torch.ones(4, CLASSES, device=sizes.device)
    calls = {"validation": validation(sizes.case("attention"), photos)}
    for scales in SCALES:
        network = used(sizes.case("attention", scales=scales), sizes.device)
        calls[f"maps, {scales} scales"] = lambda n=network: n.maps(photos, labels).cpu()
        calls[f"maps, {scales} scales, flipped"] = lambda n=network: localization_maps(
            flipped_features(n, photos), labels
        )
    row = {name: spread(times / 4) for name, times in taken(calls, sizes).items()}
    for name in ("vgg16-largefov", "resnet101-aspp"):
        network, _, options = TRAININGS[name]
        made = used(sizes.case(network, **options), sizes.device)
        tests = {
            f"test, {len(scales)} scales, {name}": lambda n=made, s=scales: multi_scale_maximum(n, photos[:1], s)
            for scales in ((1.0,), TEST_SCALES)
        }
        row |= {name: spread(times) for name, times in taken(tests, sizes).items()}
    return row | {"photo": sizes.photo}


def used(case: Case, device: str) -> torch.nn.Module:
    return case.build(device).to(memory_format=torch.channels_last).eval()


def validation(case: Case, photos: torch.Tensor) -> Call:
    network, device = used(case, photos.device.type), photos.device.type

    def call() -> None:
        with autocast(TRAINED, device):
            network(photos).float().sigmoid().cpu()

    return call


def taken(calls: dict[str, Call], sizes: Sizes) -> pd.DataFrame:
    """Milliseconds of calls that take no gradients."""

    def without_gradients(call: Call) -> Call:
        return torch.inference_mode()(call)

    return in_turns({n: without_gradients(c) for n, c in calls.items()}, sizes.device, sizes.seconds(1.5))


# --- faster than the plain way ----------------------------------------------------------------------------------------


def ways() -> dict[str, Way]:
    bf16 = Way("bf16")
    last = replace(bf16, channels_last=True)
    fused = replace(last, fused=True)
    return {
        "plain": PLAIN,
        "tf32": Way("tf32"),
        "bf16": bf16,
        "bf16, channels_last": last,
        "bf16, channels_last, fused": fused,
        "bf16, channels_last, fused, deterministic": replace(fused, deterministic=True),
        "the same, new tensors not filled": replace(fused, deterministic=True, fill=False),
        "16-mixed, as the profile trains": TRAINED,
    }


def faster(sizes: Sizes, network: str, batch: int) -> Row:
    """A training step in each way, in turns; the share of the card's bf16 peak is filled in with the row of the peak."""
    case, made, row = sizes.case(network, batch), {}, {}
    for name, way in ways().items():
        made[name], row[name] = with_memory(lambda y=way: Step(case, y, sizes.device), sizes.device)
    return row_of_ways(made, row, case, case, sizes, 6)


def graph(sizes: Sizes) -> Row:
    """The fastest eager way as one CUDA graph, beside itself and the plain way."""
    case, way = sizes.case("attention"), ways()["bf16, channels_last, fused"]
    made = {"plain": Step(case, PLAIN, sizes.device), "eager": Step(case, way, sizes.device)}
    step = Step(case, way, sizes.device)
    made["graph"] = captured(step) if sizes.device == "cuda" else step
    return row_of_ways(made, {}, case, case, sizes, 2)


def larger(sizes: Sizes, batch: int) -> Row:
    """The fastest eager way at a larger batch beside the plain way at the paper's, an image."""
    plain, case, name = sizes.case("attention", 4), sizes.case("attention", batch), "bf16, channels_last, fused"
    made = {"plain": Step(plain, PLAIN, sizes.device), name: Step(case, ways()[name], sizes.device)}
    return row_of_ways(made, {}, plain, case, sizes, 3)


def tries(sizes: Sizes, batch: int) -> Row:
    """The fastest eager way where cuDNN tries its algorithms. Only in a process of its own: PyTorch keeps what cuDNN chose
    for a shape, whether it had tried or not."""
    plain, case = sizes.case("attention", 4), sizes.case("attention", batch)
    way = replace(ways()["bf16, channels_last, fused"], benchmark=True)
    made = {"plain": Step(plain, PLAIN, sizes.device), "cuDNN tries": Step(case, way, sizes.device)}
    return row_of_ways(made, {}, plain, case, sizes, 3)


def compiled(sizes: Sizes) -> Row:
    """``torch.compile`` of the network, beside the same without and the plain way; what compiling takes stands apart."""
    case, way = sizes.case("attention"), ways()["bf16, channels_last, fused"]
    made = {"plain": Step(case, PLAIN, sizes.device), "eager": Step(case, way, sizes.device)}
    made["compiled"] = step = Step(case, way, sizes.device)
    step.network = torch.compile(step.network)
    clock, begun = Clock(sizes.device), time.perf_counter()
    step()
    clock.wait()
    row = row_of_ways(made, {}, case, case, sizes, 3)
    return row | {"seconds to compile": round(time.perf_counter() - begun, 1)}


def row_of_ways(
    made: dict[str, Call], row: dict[str, Row], plain: Case, case: Case, sizes: Sizes, seconds: float
) -> Row:
    """Milliseconds an image of each call and its ratio to the call ``plain``, whose case may have another batch."""
    images = {name: plain.batch if name == "plain" else case.batch for name in made}
    measured = in_turns(made, sizes.device, sizes.seconds(seconds)) / pd.Series(images)
    each, found = operations(case), {}
    for name in made:
        found[name] = {
            "ms an image": spread(measured[name]),
            "times as fast as plain": spread(measured["plain"] / measured[name]),
            "TFLOP/s": round(each / measured[name].median() / 1e9, 2),
            **row.get(name, {}),
        }
    return {"batch": case.batch, "crop": case.crop, "operations an image": each, "ways": found}


# --- loading and the loop of training ---------------------------------------------------------------------------------


def photo_folder(root: Path, count: int, size: tuple[int, int]) -> VOCFolder:
    """A data folder of photos with soft shapes and some noise, each about as large a file as a photograph of that size,
    with two labels and a mask."""
    base, rng = root / "VOCdevkit" / "VOC2012", np.random.default_rng(0)
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    for k in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
        noisy = np.asarray(soft) + rng.normal(0, 8, (*size, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(base / "JPEGImages" / f"{k}.jpg", quality=90)
        save_mask(
            base / "SegmentationClass" / f"{k}.png",
            rng.integers(0, 21, (6, 8)).repeat(1 + size[0] // 6, 0).repeat(1 + size[1] // 8, 1)[: size[0], : size[1]],
        )
    rows = [[k, *(int(c in (k % 20, (k + 7) % 20)) for c in range(len(VOC_CLASSES)))] for k in range(count)]
    (root / "image_labels.csv").write_text("\n".join(",".join(map(str, row)) for row in (["id", *VOC_CLASSES], *rows)))
    return VOCFolder(root)


def samples(sizes: Sizes, folder: VOCFolder, length: int, masks: bool = False) -> TrainingSet:
    """Augmented crops of the folder's photos, ``length`` of them."""
    ids = [str(k % len(folder.labels)) for k in range(length)]
    crop = sizes.case("largefov" if masks else "attention").crop
    augmentation = Augmentation(crop, (48, 80) if sizes.small else (256, 512), jitter=(0.3, 0.3, 0.3, 0.1))
    if not masks:
        return TrainingSet(folder, ids, augmentation, IMAGENET, 0)
    paths = {i: folder.mask_path(i) for i in ids}
    return TrainingSet(folder, ids, replace(augmentation, jitter=(0, 0, 0, 0)), IMAGENET, 0, paths)


def loading(sizes: Sizes) -> Row:
    """Images a second that the loader delivers, by the number of workers."""
    with tempfile.TemporaryDirectory() as root:
        folder = photo_folder(Path(root), sizes.few(256, 8), sizes.photo)
        files = [path.stat().st_size for path in (folder.base / "JPEGImages").iterdir()]
        row = {"cores": os.cpu_count(), "photo": sizes.photo, "file kB": round(np.mean(files) / 1000, 1)}
        for workers in (0, 2) if sizes.small else (0, 4, 8, 16):
            data = samples(sizes, folder, sizes.few(8000, 64))
            row[f"crop 448, {workers} workers"] = delivered(training_loader(data, 4, workers), sizes.seconds(2.5))
        data = samples(sizes, folder, sizes.few(16000, 200), masks=True)
        workers = sizes.few(8)
        row[f"crop 321 with masks, {workers} workers"] = delivered(
            training_loader(data, 20, workers), sizes.seconds(2.5)
        )
    return row


def delivered(loader, seconds: float) -> float:
    """Images a second, once each worker has delivered."""
    batches, images = iter(loader), 0
    for _ in range(2 * loader.num_workers + 1):
        next(batches)
    begun = time.perf_counter()
    for batch in batches:
        images += len(batch["id"])
        if time.perf_counter() > begun + seconds:
            break
    return round(images / (time.perf_counter() - begun), 1)


class Traced(training.Classifier):
    """Measures steps within lightning: ``timed`` of them alone, then ``traced`` with the profiler."""

    warm, timed, traced = 10, 40, 10

    def on_train_batch_start(self, batch: dict, index: int) -> None:
        super().on_train_batch_start(batch, index)
        if index == self.warm:
            self.clock.wait()
            self.begun = time.perf_counter()
        elif index == self.warm + self.timed:
            self.clock.wait()
            self.seconds = (time.perf_counter() - self.begun) / self.timed
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        elif index == self.warm + self.timed + self.traced:
            self.profiler.stop()


def trace(sizes: Sizes, precision: str) -> Row:
    """Real steps of the classifier through lightning, loading included, and where their time goes."""
    batch, workers = sizes.few(4), sizes.few(8, 0)
    Traced.warm, Traced.timed, Traced.traced = sizes.few(10), sizes.few(40), sizes.few(10)
    steps = Traced.warm + Traced.timed + Traced.traced + 2
    accelerator = "gpu" if sizes.device == "cuda" else sizes.device
    options = training.TrainingOptions(epochs=1, learning_rate=1e-6, precision=precision, accelerator=accelerator)
    training.seed_everything(0)
    set_flags(WAYS[precision])
    module = Traced(sizes.case("attention").build("cpu"), options)
    module.clock = Clock(sizes.device)
    with tempfile.TemporaryDirectory() as root:
        folder = photo_folder(Path(root) / "data", sizes.few(256, 8), sizes.photo)
        loader = training_loader(samples(sizes, folder, steps * batch), batch, workers)
        (out := Path(root) / "run").mkdir()
        training.fit(module, loader, folder=out, classes=VOC_CLASSES)
    found = {"batch": batch, "workers": workers, "ms a step": round(1000 * module.seconds, 2)}
    return found | {"images a second": round(batch / module.seconds, 1), **summary(module.profiler.events())}


def summary(events) -> Row:
    """Share of the traced time in which the GPU worked, and the calls that wait for it."""
    on_gpu = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation]
    row: Row = {}
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CPU and waits(event.name):
            count, total = row.get(event.name, (0, 0.0))
            row[event.name] = (count + 1, round(total + event.time_range.elapsed_us() / 1000, 3))
    row = {"calls that wait: count, ms": row}
    if on_gpu:
        spans = sorted((e.time_range.start, e.time_range.end) for e in on_gpu)
        whole = spans[-1][1] - spans[0][0]
        back = sum(e.time_range.elapsed_us() for e in on_gpu if "DtoH" in e.name)
        row |= {"traced ms": round(whole / 1000, 2), "GPU busy": round(covered(spans) / whole, 3)}
        row |= {"copies to the processor": round(back / whole, 5)}
    return row


def waits(name: str) -> bool:
    return name.startswith("cuda") and "Synchronize" in name


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals, sorted by their beginning."""
    total, reached = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


# --- hours ------------------------------------------------------------------------------------------------------------


def hours(step: dict[str, float], photo: dict[str, float]) -> dict[str, float]:
    """GPU hours of the paper's profile, without the CRF and without waiting for photos.

    Args:
        step: seconds a training step of each of ``TRAININGS``.
        photo: seconds a photo: ``validation``, ``maps, 1 scales`` (2, 3), ``test, 1 scales, vgg16-largefov`` (5, and
            ``resnet101-aspp``).

    Returns:
        hours of one SAFN, classifier to mIoU, by stage and whole; and of the whole profile: the baseline, five
        classifiers and their maps and segmentations for each of three seeds, three ResNet-101, and three controls.
    """
    train, val = PAPER["train"], PAPER["val"]

    def classifier(name: str) -> float:
        return PAPER["epochs"] * (train // PAPER["batch"] * step[name] + val * photo["validation"])

    def segmentation(name: str) -> float:
        return PAPER["iterations"] * step[name]

    def test(name: str) -> float:
        return val * (photo[f"test, 1 scales, {name}"] + photo[f"test, 5 scales, {name}"])

    def maps(scales: int) -> float:
        return (train + val) * photo[f"maps, {scales} scales"]

    one = {
        "classifier": classifier("attention, 3 scales"),
        "maps": maps(3),
        "segmentation": segmentation("vgg16-largefov"),
        "test": test("vgg16-largefov"),
    }
    classifiers = [name for name in step if "scale" in name]
    vgg, resnet = SEEDS * len(classifiers) + 3, SEEDS
    whole = classifier("baseline") + SEEDS * sum(map(classifier, classifiers))
    whole += SEEDS * (3 * maps(3) + maps(2) + maps(1))
    whole += vgg * (segmentation("vgg16-largefov") + test("vgg16-largefov"))
    whole += resnet * (segmentation("resnet101-aspp") + test("resnet101-aspp"))
    found = {**one, "one SAFN": sum(one.values()), "whole profile": whole}
    return {name: round(seconds / 3600, 3) for name, seconds in found.items()}


def hours_of(rows: dict[str, Row]) -> Row:
    """``hours`` of the measured steps alone, in each way of training; nothing where a row is missing."""
    steps = {name: rows.get(f"step: {name}", {}) for name in TRAININGS}
    if "validation" not in rows.get("use", {}) or not all("plain" in row for row in steps.values()):
        return {}
    return {way: hours(seconds_a_step(rows, way), seconds_a_photo(rows)) for way in WAYS}


def hours_in_the_loop(rows: dict[str, Row]) -> Row:
    """``hours`` where nothing takes more images a second than the traced loop of training, loading and lightning included.

    An upper number: the trace is of crops of 448 with changed colours, and all else is loaded without these changes.
    """
    found = {}
    for way in WAYS if hours_of(rows) else ():
        rate = rows.get(f"trace, {way}", {}).get("images a second")
        if rate is not None:
            step, photo = seconds_a_step(rows, way), seconds_a_photo(rows)
            step = {name: max(seconds, rows[f"step: {name}"]["batch"] / rate) for name, seconds in step.items()}
            photo = {name: max(seconds, 1 / rate) for name, seconds in photo.items()}
            found[way] = hours(step, photo)
    return found


def seconds_a_step(rows: dict[str, Row], way: str) -> dict[str, float]:
    return {name: rows[f"step: {name}"][way]["ms a step"]["median"] / 1000 for name in TRAININGS}


def seconds_a_photo(rows: dict[str, Row]) -> dict[str, float]:
    return {name: value["median"] / 1000 for name, value in rows["use"].items() if isinstance(value, dict)}


# --- all rows ---------------------------------------------------------------------------------------------------------

BF16 = Way("bf16", channels_last=True)
ROWS: dict[str, tuple[float, Callable[[Sizes], Row]]] = {  # the most seconds that it may take, and the row
    "peak": (40, peak),
    "table 5, batch 4, float32": (25, lambda s: table_5(s, 4, PLAIN, 4)),
    "table 5, batch 4, bf16": (20, lambda s: table_5(s, 4, BF16, 3)),
    **{f"step: {name}": (25, lambda s, n=name: profile_step(s, n)) for name in TRAININGS},
    "use": (25, profile_use),
    "faster": (40, lambda s: faster(s, "attention", 4)),
    "trace, 16-mixed": (30, lambda s: trace(s, "16-mixed")),
    "trace, bf16-mixed": (30, lambda s: trace(s, "bf16-mixed")),
    "loading": (35, loading),
    "larger, batch 16": (20, lambda s: larger(s, 16)),
    "table 5, batch 16, bf16": (15, lambda s: table_5(s, 16, BF16, 3)),
    "table 5, batch 64, bf16": (20, lambda s: table_5(s, 64, BF16, 4)),
    "table 5, batch 16, float32": (20, lambda s: table_5(s, 16, PLAIN, 4)),
    "larger, batch 64": (20, lambda s: larger(s, 64)),
    "faster, segmentation": (40, lambda s: faster(s, "largefov", 20)),
    "table 5, batch 64, float32": (40, lambda s: table_5(s, 64, PLAIN, 6)),
    "graph": (20, graph),
    "compiled": (120, compiled),
    "tries, batch 4": (30, lambda s: tries(s, 4)),
    "tries, batch 16": (30, lambda s: tries(s, 16)),
}
ALONE = [name for name in ROWS if name.startswith("tries")]  # in a process of their own, by --only
LEAST = {"compiled": 60}  # seconds without which a row is not begun; others need 8


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """A ``TimeoutError`` after so many seconds."""

    def stop(*_) -> None:
        raise TimeoutError(f"not finished within {seconds:.0f} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def measure(name: str, sizes: Sizes, left: float) -> Row:
    """The row, or why there is none: a failure of one row does not cost the others."""
    box, make = ROWS[name]
    begun = time.perf_counter()
    try:
        with at_most(left if sizes.small else min(box, left)):
            row = make(sizes)
    except Exception as error:
        row = {"not measured": f"{type(error).__name__}: {str(error)[:500]}"}
    if sizes.device == "cuda":
        torch.cuda.empty_cache()
    return row | {"seconds": round(time.perf_counter() - begun, 1)}


def machine(device: str) -> Row:
    """The card and the versions, beside which a number has a meaning."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if device != "cuda":
        return {"card": device, **versions}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")[0]
    versions |= {"driver": driver, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    memory = torch.cuda.get_device_properties(0).total_memory // 1_000_000
    return {"card": torch.cuda.get_device_name(), "memory MB": memory, **versions}


def complete(rows: dict[str, Row]) -> dict[str, Row]:
    """The rows with what follows from several of them: shares of the peak."""
    best = rows.get("peak", {}).get("bf16 TFLOP/s")
    for row in rows.values():
        for way in row.get("ways", {}).values():
            if best:
                way["share of the bf16 peak"] = round(way["TFLOP/s"] / best, 3)
    return rows


def write(out: Path, head: Row, rows: dict[str, Row]) -> None:
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps({**head, "hours": hours_of(rows), "rows": complete(rows)}, indent=1) + "\n")
    partial.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150, help="ends by itself after so many")
    usual = [name for name in ROWS if name not in ALONE]
    parser.add_argument("--only", nargs="*", choices=list(ROWS), metavar="ROW", default=usual)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny crops and batches: a trial of this script")
    given = parser.parse_args()
    end = time.perf_counter() + given.seconds
    sizes, head = Sizes(given.device, given.small), machine(given.device) | {"small": given.small}
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    rows = known.get("rows", {}) if {k: known.get(k) for k in head} == head else {}
    for name in given.only:
        left = end - time.perf_counter()
        if "seconds" in rows.get(name, {}) and "not measured" not in rows[name]:
            continue
        enough = left > (0 if given.small else LEAST.get(name, 8))
        rows[name] = measure(name, sizes, left) if enough else {"not measured": f"{left:.0f} s were left"}
        print(name, rows[name].get("not measured", f"{rows[name].get('seconds')} s"), flush=True)
        write(given.out, head, rows)
    print(json.dumps(hours_of(rows), indent=1))


if __name__ == "__main__":
    main()
