"""Fast layers are the same functions as PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safn.fast_layers import PhasedConv, PointwiseConv, faster, fold_batch_norm, speed_up


def depthwise() -> torch.nn.Conv2d:
    return torch.nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(depthwise, PhasedConv), (lambda: torch.nn.Conv2d(6, 4, 1), PointwiseConv)],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9)])
def test_what_is_sped_up_is_the_same_convolution(make, kind, size):
    torch.manual_seed(0)
    plain, network = make(), torch.nn.Sequential(make())
    network.load_state_dict({f"0.{name}": tensor for name, tensor in plain.state_dict().items()})
    speed_up(network)
    assert type(network[0]) is kind
    results = []
    for layer in (plain, network):
        images = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(1), requires_grad=True)
        output = layer(images)
        output.square().sum().backward()
        results.append((output, images.grad, *(p.grad for p in layer.parameters())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_left_as_they_are():
    layers = [
        torch.nn.Conv2d(4, 4, 3, padding=1, groups=4),
        torch.nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        torch.nn.Conv2d(4, 4, 1, stride=2),
        torch.nn.Conv2d(4, 4, 1, groups=2),
    ]
    speed_up(torch.nn.Sequential(*layers))
    assert all(type(layer) is torch.nn.Conv2d for layer in layers)


@pytest.mark.parametrize("make", [depthwise, lambda: torch.nn.Conv2d(6, 4, 1, bias=False)])
def test_a_fast_layer_has_the_parameters_of_the_layer_and_draws_no_random_number(make):
    layer = make().eval()
    state = torch.get_rng_state()
    fast = faster(layer)
    assert torch.equal(torch.get_rng_state(), state) and type(fast) is not torch.nn.Conv2d
    assert fast.weight is layer.weight and fast.bias is layer.bias and not fast.training


def test_a_fast_layer_that_is_built_is_drawn_as_the_plain_one():
    built = []
    for make in (lambda: PointwiseConv(6, 4), lambda: nn.Conv2d(6, 4, 1)):
        torch.manual_seed(0)
        built.append((make(), torch.rand(1)))
    (fast, after), (plain, expected) = built
    assert torch.equal(fast.weight, plain.weight) and torch.equal(fast.bias, plain.bias) and after == expected


class Activated(nn.BatchNorm2d):
    """A batch norm with its activation, as timm has them."""

    act = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(features))


def test_folded_batch_norm_is_the_same_function_with_its_activation():
    torch.manual_seed(0)
    norm = Activated(4)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    network, images = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), norm)).eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = network(images)
        fold_batch_norm(network)
        torch.testing.assert_close(network(images), expected)
    assert [type(layer) for layer in network[0]] == [nn.Conv2d, nn.ReLU]
