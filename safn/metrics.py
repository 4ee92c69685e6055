"""IoU with the three conventions for ignored pixels, by object size, and with bootstrap intervals.

Counts of an image or a split are int64 ``(n, n + 1)``: a row for each target, a column for each prediction and a last
one for pixels predicted 255. Pixels whose target is 255 are dropped. n is the number of classes, background included.
"""

import numpy as np

from safn.arguments import require_count, require_one_of, require_shape

VOID = 255  # the ignore label of masks, and the one definition of it
CONVENTIONS = ("drop", "background", "wrong")
SIZES = {"small (< 10 %)": (0, 0.1), "medium (10-30 %)": (0.1, 0.3), "large (> 30 %)": (0.3, 1.01)}


class ConfusionMatrix:
    """Count pixels by target and prediction over a whole split; ``matrix`` holds the counts, int64 ``(n, n + 1)``.

    Pixels predicted 255 (pseudo labels have them) are treated by a convention when the IoU is read: ``drop`` them,
    count them as ``background``, or as ``wrong``.

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
        """Add an image, class ids of any shape or 255, and return its own counts, int64 ``(n, n + 1)``.

        Raises:
            ValueError: the shapes differ, or a value is no such id. Nothing is counted then.
        """
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            raise ValueError(f"prediction is of shape {prediction.shape}, target of shape {target.shape}")
        _require_class_ids("prediction", prediction, self.n)
        _require_class_ids("target", target, self.n)
        valid = target != VOID
        columns = np.where(prediction[valid] == VOID, self.n, prediction[valid]).astype(np.int64)
        cells = target[valid].astype(np.int64) * (self.n + 1) + columns
        counts = np.bincount(cells, minlength=self.n * (self.n + 1)).reshape(self.n, self.n + 1)
        self.matrix += counts
        return counts

    def iou(self, ignored: str = "wrong") -> np.ndarray:
        """Compute the IoU of each class, float64 ``(n,)``; NaN for a class that neither target nor prediction holds."""
        return class_iou(self.matrix, ignored)

    def miou(self, ignored: str = "wrong") -> float:
        """Compute the mean IoU, background included (the VOC measure); NaN where nothing was counted."""
        return float(mean_iou(self.matrix, ignored))


def _require_class_ids(name: str, ids: np.ndarray, n: int) -> None:
    right = (ids >= 0) & (ids < n)  # false for NaN
    if ids.dtype.kind == "f":
        right &= ids == np.floor(ids)
    wrong = np.unique(ids[~right & (ids != VOID)])
    if wrong.size:
        shown = f"{wrong[:5].tolist()}{' and others' if wrong.size > 5 else ''}"
        raise ValueError(f"{name} holds ids {shown}; valid are 0-{n - 1} and {VOID}")


def class_iou(counts: np.ndarray, ignored: str = "wrong") -> np.ndarray:
    """Compute the IoU of each class, float64 ``(..., n)``, of ``(..., n, n + 1)``; NaN where it does not occur."""
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
    """Compute precision and recall of each class, float64 ``(n,)``, of ``(n, n + 1)``; NaN where the divisor is 0."""
    hit = np.diag(counts[:, :-1]).astype(np.float64)
    return _ratio(hit, counts[:, :-1].sum(0)), _ratio(hit, counts.sum(1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def iou_by_size(counts: np.ndarray) -> dict[str, float]:
    """Average the foreground IoU over classes for each group of ``SIZES``, from counts ``(images, n, n + 1)``.

    For each image and each of its foreground classes, intersection and union are added to the group of the class's
    share of the image. A class that is predicted but absent counts in no group. An empty group has NaN.
    """
    require_shape("counts", counts.shape, ("images", "n", counts.shape[-2] + 1))
    target = counts.sum(2)[:, 1:].astype(float)
    hit = np.einsum("kii->ki", counts[..., :-1])[:, 1:].astype(float)
    union = target + counts[..., :-1].sum(1)[:, 1:] - hit
    share = target / np.maximum(1, counts.sum((1, 2)))[:, None]
    result = {}
    for name, (low, high) in SIZES.items():
        group = (target > 0) & (share >= low) & (share < high)
        iou = _ratio((hit * group).sum(0), (union * group).sum(0))
        occurring = iou[~np.isnan(iou)]
        result[name] = float(occurring.mean()) if occurring.size else float("nan")
    return result


def bootstrap(counts: list[np.ndarray], draws: int = 1000, seed: int = 0, ignored: str = "wrong") -> np.ndarray:
    """Compute the mIoU of ``draws`` resampled image sets, the same images for each method (a paired bootstrap).

    ``counts`` holds ``(images, n, n + 1)`` for each method. The result is float64 ``(draws, methods)`` in 0..1, NaN
    where there are no images.
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
