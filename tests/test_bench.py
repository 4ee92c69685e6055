"""The measurement of speed: its ratios and goals, and that what is fast computes the same as what is plain."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from benchmarks import cases, growth
from safn import backbones, dense_crf


def test_the_ratio_is_the_other_s_time_to_ours_and_the_warm_up_does_not_count(monkeypatch):
    taken = itertools.chain([9, 9], [1, 2], [2, 8], [1, 3])  # ours, other; the first pair is the warm-up
    monkeypatch.setattr(cases, "seconds", lambda call: next(taken))
    found = cases.measure((None, None), 3)
    assert found == {"ours ms": 1000, "other ms": 3000, "value": 3, "quartile 1": 2.5, "quartile 3": 3.5}


@pytest.mark.parametrize(
    ("value", "most", "reached"), [(1.5, False, True), (1.4, False, False), (1.5, True, True), (1.6, True, False)]
)
def test_a_goal_is_a_least_or_a_largest_value(value, most, reached):
    assert cases.row("a", "b", 1.5, {"value": value}, most)["reached"] is reached


def test_the_exponent_of_a_power_is_found():
    sizes = [1, 2, 4, 8]
    assert growth.exponent(sizes, [0.3 * n**1.5 for n in sizes]) == pytest.approx(1.5)


def test_the_plain_network_has_the_same_weights_and_no_phases():
    ours, plain = cases.safn("efficientnet_lite0").eval(), cases.safn("efficientnet_lite0", plain=True).eval()
    assert any(isinstance(m, backbones.PhasedConv) for m in ours.modules())
    assert not any(isinstance(m, backbones.PhasedConv) for m in plain.modules())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), plain(images), rtol=1e-4, atol=1e-5)


def test_training_in_bf16_follows_the_losses_of_float32():
    torch.manual_seed(0)
    network = cases.safn("efficientnet_lite0")
    scores = {}
    for bf16 in (False, True):
        trained, given = copy.deepcopy(network), []
        call = cases.step(trained, 2, 64, channels_last=True, bf16=bf16)
        handle = trained.register_forward_hook(lambda _, __, scores, kept=given: kept.append(scores.float().detach()))
        for _ in range(4):
            call()
        handle.remove()
        scores[bf16] = torch.stack(given)
    assert scores[True].isfinite().all()
    torch.testing.assert_close(scores[True], scores[False], rtol=0.05, atol=0.02)


def test_the_crf_of_the_classes_that_can_win_equals_that_of_all():
    pytest.importorskip("pydensecrf.densecrf")
    image, scores = cases.photo()[:60, :80].copy(), cases.probabilities(60, 80)
    few, all_classes = (dense_crf(image, scores, floor).argmax(0) for floor in (1e-4, 0))
    assert (few == all_classes).mean() >= 0.999 and set(np.unique(few)) <= {0, 1, 2}


def test_maps_of_a_batch_are_those_of_its_images():
    network = cases.safn("efficientnet_lite0").eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together = network.features(images)
        alone = torch.cat([network.features(image) for image in images.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
