"""Object localization maps (Eq. 4), and masks of them alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from safn.arguments import require_number, require_shape


def localization_maps(features: Tensor, labels: Tensor) -> Tensor:
    r"""Normalise class features to object localization maps.

    Eq. 4: :math:`M_c = \mathrm{ReLU}(MSF_c) / \max(\mathrm{ReLU}(MSF_c))`, the maximum over the map. A map without a
    positive value, or with a value that is not finite, is 0: the bare quotient would be NaN, which ``argmax`` takes
    for the largest value and no threshold catches. So is a constant map: it locates nothing, and the quotient is 1.

    Args:
        features: MSF, ``(B, N, h, w)``.
        labels: ``(B, N)``, 0 or 1.

    Returns:
        M, float32 ``(B, N, h, w)`` in 0..1, zero for absent classes.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> localization_maps(torch.tensor([[[[-1.0, 2.0, 4.0]]]]), torch.tensor([[1]])).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """
    require_shape("features", features.shape, ("B", "N", "h", "w"))
    require_shape("labels", labels.shape, features.shape[:2])
    features = features.float()
    positive = features.relu()
    peak = positive.amax((2, 3), keepdim=True)
    varied = peak > positive.amin((2, 3), keepdim=True)
    finite = torch.isfinite(features).all(3).all(2)[:, :, None, None]
    usable = varied & finite & (labels > 0)[:, :, None, None]
    scaled = positive / torch.where(usable, peak, torch.ones_like(peak))
    return torch.where(usable, scaled, torch.zeros_like(scaled))


def maps_prediction(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Segment by maps alone: the class of the largest map, background where that is below the threshold.

    Args:
        maps: ``(N, H, W)`` in 0..1.
        threshold: in 0..1.

    Returns:
        uint8 ``(H, W)``: 0 background, c + 1 for map c.

    Example:
        >>> maps_prediction(np.array([[[0.1, 0.5]], [[0.2, 0.3]]]), 0.3).tolist()
        [[0, 1]]
    """
    require_shape("maps", maps.shape, ("N", "H", "W"))
    require_number("threshold", threshold, 0, 1)
    best = maps.argmax(0)
    return np.where(maps.max(0) < threshold, 0, best + 1).astype(np.uint8)
