"""DeepLab-LargeFOV and DeepLab-ASPP (Sec. IV-A)."""

from typing import Any

from torch import Tensor, nn

from safn import backbones
from safn.arguments import require_count, require_one_of, require_shape
from safn.backbones import Grid


class ASPP(nn.Module):
    """Classify by atrous spatial pyramid pooling of DeepLab v2: the sum of four dilated 3x3 classifiers."""

    def __init__(self, channels: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        rates = [rate * 8 // stride for rate in (6, 12, 18, 24)]  # the published rates are those of stride 8
        self.branches = nn.ModuleList(nn.Conv2d(channels, num_outputs, 3, padding=r, dilation=r) for r in rates)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to logits ``(B, K, h, w)``."""
        first, *others = [branch(features) for branch in self.branches]
        return sum(others, first)


def large_fov(
    channels: int,
    num_outputs: int,
    stride: int,
    width: int,
    dilation: int = 12,
) -> nn.Sequential:
    """Build fc6 3x3 with ``dilation`` (at stride 8), fc7 1x1, both with dropout 0.5, and a 1x1 classifier."""
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
    """Segment images with DeepLab: ``(B, 3, H, W)`` -> logits ``(B, K, h, w)`` at the stride of the backbone.

    Args:
        backbone, weights, freeze: see ``SAFN``.
        head: ``largefov`` or ``aspp``.
        num_outputs: K, the classes and background.
        head_width: channels of fc6 and fc7 of LargeFOV.
        head_dilation: of fc6 of LargeFOV at stride 8. The paper's 12 reaches 96 pixels in each direction, which on
            small images is nearly all padding.
        crop: height and width of the training crops in pixels. Zero padding makes the centres of receptive fields
            depend on the input size, so test images are resized to leave its remainder, ``grid``.

    Raises:
        ValueError: an argument is not one of these.

    Example:
        >>> network = DeepLab("efficientnet_lite0", "largefov", num_outputs=21, weights="none", head_width=8)
        >>> network.grid, sum(parameter.numel() for parameter in network.head.parameters())
        (Grid(divisor=16, remainder=1), 23309)
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
        require_one_of("head", head, ("largefov", "aspp"))
        counts = {"num_outputs": num_outputs, "head_width": head_width, "head_dilation": head_dilation, "crop": crop}
        for name, value in counts.items():
            require_count(name, value)
        self.arguments = {"backbone": backbone, "head": head, **counts}
        self.backbone = backbones.create(backbone, weights=weights, purpose="segmentation", freeze=freeze)
        kind = backbones.BACKBONES[backbone]
        self.initial_weights, self.normalisation = weights, kind.normalisation
        self.grid = Grid(kind.stride, crop % kind.stride)
        self.head: Any
        if head == "aspp":
            self.head = ASPP(kind.channels, num_outputs, kind.stride)
        else:
            self.head = large_fov(kind.channels, num_outputs, kind.stride, head_width, head_dilation)
        for classifier in self.head.branches if head == "aspp" else self.head[-1:]:
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, 3, H, W)`` to logits ``(B, K, h, w)``."""
        require_shape("images", images.shape, ("B", 3, "H", "W"))
        return self.head(self.backbone(images))
