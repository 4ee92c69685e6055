"""Pseudo labels from localization maps and saliency: Eq. 5 and Algorithm 1 with its two ignore rules."""

import numpy as np

from safn.arguments import require_number, require_one_of, require_shape, require_unit_interval
from safn.metrics import VOID


def harmonic_mean(maps: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    r"""Compute the confidence H, float32 ``(N, H, W)``, from maps M ``(N, H, W)`` and saliency S ``(H, W)``, in 0..1.

    Eq. 5: :math:`H_c = 2 / (1/M_c + 1/S)`, and 0 where either is 0.

    Example:
        >>> harmonic_mean(np.array([[[0.25, 1.0, 0.0]]]), np.array([[0.25, 0.0, 0.5]])).tolist()
        [[[0.25, 0.0, 0.0]]]
    """
    maps, saliency = np.asarray(maps, np.float32), np.asarray(saliency, np.float32)
    require_shape("saliency", saliency.shape, maps.shape[1:])
    require_unit_interval("maps", maps)
    require_unit_interval("saliency", saliency)
    total = maps + saliency
    return np.divide(2 * maps * saliency, total, out=np.zeros_like(total), where=total > 0)


def pseudo_ground_truth(
    maps: np.ndarray,
    saliency: np.ndarray | None,
    labels: np.ndarray,
    gamma: float = 0.2,
    *,
    ignore_saliency: float = 0.5,
    ignore_confidence: float = 0.9,
    combine: str = "harmonic",
) -> np.ndarray:
    """Make pseudo labels by Algorithm 1, with the two kinds of ignored pixels (Sec. III-C).

    Background where no class reaches ``gamma``; elsewhere the class of the largest map. Ignored are (i) background
    pixels with high saliency, (ii) pixels where two or more classes have high confidence.

    Args:
        maps: M, ``(N, H, W)`` in 0..1; a value that is not finite counts as 0.
        saliency: S, ``(H, W)`` in 0..1; ``None`` for the maps alone, without rule (i).
        labels: ``(N,)``, 0 or 1. An image without a label is all background (rule (i) still applies).
        gamma: confidence below it is background, in 0..1 (Algorithm 1: 0.2).
        ignore_saliency: high saliency of rule (i), in 0..1; 1 switches the rule off. The paper gives no value.
        ignore_confidence: high confidence of rule (ii), likewise.
        combine: ``harmonic`` (Eq. 5), or as controls ``maps`` or ``saliency`` alone.

    Returns:
        uint8 ``(H, W)``: 0 background, c + 1 for map c, 255 ignored.

    Raises:
        ValueError: the shapes do not fit, a value is outside its range, or ``combine`` is another.

    Example:
        >>> maps, saliency = np.array([[[0.9, 0.1, 0.9]]]), np.array([[0.9, 0.1, 0.0]])
        >>> pseudo_ground_truth(maps, saliency, labels=[1], gamma=0.2).tolist()
        [[1, 0, 0]]
    """
    require_number("gamma", gamma, 0, 1)
    require_number("ignore_saliency", ignore_saliency, 0, 1)
    require_number("ignore_confidence", ignore_confidence, 0, 1)
    require_one_of("combine", combine, ("harmonic", "maps", "saliency"))
    maps = np.asarray(maps)
    require_shape("maps", maps.shape, ("N", "H", "W"))
    present = _present_classes(labels, len(maps))
    maps = np.nan_to_num(maps[present].astype(np.float32), nan=0, posinf=0, neginf=0)
    if saliency is None:
        saliency, combine = np.zeros(maps.shape[1:]), "maps"
    saliency = np.asarray(saliency, np.float32)
    harmonic = harmonic_mean(maps, saliency)
    sure = maps if combine == "maps" else harmonic
    result = np.zeros(saliency.shape, np.uint8)
    if len(present):
        confidence = np.where(maps > 0, saliency, np.float32(0)) if combine == "saliency" else sure
        foreground = confidence.max(0) >= gamma
        result[foreground] = (present[maps.argmax(0)] + 1)[foreground]
        # saliency alone is the same for every class: rule (ii) would ignore each salient pixel
        result[(sure > ignore_confidence).sum(0) > 1] = VOID
    result[(result == 0) & (saliency > ignore_saliency)] = VOID
    return result


def _present_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    require_shape("labels", labels.shape, (num_classes,))
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels={labels.tolist()}; valid: 0 or 1 for each of the {num_classes} classes")
    return np.flatnonzero(labels)
