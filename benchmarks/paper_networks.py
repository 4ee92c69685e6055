"""Two real steps of the paper's networks on a processor, with random weights and photos: do they run, how much memory
do they take, and what would the whole profile take on one GPU?

    python -m benchmarks.paper_networks                     writes results/smoke.json
    python -m benchmarks.paper_networks --profile paper --steps 2 --out FILE
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

from safn import inference, training
from safn.baseline import PlainClassifier
from safn.data import VOC_CLASSES, VOCFolder
from safn.datasets.voc import COUNTS
from safn.files import write_json
from safn.images import save_mask
from safn.loading import PlainSet
from safn.network import SAFN
from safn.options import TrainingOptions
from safn.segmentation import DeepLab
from safn_book import published, workflow
from safn_book.environment import environment, peak_megabytes
from safn_book.run_names import Stage

PATH = workflow.ROOT / "results" / "smoke.json"
PHOTO = (375, 500)  # height and width in pixels of most photos of VOC 2012
LABELS = 1.5  # classes a photo
SUSTAINED_TFLOPS = 20.0  # assumed of one GPU in mixed precision with batches of 4, loading included; not measured
CRF_SECONDS = 0.55  # of one core a photo: 21 classes, 10 iterations, 375x500
RESERVE = 4 << 30  # bytes of memory that are left to others
SOURCES: dict[str, Stage] = {
    Stage.MAPS: Stage.TRAIN_SAFN,
    Stage.EVALUATE: Stage.TRAIN_SEGMENTATION,
}  # whose network a stage uses
WORKING: tuple[str, ...] = (Stage.BASELINE, Stage.TRAIN_SAFN, *SOURCES, Stage.TRAIN_SEGMENTATION)
KINDS: dict[str, str] = {Stage.BASELINE: "plain", Stage.TRAIN_SAFN: "safn"}  # networks that have no head to be named by
Name = tuple[str, str]


def run(profile: str = "paper", out: Path = PATH, steps: int = 2) -> None:
    """Measure the main experiment of ``profile`` with each of its networks, one process each, and write all to ``out``.

    Raises:
        SettingsError: the profile is wrong.
        RuntimeError: a network failed, for want of memory also with one image a step.
    """
    parameters, main = working(profile)
    load, estimated, measured = os.getloadavg()[0], estimate(parameters), []
    head = {
        "what": "the profile's crops and batches, random weights and photos, float32 on a processor",
        "profile": profile,
        "threads": torch.get_num_threads(),
        "load_before": round(load, 1),
        "shared": load > 0.5,  # other programs were at work: the seconds are too long
        **environment(),
    }
    for name in parameters:
        if name[1] in ("default", main) or name[1].startswith(f"{main}@"):
            measured.append(measure(profile, name, steps, getattr(parameters[name], "batch_size", 1)))
            print(json.dumps(measured[-1]), flush=True)
            write_json(out, {**head, "estimate": estimated, "measured": measured})


def working(profile: str) -> tuple[dict[Name, Any], str]:
    """Give the parameters of every job that needs a network, and the name of the main experiment's first run."""
    loaded = workflow.load(profile, "nowhere")
    jobs = [job for job in workflow.jobs(loaded) if job.stage in WORKING]
    return {job.name: workflow.parameters(job) for job in jobs}, str(workflow.runs_of(loaded)[0])


@dataclass(frozen=True)
class Architecture:
    """What builds the network of a stage."""

    stage: str
    backbone: str
    freeze: int = 0
    scales: tuple[float, ...] = (1.0,)
    aggregation: str = "attention"
    attention_start: str = "zero"
    head: str = "largefov"
    head_width: int = 1024
    head_dilation: int = 12
    crop: int = 0

    @classmethod
    def of_job(cls, stage: str, parameters: Any) -> Architecture:
        """Pick what builds the network out of the parameters of a job."""
        names = [field.name for field in fields(cls) if hasattr(parameters, field.name)]
        return cls(stage, **{name: getattr(parameters, name) for name in names})

    def build(self) -> nn.Module:
        """Build the network with random weights."""
        start: dict[str, Any] = {"weights": "none", "freeze": self.freeze}
        if self.stage == Stage.BASELINE:
            return PlainClassifier(self.backbone, len(VOC_CLASSES), **start)
        if self.stage == Stage.TRAIN_SAFN:
            safn = {"attention_start": self.attention_start, **start}
            return SAFN(self.backbone, len(VOC_CLASSES), self.scales, self.aggregation, **safn)
        deeplab = {"head_width": self.head_width, "head_dilation": self.head_dilation, "crop": self.crop, **start}
        return DeepLab(self.backbone, self.head, len(VOC_CLASSES) + 1, **deeplab)


