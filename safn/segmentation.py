"""DeepLab-LargeFOV and DeepLab-ASPP (Sec. IV-A)."""

from __future__ import annotations

from torch import Tensor, nn

from safn import backbones
from safn.network import Grid


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v2: the sum of four dilated 3x3 classifiers."""

    def __init__(self, channels: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        rates = [rate * 8 // stride for rate in (6, 12, 18, 24)]  # the published rates are those of stride 8
        self.branches = nn.ModuleList(nn.Conv2d(channels, num_outputs, 3, padding=r, dilation=r) for r in rates)

    def forward(self, features: Tensor) -> Tensor:
        return sum(branch(features) for branch in self.branches)


def large_fov(channels: int, num_outputs: int, stride: int, width: int, dilation: int = 12) -> nn.Sequential:
    """fc6 3x3 with ``dilation`` (at stride 8), fc7 1x1, both with dropout 0.5, then a 1x1 classifier."""
    rate = max(1, dilation * 8 // stride)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=rate, dilation=rate),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(width, num_outputs, 1),
    )


class DeepLab(nn.Module):
    """Segmentation network: ``(B, 3, H, W)`` -> logits ``(B, num_outputs, h, w)`` at the backbone's stride.

    Args:
        backbone: ``vgg16``, ``resnet101`` or ``efficientnet_lite0``.
        head: ``largefov`` or ``aspp``.
        num_outputs: classes and background.
        weights: ``imagenet`` or ``none``.
        head_width: channels of fc6 and fc7 of LargeFOV.
        freeze: number of first backbone stages that keep their weights.
        head_dilation: of fc6 of LargeFOV at stride 8; the paper's 12 reaches 96 pixels to each side, which on small images is
            nearly all padding.
        crop: side of the training crops. ``grid``, of divisor and remainder, holds for the sides of other images: with them the
            cells lie as they did in training. Where a cell looks depends on the padding of each layer, and that on the sides:
            in a photo of 500 x 375 EfficientNet-Lite0 would look up to 12 pixels beside the places that it was taught at, in
            each copy of the multi-scale test others, and the masks would lie beside the objects.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        head: str = "largefov",
        num_outputs: int = 21,
        *,
        weights: str = "imagenet",
        head_width: int = 1024,
        freeze: int = 0,
        head_dilation: int = 12,
        crop: int = 321,
    ) -> None:
        super().__init__()
        self.arguments = {
            "backbone": backbone,
            "head": head,
            "num_outputs": num_outputs,
            "head_width": head_width,
            "head_dilation": head_dilation,
            "crop": crop,
        }
        kind = backbones.BACKBONES[backbone]
        self.initial_weights, self.normalisation = weights, kind.normalisation
        self.grid = Grid(kind.stride, crop % kind.stride)
        self.backbone = backbones.create(backbone, weights, "segmentation", freeze)
        if head == "largefov":
            self.head = large_fov(kind.channels, num_outputs, kind.stride, head_width, head_dilation)
        else:
            self.head = ASPP(kind.channels, num_outputs, kind.stride)
        last = [m for m in self.head.modules() if isinstance(m, nn.Conv2d)]
        for layer in last if head == "aspp" else last[-1:]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))
