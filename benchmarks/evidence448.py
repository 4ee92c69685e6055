"""The ablation at the paper's resolution on one GPU: classifiers, maps, pseudo labels, segmentations; no notebooks.

    python -m benchmarks.evidence448 --data DIR --work WORK --out OUT --seconds 400

DIR is a VOC-layout folder with ``saliency/<id>.png``, such as the archives of `benchmarks.pack_photographs`, unpacked.
Rows appear in OUT/evidence-448.json as soon as they are measured, and the counts of each image, for a paired bootstrap,
in OUT/evidence-448.npz. Before, a row says in ``unfinished`` how far its job is; the job's log is in OUT, too. Rows that
are measured already (``--resume``, or from an earlier call into the same OUT) are kept. A training that would end too
late takes fewer epochs, and its row says so in ``shortened``. Run `benchmarks.probe448` first: a minute says what is slow.
`--rows` writes a row for each job that has none, with the command that fills it.
SECONDS after its imports the script ends by itself, whatever is unfinished. `--list` names the jobs in their order.
"""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a fork after CUDA has begun would have no GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import gpu_data, gpu_training
from benchmarks.gpu_data import Photographs
from benchmarks.gpu_scores import BatchSweep, confusion, multi_scale, pseudo_labels, sparse, weights_of_classes
from safn.crf import dense_crf
from safn.data import VOCFolder
from safn.files import write_json
from safn.loading import Augmentation
from safn.maps import localization_maps
from safn.metrics import ConfusionMatrix
from safn.network import SAFN
from safn.segmentation import DeepLab
from safn.training import mean_average_precision
from safn_book.run_names import RunName
from safn_book.scores import evaluation_scores, map_scores, pseudo_label_scores

NAME = "evidence-448"
CONFIGURATIONS = {  # the main comparison first
    "attention_1-0.75-0.5": ("attention", (1, 0.75, 0.5)),
    "attention_1": ("attention", (1,)),
    "max_1-0.75-0.5": ("max", (1, 0.75, 0.5)),
    "avg_1-0.75-0.5": ("avg", (1, 0.75, 0.5)),
    "attention_1-0.75": ("attention", (1, 0.75)),
}
CLASSIFIER = {
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "freeze": 3,
    "attention_start": "zero",
    "epochs": 15,
    "batch_size": 16,
    "crop": 448,
    "resize": (256, 512),
    "learning_rate": 2e-4,
    "new_layer_factor": 2,
    "attention_factor": 0.02,  # 1,515 steps: learning rate times steps as in profiles/evidence.yaml
    "optimizer": "adamw",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "poly",
    "power": 0.9,
    "size": 448,
}
PAPER = {  # the paper's optimiser; its factor of 10 holds for the head and the attention
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "new_layer_factor": 10,
    "attention_factor": 10,
    "attention_start": "random",
    "batch_size": 4,
}
RECIPES = {"adamw": {}, "sgd": PAPER, "sgd-0.005": PAPER | {"learning_rate": 0.005}}
WAYS = {  # to compute a step; the first is the default
    "without cuDNN": {"channels_last": False, "phased": False, "cudnn": False},
    "cuDNN, channels last": {"channels_last": True, "phased": False, "cudnn": True},
    "cuDNN, channels last, dilated on subgrids": {"channels_last": True, "phased": True, "cudnn": True},
    "cuDNN": {"channels_last": False, "phased": False, "cudnn": True},
}
SEGMENTER = {
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "freeze": 3,
    "head": "largefov",
    "head_width": 512,
    "head_dilation": 12,
    "iterations": 6000,
    "batch_size": 20,
    "crop": 321,
    "resize": (256, 512),
    "learning_rate": 1e-4,
    "new_layer_factor": 10,
    "optimizer": "adamw",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "poly",
    "power": 0.9,
}
PSEUDO = {"gamma": 0.2, "ignore_saliency": 0.06, "ignore_confidence": 0.9}
TEST_SCALES = (0.5, 0.75, 1, 1.25, 1.5)
DETECTOR = "U2-Net-p, 6 views"
GROUPS = 8  # of objects of like size
MASKS = "masks"  # the segmentation network that learns from the ground truth
TAIL = {"classifier": 25, "segmentation": 30, "crf": 0}  # seconds that follow the training, at a guess
EVERY = 5  # seconds between reports
Measured = tuple[dict[str, Any], dict[str, np.ndarray]]  # a row and its arrays


