from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from safn import backbones
from safn.network import SAFN, ScaleAttention, aggregate, classification_loss

SCALES = (1, 0.75, 0.5)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


def build(aggregation: str = "attention", scales=SCALES, start: str = "zero", seed: int = 0) -> SAFN:
    torch.manual_seed(seed)
    return SAFN("tiny", 3, scales, aggregation, attention_start=start)


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Zero-padded convolution of ``(C, h, w)`` at stride 1."""
    k = weight.shape[-1]
    windows = sliding_window_view(np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2)), (k, k), (1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]


def test_parameters_of_the_papers_network():
    with torch.device("meta"):
        network = SAFN("vgg16", 20, SCALES, weights="none")
        assert network.features(torch.zeros(1, 3, 448, 448)).shape == (1, 20, 56, 56)
    attention = sum(p.numel() for p in network.attention.parameters())
    assert attention == (60 * 9 + 1) * 512 + (512 + 1) * 3 == 278_531
    assert sum(p.numel() for p in network.parameters()) - attention == 20_504_404
    head = [(c.out_channels, c.kernel_size, c.dilation) for c in network.head if isinstance(c, nn.Conv2d)]
    assert head == [(1024, (3, 3), (1, 1)), (1024, (1, 1), (1, 1)), (20, (1, 1), (1, 1))]


def test_eq_1_is_a_softmax_over_the_scales_of_two_convolutions():
    torch.manual_seed(0)
    attention = ScaleAttention(3, 2, "random").double()
    attention.conv2.weight.data *= 5  # weights far from a third
    features = np.random.default_rng(0).standard_normal((3, 2, 4, 5))
    p = {n: t.detach().numpy() for n, t in attention.named_parameters()}
    stacked = np.concatenate(list(features))  # all classes of scale 1, then of scale 2, ...
    hidden = np.maximum(convolve(stacked, p["conv1.weight"], p["conv1.bias"]), 0)
    scores = np.exp(convolve(hidden, p["conv2.weight"], p["conv2.bias"]))
    weights = attention(torch.from_numpy(features)[None])[0].detach().numpy()
    np.testing.assert_allclose(weights, scores / scores.sum(0), atol=1e-6)
    assert weights.std() > 0.05 and weights.shape == (3, 4, 5)


def test_eq_2_and_its_two_rivals_by_hand():
    features = torch.tensor([[[1.0, 2], [3, 4]], [[5, 0], [1, 8]]])[None, :, None]  # 1 image, 2 scales, 1 class
    first = torch.tensor([[0.25, 0.5], [1, 0]])
    weights = torch.stack([first, 1 - first])[None]
    assert aggregate(features, weights).tolist() == [[[[4, 1], [3, 8]]]]
    assert aggregate(features, "max").tolist() == [[[[5, 2], [3, 8]]]]
    assert aggregate(features, "avg").tolist() == [[[[3, 1], [2, 6]]]]


def test_a_scale_weight_applies_to_all_classes_alike():
    rng = np.random.default_rng(1)
    features, weights = rng.random((2, 3, 4, 5, 6)), rng.random((2, 3, 5, 6))
    expected = np.einsum("bsnhw,bshw->bnhw", features, weights)
    np.testing.assert_allclose(aggregate(torch.from_numpy(features), torch.from_numpy(weights)), expected)


def test_zero_start_is_the_average_and_learns_away_from_it():
    images = torch.rand(2, 3, 64, 64)
    attention, average, largest = build(), build("avg"), build("max")
    with torch.no_grad():
        torch.testing.assert_close(attention(images), average(images))
        assert (largest(images) > average(images)).all()
        assert not torch.allclose(build(start="random")(images), average(images), atol=1e-6)
    assert attention.scale_weights.shape == (2, 3, 8, 8)
    torch.testing.assert_close(attention.scale_weights, torch.full((2, 3, 8, 8), 1 / 3))
    assert average.scale_weights is None
    classification_loss(attention(images), torch.tensor([[1.0, 0, 0], [0, 1, 1]])).backward()
    assert attention.attention.conv2.weight.grad.abs().max() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_one_seed_gives_the_three_aggregations_one_start(seed):
    first, *others = (build(a, seed=seed) for a in ("attention", "max", "avg"))
    for other in others:
        assert other.attention is None
        for name, tensor in other.state_dict().items():
            assert torch.equal(tensor, first.state_dict()[name]), name
    assert not torch.equal(build("max", seed=seed + 1).head[0].weight, first.head[0].weight)


def test_one_scale_needs_no_attention():
    network, images = build(scales=(1,)), torch.rand(1, 3, 64, 64)
    assert network.attention is None
    torch.testing.assert_close(network.features(images), network.head(network.backbone(images)))


def test_eq_3_by_numpy():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 3, (4, 20)), rng.integers(0, 2, (4, 20)).astype(float)
    sigma = 1 / (1 + np.exp(-scores))
    expected = -(labels * np.log(sigma) + (1 - labels) * np.log(1 - sigma)).mean()
    loss = classification_loss(torch.from_numpy(scores), torch.from_numpy(labels))
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
    zero = classification_loss(torch.zeros(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0]]))
    assert abs(zero.item() - np.log(2)) < 1e-6


class Table(nn.Module):
    """In the place of a backbone: features looked up by the width of the image."""

    def __init__(self, table: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.table = table

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.table[images.shape[-1]]


def test_features_meet_at_the_size_of_the_largest_scale_by_bilinear_interpolation():
    small, middle, large = np.array([[0.0, 4], [8, 16]]), np.full((3, 3), 7.0), np.arange(16.0).reshape(4, 4)
    network = build(scales=(0.5, 1.5, 1))
    widths = {32: small, 96: large, 64: middle}
    network.backbone = Table({w: torch.tensor(f, dtype=torch.float32)[None, None] for w, f in widths.items()})
    network.head = nn.Identity()
    found = network.scale_features(torch.zeros(1, 3, 64, 64))
    assert found.shape == (1, 3, 1, 4, 4)
    up = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    for k, expected in enumerate((up @ small @ up.T, large, np.full((4, 4), 7.0))):
        np.testing.assert_allclose(found[0, k, 0], expected, atol=1e-5)


def test_forward_is_the_global_average_of_msf():
    network, images = build("max"), torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        msf = network.features(images)
        np.testing.assert_allclose(network(images).numpy(), msf.numpy().mean((2, 3)), rtol=1e-4, atol=1e-7)
    assert msf.shape == (2, 3, 6, 8)


def test_maps_are_zero_for_absent_classes():
    network, images = build("avg"), torch.rand(1, 3, 64, 64)
    network.head[4].bias.data.fill_(1.0)
    maps = network.maps(images, torch.tensor([[1.0, 0, 0]]))
    assert maps[0, 0].max() == 1 and maps[0, 0].min() >= 0 and not maps[0, 1:].any()


@pytest.mark.fault(
    27, "unknown argument of a network, capitals included", "nine of them, such as aggregation=Attention"
)
@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "VGG16"},
        {"num_classes": 0},
        {"num_classes": 2.5},
        {"aggregation": "attenton"},
        {"aggregation": "Attention"},
        {"weights": "imagnet"},
        {"attention_start": "ones"},
        {"freeze": -1},
        {"freeze": 3},  # the network has two stages
    ],
)
def test_other_arguments_are_refused_with_the_valid_ones(change, happened):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"^{name}={value!r}.*valid: ") as error:
        SAFN(**{"backbone": "tiny", "num_classes": 3, **change})
    happened(error.value)


@pytest.mark.parametrize("scales", [(), (1, 0), (1, 1), (1, 1.0), (1, -0.5), (1, float("nan")), (3,), ("1",), 1, "1"])
def test_scales_are_different_numbers_above_0(scales):
    with pytest.raises(ValueError, match="^scales=.*valid: different numbers above 0, at most 2"):
        SAFN("tiny", 3, scales)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 64, 64, 3), (2, 1, 64, 64)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"^images is of shape \(.*\); wanted: \(B, 3, H, W\)"):
        build()(torch.zeros(shape))


@pytest.mark.parametrize("labels", [torch.tensor([0, 2]), torch.ones(1, 4), torch.ones(2, 3)])
def test_labels_are_one_row_an_image(labels):
    with pytest.raises(ValueError, match=r"labels is of shape \(.*\); wanted: \(1, 3\)"):
        build().maps(torch.zeros(1, 3, 64, 64), labels)
    with pytest.raises(ValueError, match=r"labels is of shape \(.*\); wanted: \(1, 3\)"):
        classification_loss(torch.zeros(1, 3), labels)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ("attention", "weights='attention' is unknown; valid: max, avg"),
        (torch.ones(1, 3, 4, 5), r"weights is of shape \(1, 3, 4, 5\); wanted: \(1, 2, 4, 5\)"),
        (torch.ones(1, 2, 1, 4, 5), r"weights is of shape .*; wanted: \(1, 2, 4, 5\)"),
    ],
)
def test_weights_that_do_not_fit_the_features_are_refused(weights, text):
    with pytest.raises(ValueError, match=text):
        aggregate(torch.zeros(1, 2, 3, 4, 5), weights)
