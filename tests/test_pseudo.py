from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from safn.pseudo import harmonic_mean, pseudo_ground_truth

quick = settings(max_examples=60, deadline=None, derandomize=True)
SHARES = st.integers(0, 20).map(lambda k: k / 20)
MAPS = arrays(np.float32, (3, 3, 4), elements=SHARES)
SALIENCY = arrays(np.float32, (3, 4), elements=SHARES)
LABELS = arrays(np.int64, 3, elements=st.integers(0, 1))
BETWEEN = st.integers(0, 19).map(lambda k: k / 20 + 0.0213)  # no confidence lies exactly on a threshold


def eq5(m: float, s: float) -> float:
    return 0.0 if m == 0 or s == 0 else 2 / (1 / m + 1 / s)


def algorithm1(maps, saliency, labels, gamma, high, both) -> np.ndarray:
    """Algorithm 1 and the two ignore rules, pixel by pixel."""
    result = np.zeros(saliency.shape, int)
    for place in np.ndindex(*saliency.shape):
        classes = [c for c in range(len(maps)) if labels[c]]
        h = {c: eq5(float(maps[c][place]), float(saliency[place])) for c in classes}
        if classes and max(h.values()) >= gamma:
            result[place] = 1 + max(classes, key=lambda c: maps[c][place])
        if sum(v > both for v in h.values()) >= 2 or (result[place] == 0 and saliency[place] > high):
            result[place] = 255
    return result


def test_eq5_by_hand():
    maps = np.array([[[0.5, 1, 0, 0.2, 1]]])
    saliency = np.array([[0.5, 0.5, 0.7, 0, 1]])
    np.testing.assert_allclose(harmonic_mean(maps, saliency), [[[0.5, 2 / 3, 0, 0, 1]]], rtol=1e-6)


@quick
@given(MAPS, SALIENCY)
def test_eq5_is_the_harmonic_mean_and_0_where_either_is_0(maps, saliency):
    expected = [[[eq5(float(m), float(s)) for m, s in zip(*rows)] for rows in zip(one, saliency)] for one in maps]
    np.testing.assert_allclose(harmonic_mean(maps, saliency), expected, rtol=1e-5)


@quick
@given(MAPS, SALIENCY, LABELS, BETWEEN, BETWEEN, BETWEEN)
def test_pseudo_ground_truth_is_algorithm_1(maps, saliency, labels, gamma, high, both):
    made = pseudo_ground_truth(maps, saliency, labels, gamma, ignore_saliency=high, ignore_confidence=both)
    assert made.dtype == np.uint8
    assert made.tolist() == algorithm1(maps, saliency, labels, gamma, high, both).tolist()


@quick
@given(MAPS, SALIENCY, LABELS, BETWEEN)
def test_only_given_classes_appear_and_a_threshold_of_1_switches_its_rule_off(maps, saliency, labels, gamma):
    made = pseudo_ground_truth(maps, saliency, labels, gamma, ignore_saliency=1, ignore_confidence=1)
    assert set(np.unique(made)) <= {0, *(np.flatnonzero(labels) + 1)}
    assert not made[saliency == 0].any()


@quick
@given(arrays(np.float32, (3, 3, 4), elements=st.one_of(st.floats(0, 1, width=32), st.sampled_from([np.nan, np.inf, -np.inf]))),
       st.one_of(st.none(), SALIENCY), LABELS, SHARES, SHARES, SHARES,
       st.sampled_from(["harmonic", "maps", "saliency"]))  # fmt: skip
def test_every_mask_has_the_size_of_its_maps_and_the_given_ids_or_255(
    maps, saliency, labels, gamma, high, both, combine
):
    thresholds = {"gamma": gamma, "ignore_saliency": high, "ignore_confidence": both}
    made = pseudo_ground_truth(maps, saliency, labels, **thresholds, combine=combine)
    assert made.shape == (3, 4) and made.dtype == np.uint8
    assert set(np.unique(made)) <= {0, 255, *(np.flatnonzero(labels) + 1)}
    if not labels.any():
        assert (made == 255).tolist() == (
            np.zeros((3, 4)) if saliency is None else saliency > np.float32(high)
        ).tolist()