@dataclass(frozen=True)
class Job:
    """One thing to measure: a ``classifier`` with its maps and pseudo labels, a ``segmentation``, or its ``crf``."""

    kind: str
    configuration: str
    recipe: str = "adamw"
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.configuration}:{self.recipe}:seed{self.seed}"

    @property
    def needs(self) -> str | None:
        """The file in the work folder that another job has to leave first."""
        if self.kind == "segmentation" and self.configuration != MASKS:
            return self.made_by("classifier").pseudo
        return self.made_by("segmentation").probabilities if self.kind == "crf" else None

    @property
    def pseudo(self) -> str:
        return f"pseudo_{self.configuration}_{self.recipe}_{self.seed}.npy"

    @property
    def probabilities(self) -> str:
        return f"probabilities_{self.configuration}_{self.recipe}_{self.seed}"

    def made_by(self, kind: str) -> Job:
        return Job(kind, self.configuration, self.recipe, self.seed)


def jobs() -> list[Job]:
    """All jobs, those that matter most first."""
    main, baseline = list(CONFIGURATIONS)[:2]
    found = [Job("classifier", c) for c in CONFIGURATIONS]
    found += [Job(kind, c) for kind in ("segmentation", "crf") for c in (main, baseline, MASKS)]
    found += [Job("classifier", c, seed=1) for c in CONFIGURATIONS]
    found += [Job("classifier", c, "sgd") for c in (main, baseline)]
    found += [Job("classifier", c, seed=2) for c in CONFIGURATIONS]
    found += [Job("segmentation", "max_1-0.75-0.5"), Job("classifier", "max_1-0.75-0.5", "sgd")]
    found += [Job("classifier", main, "sgd-0.005"), Job("segmentation", main, "sgd")]
    return found


def not_measured(job: Job) -> dict[str, Any]:
    """The row of a job that nobody has run: it has the command that does."""
    before = {"classifier": [], "segmentation": ["classifier"], "crf": ["classifier", "segmentation"]}[job.kind]
    names = [job.made_by(kind).name for kind in before if (kind, job.configuration) != ("classifier", MASKS)]
    command = f"python -m benchmarks.evidence448 --data DIR --out results --jobs {' '.join([*names, job.name])}"
    return {"job": job.name, "kind": job.kind, "metrics": {}, "unfinished": "not measured yet", "command": command}


# ---- one job, in a process of its own -------------------------------------------------------------------------------


class Reporter:
    """Prints how far a job is, and leaves it in the work folder as a row that is not finished.

    Attributes:
        row: what is known of the job.
    """

    def __init__(self, job: Job, o: argparse.Namespace) -> None:
        self.path, self.began = o.work / f"{job.name}.progress", time.time()
        self.row: dict[str, Any] = {"job": job.name, "kind": job.kind, "metrics": {}}
        self.said = 0.0
        self.write("begins")

    def training(self, progress: gpu_training.Progress) -> None:
        """After steps of training: their time, and when the last one will be done."""
        shown = f"step {progress.done} of {progress.steps}"
        if progress.ms_per_step is None:
            self.write(shown)
            return
        self.row["metrics"]["ms_per_step"] = progress.ms_per_step
        short = f" ({progress.wanted} wanted)" if progress.steps < progress.wanted else ""
        say = self.write if "steps_trained" not in self.row else self.often  # the first prediction at once
        self.row["steps_trained"] = progress.done
        say(f"{shown}{short}, {progress.ms_per_step:.1f} ms each, {progress.ends - time.time():.0f} s left")

    def often(self, text: str) -> None:
        """Write, but every two seconds at most."""
        if time.time() > self.said + 2:
            self.write(text)

    def write(self, text: str) -> None:
        self.said = time.time()
        text = f"{text}; {self.said - self.began:.1f} s so far"
        print(text, flush=True)
        write_json(self.path, self.row | {"unfinished": text})


