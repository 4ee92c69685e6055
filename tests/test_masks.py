from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import safn
from safn import backbones
from safn.files import DataError
from safn.images import load_mask
from safn.masks import predict_folder
from safn.segmentation import DeepLab


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
    torch.manual_seed(0)
    safn.save(DeepLab("tiny", "aspp", 4, crop=33), tmp_path / "network", ["cat", "dog", "car"], 64)
    return tmp_path / "network"


def test_a_photograph_gets_the_mask_that_the_command_writes(folder, photos, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.open(photos["a"]).resize((150, 100)).save(images / "a.png")  # larger than those of the training
    made = predict_folder(folder, images, tmp_path / "out", accelerator="cpu")
    mask = safn.segment(safn.load(folder), images / "a.png")
    assert mask.shape == (100, 150) and mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, load_mask(made / "a.png"))


def test_what_is_no_loaded_deeplab_is_an_error(folder, photos, tmp_path):
    safn.save(safn.SAFN("tiny", 3, (1,)), tmp_path / "classifier", ["cat", "dog", "car"])
    for network in "voc", safn.load(tmp_path / "classifier"), DeepLab("tiny", "aspp", 4):
        with pytest.raises(ValueError, match=r"^network is a .*; valid: a DeepLab of load"):
            safn.segment(network, photos["a"])


def test_what_is_no_photograph_is_an_error(folder, tmp_path):
    (tmp_path / "a.jpg").write_text("no photograph")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        safn.segment(safn.load(folder), tmp_path / "a.jpg")
