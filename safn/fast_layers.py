"""Layers that compute what PyTorch's do, faster on a processor; the book's page on speed measures them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class PhasedConv(nn.Conv2d):
    """Convolve ``(B, C, h, w)`` depthwise with dilation d, as without dilation on the d x d subgrids; size stays."""

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        d = self.dilation[0]
        rows, columns = -(-height // d), -(-width // d)
        padded = F.pad(features, (0, columns * d - width, 0, rows * d - height)).permute(0, 2, 3, 1)
        # (batch, row, row phase, column, column phase, channel) -> one image a phase
        phases = padded.reshape(batch, rows, d, columns, d, channels).permute(0, 2, 4, 1, 3, 5)
        phases = phases.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)  # channels last all the way
        phases = F.conv2d(phases, self.weight, self.bias, padding=self.kernel_size[0] // 2, groups=self.groups)
        merged = phases.permute(0, 2, 3, 1).reshape(batch, d, d, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        merged = merged.reshape(batch, rows * d, columns * d, channels)
        return merged.permute(0, 3, 1, 2)[..., :height, :width]


class PointwiseConv(nn.Conv2d):
    """Convolve ``(B, C, h, w)`` with a 1x1 kernel by oneDNN also where one thread computes a batch.

    There PyTorch takes a slower kernel of its own, unless the layer is dilated, which changes nothing in a 1x1 kernel.
    """

    def forward(self, features: Tensor) -> Tensor:
        one_thread = features.device.type == "cpu" and torch.get_num_threads() == 1
        dilation = 2 if one_thread and len(features) > 1 else 1  # for one image, oneDNN is the slower one
        return F.conv2d(features, self.weight, self.bias, dilation=dilation)


def speed_up(module: nn.Module) -> None:
    """Let convolutions of ``module`` compute as the layers of this file, in place; names and parameters stay."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = faster(layer)  # the parameters are the same, only forward is another


def faster(layer: nn.Conv2d) -> type[nn.Conv2d]:
    """Name the class of this file that computes what ``layer`` does; where there is none, ``nn.Conv2d``."""
    kernel, dilation = layer.kernel_size[0], layer.dilation[0]
    depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
    same_size = layer.stride == (1, 1) and layer.padding == (dilation * (kernel // 2),) * 2
    if depthwise and same_size and dilation > 1:
        return PhasedConv
    if layer.groups == 1 and same_size and layer.kernel_size == (1, 1):
        return PointwiseConv
    return nn.Conv2d


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm of a network of timm, in evaluation mode, into the convolution just before it, in place.

    timm's batch norms carry their activation, which stays in their place.
    """
    for parent in list(module.modules()):
        children = list(parent.named_children())
        for (name, conv), (norm_name, norm) in zip(children, children[1:]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, norm.act)