def classifier(job: Job, o: argparse.Namespace, deadline: float, report: Reporter) -> Measured:
    """Train a classifier, then its validation, maps and pseudo labels; returns the row and its arrays."""
    s = CLASSIFIER | RECIPES[job.recipe] | o.classifier
    device, train = places(o)
    network = classifier_network(job, s, o, len(train.classes))
    normalisation = network.normalisation
    step = step_of(gpu_training.classifier_loss(network, train, s["crop"], normalisation, o.ways), network, 1.0, s, o)
    epochs = gpu_training.epochs_of(train, Augmentation(s["crop"], s["resize"]), job.seed, s["batch_size"])
    steps = s["epochs"] * (len(train) // s["batch_size"])
    row = about(job, o, s, steps) | {"output_stride": o.stride, "pseudo_labels": PSEUDO, "detector": DETECTOR}
    report.row |= row | {"metrics": {}}
    report.write("the network is there")
    try:
        metrics = gpu_training.train(step, epochs, steps, s, deadline - TAIL["classifier"], report.training)
    except gpu_training.Diverged as error:
        return row | {"metrics": {}, "failure": str(error)}, {}
    row["step"] = step.kind
    del step
    report.row |= row | {"metrics": metrics}
    report.write("trained")
    network = for_photographs(network)
    began = time.time()
    val = gpu_data.load(o.work, "val", device)
    metrics |= validated(network, val, normalisation, s["size"])
    report.write("validated")
    found, arrays = studied(network, VOCFolder(o.data), train, normalisation, s["size"], o.work / job.pseudo, report)
    metrics |= found | {"seconds_after_training": time.time() - began}
    if "weights" in arrays:
        row["weights_by_size"], names = by_size(arrays["weights"]), [f"{scale:g}" for scale in network.scales]
        correlation = row["weights_by_size"].pop("correlation")
        metrics |= {f"rank correlation {name}": value for name, value in zip(names, correlation)}
    return row | {"metrics": metrics | used(device)}, arrays


def classifier_network(job: Job, s: dict[str, Any], o: argparse.Namespace, classes: int) -> SAFN:
    aggregation, scales = CONFIGURATIONS[job.configuration]
    backbone = gpu_training.STRIDE_8 if o.stride == 8 else s["backbone"]
    options = {name: s[name] for name in ("weights", "attention_start", "freeze")}
    torch.manual_seed(job.seed)
    network = SAFN(backbone, classes, scales, aggregation, **options)
    return gpu_training.prepared(network, torch.device(o.device), o.ways)


def step_of(loss, network: torch.nn.Module, bias_factor: float, s: dict[str, Any], o: argparse.Namespace):
    """The training step of a network."""
    device = torch.device(o.device)
    optimizer = gpu_training.optimizer_of(network, s, bias_factor, device)
    return gpu_training.Step(loss, optimizer, s["batch_size"], device, o.graph)


def for_photographs(network: torch.nn.Module) -> torch.nn.Module:
    """The trained network without cuDNN, which would plan for each shape of photograph anew."""
    gpu_training.without_cudnn(network)
    torch.backends.cudnn.enabled = False
    return network.eval()


@torch.inference_mode()
def validated(network: SAFN, val: Photographs, normalisation, size: int) -> dict[str, float]:
    """mAP of the validation images, and of each scale's weight the mean, the spread in an image, and between images."""
    scores, labels, weights = [], [], []
    for chosen, images in gpu_data.whole(val, normalisation, size, 8):
        scores.append(network(images).float().sigmoid())
        labels.append(val.labels[chosen])
        if network.attention is not None:
            flat = network.scale_weights.flatten(2)
            weights.append(torch.stack([flat.mean(2), flat.std(2)], 1))
    found = {"val_mAP": mean_average_precision(torch.cat(scores).cpu(), torch.cat(labels).cpu())}
    if weights:
        means, spreads = torch.cat(weights).double().cpu().unbind(1)
        for k, scale in enumerate(network.scales):
            found[f"weight {scale:g}"] = float(means[:, k].mean())
            found[f"weight spread {scale:g}"] = float(spreads[:, k].mean())
            found[f"weight spread between images {scale:g}"] = float(means[:, k].std(unbiased=False))
    return found


@torch.inference_mode()
def studied(
    network: SAFN, folder: VOCFolder, train: Photographs, normalisation, size: int, out: Path, report: Reporter
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Score the maps with the given labels, and their pseudo labels, written to ``out``; find each object's weights.

    Returns:
        the metrics, and the counts of each image and the objects as arrays.
    """
    images, classes, device = len(train), len(train.classes), train.photos.device
    sweep, order, empty = BatchSweep(classes), [], torch.zeros((), dtype=torch.int64, device=device)
    counts = torch.zeros(images, classes + 1, classes + 2, dtype=torch.int32, device=device)
    objects = torch.zeros(images, classes, 1 + len(network.scales), device=device)
    made = np.full((images, *train.masks.shape[1:]), 255, np.uint8)
    for chosen, pixels in gpu_data.whole(train, normalisation, size, 8):
        height, width = train.sizes[chosen[0]].tolist()
        target = train.masks[chosen, :height, :width]
        maps, weights, without = maps_of(network, pixels, train.labels[chosen], (height, width))
        sweep.update(maps, target)
        labels = pseudo_labels(maps, train.saliency[chosen, :height, :width] / 255, **PSEUDO)
        counts[chosen] = confusion(labels, target, classes + 1)
        made[chosen, :height, :width] = labels.cpu().numpy()
        if weights is not None:
            objects[chosen] = weights_of_classes(weights, target, classes)
        empty += without
        order += chosen
        report.often(f"maps of {len(order)} of {images} photographs")
    sweep.images = [sweep.images[k] for k in np.argsort(order)]
    scored, counts = sweep.result(), counts.cpu().numpy().astype(np.int64)
    np.save(out.with_suffix(".tmp.npy"), made)
    out.with_suffix(".tmp.npy").rename(out)
    arrays = {f"maps.{k}": v for k, v in sparse(scored.counts).items()}
    arrays |= {f"pseudo.{k}": v for k, v in sparse(counts).items()} | {"maps.miou": scored.miou.astype(np.float32)}
    if network.attention is not None:
        arrays["weights"] = rows_of_objects(objects.cpu().numpy(), train.labels.cpu().numpy())
    metrics = map_scores(folder, train.ids, scored) | pseudo_label_scores(folder, train.ids, counts)
    return metrics | {"empty_maps": int(empty)}, arrays


def maps_of(
    network: SAFN, pixels: Tensor, labels: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Maps of a batch, averaged with those of its mirror images, and the scale weights without these, at ``size``.

    Also how many present classes have an empty map."""
    features, weights = network.features(pixels), network.scale_weights
    features = (features + network.features(pixels.flip(3)).flip(3)) / 2
    maps = localization_maps(features, labels)
    empty = (labels.bool() & (maps.amax((2, 3)) == 0)).sum()
    maps = (maps * 255).round() / 255  # 8 bits, as the files of maps have
    return enlarged(maps, size), None if weights is None else enlarged(weights, size), empty


def enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def rows_of_objects(objects: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One row for each class that an image shows, float32: image, class, its share of the image, the weights.

    Args:
        objects: of ``weights_of_classes``, ``(images, N, 1 + S)``.
        labels: ``(images, N)``.
    """
    image, c = np.nonzero((labels > 0) & (objects[..., 0] > 0))
    return np.column_stack([image, c, objects[image, c]]).astype(np.float32)


def by_size(objects: np.ndarray) -> dict[str, list]:
    """Spearman's correlation of each scale's weight with an object's share of its image, and medians by size."""
    table = pd.DataFrame(objects[:, 2:])
    correlation = table.rank().corr()[0].iloc[1:].tolist()
    groups = np.array_split(table.sort_values(0).to_numpy(), GROUPS)
    medians = np.array([np.median(group, 0) for group in groups if len(group)])
    return {"correlation": correlation, "share": medians[:, 0].tolist(), "weight": medians[:, 1:].tolist()}


def segmentation(job: Job, o: argparse.Namespace, deadline: float, report: Reporter) -> Measured:
    """Train DeepLab on pseudo labels, or on the ground truth, and test it; returns the row and its arrays."""
    s = SEGMENTER | o.segmenter
    device, train = places(o)
    network = segmentation_network(job, s, o, len(train.classes) + 1)
    normalisation = network.normalisation
    masks = train.masks if job.configuration == MASKS else torch.from_numpy(np.load(o.work / job.needs)).to(device)
    loss = gpu_training.segmenter_loss(network, train, masks, s["crop"], normalisation, o.ways)
    step = step_of(loss, network, 2.0, s, o)
    augmentation = Augmentation(s["crop"], s["resize"], jitter=(0, 0, 0, 0))
    epochs = gpu_training.epochs_of(train, augmentation, job.seed, s["batch_size"])
    supervised = "ground-truth masks" if job.configuration == MASKS else "image labels"
    row = about(job, o, s, s["iterations"]) | {"supervision": supervised, "detector": DETECTOR}
    report.row |= row | {"metrics": {}}
    report.write("the network is there")
    metrics = gpu_training.train(step, epochs, s["iterations"], s, deadline - TAIL["segmentation"], report.training)
    row["step"] = step.kind
    report.row |= row | {"metrics": metrics}
    report.write("trained")
    del step, loss, train, masks
    val = gpu_data.load(o.work, "val", device)
    began = time.time()
    kept = o.work / job.probabilities if o.crf else None
    protocols = {"single": (1,), "multi": TEST_SCALES}
    counts = tested(for_photographs(network), val, normalisation, protocols, kept, report)
    metrics |= evaluation_scores(counts) | {"seconds_test": time.time() - began} | used(device)
    arrays = {f"{name}.{k}": v for name, of in counts.items() for k, v in sparse(of).items()}
    return row | {"test_scales": list(TEST_SCALES), "metrics": metrics}, arrays


def segmentation_network(job: Job, s: dict[str, Any], o: argparse.Namespace, outputs: int) -> DeepLab:
    options = {name: s[name] for name in ("weights", "head_width", "freeze", "head_dilation", "crop")}
    torch.manual_seed(job.seed)
    network = DeepLab(s["backbone"], s["head"], outputs, **options)
    return gpu_training.prepared(network, torch.device(o.device), o.ways).train()


@torch.inference_mode()
def tested(
    network: DeepLab,
    val: Photographs,
    normalisation,
    protocols: dict[str, tuple[float, ...]],
    kept: Path | None,
    report: Reporter,
) -> dict[str, np.ndarray]:
    """Counts of each photograph by each protocol; the probabilities of the last are ``kept`` in float16 for the CRF."""
    n, device = len(val.classes) + 1, val.photos.device
    counts = {name: torch.zeros(len(val), n, n + 1, dtype=torch.int32, device=device) for name in protocols}
    parts = None if kept is None else kept.with_suffix(".tmp")
    if parts is not None:
        parts.mkdir(exist_ok=True)
    for chosen, images in gpu_data.whole(val, normalisation, 0, 4):
        height, width = images.shape[-2:]
        for name, scales in protocols.items():
            found = multi_scale(network, images, scales)
            counts[name][chosen] = confusion(found.argmax(1), val.masks[chosen, :height, :width], n)
        for index, values in zip(chosen, found.half().cpu().numpy() if parts else ()):
            np.save(parts / f"{index}.npy", values)
        report.often(f"tested up to photograph {chosen[-1]}, by shapes")
    if parts is not None:
        parts.rename(kept)
    return {name: of.cpu().numpy().astype(np.int64) for name, of in counts.items()}


def crf(job: Job, o: argparse.Namespace, deadline: float, report: Reporter) -> Measured:
    """The dense CRF on what the multi-scale test left, on the processor; returns the row and its arrays."""
    began, about_val = time.time(), json.loads((o.work / "val.json").read_text())
    tasks = [(o.work, o.work / job.needs, k, size) for k, size in enumerate(about_val["sizes"])]
    with multiprocessing.get_context("fork").Pool(o.processes) as pool:
        counts = np.stack(pool.map(_refined, tasks, chunksize=4))
    shutil.rmtree(o.work / job.needs)  # gigabytes
    metrics = evaluation_scores({"crf": counts}) | {"seconds_crf": time.time() - began, "processes": o.processes}
    row = about(job, o, SEGMENTER | o.segmenter, 0) | {"test_scales": list(TEST_SCALES), "metrics": metrics}
    return row, {f"crf.{k}": v for k, v in sparse(counts).items()}


def _refined(task: tuple[Path, Path, int, list[int]]) -> np.ndarray:
    work, kept, index, (height, width) = task
    photo = np.load(work / "val_photos.npy", mmap_mode="r")[index, :, :height, :width].transpose(1, 2, 0)
    target = np.load(work / "val_masks.npy", mmap_mode="r")[index, :height, :width]
    probabilities = np.load(kept / f"{index}.npy").astype(np.float32)
    return ConfusionMatrix(len(probabilities)).update(dense_crf(photo, probabilities).argmax(0), target)


def places(o: argparse.Namespace) -> tuple[torch.device, Photographs]:
    """The device and the training images on it."""
    device = torch.device(o.device)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.enabled = o.ways["cudnn"]
    return device, gpu_data.load(o.work, "train_aug", device)


def used(device: torch.device) -> dict[str, float]:
    return {"peak_gigabytes": torch.cuda.max_memory_allocated(device) / 1e9} if device.type == "cuda" else {}


def about(job: Job, o: argparse.Namespace, s: dict[str, Any], steps: int) -> dict[str, Any]:
    """What a row says beside its numbers."""
    packed = o.data / "packed.json"
    lists = {split: len(json.loads((o.work / f"{split}.json").read_text())["ids"]) for split in gpu_data.KINDS}
    names = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")
    on_gpu = o.device != "cpu"
    return {
        "job": job.name,
        "kind": job.kind,
        "run": str(RunName(*CONFIGURATIONS[job.configuration], job.seed)),
        "recipe": job.recipe,
        "seed": job.seed,
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in s.items()},
        "steps": steps,
        "data": json.loads(packed.read_text())["data"] if packed.exists() else None,
        "train_images": lists["train_aug"],
        "val_images": lists["val"],
        "init": s["weights"],
        "precision": "bf16-mixed, float32 with TF32 for maps and tests" if on_gpu else "32-true",
        "loading": "on the GPU" if on_gpu else "as on the GPU, on the CPU",
        "ways": o.ways,
        "beside": o.slots,
        "device": torch.cuda.get_device_name()
        if on_gpu and job.kind != "crf"
        else f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in names},
        "python": platform.python_version(),
    }


KINDS = {"classifier": classifier, "segmentation": segmentation, "crf": crf}


def run_job(job: Job, o: argparse.Namespace, deadline: float) -> None:
    """Do a job in this process; its row and its arrays appear in the work folder when it is done."""
    os.setpgrp()  # to be ended with the processes of its own
    with (
        log_of(job, o).open("w") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        began, report = time.time(), Reporter(job, o)
        if o.stride == 8:
            gpu_training.register_stride_8()
        try:
            row, arrays = KINDS[job.kind](job, o, deadline, report)
        except Exception as error:
            traceback.print_exc()
            report.row["failure"] = f"{type(error).__name__}: {str(error)[:500]}"
            report.write("failed")
            sys.exit(1)
        row |= {
            "seconds": round(time.time() - began, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        np.savez_compressed(o.work / f"{job.name}.npz", **arrays)
        write_json(o.work / f"{job.name}.row", row)


def log_of(job: Job, o: argparse.Namespace) -> Path:
    return o.out / f"{job.name.replace(':', '_')}.log"


# ---- all jobs -------------------------------------------------------------------------------------------------------


class Results:
    """The rows and arrays that are there, in two files that are whole at any time."""

    def __init__(self, out: Path, resume: Path | None) -> None:
        self.rows_path, self.arrays_path = out / f"{NAME}.json", out / f"{NAME}.npz"
        self.rows: dict[str, dict] = {}
        self.arrays: dict[str, np.ndarray] = {}
        for path in (resume, self.rows_path):
            if path is not None and path.exists():
                self.rows |= {row["job"]: row for row in json.loads(path.read_text())}
                archive = path.with_suffix(".npz")
                if archive.exists():
                    with np.load(archive, allow_pickle=False) as file:
                        self.arrays |= dict(file)

    def done(self, job: Job) -> bool:
        return job.name in self.rows and "unfinished" not in self.rows[job.name]

    def collect(self, work: Path, job: Job) -> dict[str, Any]:
        """Take the row and the arrays that a job left, and write all to the two files."""
        row = json.loads((work / f"{job.name}.row").read_text())
        self.rows[job.name] = row
        with np.load(work / f"{job.name}.npz", allow_pickle=False) as file:
            self.arrays |= {f"{job.name}/{name}": values for name, values in file.items()}
        self.write()
        return row

    def glance(self, work: Path, jobs: Iterable[Job]) -> dict[Job, str]:
        """Take how far jobs are as rows that are not finished, write the rows, and return what changed."""
        changed = {}
        for job in jobs:
            path = work / f"{job.name}.progress"
            row = json.loads(path.read_text()) if path.exists() else None
            if row and row != self.rows.get(job.name):
                self.rows[job.name], changed[job] = row, row["unfinished"]
        if changed:
            write_json(self.rows_path, list(self.rows.values()))
        return changed

    def write(self) -> None:
        write_json(self.rows_path, list(self.rows.values()))
        archive = self.arrays_path.with_suffix(".tmp.npz")
        np.savez_compressed(archive, **self.arrays)
        archive.replace(self.arrays_path)


def run_all(todo: list[Job], results: Results, o: argparse.Namespace, deadline: float) -> None:
    """Run the jobs in order, ``o.slots`` on the GPU and a CRF beside them, until all are done or time is short."""
    waiting = [job for job in todo if not results.done(job)]
    running: dict[Job, tuple[multiprocessing.Process, float]] = {}
    lasted: dict[str, float] = {}  # seconds of the last job of a kind
    method, glanced = "fork", 0.0
    for job in waiting:
        for kind in ("progress", "row"):  # of an earlier call
            (o.work / f"{job.name}.{kind}").unlink(missing_ok=True)
    while (waiting or running) and time.time() < deadline:
        if time.time() > glanced + EVERY:
            glanced = time.time()
            say_progress(results.glance(o.work, running), deadline)
        for job in list(running):
            process, began = running[job]
            if process.is_alive():
                continue
            del running[job]
            if (o.work / f"{job.name}.row").exists():
                lasted[job.kind] = time.time() - began
                say(o, deadline, job, results.collect(o.work, job))
                continue
            results.glance(o.work, [job])
            log = log_of(job, o).read_text()
            print(f"{job.name} failed: {log[-1500:]}", flush=True)
            if method == "fork" and ("re-initialize" in log or "initialization error" in log):
                method, waiting = "spawn", [job, *waiting]  # CUDA had begun before the fork
            elif o.graph and "no CUDA graph" in log:
                o.graph, waiting = False, [job, *waiting]
        for job in ready(waiting, running, o, deadline, lasted):
            waiting.remove(job)
            process = multiprocessing.get_context(method).Process(target=run_job, args=(job, o, deadline - 3))
            process.start()
            running[job] = process, time.time()
            print(f"{deadline - time.time():.0f} s left: {job.name} begins", flush=True)
        if not running and not any(startable(job, running, o, deadline, lasted) for job in waiting):
            break
        time.sleep(0.2)
    for process, _ in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    say_progress(results.glance(o.work, running), deadline)
    for job in [*running, *waiting]:
        print(f"not finished: {job.name}", flush=True)


def say_progress(changed: dict[Job, str], deadline: float) -> None:
    for job, text in changed.items():
        print(f"{deadline - time.time():.0f} s left: {job.name}: {text}", flush=True)


def startable(job: Job, running: dict, o: argparse.Namespace, deadline: float, lasted: dict[str, float]) -> bool:
    """Whether what a job needs is there, a slot is free, and it can end in time."""
    if job.needs is not None and not (o.work / job.needs).exists():
        return False
    if job.kind == "crf" and (not o.crf or any(other.kind == "crf" for other in running)):
        return False
    if job.kind != "crf" and sum(other.kind != "crf" for other in running) >= o.slots:
        return False
    return time.time() + lasted.get(job.kind, o.least) < deadline


def ready(
    waiting: list[Job], running: dict, o: argparse.Namespace, deadline: float, lasted: dict[str, float]
) -> list[Job]:
    """The first of the waiting jobs that can start, if there is one."""
    return next(([job] for job in waiting if startable(job, running, o, deadline, lasted)), [])


def say(o: argparse.Namespace, deadline: float, job: Job, row: dict[str, Any]) -> None:
    shown = ("ms_per_step", "val_mAP", "map_miou", "pseudo_miou_background", "weight 1", "weight spread 1")
    shown += ("val_miou_single", "val_miou_multi", "val_miou_crf", "seconds_training", "peak_gigabytes")
    numbers = ", ".join(f"{k} {row['metrics'][k]:.4g}" for k in shown if k in row["metrics"])
    print(
        f"{deadline - time.time():.0f} s left: {job.name} took {row['seconds']} s, {row.get('step')}: {numbers}",
        flush=True,
    )
    if "failure" in row:
        print(row["failure"], flush=True)


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder in the VOC layout with saliency/<id>.png")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "evidence448", help="decoded photographs, logs"
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the two files of results")
    parser.add_argument("--seconds", type=float, default=400, help="after which it ends")
    parser.add_argument(
        "--least", type=float, default=45, help="seconds without which a job of a new kind does not begin"
    )
    parser.add_argument("--resume", type=Path, help="rows that were measured before, JSON")
    parser.add_argument("--jobs", nargs="+", help="names of jobs, or their beginnings, in the order wanted")
    parser.add_argument("--list", action="store_true", help="name the jobs")
    parser.add_argument("--rows", action="store_true", help="only write a row for each job that has none")
    parser.add_argument("--way", choices=list(WAYS), help="to compute a step; default: what benchmarks.probe448 chose")
    parser.add_argument("--decode", action="store_true", help="only decode what is there of the photographs")
    parser.add_argument("--slots", type=int, default=3, help="jobs on the GPU at a time")
    parser.add_argument("--processes", type=int, default=12, help="of decoding and of the CRF")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stride", type=int, choices=(8, 16), default=16, help="output stride of the classifiers")
    parser.add_argument("--eager", dest="graph", action="store_false", help="without CUDA graphs")
    parser.add_argument("--no-crf", dest="crf", action="store_false")
    parser.add_argument(
        "--limits", type=int, nargs=2, default=(0, 0), help="images of training and validation (0: all)"
    )
    parser.add_argument("--classifier", type=json.loads, default={}, help="settings that differ, JSON")
    parser.add_argument("--segmenter", type=json.loads, default={}, help="settings that differ, JSON")
    o = parser.parse_args(arguments)
    o.crf = o.crf and importlib.util.find_spec("pydensecrf") is not None
    return o


def chosen_jobs(names: list[str] | None) -> list[Job]:
    """All jobs, or those whose names begin with one of ``names``, in its order.

    Raises:
        ValueError: no job has such a name.
    """
    if names is None:
        return jobs()
    found = [[job for job in jobs() if job.name.startswith(name)] for name in names]
    if unknown := [name for name, those in zip(names, found) if not those]:
        raise ValueError(f"no job begins with {unknown}; valid: {', '.join(job.name for job in jobs())}")
    return list(dict.fromkeys(job for those in found for job in those))


def chosen_way(work: Path) -> str:
    """The way that was fastest in `benchmarks.probe448`, or the first."""
    probed = work / "probe.json"
    return json.loads(probed.read_text())["way"] if probed.exists() else next(iter(WAYS))


def main(arguments: list[str] | None = None) -> None:
    o = options(arguments)
    deadline = time.time() + o.seconds
    if o.list:
        print("\n".join(job.name for job in jobs()))
        return
    if o.rows:
        missing = {job.name: not_measured(job) for job in jobs()}
        results = Results(o.out, o.resume)
        write_json(results.rows_path, list((missing | results.rows).values()))
        return
    o.work.mkdir(parents=True, exist_ok=True)
    o.out.mkdir(parents=True, exist_ok=True)
    o.ways = WAYS[o.way or chosen_way(o.work)]
    todo = chosen_jobs(o.jobs)
    gpu_data.decode(o.data, o.work, o.processes, dict(zip(gpu_data.KINDS, o.limits)))
    print(f"decoded after {o.seconds - (deadline - time.time()):.1f} s; CRF: {o.crf}", flush=True)
    if not o.decode:
        run_all(todo, Results(o.out, o.resume), o, deadline)


if __name__ == "__main__":
    main()
