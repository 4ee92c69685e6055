"""The baseline of Fig. 6 (b): Grad-CAM of a classifier that is not scale-aware."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    """Compute the Grad-CAM maps of a ``layer`` (Selvaraju et al. 2017), float32 ``(1, N, H, W)`` in 0..1.

    The ``network`` is in evaluation mode. There is one image, ``(1, 3, H, W)``, on the same device, with labels ``(1, N)``.
    Maps of absent classes are 0.
    """
    require_shape("images", images.shape, (1, 3, "H", "W"))
    require_shape("labels", labels.shape, (1, "N"))
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # which the next layer may change in place

    with layer.register_forward_hook(keep):
        scores = network(images)[0]
    activations = kept[-1]
    maps = torch.zeros(*labels.shape, *images.shape[-2:])
    for c in torch.nonzero(labels[0]).flatten().tolist():
        (gradient,) = torch.autograd.grad(scores[c], activations, retain_graph=True)
        weights = gradient.mean((2, 3), keepdim=True)
        weighted = (weights * activations.detach()).sum(1, keepdim=True).relu()
        large = F.interpolate(_stretched(weighted), images.shape[-2:], mode="bilinear")
        maps[:, c] = _stretched(large)[:, 0]
    return maps.nan_to_num(0)


def _stretched(values: Tensor) -> Tensor:
    """Move the values to 0..1; a constant becomes 0."""
    values = values - values.min()
    return values / (values.max() + 1e-7)
