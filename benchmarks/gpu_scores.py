"""Scores and pseudo labels on the GPU, as `safn.evaluation`, `safn.pseudo` and `safn.inference` make them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safn.backbones import rescale
from safn.evaluation import LEVELS, SweepCounter
from safn.metrics import VOID


def histograms(values: Tensor, bins: int) -> Tensor:
    """How often each of 0 .. ``bins`` - 1 occurs in each image, int32 ``(B, bins)``; ``values``: int64 ``(B, H, W)``.

    Unlike ``torch.bincount`` it does not wait for the GPU.
    """
    images = torch.arange(len(values), device=values.device)[:, None] * bins
    places = (values.flatten(1) + images).flatten()
    counts = torch.zeros(len(values) * bins, dtype=torch.int32, device=values.device)
    return counts.scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32)).view(-1, bins)


class BatchSweep(SweepCounter):
    """A ``SweepCounter`` that takes batches of tensors, and waits for the GPU once a batch."""

    def update(self, maps: Tensor, target: Tensor) -> None:
        """Add images: maps ``(B, N, H, W)`` in 0..1, zero for absent classes, and their masks ``(B, H, W)``."""
        value, best = maps.max(1)
        level = (value * (LEVELS - 1) + 1e-4).floor().long()
        found = (target.long() * (self.n - 1) + best) * LEVELS + level
        found = found.masked_fill(target == VOID, self.histogram.size)  # a bin of its own, thrown away
        for one in histograms(found, self.histogram.size + 1)[:, :-1].cpu().numpy():
            kept = np.flatnonzero(one)
            pixels = one[kept].astype(np.int64)
            self.histogram.reshape(-1)[kept] += pixels
            self.images.append((kept, pixels))


def pseudo_labels(
    maps: Tensor,
    saliency: Tensor,
    gamma: float = 0.2,
    ignore_saliency: float = 0.5,
    ignore_confidence: float = 0.9,
) -> Tensor:
    """Algorithm 1 with Eq. 5 and both rules for ignored pixels, see ``safn.pseudo_ground_truth``.

    Args:
        maps: ``(B, N, H, W)`` in 0..1, zero for absent classes.
        saliency: ``(B, H, W)`` in 0..1.

    Returns:
        uint8 ``(B, H, W)``: 0 background, c + 1 for channel c, 255 ignored.
    """
    total = maps + saliency[:, None]
    confidence = torch.where(total > 0, 2 * maps * saliency[:, None] / torch.where(total > 0, total, 1), 0)
    result = torch.where(confidence.amax(1) >= gamma, maps.argmax(1) + 1, 0)
    result = torch.where((confidence > ignore_confidence).sum(1) > 1, VOID, result)
    return torch.where((result == 0) & (saliency > ignore_saliency), VOID, result).to(torch.uint8)


def confusion(prediction: Tensor, target: Tensor, n: int) -> Tensor:
    """Counts of each image, int32 ``(B, n, n + 1)``, as ``ConfusionMatrix.update`` returns them; both ``(B, H, W)``."""
    columns = prediction.long().masked_fill(prediction == VOID, n)
    found = (target.long() * (n + 1) + columns).masked_fill(target == VOID, n * (n + 1))  # a bin that is thrown away
    return histograms(found, n * (n + 1) + 1)[:, :-1].reshape(-1, n, n + 1)


def weights_of_classes(weights: Tensor, target: Tensor, classes: int) -> Tensor:
    """The share of each class in its image, and the mean weight of each scale on it.

    Args:
        weights: ``(B, S, H, W)``.
        target: masks ``(B, H, W)``.

    Returns:
        float32 ``(B, classes, 1 + S)``; NaN weights where a class is absent.
    """
    counted, found = (target != VOID).sum((1, 2)), []
    for c in range(classes):
        covered = target == c + 1
        area = covered.sum((1, 2))
        mean = (weights * covered[:, None]).sum((2, 3)) / area[:, None]
        found.append(torch.cat([(area / counted)[:, None], mean], 1))
    return torch.stack(found, 1)


def multi_scale(network: Callable[[Tensor], Tensor], images: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Class probabilities of a batch, float32 ``(B, K, H, W)``, as ``multi_scale_maximum`` gives them of one image."""
    best = None
    for scale in scales:
        logits = network(rescale(images, scale, network.grid)).float()
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        probability = logits.softmax(1)
        best = probability if best is None else torch.maximum(best, probability)
    return best / best.sum(1, keepdim=True)


def sparse(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Counts ``(images, n, n + 1)`` without their zeros: the flat places and the values, both int32, and the shape."""
    place = np.flatnonzero(counts)
    return {
        "place": place.astype(np.int32),
        "pixels": counts.ravel()[place].astype(np.int32),
        "shape": np.array(counts.shape),
    }


def dense(place: np.ndarray, pixels: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Undo ``sparse``, int64."""
    counts = np.zeros(int(np.prod(shape)), np.int64)
    counts[place] = pixels
    return counts.reshape(tuple(shape))
