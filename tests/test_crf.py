from __future__ import annotations

import sys

import numpy as np
import pytest
from tiny import softmax

from safn.crf import dense_crf


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


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda image: image.astype(np.float32), r"image is float32 \(48, 60, 3\)"),
        (lambda image: image[..., 0], r"image is uint8 \(48, 60\)"),
        (
            lambda image: image.transpose(1, 0, 2),
            r"image is uint8 \(60, 48, 3\), probabilities are of shape \(21, 48, 60\)",
        ),
    ],
)
def test_crf_refuses_what_is_no_raw_photo(scene, change, text):
    pytest.importorskip("pydensecrf.densecrf")
    image, probabilities = scene
    with pytest.raises(ValueError, match=text + ".*valid: uint8"):
        dense_crf(change(image), probabilities)


@pytest.mark.fault(16, "the CRF is not installed", "its module hidden from the import")
def test_without_pydensecrf_the_error_says_what_to_install(scene, monkeypatch, happened):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ImportError, match=r"pip install pydensecrf2==1\.1") as error:
        dense_crf(*scene)
    happened(error.value)
