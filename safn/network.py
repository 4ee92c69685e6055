"""The scale-aware feature network: head, scale attention (Eq. 1), aggregation (Eq. 2), loss (Eq. 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from safn import backbones
from safn.arguments import require_count, require_one_of, require_scales, require_shape
from safn.backbones import rescale
from safn.fast_layers import PointwiseConv
from safn.maps import localization_maps

AGGREGATIONS = ("attention", "max", "avg")
STARTS = ("zero", "random")


class ScaleAttention(nn.Module):
    r"""Weigh each scale at each location.

    Eq. 1: :math:`W^s_{ij} = \exp(A^s_{ij}) / \sum_{k=1}^{S} \exp(A^k_{ij})`, with :math:`A` from two convolutions,
    3x3 with 512 channels and 1x1 with S channels (Sec. III-A). Between them is a ReLU, which the paper does not name.
    The start ``zero`` sets the last layer to 0, so that training starts at average pooling. ``random`` is PyTorch's.

    Example:
        >>> weights = ScaleAttention(scales=3, num_classes=20)(torch.rand(1, 3, 20, 8, 8))
        >>> weights.shape, round(weights[0, 0, 0, 0].item(), 4)
        (torch.Size([1, 3, 8, 8]), 0.3333)
    """

    def __init__(self, scales: int, num_classes: int, start: str = "zero") -> None:
        super().__init__()
        require_one_of("attention_start", start, STARTS)
        self.conv1 = nn.Conv2d(scales * num_classes, 512, 3, padding=1)
        self.conv2 = nn.Conv2d(512, scales, 1)
        if start == "zero":
            for parameter in self.conv2.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Map the class features of all scales ``(B, S, N, h, w)`` to weights ``(B, S, h, w)`` that sum to 1 over S."""
        stacked = features.flatten(1, 2)  # (B, S * N, h, w)
        scores = self.conv2(F.relu(self.conv1(stacked)))  # (B, S, h, w)
        return scores.float().softmax(1)


def aggregate(features: Tensor, weights: Tensor | str) -> Tensor:
    r"""Reduce the class features F of all scales, ``(B, S, N, h, w)``, to MSF, ``(B, N, h, w)``.

    Eq. 2: :math:`MSF_c = \sum_{k=1}^{S} W^k \circ F^k_c` with weights W of Eq. 1, ``(B, S, h, w)``. The weights ``max``
    and ``avg`` are the paper's comparisons (Table 4).

    Example:
        >>> features = torch.tensor([1.0, 5.0]).view(1, 2, 1, 1, 1)  # two scales of one pixel
        >>> aggregate(features, torch.tensor([0.75, 0.25]).view(1, 2, 1, 1)).item()
        2.0
    """
    require_shape("features", features.shape, ("B", "S", "N", "h", "w"))
    if isinstance(weights, Tensor):
        require_shape("weights", weights.shape, (*features.shape[:2], *features.shape[3:]))
        return (weights.unsqueeze(2) * features).sum(1)
    require_one_of("weights", weights, AGGREGATIONS[1:])
    return features.amax(1) if weights == "max" else features.mean(1)


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Compute the multi-label soft margin loss of scores x, ``(B, N)``, and labels y, ``(B, N)``, 0 or 1.

    Eq. 3: :math:`-\sum_i [y_i \log\sigma(x_i) + (1 - y_i) \log(1 - \sigma(x_i))]`, divided by N as PyTorch does (the
    paper names PyTorch's loss, and its learning rates fit the mean).

    Example:
        >>> classification_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # log 2
        tensor(0.6931)
    """
    require_shape("scores", scores.shape, ("B", "N"))
    require_shape("labels", labels.shape, scores.shape)
    return F.multilabel_soft_margin_loss(scores.float(), labels)


class SAFN(nn.Module):
    """Classify images at several scales with one backbone and head (Fig. 1).

    ``scale_weights`` holds the weights of the last forward pass (Eq. 1), ``(B, S, h, w)``; ``None`` without attention.

    Args:
        backbone: ``vgg16`` (the paper), ``resnet101`` or ``efficientnet_lite0``.
        num_classes: N, without background.
        scales: of the image, different numbers above 0, at most 2. Features meet at the size of the largest.
        aggregation: ``attention`` (the paper), ``max`` or ``avg``.
        weights: of the backbone, ``imagenet`` or ``none`` (random initialisation).
        attention_start: ``zero`` or ``random``, see ``ScaleAttention``.
        freeze: number of first backbone stages that keep their weights.

    Raises:
        ValueError: an argument is not one of these.

    Example:
        >>> network = SAFN("efficientnet_lite0", num_classes=20, scales=(1, 0.5), weights="none")
        >>> images, labels = torch.rand(1, 3, 64, 64), torch.zeros(1, 20)
        >>> network(images).shape, network.maps(images, labels).shape, network.scale_weights.shape
        (torch.Size([1, 20]), torch.Size([1, 20, 4, 4]), torch.Size([1, 2, 4, 4]))
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        num_classes: int = 20,
        scales: Sequence[float] = (1, 0.75, 0.5),
        aggregation: str = "attention",
        *,
        weights: str = "imagenet",
        attention_start: str = "zero",
        freeze: int = 0,
    ) -> None:
        super().__init__()
        require_count("num_classes", num_classes)
        require_scales(scales)
        require_one_of("aggregation", aggregation, AGGREGATIONS)
        require_one_of("attention_start", attention_start, STARTS)
        self.scales, self.aggregation = tuple(scales), aggregation
        sizes = {"num_classes": num_classes, "scales": list(scales)}
        self.arguments = {"backbone": backbone, **sizes, "aggregation": aggregation}
        self.backbone = backbones.create(backbone, weights=weights, freeze=freeze)
        kind = backbones.BACKBONES[backbone]
        self.initial_weights, self.normalisation = weights, kind.normalisation
        self.head = nn.Sequential(
            nn.Conv2d(kind.channels, 1024, 3, padding=1),
            nn.ReLU(),
            PointwiseConv(1024, 1024),
            nn.ReLU(),
            PointwiseConv(1024, num_classes),
        )
        # drawn last, so that with one seed all aggregations start from the same head
        attends = aggregation == "attention" and len(self.scales) > 1
        self.attention = ScaleAttention(len(self.scales), num_classes, attention_start) if attends else None
        self.scale_weights: Tensor | None = None

    def scale_features(self, images: Tensor) -> Tensor:
        """Compute F of images ``(B, 3, H, W)`` at all scales, ``(B, S, N, h, w)``, resized to the largest (bilinear)."""
        require_shape("images", images.shape, ("B", 3, "H", "W"))
        features = [self.head(self.backbone(rescale(images, scale))) for scale in self.scales]
        size = features[self.scales.index(max(self.scales))].shape[-2:]
        return torch.stack([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in features], 1)

    def features(self, images: Tensor) -> Tensor:
        """Compute MSF (Eq. 2) of ``(B, 3, H, W)``, ``(B, N, h, w)``."""
        features = self.scale_features(images).float()
        if self.attention is None:
            return aggregate(features, "avg" if len(self.scales) == 1 else self.aggregation)
        weights = self.attention(features)
        self.scale_weights = weights.detach()
        return aggregate(features, weights)

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes of ``(B, 3, H, W)``: the global average of MSF, ``(B, N)``."""
        return self.features(images).mean((2, 3))

    def maps(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the maps (Eq. 4) of ``(B, 3, H, W)`` with labels ``(B, N)``, float32 ``(B, N, h, w)`` in 0..1."""
        return localization_maps(self.features(images), labels)
