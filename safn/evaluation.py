"""Scores of a folder against the ground-truth masks: maps at every threshold, masks, saliency.

Images without a mask are left out. Where there is none at all, scores are NaN.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safn.arguments import require_number, require_shape
from safn.data import VOCFolder
from safn.files import write_file
from safn.images import load_mask
from safn.map_files import load_maps, load_saliency
from safn.maps import maps_prediction
from safn.metrics import VOID, ConfusionMatrix, class_iou, mean_iou

LEVELS = 256
USUAL_THRESHOLD = 0.3  # of the background, for maps that no mask can score


@dataclass
class Sweep:
    """Hold the mIoU of localization maps at each of 256 background thresholds (0, 1/255, ... 1)."""

    miou: np.ndarray  #: float64 ``(256,)`` in 0..1
    counts: np.ndarray  #: int64 ``(images, n, n + 1)`` at the best threshold

    @property
    def threshold(self) -> float:
        """The best background threshold, in 0..1."""
        return USUAL_THRESHOLD if np.isnan(self.miou).all() else float(self.miou.argmax()) / (LEVELS - 1)


class SweepCounter:
    """Counts the pixels of maps, image by image, for every background threshold of ``maps.maps_prediction`` at once.

    A histogram over (true class, class of the largest value, 8-bit value) holds the matrices of all thresholds.

    Example:
        >>> counter = SweepCounter(num_classes=1)
        >>> counter.update(np.array([[[0.2, 0.9]]]), np.array([[0, 1]]))
        >>> float(counter.result().miou.max())
        1.0
    """

    def __init__(self, num_classes: int) -> None:
        self.n = num_classes + 1
        self.histogram = np.zeros((self.n, num_classes, LEVELS), np.int64)
        self.images: list[tuple[np.ndarray, np.ndarray]] = []  # of each image the cells that hold pixels, and how many

    def update(self, maps: np.ndarray, target: np.ndarray) -> None:
        """Add an image: maps ``(N, H, W)`` in 0..1, zero for absent classes, and its ground-truth mask ``(H, W)``."""
        require_shape("maps", maps.shape, (self.n - 1, *target.shape))
        best = maps.argmax(0)
        level = np.floor(maps.max(0) * (LEVELS - 1) + 1e-4).astype(np.int64)
        valid = target != VOID
        cells = (target[valid].astype(np.int64) * (self.n - 1) + best[valid]) * LEVELS + level[valid]
        pixels = np.bincount(cells, minlength=self.histogram.size)
        self.histogram += pixels.reshape(self.histogram.shape)
        kept = np.flatnonzero(pixels)
        self.images.append((kept, pixels[kept]))

    def matrices(self) -> np.ndarray:
        """Return the counts at every threshold, int64 ``(256, n, n + 1)``."""
        reached = self.histogram[:, :, ::-1].cumsum(2)[:, :, ::-1]  # (target, winner, value >= threshold)
        matrices = np.zeros((LEVELS, self.n, self.n + 1), np.int64)
        matrices[:, :, 1 : self.n] = reached.transpose(2, 0, 1)
        matrices[:, :, 0] = (self.histogram.sum((1, 2))[:, None] - reached.sum(1)).T
        return matrices

    def result(self) -> Sweep:
        """Return mIoU at every threshold, and the counts of each image at the best."""
        n, counts = self.n, []
        miou = mean_iou(self.matrices())
        best = int(miou.argmax())
        for cells, pixels in self.images:
            pairs, level = np.divmod(cells, LEVELS)
            true, winner = np.divmod(pairs, n - 1)
            place = true * (n + 1) + np.where(level >= best, winner + 1, 0)
            counts.append(np.bincount(place, pixels, n * (n + 1)))
        return Sweep(miou, np.array(counts, np.int64).reshape(-1, n, n + 1))


def sweep_maps(folder: VOCFolder, ids: list[str], maps: Path) -> Sweep:
    """Score ``maps/<id>.npz`` at every background threshold."""
    counter = SweepCounter(len(folder.classes))
    for image_id in folder.with_mask(ids):
        target = folder.mask(image_id)
        counter.update(load_maps(maps / f"{image_id}.npz", len(folder.classes), target.shape), target)
    return counter.result()


def score_maps_at(folder: VOCFolder, ids: list[str], maps: Path, threshold: float) -> ConfusionMatrix:
    """Score ``maps/<id>.npz`` at one background threshold in 0..1."""
    require_number("threshold", threshold, 0, 1)
    matrix = ConfusionMatrix(len(folder.classes) + 1)
    for image_id in folder.with_mask(ids):
        target = folder.mask(image_id)
        values = load_maps(maps / f"{image_id}.npz", len(folder.classes), target.shape)
        matrix.update(maps_prediction(values, max(threshold, 1e-6)), target)
    return matrix


def score_masks(folder: VOCFolder, ids: list[str], predictions: Path) -> tuple[ConfusionMatrix, np.ndarray]:
    """Score ``predictions/<id>.png``; returns the matrix, and the counts of each image, int64 ``(images, n, n + 1)``.

    Raises:
        ValueError: a prediction has another size than its mask, or ids that are no class; with the id.
    """
    matrix = ConfusionMatrix(len(folder.classes) + 1)
    counts = []
    for image_id in folder.with_mask(ids):
        try:
            counts.append(matrix.update(load_mask(predictions / f"{image_id}.png"), folder.mask(image_id)))
        except ValueError as error:
            raise ValueError(f"{image_id}: {error}") from error
    return matrix, np.array(counts, np.int64).reshape(-1, *matrix.matrix.shape)


def score_saliency(folder: VOCFolder, ids: list[str], maps: Path) -> dict[str, float]:
    """Score ``maps/<id>.png`` against the union of all classes.

    Returns:
        ``saliency_mae`` (mean absolute error), and ``saliency_iou`` of the foreground at the best of 256 thresholds,
        ``saliency_threshold``.
    """
    counter, errors = SweepCounter(num_classes=1), []
    for image_id in folder.with_mask(ids):
        target = folder.mask(image_id)
        values, valid = load_saliency(maps / f"{image_id}.png", target.shape), target != VOID
        counter.update(values[None], np.where(valid, target > 0, VOID))
        errors.append(float(np.abs(values - (target > 0))[valid].mean()))
    if not errors:
        return dict.fromkeys(("saliency_mae", "saliency_iou", "saliency_threshold"), float("nan"))
    iou = np.nan_to_num(class_iou(counter.matrices())[:, 1])
    best = int(iou.argmax())
    return {
        "saliency_mae": sum(errors) / len(errors),
        "saliency_iou": float(iou[best]),
        "saliency_threshold": best / (LEVELS - 1),
    }


def save_counts(path: Path, counts: np.ndarray) -> None:
    """Write the counts of each image, ``(images, n, n + 1)``, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts.astype(np.int32))
    write_file(path, buffer.getvalue())


def load_counts(path: Path) -> np.ndarray:
    """Read the counts of each image, int64 ``(images, n, n + 1)``."""
    with np.load(path, allow_pickle=False) as file:
        return file["counts"].astype(np.int64)
