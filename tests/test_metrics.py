from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from safn.metrics import (
    CONVENTIONS,
    SIZES,
    ConfusionMatrix,
    bootstrap,
    class_iou,
    ignored_share,
    interval,
    iou_by_size,
    mean_iou,
    precision_recall,
)

quick = settings(max_examples=60, deadline=None, derandomize=True)
IDS = arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))


def plain_iou(prediction: np.ndarray, target: np.ndarray, n: int, ignored: str) -> list[float]:
    """IoU of each class by counting pixels, one class at a time."""
    prediction, target = prediction.ravel().astype(int), target.ravel().astype(int)
    kept = target != 255
    if ignored == "drop":
        kept &= prediction != 255
    prediction, target = prediction[kept], target[kept]
    if ignored == "background":
        prediction[prediction == 255] = 0
    result = []
    for c in range(n):
        union = ((prediction == c) | (target == c)).sum()
        result.append(((prediction == c) & (target == c)).sum() / union if union else np.nan)
    return result


@quick
@given(IDS, IDS)
def test_iou_is_that_of_counting_pixels_over_the_split_in_all_conventions(predictions, targets):
    matrix = ConfusionMatrix(4)
    counts = [matrix.update(p, t) for p, t in zip(predictions, targets)]
    assert (np.sum(counts, 0) == matrix.matrix).all() and matrix.matrix.dtype == np.int64
    valid = targets != 255
    assert matrix.matrix.sum() == valid.sum()
    share = (predictions[valid] == 255).mean() if valid.any() else np.nan
    np.testing.assert_allclose(ignored_share(matrix.matrix), share)
    for ignored in CONVENTIONS:
        expected = plain_iou(predictions, targets, 4, ignored)
        np.testing.assert_allclose(matrix.iou(ignored), expected)
        if not np.isnan(expected).all():
            assert matrix.miou(ignored) == pytest.approx(np.nanmean(expected))


def test_by_hand():
    # target 0 0 1 1 2 void, predicted 0 1 1 255 2 2
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([0, 1, 1, 255, 2, 2]), np.array([0, 0, 1, 1, 2, 255]))
    assert matrix.iou("drop").tolist()[:3] == [1 / 2, 1 / 2, 1]
    assert matrix.iou("background").tolist()[:3] == [1 / 3, 1 / 3, 1]
    assert matrix.iou("wrong").tolist()[:3] == [1 / 2, 1 / 3, 1] == matrix.iou().tolist()[:3]
    assert np.isnan(matrix.iou()[3]) and matrix.miou("drop") == pytest.approx(2 / 3)
    assert ignored_share(matrix.matrix) == 1 / 5


def test_one_matrix_over_all_pixels_is_not_the_mean_over_images():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([1]), np.array([1]))
    matrix.update(np.zeros(9, int), np.ones(9, int))
    assert matrix.iou().tolist() == [0, 0.1]  # images alone: 1 and 0


@pytest.mark.fault(14, "predicted ids that are no class", "4, 21, 254 and -1 in a prediction over four classes")
@pytest.mark.parametrize("value", [4, 21, 254, -1])
@pytest.mark.parametrize("place", ["prediction", "target"])
def test_ids_out_of_range_are_refused_and_counted_nowhere(value, place, happened):
    matrix, right, wrong = ConfusionMatrix(4), np.array([0, 255, 3]), np.array([0, value, 3])
    with pytest.raises(ValueError, match=rf"{place} holds ids \[{value}\]; valid are 0-3 and 255") as error:
        matrix.update(*((wrong, right) if place == "prediction" else (right, wrong)))
    assert matrix.matrix.sum() == 0
    happened(error.value, "nothing: nothing was counted")


@pytest.mark.fault(
    27, "probabilities, or NaN, in the place of class ids", "0.2, 1.5, NaN and infinity in a mask that is scored"
)
@pytest.mark.parametrize("values", [[0, 1.5, 3], [0.2, 0.7, 0.1], [0, np.nan, 3], [0, np.inf, 3]])
@pytest.mark.parametrize("place", ["prediction", "target"])
def test_what_is_no_whole_number_is_refused_and_counted_nowhere(values, place, happened):
    matrix, right, wrong = ConfusionMatrix(4), np.array([0, 255, 3]), np.array(values)
    with pytest.raises(ValueError, match=rf"{place} holds ids \[.*\]; valid are 0-3 and 255") as error:
        matrix.update(*((wrong, right) if place == "prediction" else (right, wrong)))
    assert matrix.matrix.sum() == 0
    happened(error.value)


def test_many_wrong_ids_are_not_all_listed():
    with pytest.raises(ValueError, match=r"holds ids \[0.1, 0.2, 0.3, 0.4, 0.5\] and others; valid"):
        ConfusionMatrix(4).update(np.arange(1, 9) / 10, np.zeros(8, int))


