"""Weights in 8 bits."""

from __future__ import annotations

import pytest
import tiny
import torch

import safn
from benchmarks.pack_weights import pack, to_8_bits
from safn import backbones, trained

CLASSES = ["cat", "dog", "car"]


def test_a_step_of_each_output_makes_its_largest_weight_127():
    packed = to_8_bits({"w": torch.tensor([[2.54, 0.03, -1.0], [0.0, 0.0, 0.0]]), "bias": torch.tensor([0.3])})
    assert packed["w"].dtype == torch.int8 and packed["w"].tolist() == [[127, 2, -50], [0, 0, 0]]  # 1.5 and 50 steps
    torch.testing.assert_close(packed["w.scale"], torch.tensor([0.02, 1.0]))
    assert packed["bias"].tolist() == torch.tensor([0.3]).tolist()  # of one dimension: as it was


def test_weights_on_the_grid_come_back_exactly_and_others_within_half_a_step():
    grid = torch.tensor([[127.0, -127.0, 3.0, 0.0]]) / 64  # a step of 1/64, exact in floats
    assert torch.equal(trained.to_floats(to_8_bits({"w": grid}))["w"], grid)
    torch.manual_seed(0)
    weights = torch.randn(5, 4, 3, 3) * torch.tensor([1e-3, 1.0, 10.0, 1e3, 1e-6]).view(5, 1, 1, 1)
    back = trained.to_floats(to_8_bits({"w": weights}))["w"]
    half_steps = weights.abs().amax((1, 2, 3)) / 127 / 2
    errors = (back - weights).abs().amax((1, 2, 3))
    assert (errors <= half_steps * 1.001).all() and (errors > half_steps / 2).all()


@pytest.mark.parametrize("kind", ["classifier", "segmentation"])
def test_a_network_of_8_bits_is_loaded_as_floats(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
    torch.manual_seed(0)
    networks = {
        "classifier": safn.SAFN("tiny", 3, weights="none", attention_start="random"),
        "segmentation": safn.DeepLab("tiny", "largefov", 4, weights="none", head_width=8),
    }
    network, images = networks[kind].eval(), torch.rand(1, 3, 64, 64)
    safn.save(network, tmp_path / "32", CLASSES)
    safn.save(network, tmp_path / "8", CLASSES)
    pack(tmp_path / "8")
    loaded = safn.load(tmp_path / "8")
    assert loaded.description["weights"]["bits"] == 8
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert loaded.state_dict().keys() == network.state_dict().keys()
    difference = (loaded(images) - network(images)).abs().max()
    assert 0 < difference < 0.02 * network(images).abs().max()
    sizes = [(tmp_path / bits / "network.safetensors").stat().st_size for bits in ("32", "8")]
    assert sizes[1] < sizes[0] / 2
