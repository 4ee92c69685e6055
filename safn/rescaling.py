"""Images at another scale, of sizes that suit the network."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from safn.arguments import require_positive

SMALLEST = 32  # pixels


class Grid(NamedTuple):
    """Describe the heights and widths that images may have: ``remainder`` more than a multiple of ``divisor``."""

    divisor: int = 1
    remainder: int = 0


ANY_SIZE = Grid()


def rescale(images: Tensor, scale: float, grid: Grid = ANY_SIZE) -> Tensor:
    """Resize images to ``scale`` times their height and width (bilinear, antialiased).

    Args:
        images: ``(B, C, H, W)``.
        scale: above 0.
        grid: heights and widths that the result may have. It has at least 32 pixels in each direction.

    Raises:
        ValueError: ``scale`` is not above 0.

    Example:
        >>> import torch
        >>> rescale(torch.zeros(1, 3, 375, 500), 0.5, Grid(16, 1)).shape
        torch.Size([1, 3, 193, 257])
    """
    require_positive("scale", scale)
    divisor, rest = grid
    size = [max(SMALLEST, divisor * round((side * scale - rest) / divisor)) + rest for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)
