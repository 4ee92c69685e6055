"""The scale-aware feature network: head, scale attention (Eq. 1), aggregation (Eq. 2), loss (Eq. 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from safn import backbones, maps


class ScaleAttention(nn.Module):
    r"""Weight of each scale at each location.

    Eq. 1: :math:`W^s_{ij} = \exp(A^s_{ij}) / \sum_{k=1}^{S} \exp(A^k_{ij})`, with :math:`A` from two convolutions,
    3x3 with 512 channels and 1x1 with S channels (Sec. III-A). Between them: ReLU (not in the paper).
    """

    def __init__(self, scales: int, num_classes: int, start: str = "zero") -> None:
        """``start``: ``zero`` sets the last layer to 0, so that training starts at average pooling; ``random`` is
        PyTorch's initialisation."""
        super().__init__()
        self.conv1 = nn.Conv2d(scales * num_classes, 512, 3, padding=1)
        self.conv2 = nn.Conv2d(512, scales, 1)
        if start == "zero":
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, S, N, h, w)`` class features of all scales -> ``(B, S, h, w)`` weights that sum to 1 over S."""
        stacked = features.flatten(1, 2)
        return self.conv2(F.relu(self.conv1(stacked))).float().softmax(1)


def aggregate(features: Tensor, weights: Tensor | str) -> Tensor:
    r"""One class feature map from those of all scales.

    Eq. 2: :math:`MSF_c = \sum_{k=1}^{S} W^k \circ F^k_c`.

    Args:
        features: ``(B, S, N, h, w)``.
        weights: ``(B, S, h, w)`` of Eq. 1, or ``"max"`` / ``"avg"``, the paper's comparisons (Table 4).

    Returns:
        ``(B, N, h, w)``.
    """
    if isinstance(weights, Tensor):
        return (weights.unsqueeze(2) * features).sum(1)
    return {"max": lambda: features.amax(1), "avg": lambda: features.mean(1)}[weights]()


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Multi-label soft margin loss, both ``(B, N)``.

    Eq. 3: :math:`-\sum_i y_i \log\sigma(x_i) + (1 - y_i) \log(1 - \sigma(x_i))`, divided by N as PyTorch does (the
    paper names PyTorch's loss, and its learning rates fit the mean).
    """
    return F.multilabel_soft_margin_loss(scores.float(), labels)


class SAFN(nn.Module):
    """Scale-aware feature network (Fig. 1): one backbone and head for all scales, aggregated, then averaged.

    Args:
        backbone: ``vgg16`` (the paper), ``resnet101`` or ``efficientnet_lite0``.
        num_classes: N.
        scales: image scales in (0, 2]; features meet at the size of the largest.
        aggregation: ``attention`` (the paper), ``max`` or ``avg``.
        weights: ``imagenet`` or ``none``.
        attention_start: see ``ScaleAttention``.
        freeze: number of first backbone stages that keep their weights.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        num_classes: int = 20,
        scales: tuple[float, ...] = (1, 0.75, 0.5),
        aggregation: str = "attention",
        *,
        weights: str = "imagenet",
        attention_start: str = "zero",
        freeze: int = 0,
    ) -> None:
        super().__init__()
        self.arguments = {
            "backbone": backbone, "num_classes": num_classes, "scales": list(scales), "aggregation": aggregation
        }  # fmt: skip
        self.initial_weights, self.normalisation = weights, backbones.BACKBONES[backbone].normalisation
        self.scales, self.aggregation = tuple(scales), aggregation
        self.backbone = backbones.create(backbone, weights, "classifier", freeze)
        self.head = nn.Sequential(
            nn.Conv2d(backbones.BACKBONES[backbone].channels, 1024, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(),
            nn.Conv2d(1024, num_classes, 1),
        )
        backbones.speed_up(self.head)
        # drawn last, so that with one seed all aggregations start from the same head
        attends = aggregation == "attention" and len(self.scales) > 1
        self.attention = ScaleAttention(len(self.scales), num_classes, attention_start) if attends else None
        self.scale_weights: Tensor | None = None

    def scale_features(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, S, N, h, w)``: F^1 ... F^S at the size of the largest scale (bilinear)."""
        features = [self.head(self.backbone(rescale(images, scale))) for scale in self.scales]
        size = features[self.scales.index(max(self.scales))].shape[-2:]
        return torch.stack([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in features], 1)

    def features(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> MSF ``(B, N, h, w)`` (Eq. 2)."""
        features = self.scale_features(images).float()
        if self.attention is None:
            self.scale_weights = None
            return aggregate(features, "max" if self.aggregation == "max" else "avg")
        weights = self.attention(features)
        self.scale_weights = weights.detach()
        return aggregate(features, weights)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> class scores ``(B, N)``: the global average of MSF."""
        return self.features(images).mean((2, 3))

    def maps(self, images: Tensor, labels: Tensor) -> Tensor:
        """Object localization maps (Eq. 4): ``(B, N, h, w)`` in 0..1, zero for absent classes."""
        return maps.localization_maps(self.features(images), labels)


class Grid(NamedTuple):
    """Heights and widths of input images that a network may have: ``remainder`` more than a multiple of ``divisor``."""

    divisor: int = 1
    remainder: int = 0


ANY_SIZE = Grid()


def rescale(images: Tensor, scale: float, grid: Grid = ANY_SIZE) -> Tensor:
    """``(B, 3, H, W)`` images at ``scale`` times their size, at least 32 pixels a side (bilinear, antialiased).

    ``grid``: which heights and widths the result may have.
    """
    divisor, rest = grid
    size = [max(32, divisor * round((side * scale - rest) / divisor)) + rest for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)


class PlainClassifier(nn.Module):
    """The network as published for ImageNet with a new classifier: what Fig. 6 (b) explains with Grad-CAM."""

    def __init__(self, backbone: str, num_classes: int, *, weights: str = "imagenet", freeze: int = 0) -> None:
        super().__init__()
        self.arguments = {"backbone": backbone, "num_classes": num_classes}
        self.initial_weights, self.normalisation = weights, backbones.BACKBONES[backbone].normalisation
        self.backbone = backbones.create(backbone, weights, "plain", freeze)
        self.head = nn.Conv2d(backbones.BACKBONES[backbone].channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> class scores ``(B, N)``."""
        return self.head(self.backbone(images)).mean((2, 3))
