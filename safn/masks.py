"""The mask of a photograph."""

from pathlib import Path
from typing import Any

import numpy as np

from safn.crf_workers import resize_mask
from safn.images import load_image
from safn.inference import TEST_SCALES, multi_scale_maximum
from safn.loading import shrink_to


def segment(network: Any, photograph: Path | str, scales: tuple[float, ...] = TEST_SCALES) -> np.ndarray:
    """Segment a photograph by a ``DeepLab`` that ``load`` has returned, as ``safn predict`` does (Sec. IV-A).

    Args:
        photograph: an image file, of H x W pixels.
        scales: of the photograph, from which the largest probability is taken.

    Returns:
        uint8 ``(H, W)``: 0 background, c + 1 for ``network.classes[c]``.

    Raises:
        DataError: the photograph cannot be read.

    Example:
        >>> import safn
        >>> network, cat = safn.load("voc"), safn.free_photographs()["cat"].path
        >>> mask = segment(network, cat, scales=(1,))
        >>> mask.shape, [network.classes[c - 1] for c in np.unique(mask) if c]
        ((375, 500), ['cat'])
    """
    picture = load_image(Path(photograph))
    image = network.normalisation(shrink_to(picture, network.description["longest_side"]))[None]
    device = next(network.parameters()).device
    probabilities = multi_scale_maximum(network, image.to(device), scales)
    return resize_mask(probabilities.numpy().argmax(0), picture.size)
