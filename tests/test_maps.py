from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from safn.maps import grad_cam, load_maps, localization_maps, maps_prediction, save_maps

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


def test_files_hold_the_present_classes_in_8_bits(tmp_path):
    maps = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    save_maps(tmp_path / "a.npz", maps, np.array([0, 1, 0, 1], np.float32))
    read = load_maps(tmp_path / "a.npz", 4)
    assert read.dtype == np.float32 and (read[[0, 2]] == 0).all()
    assert np.abs(read[[1, 3]] - maps[[1, 3]]).max() <= 0.5 / 255 + 1e-6


def test_read_maps_are_resampled_between_pixel_centres(tmp_path):
    save_maps(tmp_path / "a.npz", np.array([[[0, 1]]], np.float32), np.ones(1))
    np.testing.assert_allclose(load_maps(tmp_path / "a.npz", 1, (2, 4))[0], [[0, 0.25, 0.75, 1]] * 2, atol=1e-6)


@quick
@given(arrays(np.float32, (3, 4, 5), elements=ODD), arrays(np.int64, 3, elements=st.integers(0, 1)),
       st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 100))  # fmt: skip
def test_written_and_resampled_maps_stay_in_range_and_predict_given_classes_only(features, labels, size, percent):
    maps = localization_maps(torch.tensor(features)[None], torch.tensor(labels)[None])[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        save_maps(Path(folder) / "a.npz", maps, labels)
        read = load_maps(Path(folder) / "a.npz", 3, size)
    assert read.shape == (3, *(size or (4, 5))) and np.isfinite(read).all()
    assert read.min() >= 0 and read.max() <= 1 and not read[labels == 0].any()
    made = maps_prediction(read, percent / 100)
    assert made.shape == read.shape[1:] and set(np.unique(made)) <= {0, *(np.flatnonzero(labels) + 1)}


@pytest.mark.parametrize("size", [None, (8, 9)])
def test_an_image_without_a_label_has_zero_maps(tmp_path, size):
    save_maps(tmp_path / "a.npz", np.ones((3, 5, 6), np.float32), np.zeros(3))
    maps = load_maps(tmp_path / "a.npz", 3, size)
    assert maps.shape == (3, *(size or (5, 6))) and not maps.any()
    assert not maps_prediction(maps, 0.1).any()


def test_prediction_takes_the_largest_map_from_the_threshold_on():
    maps = np.array([[[0.1, 0.5, 0.29, 0.8]], [[0.2, 0.3, 0.28, 0.9]]])
    assert maps_prediction(maps, 0.3).tolist() == [[0, 1, 0, 2]]
    assert maps_prediction(maps, 0.5).tolist() == [[0, 1, 0, 2]] and maps_prediction(maps, 0.51).tolist() == [
        [0, 0, 0, 2]
    ]
    assert maps_prediction(maps, 0.2).dtype == np.uint8


@pytest.mark.fault(10, "maps that would run code", "a pickle in maps.npz whose payload makes a file")
def test_a_malicious_file_of_maps_is_not_executed(tmp_path, happened):
    trace, path = tmp_path / "trace", tmp_path / "a.npz"
    np.savez(path, classes=np.zeros(1, np.int16), maps=np.array([tiny.Payload(trace)], object))
    with pytest.raises(ValueError, match="allow_pickle=False") as error:
        load_maps(path, 1)
    assert not trace.exists()
    happened(error.value, "nothing: the payload left no trace")


def test_grad_cam_of_a_linear_network_is_its_class_activation_map():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 1)
    head = torch.nn.Linear(4, 2)
    network = torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    images = torch.randn(1, 3, 6, 6)
    maps = grad_cam(network, layer, images, torch.tensor([[0, 1]]))
    assert maps.shape == (1, 2, 6, 6) and not maps[0, 0].any()
    cam = torch.einsum("c,chw->hw", head.weight[1], layer(images)[0]).relu().detach()
    np.testing.assert_allclose(maps[0, 1], (cam - cam.min()) / (cam.max() - cam.min()), atol=1e-4)
