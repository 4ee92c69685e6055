"""Object localization maps (Eq. 4), their files, and Grad-CAM for comparison (Fig. 6)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safn.files import write_file


def localization_maps(features: Tensor, labels: Tensor) -> Tensor:
    r"""Normalise class features to maps.

    Eq. 4: :math:`M_c = \mathrm{ReLU}(MSF_c) / \max(\mathrm{ReLU}(MSF_c))`, the maximum over the map. A map without a
    positive value, or with a value that is not finite, is 0: the bare quotient would be NaN, which ``argmax`` takes
    for the largest value and no threshold catches. So is a constant map: it locates nothing, and the quotient is 1.

    Args:
        features: MSF, ``(B, N, h, w)``.
        labels: ``(B, N)``, 0 or 1.

    Returns:
        ``(B, N, h, w)`` float32 in 0..1, zero for absent classes.
    """
    features = features.float()
    positive = features.relu()
    peak = positive.amax((2, 3), keepdim=True)
    varied = peak > positive.amin((2, 3), keepdim=True)
    usable = varied & torch.isfinite(features).all(3).all(2)[:, :, None, None] & (labels > 0)[:, :, None, None]
    scaled = positive / torch.where(usable, peak, torch.ones_like(peak))
    return torch.where(usable, scaled, torch.zeros_like(scaled))


def save_maps(path: Path, maps: np.ndarray, labels: np.ndarray) -> None:
    """Write the maps ``(N, h, w)`` of the present classes as 8-bit values with their class indices; the file appears only
    when complete."""
    present, buffer = np.flatnonzero(labels), io.BytesIO()
    np.savez_compressed(buffer, classes=present.astype(np.int16), maps=np.rint(maps[present] * 255).astype(np.uint8))
    write_file(path, buffer.getvalue())


def load_maps(path: Path, num_classes: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Maps ``(N, h, w)`` float32 in 0..1, zero for absent classes; ``size = (H, W)`` resamples them (bilinear)."""
    present, values = load_present_maps(path, size)
    full = np.zeros((num_classes, *values.shape[-2:]), np.float32)
    full[present] = values
    return full


def load_present_maps(path: Path, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The present classes of a file of maps ``(K,)`` int16 and their maps ``(K, h, w)``, as ``load_maps`` gives them: all
    that a photograph of many megapixels and classes leaves room for."""
    with np.load(path, allow_pickle=False) as file:
        present, values = file["classes"], file["maps"].astype(np.float32) / 255
    if size is None:
        return present, values
    if not len(present):
        return present, np.zeros((0, *size), np.float32)
    values = F.interpolate(torch.from_numpy(values)[None], size, mode="bilinear", align_corners=False)[0].numpy()
    return present, values


def grad_cam(network: torch.nn.Module, layer: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Grad-CAM maps of a classifier by the ``grad-cam`` library, ``(1, N, H, W)`` in 0..1, zero for absent classes.

    ``images``: one image, ``(1, 3, H, W)``; ``layer``: the layer whose activations are weighted.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    maps = torch.zeros(*labels.shape, *images.shape[-2:])
    with GradCAM(network, [layer]) as explain:
        for c in torch.nonzero(labels[0]).flatten().tolist():
            maps[0, c] = torch.from_numpy(explain(images.requires_grad_(), [ClassifierOutputTarget(c)])[0])
    return maps.nan_to_num(0)


def maps_prediction(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Class ids, uint8 ``(H, W)``: the class of the largest map, background where that is below ``threshold``."""
    best = maps.argmax(0)
    return np.where(maps.max(0) < threshold, 0, best + 1).astype(np.uint8)