# --- one network, in a process of its own ----------------------------------------------------------------------------


def measure(profile: str, name: Name, steps: int, batch: int) -> dict[str, Any]:
    """Steps of one job in a process of its own; where memory does not suffice, with half the batch."""
    command = [sys.executable, "-m", "benchmarks.paper_networks", "--profile", profile, "--steps", str(steps)]
    command += ["--job", *name, "--batch", str(batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    short = any(text in done.stderr for text in ("MemoryError", "not enough memory", "allocate memory", "bad_alloc"))
    if not short or batch == 1:
        raise RuntimeError(f"{'/'.join(name)}, {batch} images a step: {done.stderr[-2000:]}")
    return measure(profile, name, steps, batch // 2)


def steps_of(profile: str, name: Name, steps: int, batch: int) -> dict[str, Any]:
    """What ``measure`` reports of one job: image, batch, seconds (the first step, a warm-up, left out), memory."""
    parameters, _ = working(profile)
    p, stage = parameters[name], name[0]
    source: str = SOURCES.get(stage, stage)
    built = Architecture.of_job(source, parameters[source, name[1]])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = random_photos(root / "data", steps * batch if stage not in SOURCES else 1)
        before, network = peak_megabytes(), built.build()
        if stage in SOURCES:
            seconds = _use(network, p, data, root)
        else:
            seconds = _train(network, stage, p, data, root, steps, batch)
    return {
        "stage": stage,
        "run": name[1],
        "network": f"{built.backbone}-{KINDS.get(source, built.head)}",
        "image": [p.crop, p.crop] if stage not in SOURCES else list(PHOTO),
        "batch": batch,
        "profile_batch": getattr(p, "batch_size", 1),
        "seconds_a_step": round(seconds, 2),
        "peak_megabytes": round(peak_megabytes()),
        "of_that_before_the_network": round(before),
        "parameters": sum(tensor.numel() for tensor in network.parameters()),
    }


def random_photos(root: Path, train: int, val: int = 2) -> VOCFolder:
    """A data folder of noise: photos with two labels and with masks of all classes."""
    base, rng = root / "VOCdevkit" / "VOC2012", np.random.default_rng(0)
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    ids = [f"{k}" for k in range(train + val)]
    for image_id in ids:
        Image.fromarray(rng.integers(0, 256, (*PHOTO, 3), np.uint8)).save(base / "JPEGImages" / f"{image_id}.jpg")
        save_mask(base / "SegmentationClass" / f"{image_id}.png", rng.integers(0, len(VOC_CLASSES) + 1, PHOTO))
    rows: list[list[Any]] = [["id", *VOC_CLASSES]]
    for k, image_id in enumerate(ids):
        rows.append([image_id, *(int(c in (k % 20, (k + 7) % 20)) for c in range(len(VOC_CLASSES)))])
    lines = [",".join(map(str, row)) for row in rows]
    (root / "image_labels.csv").write_text("\n".join(lines) + "\n")
    for split, part in (("train_aug", ids[:train]), ("val", ids[train:])):
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(part) + "\n")
    return VOCFolder(root)


def _train(network: Any, stage: str, p: Any, data: VOCFolder, out: Path, steps: int, batch: int) -> float:
    here = {"precision": "32-true", "accelerator": "cpu", "workers": 0}
    options = TrainingOptions.from_parameters({**vars(p), **here, "iterations": steps, "batch_size": batch})
    ends = [time.perf_counter()]
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    if stage == Stage.TRAIN_SEGMENTATION:
        training.train_segmenter(network, options, data, data.ids("train_aug"), None, out)
    else:
        training.train_classifier(network, options, data, data.ids("train_aug"), data.ids("val"), out)
    hook.remove()
    return float(np.mean(np.diff(ends)[1:] if steps > 1 else np.diff(ends)))


def _use(network: Any, p: Any, data: VOCFolder, out: Path) -> float:
    network, ids = inference.on_device(network, "cpu"), data.ids("val")
    normalisation, started = network.normalisation, time.perf_counter()
    if hasattr(p, "test_scales"):
        busy, _ = inference.predict(network, normalisation, data.photos(ids), out / "multi", p.test_scales)
        return busy / len(ids)
    inference.write_maps(network, PlainSet(data, ids, normalisation, p.size), out / "maps", flip=p.flip)
    return (time.perf_counter() - started) / len(ids)


def limit_memory() -> None:
    """An error instead of the system's killer, which might take another program; where the system says what is free."""
    told = Path("/proc/meminfo")
    lines = told.read_text().splitlines() if told.exists() else []
    for kilobytes in (int(line.split()[1]) for line in lines if line.startswith("MemAvailable")):
        limit = max(RESERVE, (kilobytes << 10) - RESERVE)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


# --- the whole profile -----------------------------------------------------------------------------------------------


def estimate(parameters: dict[Name, Any]) -> dict[str, Any]:
    """Hours of the whole profile on one GPU, from counted operations and the assumed ``SUSTAINED_TFLOPS``."""
    petaflops = dict.fromkeys(WORKING, 0.0)
    for name in parameters:
        petaflops[name[0]] += operations(parameters, name) / 1e15
    hours = {stage: round(p * 1000 / SUSTAINED_TFLOPS / 3600, 1) for stage, p in petaflops.items()}
    jobs = [name for name in parameters if name[0] == Stage.EVALUATE]
    main = next(p for (stage, _), p in parameters.items() if stage == Stage.TRAIN_SAFN)
    each = flops(Architecture.of_job(Stage.TRAIN_SAFN, main), (main.crop, main.crop), True)
    table5 = float(published.table(5).set_index("aggregation").loc["attention", "training ms/img"])
    return {
        "assumed_sustained_tflops": SUSTAINED_TFLOPS,
        "petaflops": {stage: round(p, 1) for stage, p in petaflops.items()},
        "gpu_hours_of_stage": hours,
        "gpu_hours": round(sum(hours.values()), 1),
        "crf_core_hours": round(len(jobs) * COUNTS["val"] * CRF_SECONDS / 3600, 1),
        "training_teraflops_an_image_of_the_main_classifier": round(each / 1e12, 2),
        "sustained_tflops_that_table_5_implies": round(each / 1e9 / table5, 1),
        "not_counted": "saliency maps, scores and figures, which run on processors",
    }


def operations(parameters: dict[Name, Any], name: Name) -> float:
    """Floating-point operations of a job on the official lists, a multiplication and an addition counted as two."""
    stage, p = name[0], parameters[name]
    source = SOURCES.get(stage, stage)
    network = Architecture.of_job(source, parameters[source, name[1]])
    train, val = COUNTS["train_aug"], COUNTS["val"]
    once = flops(network, PHOTO, False)
    if stage == Stage.MAPS:
        return (train + val) * once * (1 + p.flip)
    if stage == Stage.EVALUATE:
        scaled = [flops(network, tuple(round(s * side) for side in PHOTO), False) for s in p.test_scales]
        return val * (once + sum(scaled)) * (1 + p.flip)
    trained = flops(network, (p.crop, p.crop), True) * p.batch_size
    if stage == Stage.TRAIN_SEGMENTATION:
        return trained * (p.iterations * p.accumulate or p.epochs * (train // p.batch_size))
    explained = (train + val) * LABELS * 3 * once if stage == Stage.BASELINE else 0  # Grad-CAM: forward and backward
    return p.epochs * (train // p.batch_size * trained + val * once) + explained


@cache
def flops(network: Architecture, size: tuple[int, int], backward: bool) -> int:
    """Count the operations of one image ``size`` = (H, W), forward, or forward and backward, without computing them."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        built = network.build()
        with torch.set_grad_enabled(backward):
            scores = built(torch.empty(1, 3, *size))
        if backward:
            scores.sum().backward()
    return counter.get_total_flops()


def main(arguments: list[str] | None = None) -> None:
    """Measure all networks of a profile; with ``--job`` one of them, in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_networks", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="paper", help="a file in profiles/")
    parser.add_argument("--out", type=Path, default=PATH, help="JSON file to write")
    parser.add_argument("--steps", type=int, default=2, help="training steps of each network")
    parser.add_argument("--job", nargs=2, metavar=("STAGE", "RUN"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        limit_memory()
        print(json.dumps(steps_of(given.profile, tuple(given.job), given.steps, given.batch)))
    else:
        run(given.profile, given.out, given.steps)


if __name__ == "__main__":
    main()