def test_whole_numbers_of_any_type_are_class_ids():
    for kind in (np.uint8, np.int64, np.float32, bool):
        matrix = ConfusionMatrix(2)
        matrix.update(np.array([0, 1, 1], kind), np.array([0, 1, 0], np.uint8))
        assert matrix.matrix.tolist() == [[1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("number", [0, -1, 256, 2.5, float("nan")])
def test_the_number_of_classes_leaves_255_to_ignored_pixels(number):
    with pytest.raises(ValueError, match=f"num_classes={number}; valid: a whole number from 1 to 255"):
        ConfusionMatrix(number)


def test_counts_have_a_column_for_ignored_pixels():
    with pytest.raises(ValueError, match=r"counts is of shape \(3, 3\); wanted: \(n, 4\)"):
        class_iou(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"counts is of shape \(3, 4\); wanted: \(images, n, 4\)"):
        iou_by_size(np.zeros((3, 4), int))
    with pytest.raises(ValueError, match="draws=0; valid: a whole number from 1 on"):
        bootstrap([np.zeros((2, 3, 4), int)], 0)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), target of shape \(3, 2\)"):
        ConfusionMatrix(4).update(np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="'ignore' is unknown; valid: drop, background, wrong"):
        ConfusionMatrix(4).iou("ignore")


def plain_by_size(predictions, targets, n: int) -> dict[str, float]:
    result = {}
    for name, (low, high) in SIZES.items():
        each = []
        for c in range(1, n):
            hit = union = 0
            for p, t in zip(predictions, targets):
                p, t = p[t != 255], t[t != 255]
                if (t == c).any() and low <= (t == c).sum() / t.size < high:
                    hit, union = hit + ((p == c) & (t == c)).sum(), union + ((p == c) | (t == c)).sum()
            each += [hit / union] if union else []
        result[name] = np.mean(each) if each else np.nan
    return result


@quick
@given(IDS, IDS)
def test_iou_by_size_is_that_of_counting_each_image_and_class(predictions, targets):
    counts = np.stack([ConfusionMatrix(4).update(p, t) for p, t in zip(predictions, targets)])
    found, expected = iou_by_size(counts), plain_by_size(predictions, targets, 4)
    assert list(found) == list(SIZES)
    np.testing.assert_allclose(list(found.values()), list(expected.values()))


def test_sizes_by_hand():
    targets = np.zeros((2, 100), int)
    targets[0, :5], targets[0, 50:] = 1, 2  # 5 % and 50 %
    targets[1, :10] = 1  # 10 %
    predictions = targets.copy()
    predictions[0, :4] = 0
    predictions[1, 50:60] = 1
    counts = np.stack([ConfusionMatrix(3).update(p, t) for p, t in zip(predictions, targets)])
    assert list(iou_by_size(counts).values()) == [0.2, 0.5, 1.0]


@quick
@given(IDS, IDS)
def test_precision_and_recall_are_those_of_counting_pixels(predictions, targets):
    matrix = ConfusionMatrix(4)
    matrix.update(predictions, targets)
    kept = targets != 255
    for values, given_, found in (
        (precision_recall(matrix.matrix)[0], predictions[kept], targets[kept]),
        (precision_recall(matrix.matrix)[1], targets[kept], predictions[kept]),
    ):
        shares = [(found[given_ == c] == c).mean() if (given_ == c).any() else np.nan for c in range(4)]
        np.testing.assert_allclose(values, shares)


@quick
@given(IDS, IDS, st.sampled_from(CONVENTIONS))
def test_bootstrap_of_one_image_is_its_own_miou(predictions, targets, ignored):
    matrix = ConfusionMatrix(4)
    counts = matrix.update(predictions[0], targets[0])[None]
    assume(not np.isnan(class_iou(counts, ignored)).all())
    np.testing.assert_allclose(bootstrap([counts], 3, ignored=ignored), matrix.miou(ignored))


def random_counts(images: int, right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, (images, 200))
    prediction = np.where(rng.random(target.shape) < right, target, rng.integers(0, 3, target.shape))
    return np.stack([ConfusionMatrix(3).update(p, t) for p, t in zip(prediction, target)])


def test_bootstrap_is_paired_and_repeats():
    a, b = random_counts(30, 0.8, 0), random_counts(30, 0.7, 1)
    draws = bootstrap([a, a, b], 200)
    assert draws.shape == (200, 3) and (draws[:, 0] == draws[:, 1]).all() and draws[:, 0].std() > 0
    assert (bootstrap([a, a, b], 200) == draws).all() and (bootstrap([a], 200, seed=1)[:, 0] != draws[:, 0]).any()
    assert draws.mean(0) == pytest.approx([np.nanmean(class_iou(m.sum(0))) for m in (a, a, b)], abs=0.01)
    with pytest.raises(ValueError, match="same images"):
        bootstrap([a, b[:20]])


def test_the_interval_holds_the_value_and_narrows_with_more_images():
    few, many = random_counts(10, 0.8, 0), random_counts(160, 0.8, 0)
    spans = []
    for counts in (few, many):
        low, high = interval(counts, 300)
        assert low < 100 * np.nanmean(class_iou(counts.sum(0))) < high
        spans.append(high - low)
    assert spans[1] < spans[0] / 2


def test_without_a_pixel_every_measure_is_unknown():
    none = np.zeros((0, 3, 4), np.int64)
    assert np.isnan(ignored_share(ConfusionMatrix(3).matrix))
    assert np.isnan(ConfusionMatrix(3).miou()) and np.isnan(interval(none)).all()
    assert bootstrap([none, none], 5).shape == (5, 2) and np.isnan(bootstrap([none], 5)).all()
    assert all(np.isnan(v) for v in iou_by_size(none).values())


def test_the_mean_leaves_classes_out_that_do_not_occur():
    one = np.zeros((3, 4), np.int64)
    one[0, 0], one[0, 1], one[1, 1] = 6, 2, 2  # IoU 6/8, 2/4, none
    np.testing.assert_allclose(mean_iou(np.stack([one, 0 * one])), [0.625, np.nan])
