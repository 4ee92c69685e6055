"""Where the time goes in what misses its goal: the tables that stand beside the explanations on the page "Speed"."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.profiler import ProfilerActivity, profile

from benchmarks import cases, growth, paper_networks
from safn import backbones, dense_crf, inference
from safn.loading import PlainSet, plain_loader
from safn_book.cost import seconds

STEPS = 5
KINDS = {  # what an operation of PyTorch's profile is called in the table: the first whose name occurs in its name
    "hardtanh": "ReLU6",
    "clamp": "ReLU6",
    "batch_norm": "batch normalisation",
    "copy_": "copies between memory formats",
    "upsample": "rescaling of images and features",
}


def operations(batch: int = 8, crop: int = 128) -> list[dict[str, Any]]:
    """Milliseconds a training step of EfficientNet-Lite0 spends in each kind of operation, ours and plain."""
    taken = {}
    for name, call in zip(("ours", "plain"), cases.steps("efficientnet_lite0", batch, crop)):
        call()  # a warm-up
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
            for _ in range(STEPS):
                call()
        events = found.key_averages(group_by_input_shape=True)
        times = pd.Series([event.self_cpu_time_total / 1e3 / STEPS for event in events])
        taken[name] = times.groupby([_kind(event.key, event.input_shapes) for event in events]).sum()
    table = pd.DataFrame(taken).fillna(0).sort_values("plain", ascending=False)
    table.loc["all"] = table.sum()
    return [{"operations": name, **row.round(1).to_dict()} for name, row in table.iterrows()]


def _kind(operation: str, shapes: list[list[int]]) -> str:
    """``shapes`` of the arguments: a depthwise convolution has one input channel in each of its filters."""
    if operation in ("aten::convolution_backward", "aten::mkldnn_convolution"):
        backward = operation.endswith("backward")
        depthwise = shapes[1 + backward][1] == 1
        return f"{'depthwise' if depthwise else 'other'} convolutions, {'backward' if backward else 'forward'}"
    return next((kind for name, kind in KINDS.items() if name in operation), "everything else")


def crf() -> list[dict[str, Any]]:
    """Milliseconds of the two parts of the CRF of a photo of 375 x 500 pixels: what is done once (lattice, unary), and ten
    iterations, for 3 and for 21 classes."""
    photo, scores, rows = cases.photo(), cases.probabilities(*cases.PHOTO), []
    for floor, classes in ((1e-4, 3), (0, 21)):
        each = [
            [seconds(lambda f=floor, n=n: dense_crf(photo, scores, floor=f, iterations=n)) for n in (1, 11)]
            for _ in range(STEPS)
        ]
        one, eleven = 1e3 * np.median(each, 0)
        ten = eleven - one
        rows.append({"classes": classes, "once": round(one - ten / 10), "ten iterations": round(ten)})
    return rows


def crf_by_pixels() -> list[dict[str, Any]]:
    """Nanoseconds a pixel of the same two parts by the size of the image, 4 classes: a part in proportion to the pixels has
    one value."""
    rows = []
    for side in (128, 256, 512):
        calls = [growth.crf(side=side, iterations=n) for n in (1, 11)]
        one, eleven = 1e9 / side**2 * np.median([[seconds(call) for call in calls] for _ in range(STEPS)], 0)
        ten = eleven - one
        rows.append({"pixels": f"{side} x {side}", "once": round(one - ten / 10), "ten iterations": round(ten)})
    return rows


def maps(images: int = 16) -> list[dict[str, Any]]:
    """Milliseconds a photo of the parts of the maps of a folder, one image at a time and four at once."""
    network, table = cases.safn("efficientnet_lite0").eval(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = paper_networks.random_photos(Path(name) / "data", images)
        samples = PlainSet(folder, folder.ids("train_aug"), backbones.HALF, 320)
        for size in (1, 4):
            read = lambda size=size: list(plain_loader(samples, 0, size))  # noqa: E731
            batches = read()
            look = lambda batches=batches: [inference.flipped_features(network, b["image"]) for b in batches]  # noqa: E731
            write = lambda size=size: inference.write_maps(network, samples, Path(name) / "maps", batch_size=size)  # noqa: E731
            with contextlib.redirect_stdout(io.StringIO()):  # progress
                each = [[seconds(call) for call in (read, look, write)] for _ in range(STEPS + 1)][1:]
            reading, network_s, both = 1e3 / images * np.median(each, 0)
            table[size] = {"reading": reading, "network, mirrored too": network_s, "all, written": both}
    return [
        {"part": k, "one at a time": round(v, 1), "four at once": round(table[4][k], 1)} for k, v in table[1].items()
    ]


def measure() -> dict[str, list[dict[str, Any]]]:
    """Title -> rows of a table."""
    return {
        "A training step of EfficientNet-Lite0, 8 images of 128 pixels: milliseconds by operation": operations(),
        "Localization maps of a folder, long side 320 pixels: milliseconds a photo": maps(),
        "The CRF of a photo of 375 x 500 pixels, one process: milliseconds": crf(),
        "The CRF of four classes by the size of the image, one process: nanoseconds a pixel": crf_by_pixels(),
    }
