from __future__ import annotations

import sys

import numpy as np
import pytest
from tiny import softmax

from safn.crf import dense_crf, is_installed


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A photo of four regions and noisy probabilities of 21 classes, of which four occur."""
    rng = np.random.default_rng(0)
    truth = np.zeros((48, 60), int)
    truth[8:40, 10:30], truth[20:44, 34:54], truth[2:12, 40:58] = 3, 12, 15
    colours = rng.integers(40, 215, (21, 3))
    image = np.clip(colours[truth] + rng.normal(0, 6, (48, 60, 3)), 0, 255).astype(np.uint8)
    logits = np.full((21, 48, 60), -14.0)
    for c in (0, 3, 12, 15):
        logits[c] = rng.normal(0, 1, truth.shape) + 1.5 * (truth == c)
    return image, softmax(logits).astype(np.float32)


def full_crf(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """All classes, with the parameters of Sec. IV-A written out."""
    dcrf = pytest.importorskip("pydensecrf.densecrf")
    k, height, width = probabilities.shape
    field = dcrf.DenseCRF2D(width, height, k)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(probabilities).reshape(k, -1), np.float32))
    field.addPairwiseGaussian(sxy=1, compat=3)
    field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    return np.array(field.inference(10)).reshape(k, height, width)


def test_crf_without_the_absent_classes_equals_that_of_all_classes(scene):
    image, probabilities = scene
    expected, found = full_crf(image, probabilities), dense_crf(image, probabilities)
    assert (found.argmax(0) == expected.argmax(0)).mean() >= 0.999
    assert (found.argmax(0) != probabilities.argmax(0)).mean() > 0.05  # it refined
    assert found.dtype == np.float32 and found.shape == (21, 48, 60)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-3)
    assert not found[[c for c in range(21) if c not in (0, 3, 12, 15)]].any()


def test_crf_parameters_and_read_only_photos_are_taken(scene):
    image, probabilities = scene
    image.setflags(write=False)
    weak = dense_crf(image, probabilities, bi_w=0, pos_w=0)
    assert (weak.argmax(0) == probabilities.argmax(0)).all()  # nothing pairwise: the input's own maximum


IMAGE = np.zeros((4, 6, 3), np.uint8)
PROBABILITIES = np.full((2, 4, 6), 0.5)


@pytest.mark.fault(
    27,
    "values that the dense CRF cannot take",
    "16 of them, such as logits, 0 to 255, NaN and bi_xy_std=0, which ended Python",
)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image": IMAGE.astype(np.float32)}, "image is float32; wanted: uint8"),
        ({"image": IMAGE[..., 0]}, r"image is of shape \(4, 6\); wanted: \(H, W, 3\)"),
        ({"image": IMAGE.transpose(1, 0, 2)}, r"probabilities is of shape \(2, 4, 6\); wanted: \(K, 6, 4\)"),
        ({"probabilities": 10 * PROBABILITIES - 7}, "probabilities holds values from -2 to .*; wanted: 0 to 1"),
        ({"probabilities": 255 * PROBABILITIES}, "probabilities holds values from .* to 127.5; wanted: 0 to 1"),
        ({"probabilities": PROBABILITIES * np.nan}, "probabilities holds values from nan to nan; wanted: .* no NaN"),
        ({"probabilities": 2 * PROBABILITIES}, "probabilities sum to 2 to 2 over the classes; wanted: 1"),
        ({"bi_w": -1}, "bi_w=-1; valid: a number from 0 on"),
        ({"pos_w": float("nan")}, "pos_w=nan; valid: a number from 0 on"),
        ({"bi_xy_std": 0}, "bi_xy_std=0; valid: a number from 0.01 on"),
        ({"bi_rgb_std": 1e-6}, "bi_rgb_std=1e-06; valid: a number from 0.01 on"),
        ({"pos_xy_std": float("inf")}, "pos_xy_std=inf; valid: a number from 0.01 on"),
        ({"iterations": 0}, "iterations=0; valid: a whole number from 1 on"),
        ({"iterations": -3}, "iterations=-3; valid: a whole number from 1 on"),
        ({"iterations": 2.5}, "iterations=2.5; valid: a whole number from 1 on"),
        ({"floor": 2}, "floor=2; valid: a number from 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(change, text, happened):
    with pytest.raises(ValueError, match=text) as error:
        dense_crf(**{"image": IMAGE, "probabilities": PROBABILITIES, **change})
    happened(error.value)


@pytest.mark.fault(27, "parameter that the dense CRF does not have", "bi_weight=10")
def test_a_parameter_that_does_not_exist_is_refused(happened):
    with pytest.raises(TypeError, match="bi_weight") as error:
        dense_crf(IMAGE, PROBABILITIES, bi_weight=10)
    happened(error.value)


def test_the_smallest_deviations_and_the_largest_floor_are_taken(scene):
    pytest.importorskip("pydensecrf.densecrf")
    smallest = {"bi_xy_std": 0.01, "bi_rgb_std": 0.01, "pos_xy_std": 0.01}
    for parameters in (smallest, {"floor": 1}):
        refined = dense_crf(*scene, **parameters)
        np.testing.assert_allclose(refined.sum(0), 1, atol=1e-3)


@pytest.mark.fault(16, "the CRF is not installed", "its module hidden from the import")
def test_without_pydensecrf_the_error_says_what_to_install(scene, monkeypatch, happened):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ImportError, match=r"make crf, or pip install .* pydensecrf2==1\.1$") as error:
        dense_crf(*scene)
    happened(error.value)


def test_whether_the_crf_is_installed_is_known(monkeypatch):
    pytest.importorskip("pydensecrf")
    assert is_installed()
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert not is_installed()
