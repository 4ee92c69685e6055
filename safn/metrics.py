"""IoU with the three conventions for ignored pixels, by object size, and with bootstrap intervals."""

from __future__ import annotations

import numpy as np

from safn.arguments import require_count, require_one_of, require_shape

VOID = 255  # the ignore label of masks, and the one definition of it
CONVENTIONS = ("drop", "background", "wrong")
SIZES = {"small (< 10 %)": (0, 0.1), "medium (10-30 %)": (0.1, 0.3), "large (> 30 %)": (0.3, 1.01)}


class ConfusionMatrix:
    """Count pixels by target and prediction over a whole split.

    Pixels whose target is 255 are dropped. Pixels predicted 255 (pseudo labels have them) are counted in a column of
    their own, and treated by a convention when the IoU is read: ``drop`` them, count them as ``background``, or as
    ``wrong``.

    ``matrix`` holds the counts, int64 ``(n, n + 1)``.

    Args:
        num_classes: n, background included, up to 255.

    Raises:
        ValueError: ``num_classes`` is not such a number.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> counts = matrix.update(np.array([0, 1, 255, 0]), np.array([0, 1, 1, 255]))
        >>> matrix.iou("wrong").tolist(), matrix.miou("drop")
        ([1.0, 0.5], 1.0)
    """

    def __init__(self, num_classes: int = 21) -> None:
        require_count("num_classes", num_classes, 1, VOID)
        self.n = num_classes
        self.matrix = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Add one image and return its own counts, int64 ``(n, n + 1)``.

        Args:
            prediction: class ids of any shape, whole numbers from 0 to n - 1, or 255.
            target: the same.

        Raises:
            ValueError: the shapes differ, or a value is no such id. Nothing is counted then.
        """
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            raise ValueError(f"prediction is of shape {prediction.shape}, target of shape {target.shape}")
        for name, ids in (("prediction", prediction), ("target", target)):
            self._require_class_ids(name, ids)
        valid = target != VOID
        columns = np.where(prediction[valid] == VOID, self.n, prediction[valid]).astype(np.int64)
        cells = target[valid].astype(np.int64) * (self.n + 1) + columns
        counts = np.bincount(cells, minlength=self.n * (self.n + 1)).reshape(self.n, self.n + 1)
        self.matrix += counts
        return counts

    def _require_class_ids(self, name: str, ids: np.ndarray) -> None:
        right = (ids >= 0) & (ids < self.n)  # false for NaN
        if ids.dtype.kind == "f":
            right &= ids == np.floor(ids)
        wrong = np.unique(ids[~right & (ids != VOID)])
        if wrong.size:
            shown = f"{wrong[:5].tolist()}{' and others' if wrong.size > 5 else ''}"
            raise ValueError(f"{name} holds ids {shown}; valid are 0-{self.n - 1} and {VOID}")

    def iou(self, ignored: str = "wrong") -> np.ndarray:
        """Compute the IoU of each class, float64 ``(n,)``; NaN for a class that neither target nor prediction holds."""
        return class_iou(self.matrix, ignored)

    def miou(self, ignored: str = "wrong") -> float:
        """Compute the mean IoU over the classes, background included (the VOC measure); NaN where nothing was counted."""
        return float(mean_iou(self.matrix, ignored))

    def ignored_share(self) -> float:
        """Compute the share of the counted pixels that were predicted 255; NaN where nothing was counted."""
        return ignored_share(self.matrix)


def class_iou(counts: np.ndarray, ignored: str = "wrong") -> np.ndarray:
    """Compute the IoU of each class.

    Args:
        counts: of one image or split ``(n, n + 1)``, or of several ``(..., n, n + 1)``, as ``ConfusionMatrix`` has them.
        ignored: what becomes of pixels predicted 255: ``drop``, ``background`` or ``wrong``.

    Returns:
        float64 ``(..., n)`` in 0..1, NaN for a class that does not occur.

    Raises:
        ValueError: ``ignored`` is another, or the counts are of another shape.
    """
    require_one_of("ignored", ignored, CONVENTIONS)
    require_shape("counts", counts.shape[-2:], ("n", counts.shape[-2] + 1))
    square, extra = counts[..., :-1].astype(np.float64), counts[..., -1].astype(np.float64)
    if ignored == "background":
        square[..., 0] += extra
    hit = np.einsum("...ii->...i", square)
    union = square.sum(-1) + square.sum(-2) - hit
    if ignored == "wrong":
        union = union + extra
    return _ratio(hit, union)


def mean_iou(counts: np.ndarray, ignored: str = "wrong") -> np.ndarray:
    """Average ``class_iou`` over the classes that occur, float64 ``(...)``; NaN for counts without a pixel."""
    iou = class_iou(counts, ignored)
    occurs = ~np.isnan(iou)
    return _ratio(np.where(occurs, iou, 0).sum(-1), occurs.sum(-1))


def ignored_share(counts: np.ndarray) -> float:
    """Compute the share of the pixels of ``(n, n + 1)`` that were predicted 255; NaN where nothing was counted."""
    return float(_ratio(counts[:, -1].sum(), counts.sum()))


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall of each class of ``(n, n + 1)``; predicting 255 is predicting no class.

    Returns:
        two arrays, float64 ``(n,)`` in 0..1, NaN for a class that is never predicted, or never the target.
    """
    hit = np.diag(counts[:, :-1]).astype(np.float64)
    return _ratio(hit, counts[:, :-1].sum(0)), _ratio(hit, counts.sum(1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def iou_by_size(counts: np.ndarray) -> dict[str, float]:
    """Average the foreground IoU over classes, for images grouped by how much of them the class covers.

    For each image and each of its foreground classes, intersection and union are added to the group of the class's
    share of the image. A class that is predicted but absent counts in no group.

    Args:
        counts: one matrix an image, ``(images, n, n + 1)``.

    Returns:
        a name of ``SIZES`` -> IoU in 0..1, NaN for an empty group.
    """
    require_shape("counts", counts.shape, ("images", "n", counts.shape[-2] + 1))
    target = counts.sum(2)[:, 1:].astype(float)
    hit = np.einsum("kii->ki", counts[..., :-1])[:, 1:].astype(float)
    union = target + counts[..., :-1].sum(1)[:, 1:] - hit
    share = target / np.maximum(1, counts.sum((1, 2)))[:, None]
    result = {}
    for name, (low, high) in SIZES.items():
        group = (target > 0) & (share >= low) & (share < high)
        hits, unions = (hit * group).sum(0), (union * group).sum(0)
        occurs = unions > 0
        result[name] = float((hits[occurs] / unions[occurs]).mean()) if occurs.any() else float("nan")
    return result


def bootstrap(counts: list[np.ndarray], draws: int = 1000, seed: int = 0, ignored: str = "wrong") -> np.ndarray:
    """Compute the mIoU of resampled image sets, the same images for each method (a paired bootstrap).

    Args:
        counts: for each method ``(images, n, n + 1)`` over the same images.
        draws: number of resampled sets.
        seed: of the resampling.
        ignored: as in ``class_iou``.

    Returns:
        float64 ``(draws, methods)`` in 0..1, NaN where there are no images.

    Raises:
        ValueError: the methods have different numbers of images.
    """
    require_count("draws", draws)
    rng = np.random.default_rng(seed)
    images = len(counts[0])
    if any(len(method) != images for method in counts):
        raise ValueError(f"a paired bootstrap needs the same images for each method, not {[len(m) for m in counts]}")
    if not images:
        return np.full((draws, len(counts)), np.nan)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    samples = []
    for method in counts:
        resampled = weights @ method.reshape(images, -1).astype(np.float64)
        samples.append(mean_iou(resampled.reshape(draws, *method.shape[1:]), ignored))
    return np.stack(samples, 1)


def interval(counts: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval over images ``(images, n, n + 1)`` of the mIoU, in percent."""
    low, high = np.percentile(100 * bootstrap([counts], draws)[:, 0], [2.5, 97.5])
    return round(float(low), 1), round(float(high), 1)
