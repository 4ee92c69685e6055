"""Speed, ours beside the alternative: ``make bench``, or ``python -m benchmarks --pairs 9``.

The two take turns in one process; the ratio is the median of the ratios of the pairs, its spread their quartiles. Writes
``results/bench.json`` with the machine and whether other programs were at work on it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchmetrics.classification import MulticlassConfusionMatrix

from safn import SAFN, ConfusionMatrix, dense_crf
from safn.backbones import PhasedConv
from safn.network import classification_loss
from safn.records import environment, write_json

PATH = Path(__file__).resolve().parent.parent / "results" / "bench.json"
Pair = tuple[Callable[[], object], Callable[[], object]]


def network(plain: bool = False) -> SAFN:
    """SAFN on EfficientNet-Lite0, random start; ``plain``: dilated convolutions and memory as PyTorch has them."""
    torch.manual_seed(0)
    made = SAFN("efficientnet_lite0", 20, weights="none")
    for layer in made.modules() if plain else ():
        if isinstance(layer, PhasedConv):
            layer.__class__ = nn.Conv2d
    return made if plain else made.to(memory_format=torch.channels_last)


def training_step() -> Pair:
    """Forward, loss, backward and SGD, batch 4 of 128 pixels, three scales."""
    labels = (torch.rand(4, 20, generator=torch.Generator().manual_seed(0)) < 0.1).float()

    def step(plain: bool) -> Callable[[], None]:
        trained, images = network(plain).train(), torch.randn(4, 3, 128, 128)
        images = images if plain else images.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(trained.parameters(), lr=1e-4, momentum=0.9)

        def call() -> None:
            optimizer.zero_grad()
            classification_loss(trained(images), labels).backward()
            optimizer.step()

        return call

    return step(False), step(True)


def maps() -> Pair:
    """Localization maps of one image of 320 pixels for all 20 classes; the other: Grad-CAM by its library."""
    ours, images, labels = network().eval(), torch.randn(1, 3, 320, 320), torch.ones(1, 20)

    def ours_maps() -> None:
        with torch.inference_mode():
            ours.maps(images, labels)

    def grad_cam() -> None:
        with GradCAM(ours, [list(ours.backbone.children())[-1]]) as explain:
            for c in range(20):
                explain(images, [ClassifierOutputTarget(c)])

    return ours_maps, grad_cam


def crf() -> Pair:
    """Dense CRF of 375 x 500 pixels of which three classes can win; the other: all 21, as the field calls it."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (375, 500, 3), np.uint8)
    scores = np.full((21, 375, 500), 1e-6)
    scores[[0, 5, 15]] = rng.random((3, 375, 500)) + 0.1
    probabilities = (scores / scores.sum(0)).astype(np.float32)
    return lambda: dense_crf(image, probabilities), lambda: dense_crf(image, probabilities, floor=0)


def confusion() -> Pair:
    """Counts of one mask of 375 x 500 pixels; the other: torchmetrics."""
    prediction, target = np.random.default_rng(0).integers(0, 21, (2, 375, 500), np.uint8)
    theirs = MulticlassConfusionMatrix(21, ignore_index=255)
    tensors = torch.from_numpy(prediction).long(), torch.from_numpy(target).long()
    return lambda: ConfusionMatrix().update(prediction, target), lambda: theirs.update(*tensors)


CASES = {
    "SAFN training step, EfficientNet-Lite0": (training_step, "contiguous memory, dilated depthwise convolutions"),
    "localization maps, 20 classes": (maps, "grad-cam library, same network, one call a class"),
    "dense CRF, 3 of 21 classes can win": (crf, "all 21 classes"),
    "confusion matrix": (confusion, "torchmetrics"),
}


def measure(pair: Pair, pairs: int) -> dict[str, float]:
    """Median milliseconds of each and the median ratio, the other to ours; the first pair, a warm-up, does not count."""
    seconds = []
    for _ in range(pairs + 1):
        row = []
        for call in pair:
            begun = time.perf_counter()
            call()
            row.append(time.perf_counter() - begun)
        seconds.append(row)
    ours, other = np.array(seconds[1:]).T
    low, ratio, high = np.percentile(other / ours, [25, 50, 75])
    found = {"ours ms": 1e3 * np.median(ours), "other ms": 1e3 * np.median(other), "times faster": ratio}
    return {k: round(float(v), 2) for k, v in {**found, "quartile 1": low, "quartile 3": high}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--out", type=Path, default=PATH)
    given = parser.parse_args()
    load, rows = os.getloadavg()[0], {}
    for name, (case, other) in CASES.items():
        rows[name] = {"against": other, **measure(case(), given.pairs)}
    head = {"load before": round(load, 1), "threads": torch.get_num_threads(), "pairs": given.pairs}
    given.out.parent.mkdir(exist_ok=True)
    write_json(given.out, {**head, **environment(), "rows": rows})
    print(pd.DataFrame(rows).T.to_string())


if __name__ == "__main__":
    main()
