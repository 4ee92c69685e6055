"""Pseudo ground truth from localization maps and saliency: Eq. 5 and Algorithm 1 with its two ignore rules."""

from __future__ import annotations

import numpy as np

VOID = 255


def harmonic_mean(maps: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    r"""Confidence of each class at each pixel.

    Eq. 5: :math:`H_c = 2 / (1/M_c + 1/S)`, and 0 where either is 0.

    Args:
        maps: M, ``(N, H, W)`` in 0..1.
        saliency: S, ``(H, W)`` in 0..1.

    Returns:
        float32 ``(N, H, W)`` in 0..1.
    """
    maps, saliency = np.asarray(maps, np.float32), np.asarray(saliency, np.float32)
    total = maps + saliency
    return np.divide(2 * maps * saliency, total, out=np.zeros_like(total), where=total > 0)


COMBINE = {
    "harmonic": harmonic_mean,
    "maps": lambda maps, saliency: np.asarray(maps, np.float32),
    "saliency": lambda maps, saliency: np.where(np.asarray(maps) > 0, saliency, 0).astype(np.float32),
}


def pseudo_ground_truth(
    maps: np.ndarray,
    saliency: np.ndarray,
    labels: np.ndarray,
    gamma: float = 0.2,
    ignore_saliency: float = 0.5,
    ignore_confidence: float = 0.9,
    combine: str = "harmonic",
) -> np.ndarray:
    """Algorithm 1 and the two kinds of ignored pixels (Sec. III-C).

    Background where no class reaches ``gamma``; elsewhere the class of the largest map. Ignored (255) are
    (i) background pixels with saliency above ``ignore_saliency``, (ii) pixels where two or more classes have a
    confidence above ``ignore_confidence``. A threshold of 1 switches its rule off. The paper gives neither value.

    Args:
        maps: M, ``(N, H, W)`` in 0..1, not finite counts as 0.
        saliency: S, ``(H, W)`` in 0..1.
        labels: ``(N,)``, 0 or 1; an image without a label is all background (rule (i) still applies).
        combine: ``harmonic`` (Eq. 5), or as controls ``maps`` or ``saliency`` alone.

    Returns:
        uint8 ``(H, W)``: 0 background, c + 1 for channel c, 255 ignored.
    """
    maps = np.nan_to_num(np.asarray(maps, np.float32), nan=0, posinf=0, neginf=0)
    present = np.flatnonzero(np.asarray(labels))
    saliency = np.asarray(saliency, np.float32)
    result = np.zeros(saliency.shape, np.uint8)
    if len(present):
        maps = maps[present]
        confidence = COMBINE[combine](maps, saliency)
        foreground = confidence.max(0) >= gamma
        result[foreground] = (present[maps.argmax(0)] + 1)[foreground]
        result[(confidence > ignore_confidence).sum(0) > 1] = VOID
    result[(result == 0) & (saliency > ignore_saliency)] = VOID
    return result
