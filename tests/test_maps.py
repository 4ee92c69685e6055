from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from safn.maps import localization_maps, maps_prediction

quick = settings(max_examples=60, deadline=None, derandomize=True)
ODD = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 2.0, np.nan, np.inf, -np.inf]))


def eq4(feature: np.ndarray) -> np.ndarray:
    """One map by Eq. 4 in plain NumPy; 0 where it says nothing."""
    if not np.isfinite(feature).all() or feature.max() <= 0 or max(feature.min(), 0) == feature.max():
        return np.zeros(feature.shape)
    return np.maximum(feature, 0) / feature.max()


def test_eq4_by_hand():
    features = torch.tensor([[[[-1.0, 2.0], [4.0, 1.0]], [[8.0, 4.0], [-8.0, 0.0]], [[3.0, 1.0], [1.0, 1.0]]]])
    maps = localization_maps(features, torch.tensor([[1, 1, 0]]))
    assert maps.dtype == torch.float32
    assert maps[0].tolist() == [[[0, 0.5], [1, 0.25]], [[1, 0.5], [0, 0]], [[0, 0], [0, 0]]]


@quick
@given(arrays(np.float32, st.tuples(st.just(2), st.just(3), st.integers(1, 4), st.integers(1, 4)), elements=ODD),
       arrays(np.int64, (2, 3), elements=st.integers(0, 1)))  # fmt: skip
def test_maps_are_those_of_eq4_whatever_the_features(features, labels):
    maps = localization_maps(torch.tensor(features), torch.tensor(labels)).numpy()
    for image, present, made in zip(features, labels, maps):
        for feature, label, one in zip(image, present, made):
            np.testing.assert_allclose(one, eq4(feature) * label, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_maps_do_not_depend_on_the_size_of_the_features(factor):
    features = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)) - 0.3
    labels = torch.ones(2, 3)
    expected = localization_maps(features, labels)
    assert torch.allclose(localization_maps(features * factor, labels), expected, rtol=1e-4)
    assert torch.equal(
        localization_maps(features.bfloat16(), labels), localization_maps(features.bfloat16().float(), labels)
    )


@pytest.mark.parametrize("value", [0.0, -3.0, 3.0, float("nan"), float("inf")])
def test_a_map_without_information_is_zero_and_the_image_stays_background(value):
    features = torch.full((1, 2, 4, 4), value)
    features[0, 1] = torch.arange(16.0).view(4, 4) - 12  # its neighbour is sound
    maps = localization_maps(features, torch.ones(1, 2))[0].numpy()
    assert (maps[0] == 0).all() and maps[1].max() == 1
    assert (maps_prediction(maps[:1], 0.2) == 0).all()
    assert set(np.unique(maps_prediction(maps, 0.2))) == {0, 2}


def test_one_nan_spoils_its_own_map_only():
    features = torch.arange(32.0).view(1, 2, 4, 4)
    features[0, 0, 2, 2] = torch.nan
    maps = localization_maps(features, torch.ones(1, 2))[0]
    assert (maps[0] == 0).all() and maps[1, 3, 3] == 1


def test_prediction_takes_the_largest_map_from_the_threshold_on():
    maps = np.array([[[0.1, 0.5, 0.29, 0.8]], [[0.2, 0.3, 0.28, 0.9]]])
    assert maps_prediction(maps, 0.3).tolist() == [[0, 1, 0, 2]]
    assert maps_prediction(maps, 0.5).tolist() == [[0, 1, 0, 2]] and maps_prediction(maps, 0.51).tolist() == [
        [0, 0, 0, 2]
    ]
    assert maps_prediction(maps, 0.2).dtype == np.uint8


@pytest.mark.parametrize(("features", "labels"), [((2, 4, 4), (1, 2)), ((1, 2, 4, 4), (2,)), ((1, 2, 4, 4), (1, 3))])
def test_labels_are_one_row_for_the_features_of_an_image(features, labels):
    with pytest.raises(ValueError, match=r"is of shape \(.*\); wanted: \("):
        localization_maps(torch.zeros(features), torch.ones(labels))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 51, float("nan"), "0.3"])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold=.*; valid: a number from 0 to 1"):
        maps_prediction(np.zeros((2, 4, 4)), threshold)


def test_one_map_without_its_class_is_refused():
    with pytest.raises(ValueError, match=r"maps is of shape \(4, 4\); wanted: \(N, H, W\)"):
        maps_prediction(np.zeros((4, 4)), 0.3)


@pytest.mark.fault(27, "ids of classes in the place of labels", "labels of 3 and 0 for two classes")
def test_ids_of_classes_are_no_labels(happened):
    with pytest.raises(ValueError, match=r"labels=\[\[3, 0\]\]; valid: 0 or 1 for each class") as error:
        localization_maps(torch.ones(1, 2, 4, 4), torch.tensor([[3, 0]]))
    happened(error.value)
