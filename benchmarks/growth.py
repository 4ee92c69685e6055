"""How time grows: with images, scales, classes and pixels, each with the exponent of a fitted power."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.cases import DEVICE
from safn import SAFN, DeepLab, backbones, dense_crf, inference
from safn_book.cost import seconds

REPEATS = 5  # rounds over all sizes; the first, a warm-up, does not count


def exponent(sizes: list[float], taken: list[float]) -> float:
    """b of the power a * size ** b that fits best, in the logarithms; ``taken`` in seconds."""
    return float(np.polyfit(np.log(sizes), np.log(taken), 1)[0])


def _timed(calls: dict[float, Callable[[], object]]) -> tuple[list[float], list[float]]:
    rounds = [[seconds(call) for call in calls.values()] for _ in range(REPEATS + 1)]
    return list(calls), np.median(rounds[1:], 0).tolist()


def _maps(scales: tuple[float, ...] = (1, 0.75, 0.5), classes: int = 20, side: int = 256) -> Callable[[], object]:
    torch.manual_seed(0)
    network = inference.on_device(SAFN("efficientnet_lite0", classes, scales, weights="none"), "auto")
    images, labels = torch.randn(1, 3, side, side, device=DEVICE), torch.ones(1, classes, device=DEVICE)

    @torch.inference_mode()
    def call() -> None:
        network.maps(images, labels)

    return call


def crf(classes: int = 4, side: int = 256, iterations: int = 10) -> Callable[[], object]:
    """The CRF of a square image of soft colours in which all of so many classes can win."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    image = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    scores = rng.random((classes, side, side)).astype(np.float32) + 0.1
    return lambda: dense_crf(image, scores / scores.sum(0), iterations=iterations)


def _folder(root: Path, images: int) -> Callable[[], object]:
    network = DeepLab("efficientnet_lite0", num_outputs=21, weights="none", head_width=32)
    network = inference.on_device(network, "auto")
    paths = {f"{k}": root / f"{k}.png" for k in range(images)}
    for path in paths.values():
        Image.new("RGB", (96, 96), (90, 120, 40)).save(path)

    def call() -> None:
        with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
            inference.predict(network, backbones.IMAGENET, paths, Path(out))

    return call


def measure() -> list[dict[str, Any]]:
    """One entry a curve: what grows, its sizes, median seconds, and the exponent."""
    with tempfile.TemporaryDirectory() as root:
        curves = {
            ("predicting a folder", "images"): {n: _folder(Path(root), n) for n in (25, 50, 100, 200)},
            ("localization maps", "scales"): {n: _maps((1, 0.95, 0.9, 0.85, 0.8)[:n]) for n in (1, 2, 3, 4, 5)},
            ("localization maps", "classes"): {n: _maps(classes=n) for n in (5, 20, 80, 200)},
            ("localization maps", "pixels"): {s * s: _maps(side=s) for s in (128, 192, 256, 384, 512)},
            ("dense CRF", "classes"): {n: crf(n) for n in (2, 4, 8, 16)},
            ("dense CRF", "pixels"): {s * s: crf(side=s) for s in (128, 192, 256, 384, 512)},
        }
        found = []
        for (what, of), calls in curves.items():
            sizes, taken = _timed(calls)
            curve = {"what": what, "of": of, "sizes": sizes, "seconds": [round(s, 5) for s in taken]}
            found.append({**curve, "exponent": round(exponent(sizes, taken), 2)})
    return found
