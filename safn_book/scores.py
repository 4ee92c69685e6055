"""The metrics that stages 04, 05 and 07 record, by their names. All are shares in 0..1."""

from __future__ import annotations

import numpy as np

from safn.data import VOCFolder
from safn.evaluation import Sweep
from safn.metrics import CONVENTIONS, class_iou, ignored_share, iou_by_size, mean_iou, precision_recall


def counts_of_list(folder: VOCFolder, ids: list[str], counts: np.ndarray, name: str = "train") -> np.ndarray:
    """Select the counts of the images that are also on another list of the data set.

    Other projects score the official ``train`` list of 1,464 images.

    Args:
        ids: the images. ``counts`` has a matrix for each of them that has a mask.
        name: of the list. Where there is no such list, all counts are kept.
    """
    if not folder.has_list(name):
        return counts
    chosen = set(folder.ids(name))
    return counts[np.array([i in chosen for i in folder.with_mask(ids)], bool)]


def map_scores(folder: VOCFolder, ids: list[str], sweep: Sweep) -> dict[str, float]:
    """Name the metrics of localization maps: the best mIoU with its threshold, on the official list at the same threshold,
    and foreground IoU by object size."""
    scores = {
        "map_miou": float(sweep.miou.max()),
        "map_miou_train_list": float(mean_iou(counts_of_list(folder, ids, sweep.counts).sum(0))),
        "map_threshold": sweep.threshold,
    }
    return scores | {f"map_iou {size}": value for size, value in iou_by_size(sweep.counts).items()}


def pseudo_label_scores(folder: VOCFolder, ids: list[str], counts: np.ndarray) -> dict[str, float]:
    """Name the metrics of pseudo labels: mIoU for each treatment of ignored pixels and their share, on all images and on the
    official list; foreground IoU by object size, where ignored pixels count as errors."""
    scores = {}
    for suffix, matrix in {"": counts.sum(0), "_train_list": counts_of_list(folder, ids, counts).sum(0)}.items():
        for ignored in CONVENTIONS:
            scores[f"pseudo_miou_{ignored}{suffix}"] = float(mean_iou(matrix, ignored))
        scores[f"ignored_share{suffix}"] = ignored_share(matrix)
    return scores | {f"pseudo_iou {size}": value for size, value in iou_by_size(counts).items()}


def pseudo_label_class_scores(folder: VOCFolder, ids: list[str], counts: np.ndarray) -> dict[str, dict[str, float]]:
    """Give IoU (ignored pixels excluded), precision and recall of each class, on all images and on the official list."""
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
