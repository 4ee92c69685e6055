"""Scores of a folder: maps over a full threshold sweep, masks, saliency."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safn.data import VOCFolder, load_mask
from safn.files import write_file
from safn.map_files import load_maps, load_saliency
from safn.maps import maps_prediction
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

LEVELS = 256
UNKNOWN = 0.3  # a usual background threshold, for maps that no mask can score


@dataclass
class Sweep:
    """mIoU of localization maps at each of 256 background thresholds (0, 1/255, ... 1)."""

    miou: np.ndarray  # (256,)
    counts: np.ndarray  # (images, n, n + 1) at the best threshold

    @property
    def threshold(self) -> float:
        """The best background threshold, in 0..1; ``UNKNOWN`` where there are no masks."""
        return UNKNOWN if np.isnan(self.miou).all() else float(self.miou.argmax()) / (LEVELS - 1)


class SweepCounter:
    """Scores maps image by image at every background threshold.

    At each pixel the class of the largest map wins where it reaches the threshold (``maps.maps_prediction``). One
    pass: a histogram over (true class, winner, 8-bit value) holds the confusion matrices of all thresholds.
    """

    def __init__(self, num_classes: int) -> None:
        self.n = num_classes + 1
        self.histogram = np.zeros((self.n, num_classes, LEVELS), np.int64)
        self.images: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # the cells of an image that are not empty, and their pixels

    def update(self, maps: np.ndarray, target: np.ndarray) -> None:
        """Add one image: maps ``(N, H, W)`` in 0..1, zero for absent classes, and its true mask ``(H, W)``."""
        best, level = maps.argmax(0), np.floor(maps.max(0) * (LEVELS - 1) + 1e-4).astype(np.int64)
        valid = target != VOID
        cells = (target[valid].astype(np.int64) * (self.n - 1) + best[valid]) * LEVELS + level[valid]
        one = np.bincount(cells, minlength=self.histogram.size)
        self.histogram += one.reshape(self.histogram.shape)
        kept = np.flatnonzero(one)
        self.images.append((kept, one[kept]))

    def result(self) -> Sweep:
        """mIoU at every threshold, and the counts of each image at the best."""
        n, reached = self.n, self.histogram[:, :, ::-1].cumsum(2)[:, :, ::-1]  # (target, winner, value >= threshold)
        matrices = np.zeros((LEVELS, n, n + 1), np.int64)
        matrices[:, :, 1:n] = reached.transpose(2, 0, 1)
        matrices[:, :, 0] = (self.histogram.sum((1, 2))[:, None] - reached.sum(1)).T
        miou = mean_iou(matrices)
        counts = [_counts_at(*one, int(miou.argmax()), n) for one in self.images]
        return Sweep(miou, np.stack(counts) if counts else np.zeros((0, n, n + 1), np.int64))


def sweep_maps(folder: VOCFolder, ids: list[str], maps: Path) -> Sweep:
    """Score ``maps/<id>.npz`` against the true masks at every background threshold; images without mask are left out."""
    counter = SweepCounter(len(folder.classes))
    for image_id in (i for i in ids if folder.mask_path(i) is not None):
        target = folder.mask(image_id)
        counter.update(load_maps(maps / f"{image_id}.npz", len(folder.classes), target.shape), target)
    return counter.result()


def _counts_at(cells: np.ndarray, pixels: np.ndarray, threshold: int, n: int) -> np.ndarray:
    pairs, level = np.divmod(cells, LEVELS)
    target, winner = np.divmod(pairs, n - 1)
    predicted = np.where(level >= threshold, winner + 1, 0)
    counts = np.bincount(target * (n + 1) + predicted, weights=pixels, minlength=n * (n + 1))
    return counts.astype(np.int64).reshape(n, n + 1)


def score_masks(folder: VOCFolder, ids: list[str], predictions: Path) -> tuple[ConfusionMatrix, np.ndarray]:
    """Confusion matrix of ``predictions/<id>.png`` and the counts of each image ``(images, n, n + 1)``; images
    without a true mask are left out."""
    matrix, counts = ConfusionMatrix(len(folder.classes) + 1), []
    for image_id in (i for i in ids if folder.mask_path(i) is not None):
        try:
            counts.append(matrix.update(load_mask(predictions / f"{image_id}.png"), folder.mask(image_id)))
        except ValueError as error:
            raise ValueError(f"{image_id}: {error}") from error
    n = matrix.n
    return matrix, np.stack(counts) if counts else np.zeros((0, n, n + 1), np.int64)


def listed(folder: VOCFolder, ids: list[str], counts: np.ndarray, name: str = "train") -> np.ndarray:
    """Of the counts of each image that has a mask, in the order of ``ids``, those of the images on another list of the
    data set: the official ``train`` list of 1,464 is the one that other projects score. All, where there is no such list."""
    if not folder.has_list(name):
        return counts
    chosen, scored = set(folder.ids(name)), [i for i in ids if folder.mask_path(i) is not None]
    return counts[np.array([i in chosen for i in scored], bool)]


def numbers_of_maps(folder: VOCFolder, ids: list[str], sweep: Sweep) -> dict[str, float]:
    """What stage 04 records of the maps of training images, shares in 0..1: the best mIoU with its threshold, mIoU of the
    official list at the same threshold, foreground IoU by object size."""
    official = float(mean_iou(listed(folder, ids, sweep.counts).sum(0)))
    found = {"map_miou": float(sweep.miou.max()), "map_miou_train_list": official, "map_threshold": sweep.threshold}
    return found | {f"map_iou {size}": value for size, value in iou_by_size(sweep.counts).items()}


def numbers_of_pseudo(folder: VOCFolder, ids: list[str], counts: np.ndarray) -> dict[str, float]:
    """What stage 05 records, shares in 0..1: mIoU by each 255 convention and the share of 255, of all images and of the official
    list; foreground IoU by object size, 255 as wrong."""
    found = {}
    for suffix, matrix in {"": counts.sum(0), "_train_list": listed(folder, ids, counts).sum(0)}.items():
        found |= {
            f"pseudo_miou_{convention}{suffix}": float(mean_iou(matrix, convention)) for convention in CONVENTIONS
        }
        found[f"ignored_share{suffix}"] = ignored_share(matrix)
    return found | {f"pseudo_iou {size}": value for size, value in iou_by_size(counts).items()}


def classes_of_pseudo(folder: VOCFolder, ids: list[str], counts: np.ndarray) -> dict[str, dict[str, float]]:
    """IoU (255 dropped), precision and recall of each class in 0..1, of all images and of the official list."""
    found, classes = {}, ["background", *folder.classes]
    for suffix, matrix in {"": counts.sum(0), ", train list": listed(folder, ids, counts).sum(0)}.items():
        precision, recall = precision_recall(matrix)
        each = {"IoU, ignored dropped": class_iou(matrix, "drop"), "precision": precision, "recall": recall}
        found |= {f"{name}{suffix}": dict(zip(classes, values.tolist())) for name, values in each.items()}
    return found


def numbers_of_evaluation(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """What stage 07 records of the counts of each test protocol, shares in 0..1: mIoU, foreground IoU by object size."""
    found = {f"val_miou_{protocol}": float(mean_iou(of.sum(0))) for protocol, of in counts.items()}
    for protocol, of in counts.items():
        found |= {f"val_iou_{protocol} {size}": value for size, value in iou_by_size(of).items()}
    return found


def at_threshold(folder: VOCFolder, ids: list[str], maps: Path, threshold: float) -> ConfusionMatrix:
    """Confusion matrix of maps cut at one background threshold; images without a true mask are left out."""
    matrix = ConfusionMatrix(len(folder.classes) + 1)
    for image_id in (i for i in ids if folder.mask_path(i) is not None):
        target = folder.mask(image_id)
        values = load_maps(maps / f"{image_id}.npz", len(folder.classes), target.shape)
        matrix.update(maps_prediction(values, max(threshold, 1e-6)), target)
    return matrix


def score_saliency(folder: VOCFolder, ids: list[str], maps: Path) -> dict[str, float]:
    """Mean absolute error against the union of all classes, and the best IoU of the foreground over 256 thresholds; NaN
    where there are no masks."""
    histogram, error, images = np.zeros((2, LEVELS), np.int64), 0.0, 0
    for image_id in (i for i in ids if folder.mask_path(i) is not None):
        target = folder.mask(image_id)
        values = load_saliency(maps / f"{image_id}.png", target.shape)[target != VOID]
        foreground = target[target != VOID] > 0
        error += float(np.abs(values - foreground).mean())
        images += 1
        cells = foreground * LEVELS + np.rint(values * (LEVELS - 1)).astype(np.int64)
        histogram += np.bincount(cells, minlength=2 * LEVELS).reshape(2, LEVELS)
    if not images:
        return dict.fromkeys(("saliency_mae", "saliency_iou", "saliency_threshold"), float("nan"))
    reached = histogram[:, ::-1].cumsum(1)[:, ::-1]
    iou = reached[1] / np.maximum(1, histogram[1].sum() + reached[0])
    best = int(iou.argmax())
    return {
        "saliency_mae": error / images,
        "saliency_iou": float(iou[best]),
        "saliency_threshold": best / (LEVELS - 1),
    }


def save_counts(path: Path, counts: np.ndarray) -> None:
    """Write the counts of each image, ``(images, n, n + 1)``; the file appears only when complete."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts.astype(np.int32))
    write_file(path, buffer.getvalue())


def load_counts(path: Path) -> np.ndarray:
    """int64 ``(images, n, n + 1)``."""
    with np.load(path, allow_pickle=False) as file:
        return file["counts"].astype(np.int64)
