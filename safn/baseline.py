"""The baseline of Fig. 6 (b): Grad-CAM of a classifier that is not scale-aware."""

import torch
from torch import Tensor, nn

from safn import backbones
from safn.arguments import require_count, require_shape


class PlainClassifier(nn.Module):
    """Classify with the network as published for ImageNet and a new last layer; arguments as of ``SAFN``."""

    def __init__(self, backbone: str, num_classes: int, *, weights: str = "imagenet", freeze: int = 0) -> None:
        super().__init__()
        require_count("num_classes", num_classes)
        self.arguments = {"backbone": backbone, "num_classes": num_classes}
        self.backbone = backbones.create(backbone, weights=weights, purpose="plain", freeze=freeze)
        kind = backbones.BACKBONES[backbone]
        self.initial_weights, self.normalisation = weights, kind.normalisation
        self.head = nn.Conv2d(kind.channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes of ``(B, 3, H, W)``, ``(B, N)``."""
        require_shape("images", images.shape, ("B", 3, "H", "W"))
        return self.head(self.backbone(images)).mean((2, 3))


def grad_cam(network: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the Grad-CAM maps of a ``layer`` for one image ``(1, 3, H, W)`` with labels ``(1, N)``.

    They are float32 ``(1, N, H, W)`` in 0..1, zero for absent classes.
    """
    require_shape("images", images.shape, (1, 3, "H", "W"))
    require_shape("labels", labels.shape, (1, "N"))
    from pytorch_grad_cam import GradCAM  # it imports matplotlib
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    maps = torch.zeros(*labels.shape, *images.shape[-2:])
    with GradCAM(network, [layer]) as explain:
        for c in torch.nonzero(labels[0]).flatten().tolist():
            found = explain(images.requires_grad_(), [ClassifierOutputTarget(c)])
            maps[0, c] = torch.from_numpy(found[0])
    return maps.nan_to_num(0)
