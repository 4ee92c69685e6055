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


def test_grad_cam_worked_out_by_hand():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.AvgPool2d(2)

        def forward(self, images):
            first, second, _ = self.layer(images)[0]
            return (first.square().sum() / 2 - second.sum()).view(1, 1)

    pooled = torch.tensor([[[0, 1], [2, 3]], [[4, 0], [0, 0]], [[0, 0], [0, 0]]]).float()
    images = pooled.repeat_interleave(2, 1).repeat_interleave(2, 2)[None]
    network = Network()
    maps = grad_cam(network, network.layer, images, torch.ones(1, 1))
    # gradients: the first feature map itself, mean 1.5; -1 for the second; 0 for the third
    # weighted sum: [[-4, 1.5], [3, 4.5]]; after ReLU and the division by 4.5: [[0, 1/3], [2/3, 1]], a plane
    place = torch.tensor([0, 0.25, 0.75, 1])
    np.testing.assert_allclose(maps[0, 0], place / 3 + 2 * place[:, None] / 3, atol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
def test_grad_cam_weighs_by_the_derivative_of_the_score(in_place):
    torch.manual_seed(0)
    layer, after = torch.nn.Conv2d(3, 4, 3), [torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 2)]
    network = torch.nn.Sequential(layer, torch.nn.SiLU(inplace=in_place), torch.nn.Tanh(), *after).double()
    images = torch.randn(1, 3, 8, 8, dtype=torch.double)
    found = grad_cam(network, layer, images, torch.ones(1, 2))
    assert not images.requires_grad and all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        activations, step = layer(images), 1e-4 * torch.eye(4, dtype=torch.double).view(4, 4, 1, 1)
        # the mean of the gradient over the pixels, but for their number, which the division by the maximum takes out
        weights = network[1:](activations + step) - network[1:](activations - step)
        for c in range(2):
            cam = torch.einsum("k,khw->hw", weights[:, c], activations[0]).relu()
            cam = (cam - cam.min()) / (cam - cam.min()).max()
            large = torch.nn.functional.interpolate(cam[None, None], (8, 8), mode="bilinear")[0, 0]
            large = (large - large.min()) / (large - large.min()).max()
            np.testing.assert_allclose(found[0, c], large, atol=1e-4)


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
