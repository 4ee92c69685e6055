"""Object localization maps (Eq. 4), and masks of them alone."""

import numpy as np
import torch
from torch import Tensor

from safn.arguments import require_number, require_shape


def localization_maps(features: Tensor, labels: Tensor) -> Tensor:
    r"""Normalise class features MSF, ``(B, N, h, w)``, to localization maps M, float32 in 0..1.

    Eq. 4: :math:`M_c = \mathrm{ReLU}(MSF_c) / \max(\mathrm{ReLU}(MSF_c))`, the maximum over the map. A class whose
    ``labels`` ``(B, N)`` are 0 has a map of 0. So has one without a positive value or with a value that is not finite:
    the quotient would be NaN, which ``argmax`` takes for the largest value. So has a constant one: it locates nothing.

    Example:
        >>> localization_maps(torch.tensor([[[[-1.0, 2.0, 4.0]]]]), torch.tensor([[1]])).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """
    require_shape("features", features.shape, ("B", "N", "h", "w"))
    require_shape("labels", labels.shape, features.shape[:2])
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"labels={labels.tolist()}; valid: 0 or 1 for each class, not the ids of classes")
    features = features.float()
    positive = features.relu()
    peak = positive.amax((2, 3), keepdim=True)
    varied = peak > positive.amin((2, 3), keepdim=True)
    finite = torch.isfinite(features).all(3).all(2)[:, :, None, None]
    usable = varied & finite & (labels > 0)[:, :, None, None]
    scaled = positive / torch.where(usable, peak, torch.ones_like(peak))
    return torch.where(usable, scaled, torch.zeros_like(scaled))


def maps_prediction(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Segment by maps ``(N, H, W)``, uint8 ``(H, W)``: c + 1 for the largest map, 0 where it is below the threshold.

    Example:
        >>> maps_prediction(np.array([[[0.1, 0.5]], [[0.2, 0.3]]]), 0.3).tolist()
        [[0, 1]]
    """
    require_shape("maps", maps.shape, ("N", "H", "W"))
    require_number("threshold", threshold, 0, 1)
    best = maps.argmax(0)
    return np.where(maps.max(0) < threshold, 0, best + 1).astype(np.uint8)
