"""Confusion matrix and mIoU with the 255 conventions, IoU by object size, paired bootstrap."""

from __future__ import annotations

import numpy as np

VOID = 255
CONVENTIONS = ("drop", "background", "wrong")
SIZES = {"small (< 10 %)": (0, 0.1), "medium (10-30 %)": (0.1, 0.3), "large (> 30 %)": (0.3, 1.01)}


class ConfusionMatrix:
    """Counts of (target, prediction) over the pixels of a whole split, int64 ``(n, n + 1)``.

    Target 255 is dropped. The last column counts pixels *predicted* 255 (pseudo labels have them); what becomes of
    them is said when the IoU is read: ``drop`` them, count them as ``background``, or as ``wrong``.
    """

    def __init__(self, num_classes: int = 21) -> None:
        self.n = num_classes
        self.matrix = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Add one image: integer arrays of one shape with values below n, or 255. Returns its own counts.

        Raises:
            ValueError: shapes differ, or a value is neither below n nor 255.
        """
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            raise ValueError(f"prediction is of shape {prediction.shape}, target of shape {target.shape}")
        for name, array in (("prediction", prediction), ("target", target)):
            wrong = np.unique(array[((array < 0) | (array >= self.n)) & (array != VOID)])
            if wrong.size:
                raise ValueError(f"{name} holds ids {wrong.tolist()}; valid are 0-{self.n - 1} and {VOID}")
        valid = target != VOID
        columns = np.where(prediction[valid] == VOID, self.n, prediction[valid]).astype(np.int64)
        cells = target[valid].astype(np.int64) * (self.n + 1) + columns
        counts = np.bincount(cells, minlength=self.n * (self.n + 1)).reshape(self.n, self.n + 1)
        self.matrix += counts
        return counts

    def iou(self, ignored: str = "wrong") -> np.ndarray:
        """IoU of each class, float64 ``(n,)``; NaN for a class that neither target nor prediction holds."""
        return iou_of(self.matrix, ignored)

    def miou(self, ignored: str = "wrong") -> float:
        """Mean IoU over the classes, background included (the VOC measure), 0..1; NaN where nothing was counted."""
        return float(mean_iou(self.matrix, ignored))

    def ignored_share(self) -> float:
        """Share of the counted pixels that were predicted 255; NaN where nothing was counted."""
        return ignored_share(self.matrix)


def iou_of(matrix: np.ndarray, ignored: str = "wrong") -> np.ndarray:
    """IoU of each class of one matrix ``(n, n + 1)`` or of a stack of them ``(..., n, n + 1)``."""
    square, extra = matrix[..., :-1].astype(np.float64), matrix[..., -1].astype(np.float64)
    if ignored not in CONVENTIONS:
        raise ValueError(f"ignored={ignored!r} is unknown; valid: {', '.join(CONVENTIONS)}")
    if ignored == "background":
        square = square.copy()
        square[..., 0] += extra
    hit = np.einsum("...ii->...i", square)
    union = square.sum(-1) + square.sum(-2) - hit + (extra if ignored == "wrong" else 0)
    return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray, ignored: str = "wrong") -> np.ndarray:
    """Mean of ``iou_of`` over the classes that occur; NaN for a matrix without a pixel (there are no masks)."""
    iou = iou_of(matrix, ignored)
    there = ~np.isnan(iou)
    return np.divide(np.where(there, iou, 0).sum(-1), there.sum(-1), out=np.full(iou.shape[:-1], np.nan),
                     where=there.any(-1))  # fmt: skip


def ignored_share(matrix: np.ndarray) -> float:
    """Share of the counted pixels of one matrix ``(n, n + 1)`` that were predicted 255; NaN where nothing was counted."""
    return float(matrix[:, -1].sum() / matrix.sum()) if matrix.any() else float("nan")


def precision_recall(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the pixels that are called a class, the share that is right; and of the pixels of a class, the share that is called
    it, 255 being no call. Both float64 ``(n,)`` in 0..1, NaN where there is no such pixel."""
    square = matrix[:, :-1].astype(np.float64)
    hit, called, there = np.diag(square), square.sum(0), matrix.sum(1)
    share = lambda whole: np.divide(hit, whole, out=np.full_like(hit, np.nan), where=whole > 0)  # noqa: E731
    return share(called), share(there)


def iou_by_size(matrices: np.ndarray) -> dict[str, float]:
    """Mean over classes of the foreground IoU, for images grouped by how much of them the class covers.

    For each image and each of its foreground classes, intersection and union are added to the group of the class's
    share of the image. A class that is predicted but absent counts in no group.

    Args:
        matrices: ``(images, n, n + 1)`` counts, one matrix an image.

    Returns:
        group -> IoU in 0..1 (NaN for an empty group).
    """
    target = matrices.sum(2)[:, 1:].astype(float)
    hit = np.einsum("kii->ki", matrices[..., :-1])[:, 1:].astype(float)
    union = target + matrices[..., :-1].sum(1)[:, 1:] - hit
    share = target / np.maximum(1, matrices.sum((1, 2)))[:, None]
    result = {}
    for name, (low, high) in SIZES.items():
        group = (target > 0) & (share >= low) & (share < high)
        hits, unions = (hit * group).sum(0), (union * group).sum(0)
        result[name] = float((hits[unions > 0] / unions[unions > 0]).mean()) if (unions > 0).any() else float("nan")
    return result


def bootstrap(matrices: list[np.ndarray], draws: int = 1000, seed: int = 0, ignored: str = "wrong") -> np.ndarray:
    """mIoU of resampled image sets, the same images for each method (a paired bootstrap).

    Args:
        matrices: for each method ``(images, n, n + 1)`` over the same images.

    Returns:
        float64 ``(draws, methods)`` in 0..1, NaN where there are no images.
    """
    rng = np.random.default_rng(seed)
    images = len(matrices[0])
    if any(len(m) != images for m in matrices):
        raise ValueError("a paired bootstrap needs the same images for each method")
    if not images:
        return np.full((draws, len(matrices)), np.nan)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    flat = [m.reshape(images, -1).astype(np.float64) for m in matrices]
    shape = matrices[0].shape[1:]
    return np.stack([mean_iou((weights @ f).reshape(draws, *shape), ignored) for f in flat], 1)


def interval(counts: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval over images of the mIoU, in percent."""
    low, high = np.percentile(100 * bootstrap([counts], draws)[:, 0], [2.5, 97.5])
    return round(float(low), 1), round(float(high), 1)
