"""Layers that compute what PyTorch's do, faster on a processor; the book's page on speed measures them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class PhasedConv(nn.Conv2d):
    """Convolve ``(B, C, h, w)`` depthwise with dilation d, as without dilation on the d x d subgrids; size stays."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, bias: bool = True, device: str | None = None):
        padding = dilation * (kernel_size // 2)
        super().__init__(channels, channels, kernel_size, 1, padding, dilation, channels, bias, device=device)

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

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True, device: str | None = None):
        super().__init__(in_channels, out_channels, 1, bias=bias, device=device)

    def forward(self, features: Tensor) -> Tensor:
        one_thread = features.device.type == "cpu" and torch.get_num_threads() == 1
        dilation = 2 if one_thread and len(features) > 1 else 1  # for one image, oneDNN is the slower one
        return F.conv2d(features, self.weight, self.bias, dilation=dilation)


def speed_up(module: nn.Module) -> None:
    """Replace convolutions below ``module`` by the layers of this file, in place; names and parameters stay."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d:
                setattr(parent, name, faster(layer))


def faster(layer: nn.Conv2d) -> nn.Conv2d:
    """Build the layer of this file that computes what ``layer`` does; where there is none, return ``layer``."""
    kernel, dilation, bias = layer.kernel_size[0], layer.dilation[0], layer.bias is not None
    depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
    same_size = layer.stride == (1, 1) and layer.padding == (dilation * (kernel // 2),) * 2
    fast: nn.Conv2d
    # on no device, so that no random number is drawn: what is built later starts as if this were not here
    if depthwise and same_size and dilation > 1:
        fast = PhasedConv(layer.in_channels, kernel, dilation, bias, device="meta")
    elif layer.groups == 1 and same_size and layer.kernel_size == (1, 1):
        fast = PointwiseConv(layer.in_channels, layer.out_channels, bias, device="meta")
    else:
        return layer
    fast.weight, fast.bias = layer.weight, layer.bias
    return fast.train(layer.training)


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