def test_the_order_of_the_rules_by_hand():
    maps = np.array([[[0.9, 0.1, 0.95, 0.95, 0.0, 0.6]], [[0.1, 0.1, 0.99, 0.80, 0.0, 0.7]]])
    saliency = np.array([[0.9, 0.9, 0.95, 0.95, 0.4, 0.1]])
    # class 1; salient but no class: ignored; both classes sure: ignored; one sure: it; nothing; H = 0.175 < 0.2
    made = pseudo_ground_truth(maps, saliency, [1, 1], gamma=0.2, ignore_saliency=0.5, ignore_confidence=0.9)
    assert made.tolist() == [[1, 255, 255, 1, 0, 0]]


@pytest.mark.parametrize("combine", ["harmonic", "maps", "saliency"])
@pytest.mark.parametrize("value", [0.0, np.nan, -np.inf, np.inf])
def test_maps_without_information_never_make_the_image_foreground(combine, value):
    made = pseudo_ground_truth(np.full((2, 3, 3), value), np.full((3, 3), 0.4), [1, 1], combine=combine)
    assert not made.any()


def test_an_image_without_a_label_is_background_and_ignored_where_salient():
    made = pseudo_ground_truth(np.ones((2, 1, 3)), np.array([[0.1, 0.5, 0.6]]), [0, 0])
    assert made.tolist() == [[0, 0, 255]]


def test_controls_use_one_source_for_the_confidence():
    maps, saliency = np.array([[[0.3, 0.1, 0.0, 0.3]]]), np.array([[0.1, 0.3, 0.3, 0.3]])

    def made(combine):
        return pseudo_ground_truth(maps, saliency, [1], gamma=0.25, combine=combine).tolist()[0]

    assert made("maps") == [1, 0, 0, 1] and made("saliency") == [0, 1, 0, 1] and made("harmonic") == [0, 0, 0, 1]


MAP, SALIENT, LABEL = np.full((2, 3, 4), 0.5), np.full((3, 4), 0.5), np.array([1, 0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"maps": MAP[0]}, r"maps is of shape \(3, 4\); wanted: \(N, H, W\)"),
        ({"maps": 2 * MAP + 0.5}, "maps holds values from .* to 1.5; wanted: 0 to 1"),
        ({"maps": MAP - 1}, "maps holds values from -0.5 to .*; wanted: 0 to 1"),
        ({"saliency": 255 * SALIENT}, "saliency holds values from 0 to 127.5; wanted: 0 to 1"),
        ({"saliency": np.full((3, 4), np.nan)}, "saliency holds values from nan to nan; wanted: 0 to 1, no NaN"),
        ({"saliency": SALIENT.T}, r"saliency is of shape \(4, 3\); wanted: \(3, 4\)"),
        ({"labels": [1]}, r"labels is of shape \(1,\); wanted: \(2,\)"),
        ({"labels": [[1, 0]]}, r"labels is of shape \(1, 2\); wanted: \(2,\)"),
        ({"labels": [2, 7]}, r"labels=\[2, 7\]; valid: 0 or 1 for each of the 2 classes"),
        ({"labels": [1, 0.5]}, r"labels=\[1.0, 0.5\]; valid: 0 or 1"),
        ({"gamma": 5}, "gamma=5; valid: a number from 0 to 1"),
        ({"gamma": float("nan")}, "gamma=nan; valid: a number from 0 to 1"),
        ({"gamma": "0.2"}, "gamma='0.2'; valid: a number from 0 to 1"),
        ({"ignore_saliency": -1}, "ignore_saliency=-1; valid: a number from 0 to 1"),
        ({"ignore_confidence": 90}, "ignore_confidence=90; valid: a number from 0 to 1"),
        ({"combine": "mean"}, "combine='mean' is unknown; valid: harmonic, maps, saliency"),
    ],
)
def test_arguments_out_of_range_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        pseudo_ground_truth(**{"maps": MAP, "saliency": SALIENT, "labels": LABEL, **change})


@pytest.mark.parametrize(("maps", "saliency"), [(3 * MAP, SALIENT), (MAP, 255 * SALIENT), (MAP, SALIENT[:2])])
def test_the_harmonic_mean_takes_maps_and_saliency_in_0_to_1_of_one_size(maps, saliency):
    with pytest.raises(ValueError, match="wanted: "):
        harmonic_mean(maps, saliency)
