"""The metrics that stages 04, 05 and 07 record by name (shares in 0..1), and what holds the pseudo labels back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safn.data import VOCFolder
from safn.evaluation import Sweep
from safn.map_files import load_maps, load_saliency
from safn.metrics import (
    CONVENTIONS,
    VOID,
    ConfusionMatrix,
    class_iou,
    ignored_share,
    iou_by_size,
    mean_iou,
    precision_recall,
)
from safn.pseudo import pseudo_ground_truth

THRESHOLDS = {
    "gamma": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    "ignore_saliency": (0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1),
    "ignore_confidence": (0.5, 0.6, 0.7, 0.8, 0.9, 1),
}


def counts_of_list(folder: VOCFolder, ids: list[str], counts: np.ndarray, name: str = "train") -> np.ndarray:
    """Select the counts of those images with a mask that are also on another list of the data set, such as the official
    ``train`` list of 1,464 images that other projects score. Where there is no such list, all counts are kept."""
    if not folder.has_list(name):
        return counts
    chosen = set(folder.ids(name))
    return counts[np.array([i in chosen for i in folder.with_mask(ids)], bool)]


def map_scores(folder: VOCFolder, ids: list[str], sweep: Sweep) -> dict[str, float]:
    """Name the metrics of localization maps: the best mIoU with its threshold, on the official list at the same
    threshold, and foreground IoU by object size."""
    scores = {
        "map_miou": float(sweep.miou.max()),
        "map_miou_train_list": float(mean_iou(counts_of_list(folder, ids, sweep.counts).sum(0))),
        "map_threshold": sweep.threshold,
    }
    return scores | {f"map_iou {size}": value for size, value in iou_by_size(sweep.counts).items()}


def pseudo_label_scores(folder: VOCFolder, ids: list[str], counts: np.ndarray) -> dict[str, float]:
    """Name the metrics of pseudo labels: mIoU for each treatment of ignored pixels and their share, on all images and
    on the official list; foreground IoU by object size, where ignored pixels count as errors."""
    scores = {}
    for suffix, matrix in {"": counts.sum(0), "_train_list": counts_of_list(folder, ids, counts).sum(0)}.items():
        for ignored in CONVENTIONS:
            scores[f"pseudo_miou_{ignored}{suffix}"] = float(mean_iou(matrix, ignored))
        scores[f"ignored_share{suffix}"] = ignored_share(matrix)
    return scores | {f"pseudo_iou {size}": value for size, value in iou_by_size(counts).items()}


def pseudo_label_class_scores(folder: VOCFolder, ids: list[str], counts: np.ndarray) -> dict[str, dict[str, float]]:
    """Give IoU (ignored pixels excluded), precision and recall of each class, on all images and the official list."""
    scores, classes = {}, ["background", *folder.classes]
    for suffix, matrix in {"": counts.sum(0), ", train list": counts_of_list(folder, ids, counts).sum(0)}.items():
        precision, recall = precision_recall(matrix)
        measures = {"IoU, ignored dropped": class_iou(matrix, "drop"), "precision": precision, "recall": recall}
        for name, values in measures.items():
            scores[f"{name}{suffix}"] = dict(zip(classes, values.tolist()))
    return scores


def evaluation_scores(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Name the metrics of each test protocol: mIoU, then foreground IoU by object size."""
    scores = {f"val_miou_{protocol}": float(mean_iou(images.sum(0))) for protocol, images in counts.items()}
    for protocol, images in counts.items():
        scores |= {f"val_iou_{protocol} {size}": value for size, value in iou_by_size(images).items()}
    return scores


def spaced(ids: Sequence[str], count: int) -> list[str]:
    """Take ``count`` ids, evenly spaced over the list, so that nobody has chosen them."""
    return [ids[int(k)] for k in np.linspace(0, len(ids) - 1, min(count, len(ids)))]


@dataclass(frozen=True)
class Sources:
    """What pseudo labels are made of: images of a data folder, and folders of their maps and saliency maps."""

    folder: VOCFolder
    ids: Sequence[str]
    maps: Path
    saliency: Path

    def masked(self, limit: int = 150) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Give ground truth ``(H, W)``, maps ``(N, H, W)``, saliency ``(H, W)`` and labels ``(N,)`` of up to ``limit``
        evenly spaced images with a mask."""
        for image_id in spaced(self.folder.with_mask(list(self.ids)), limit):
            target = self.folder.mask(image_id)
            maps = load_maps(self.maps / f"{image_id}.npz", len(self.folder.classes), target.shape)
            saliency = load_saliency(self.saliency / f"{image_id}.png", target.shape)
            yield target, maps, saliency, self.folder.label(image_id)


def threshold_sweep(sources: Sources, rules: dict[str, Any]) -> pd.DataFrame:
    """Score pseudo labels while one threshold of ``rules`` at a time takes the values of ``THRESHOLDS``: one row a
    value, with the mIoU of each convention for ignored pixels and their share, in percent."""
    grid = [(name, value) for name, values in THRESHOLDS.items() for value in sorted({*values, rules[name]})]
    matrices = [ConfusionMatrix(len(sources.folder.classes) + 1) for _ in grid]
    for target, maps, saliency, labels in sources.masked():
        for (name, value), matrix in zip(grid, matrices):
            matrix.update(pseudo_ground_truth(maps, saliency, labels, **{**rules, name: value}), target)
    rows = []
    for (name, value), matrix in zip(grid, matrices):
        miou = {convention: 100 * matrix.miou(convention) for convention in CONVENTIONS}
        rows.append({"threshold": name, "value": value, **miou, "ignored (%)": 100 * ignored_share(matrix.matrix)})
    return pd.DataFrame(rows).round(3)


def oracle_pseudo_labels(
    sources: Sources, saliency_threshold: float, gamma: float, combine: str = "harmonic"
) -> dict[str, float]:
    """Find what holds the pseudo labels back: the mIoU in 0..1 of ``pseudo labels`` without ignored pixels, with
    ``ground-truth foreground`` (classes of the maps) and with ``ground-truth classes`` (foreground of the saliency
    map)."""
    names = ("pseudo labels", "ground-truth foreground", "ground-truth classes")
    matrices = {name: ConfusionMatrix(len(sources.folder.classes) + 1) for name in names}
    for target, maps, saliency, labels in sources.masked():
        foreground = (target > 0) & (target != VOID)
        classes = np.zeros_like(target)
        present = np.flatnonzero(labels)
        if len(present):
            classes = present[maps[present].argmax(0)] + 1
        predictions = (
            pseudo_ground_truth(maps, saliency, labels, gamma, ignore_saliency=1, ignore_confidence=1, combine=combine),
            np.where(foreground, classes, 0),
            np.where(saliency >= saliency_threshold, np.where(foreground, target, classes), 0),
        )
        for matrix, prediction in zip(matrices.values(), predictions, strict=True):
            matrix.update(prediction, target)
    return {name: matrix.miou() for name, matrix in matrices.items()}
