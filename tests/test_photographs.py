"""The steps of the method on a photograph agree with the functions of the package that they show."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

import safn
from safn.data import VOC_CLASSES
from safn.images import load_image
from safn.loading import resize_long
from safn_book import photographs
from safn_book.photographs import STEPS, Steps, columns, free_steps

ROOT = Path(__file__).resolve().parent.parent
COW = VOC_CLASSES.index("cow")


@pytest.fixture(scope="module")
def steps() -> Steps:
    """A cow, its saliency set by hand: 1 in the middle third, else 0."""
    one = safn.free_photographs()["cow"]
    steps = Steps(one.path, one.labels, one.mask, refine=False)
    steps.saliency = np.zeros((375, 500), np.float32)
    steps.saliency[125:250, 167:333] = 1
    return steps


def test_the_settings_are_those_of_the_profile_that_trained_the_networks():
    stages = yaml.safe_load((ROOT / "profiles" / "voc-subset.yaml").read_text())["stages"]
    assert stages["01_saliency"]["views"] == photographs.VIEWS
    assert stages["03_train_safn"]["size"] == stages["04_localization_maps"]["size"] == photographs.MAP_SIZE
    defaults = {name: value.default for name, value in inspect.signature(safn.pseudo_ground_truth).parameters.items()}
    rules = {name: defaults[name] for name in photographs.RULES}
    assert rules | stages["05_pseudo_ground_truth"] == photographs.RULES


def test_the_classifier_is_that_of_the_package(steps):
    network = safn.load("voc-safn")
    image = network.normalisation(resize_long(load_image(safn.free_photographs()["cow"].path), 288))[None]
    with torch.no_grad():
        scores, maps = network(image), network.maps(image, torch.from_numpy(steps.labels)[None])
    np.testing.assert_allclose(steps.scores, scores[0].sigmoid(), atol=1e-6)
    np.testing.assert_allclose(steps.maps, maps[0], atol=1e-5)
    np.testing.assert_allclose(steps.scale_weights, network.scale_weights[0], atol=1e-6)
    np.testing.assert_allclose(steps.scale_weights.sum(0), 1, atol=1e-6)
    assert steps.labels.nonzero()[0].tolist() == [COW] and steps.scores[COW] > 0.9


def test_the_maps_of_each_scale_reach_from_0_to_1(steps):
    assert steps.scale_maps.shape == (3, 20, *steps.maps.shape[1:])
    assert steps.scale_maps[:, COW].max((1, 2)).tolist() == [1, 1, 1]
    assert not np.delete(steps.scale_maps, COW, 1).any()


def test_the_pseudo_labels_follow_from_maps_and_saliency(steps):
    maps = F.interpolate(torch.from_numpy(steps.maps)[None], (375, 500), mode="bilinear")[0, COW].numpy()
    inside = steps.saliency > 0
    harmonic = 2 * maps / (maps + 1)  # Eq. 5 where S is 1
    np.testing.assert_array_equal(steps.pseudo_label[inside], np.where(harmonic >= 0.2, COW + 1, 255)[inside])
    assert not steps.pseudo_label[~inside].any()


def test_the_segmentation_is_that_of_the_command(steps):
    mask = safn.segment(safn.load("voc"), safn.free_photographs()["cow"].path)
    np.testing.assert_array_equal(steps.segmentation, mask)
    truth = steps.ground_truth
    both, either = (truth == COW + 1) & (mask == COW + 1), (truth == COW + 1) | (mask == COW + 1)
    assert steps.iou(mask) == pytest.approx(both.sum() / (either & (truth != 255)).sum())
    assert steps.iou(mask) > 0.7  # cows that it never saw
    assert steps.shares() == {"cow": pytest.approx(np.mean(mask == COW + 1))}


def test_shares_begin_with_the_largest():
    steps = Steps(safn.free_photographs()["cow"].path)
    steps.segmentation = np.array([[0, 1, 1, 20], [0, 20, 20, 3]], np.uint8)
    assert steps.shares() == {"tvmonitor": 3 / 8, "aeroplane": 2 / 8, "bird": 1 / 8}
    assert list(steps.shares()) == ["tvmonitor", "aeroplane", "bird"]


def test_labels_that_are_not_given_are_predicted():
    hedgehog = Steps(safn.free_photographs()["hedgehog"].path)
    assert hedgehog.labels.nonzero()[0].tolist() == (hedgehog.scores > 0.5).nonzero()[0].tolist()
    assert hedgehog.ground_truth is None


def test_what_is_unknown_is_said_with_what_is_valid(steps):
    with pytest.raises(ValueError, match=r"labels=\['unicorn'\] are unknown; valid: aeroplane, bicycle"):
        Steps(safn.free_photographs()["cow"].path, ["cow", "unicorn"])
    with pytest.raises(ValueError, match=r"names=\['lunch', 'tea'\] are unknown; valid: photograph, scale maps"):
        steps.row(["lunch", "map", "tea"])


def test_a_row_shows_every_step(steps):
    assert list(steps.row(STEPS)) == [
        *("photograph", "map of scale 1", "map of scale 0.75", "map of scale 0.5", "fused map", "saliency map"),
        *("weight of scale 1", "weight of scale 0.75", "weight of scale 0.5"),
        *("pseudo labels", "segmentation", "ground truth"),
    ]


def test_columns_name_the_class_of_maps_and_otherwise_the_photograph():
    horses = free_steps("horses")[0]
    for shown, name in ((["photograph"], "horses"), (["photograph", "map"], "horse")):
        figure = columns(shown, horses)
        assert [text.get_text() for axis in figure.axes for text in axis.texts] == [name]


def test_columns_show_the_same_steps_of_several_photographs(steps, monkeypatch):
    chair = free_steps("chair")[0]
    monkeypatch.setattr(photographs, "detector", lambda: pytest.fail("nobody asked for the saliency"))
    figure = columns(["photograph", "scale maps", "ground truth"], steps, chair)
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["cow", "chair"]
    assert len([axis for axis in figure.axes if axis.images]) == 2 * 5
