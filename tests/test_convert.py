from __future__ import annotations

import json

import pytest
import tiny
import torch

import safn
from benchmarks.convert import convert
from safn import backbones
from safn.files import save_tensors


@pytest.mark.parametrize("kind", ["classifier", "segmentation"])
def test_a_folder_of_an_earlier_version_becomes_a_trained_network(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
    parameters = {"backbone": "tiny", "weights": "imagenet", "resize": [24, 64], "crop": 33}
    if kind == "classifier":
        network = safn.SAFN("tiny", 3, (1, 0.5), "max", weights="none")
        parameters |= {"scales": [1, 0.5], "aggregation": "max"}
    else:
        network = safn.DeepLab("tiny", "largefov", 4, weights="none", head_width=8, head_dilation=4, crop=33)
        parameters |= {"head": "largefov", "head_width": 8, "head_dilation": 4}
    save_tensors(network.state_dict(), tmp_path / "model.ckpt")
    (tmp_path / "record.json").write_text(json.dumps({"parameters": parameters}))
    convert(tmp_path, tmp_path / "new", ["cat", "dog", "car"])
    images, loaded = torch.rand(1, 3, 64, 64), safn.load(tmp_path / "new")
    assert torch.equal(loaded(images), network.eval()(images))
    assert (loaded.initial_weights, loaded.description["longest_side"]) == ("imagenet", 64)
