"""The networks of the package lose at most 0.2 points by their 8 bits, and their model card says what was measured."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tiny
import torch

import safn
from benchmarks import shipped
from safn import backbones, trained
from safn.data import VOCFolder
from safn.images import save_mask
from safn_book.photographs import Steps

CARD = (trained.SHIPPED / "README.md").read_text(encoding="utf-8")
EIGHT, FLOAT = json.loads(shipped.RESULTS.read_text())["rows"]
NUMBERS = {name for name in EIGHT if name.startswith("val_")}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


def test_8_bits_cost_at_most_a_fifth_of_a_point():
    assert (EIGHT["bits"], FLOAT["bits"]) == (8, 32) and {"val_mAP", "val_miou_single"} <= NUMBERS
    assert all(EIGHT[name] > FLOAT[name] - 0.002 for name in NUMBERS)


def test_the_card_has_the_numbers_and_the_sizes():
    words = {
        "val_mAP": "mAP",
        "val_miou_single": "single scale",
        "val_miou_multi": "multi-scale",
        "val_miou_crf": "CRF",
    }
    for name in NUMBERS:
        (row,) = re.findall(rf"^\| \w+: .*{re.escape(words[name])}(?: \(%\))? \| ([\d.]+) \| ([\d.]+) \|$", CARD, re.M)
        assert row == (f"{100 * EIGHT[name]:.1f}", f"{100 * FLOAT[name]:.1f}")
    for name, size in re.findall(r"^\| `([\w-]+)` \|.*\| ([\d.]+) MB \|$", CARD, re.M):
        assert size == f"{(trained.SHIPPED / name / 'network.safetensors').stat().st_size / 1e6:.1f}"
    assert shipped.__doc__ and "benchmarks.shipped" in CARD


def test_the_card_has_the_weakest_classes_and_the_hedgehog():
    iou = {name: value for name, value in EIGHT["iou_single"].items() if name != "background"}
    weakest = sorted(iou, key=lambda name: iou[name])[:3]
    first, second, third = (f"*{name}* ({100 * iou[name]:.0f} %)" for name in weakest)
    assert f"{first}, {second} and {third}" in " ".join(CARD.split())
    hedgehog = Steps(safn.free_photographs()["hedgehog"].path)
    sheep = hedgehog.scores[hedgehog.classes.index("sheep")]
    assert f"*sheep*, with {100 * sheep:.1f} %" in " ".join(CARD.split())


def test_masks_are_scored_class_by_class(tiny_voc, tmp_path):
    folder, network = VOCFolder(tiny_voc), safn.DeepLab("tiny", "aspp", 4, weights="none")
    ids, masks = folder.ids("val"), tmp_path / "single"
    masks.mkdir()
    for image_id in ids:
        save_mask(masks / f"{image_id}.png", np.where(folder.mask(image_id) == 255, 0, folder.mask(image_id)))
    np.testing.assert_array_equal(shipped.val_iou(network, folder, ids, tmp_path)["single"], 1)  # masks are kept
    save_mask(masks / f"{ids[0]}.png", np.zeros((32, 40), np.uint8))
    label = int(folder.label(ids[0]).argmax()) + 1
    missed = int((folder.mask(ids[0]) == label).sum())
    all_pixels = sum(int((folder.mask(image_id) == label).sum()) for image_id in ids)
    iou = shipped.val_iou(network, folder, ids, tmp_path)["single"]
    assert iou[label] == pytest.approx(1 - missed / all_pixels)


def test_a_classifier_that_knows_every_label_has_a_map_of_1(tiny_voc, monkeypatch):
    folder = VOCFolder(tiny_voc)
    network, ids = safn.SAFN("tiny", 3, (1, 0.5), weights="none"), folder.ids("val")
    answers = iter([torch.from_numpy(folder.label(image_id))[None] for image_id in ids])
    monkeypatch.setattr(network, "forward", lambda image: next(answers))
    assert shipped.val_map(network, folder, ids) == 1
