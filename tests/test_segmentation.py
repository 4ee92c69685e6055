from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from safn import backbones
from safn.segmentation import ASPP, DeepLab, large_fov


@pytest.fixture
def strides(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny8", tiny.backbone(stride=8))
    monkeypatch.setitem(backbones.BACKBONES, "tiny16", tiny.backbone(stride=16))


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_largefov_on_vgg16_is_the_published_network():
    with torch.device("meta"):
        network = DeepLab("vgg16", "largefov", 21, weights="none")
        assert network(torch.zeros(1, 3, 321, 321)).shape == (1, 21, 41, 41)
    fc6, fc7, fc8 = convs(network.head)
    assert (fc6.kernel_size, fc6.dilation, fc6.out_channels) == ((3, 3), (12, 12), 1024)
    assert (fc7.kernel_size, fc7.out_channels, fc8.kernel_size, fc8.out_channels) == ((1, 1), 1024, (1, 1), 21)
    assert [type(m).__name__ for m in network.head] == ["Conv2d", "ReLU", "Dropout"] * 2 + ["Conv2d"]
    assert [m.p for m in network.head if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    # 13 convolutions of VGG16, fc6, fc7, classifier
    assert sum(p.numel() for p in network.parameters()) == 14_714_688 + 4_719_616 + 1_049_600 + 21_525


@pytest.mark.parametrize(("stride", "rate"), [(8, 12), (16, 6)])
def test_largefov_sees_96_pixels_away(stride, rate):
    head = large_fov(1, 1, stride, 1).eval()
    for layer in convs(head):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    image = torch.zeros(1, 1, 31, 31)
    image[0, 0, 15, 15] = 1
    rows, columns = np.nonzero(head(image).detach()[0, 0].numpy())
    reach = [15 - rate, 15, 15 + rate]
    assert sorted({*rows.tolist()}) == reach == sorted({*columns.tolist()}) and len(rows) == 9
    assert rate * stride == 96


@pytest.mark.parametrize(("stride", "rates"), [(8, [6, 12, 18, 24]), (16, [3, 6, 9, 12])])
def test_aspp_is_the_sum_of_four_dilated_classifiers(stride, rates):
    torch.manual_seed(0)
    head = ASPP(2, 3, stride)
    assert [(b.dilation, b.padding) for b in head.branches] == [((r, r), (r, r)) for r in rates]
    x = np.random.default_rng(0).standard_normal((2, 30, 30)).astype(np.float32)
    expected = np.zeros((3, 30, 30))
    for branch, r in zip(head.branches, rates):
        padded, weight = np.pad(x, ((0, 0), (r, r), (r, r))), branch.weight.detach().numpy()
        for i in range(3):
            for j in range(3):
                window = padded[:, i * r : i * r + 30, j * r : j * r + 30]
                expected += np.einsum("oc,chw->ohw", weight[:, :, i, j], window)
        expected += branch.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(head(torch.from_numpy(x)[None])[0].detach().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("backbone", "stride"), [("tiny8", 8), ("tiny16", 16)])
@pytest.mark.parametrize("head", ["largefov", "aspp"])
def test_logits_have_the_stride_of_the_backbone(strides, backbone, stride, head):
    network = DeepLab(backbone, head, 4, head_width=8)
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 4, 64 // stride, 96 // stride)
    fov = {c.dilation[0] * stride for c in convs(network.head) if c.kernel_size == (3, 3)}
    assert fov == ({96} if head == "largefov" else {48, 96, 144, 192})


@pytest.mark.parametrize(("dilation", "stride", "found"), [(4, 8, 4), (4, 16, 2), (1, 16, 1)])
def test_the_field_of_view_of_small_images_is_a_setting(strides, dilation, stride, found):
    head = DeepLab(f"tiny{stride}", "largefov", 4, head_width=8, head_dilation=dilation).head
    assert [c.dilation[0] for c in convs(head) if c.kernel_size == (3, 3)] == [found]


@pytest.mark.parametrize("head", ["largefov", "aspp"])
def test_classifiers_start_small_and_without_bias(strides, head):
    torch.manual_seed(0)
    network = DeepLab("tiny8", head, 21, head_width=256)
    last = convs(network.head)[-1:] if head == "largefov" else convs(network.head)
    assert len(last) == (1 if head == "largefov" else 4)
    for layer in last:
        assert abs(layer.weight.std().item() - 0.01) < 1e-3 and not layer.bias.any()


def test_dropout_only_while_training(strides):
    torch.manual_seed(0)
    network, images = DeepLab("tiny8", "largefov", 4, head_width=64), torch.rand(1, 3, 32, 32)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_freeze_reaches_the_backbone(strides):
    network = DeepLab("tiny8", "largefov", 4, head_width=8, freeze=1)
    assert not any(p.requires_grad for p in network.backbone.parameters())
    assert all(p.requires_grad for p in network.head.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "vgg"},
        {"head": "asp"},
        {"head": "LargeFOV"},
        {"num_outputs": 0},
        {"weights": "none "},
        {"head_width": 0},
        {"head_dilation": 1.5},
        {"crop": -321},
        {"freeze": 9},
    ],
)
def test_other_arguments_are_refused_with_the_valid_ones(strides, change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"^{name}={value!r}.*valid: "):
        DeepLab(**{"backbone": "tiny8", "head": "largefov", "num_outputs": 4, "head_width": 8, **change})


def test_images_of_another_shape_are_refused(strides):
    with pytest.raises(ValueError, match=r"images is of shape \(64, 64, 3\); wanted: \(B, 3, H, W\)"):
        DeepLab("tiny8", num_outputs=4, head_width=8)(torch.zeros(64, 64, 3))
