"""The plain classifier and Grad-CAM."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from safn import backbones
from safn.baseline import PlainClassifier, grad_cam


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


def test_plain_classifier_is_a_linear_classifier_of_averaged_features():
    torch.manual_seed(0)
    network, images = PlainClassifier("tiny", 3), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        pooled = network.backbone(images).numpy().mean((2, 3))
        expected = pooled @ network.head.weight.numpy()[:, :, 0, 0].T + network.head.bias.numpy()
        np.testing.assert_allclose(network(images).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_of_a_linear_network_is_its_class_activation_map():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 1)
    head = torch.nn.Linear(4, 2)
    network = torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    images = torch.randn(1, 3, 6, 6)
    maps = grad_cam(network, layer, images, torch.tensor([[0, 1]]))
    assert maps.shape == (1, 2, 6, 6) and not maps[0, 0].any()
    cam = torch.einsum("c,chw->hw", head.weight[1], layer(images)[0]).relu().detach()
    np.testing.assert_allclose(maps[0, 1], (cam - cam.min()) / (cam.max() - cam.min()), atol=1e-4)


@pytest.mark.parametrize("images, labels", [((2, 3, 6, 6), (2, 2)), ((3, 6, 6), (1, 2)), ((1, 3, 6, 6), (2,))])
def test_grad_cam_takes_one_image_with_its_row_of_labels(images, labels):
    network = PlainClassifier("tiny", 2)
    with pytest.raises(ValueError, match="is of shape .* wanted: "):
        grad_cam(network, network.backbone, torch.zeros(images), torch.ones(labels))


@pytest.mark.parametrize("change", [{"num_classes": 0}, {"weights": "imagnet"}, {"backbone": "VGG16"}])
def test_other_arguments_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*valid: "):
        PlainClassifier(**{"backbone": "tiny", "num_classes": 2, **change})


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"images is of shape \(3, 32, 32\); wanted: \(B, 3, H, W\)"):
        PlainClassifier("tiny", 2)(torch.zeros(3, 32, 32))
