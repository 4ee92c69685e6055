from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from safn import files
from safn.saliency import VIEWS, U2NetP, multi_view_saliency


@pytest.fixture(scope="module")
def detector():
    try:
        return U2NetP(threads=1)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_the_detector_finds_what_stands_out(detector):
    photo = Image.new("RGB", (120, 90), (120, 160, 200))
    ImageDraw.Draw(photo).ellipse((40, 25, 80, 65), fill=(200, 40, 30))
    found = detector(photo)
    assert found.shape == (90, 120) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 and found.max() > 0.9
    assert found[40:50, 55:65].min() > 0.8 > 0.2 > found[:10].max()


@pytest.mark.parametrize("size, colour", [((1, 40), (9, 9, 9)), ((30, 20), (0, 0, 0))])
def test_odd_photos_give_finite_saliency(detector, size, colour):
    found = detector(Image.new("RGB", size, colour))
    assert found.shape == size[::-1] and np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


def test_several_views_are_averaged_each_in_its_place():
    grey = np.arange(200).reshape(10, 20)
    image = Image.fromarray(np.repeat(grey[..., None].astype(np.uint8), 3, 2))
    seen = []

    def detector(view):  # its answer is what it sees, and its own number
        seen.append(view.size)
        return np.asarray(view.convert("L"), np.float32) + 1000 * len(seen)

    one, two, six = (multi_view_saliency(detector, image, views) for views in VIEWS)
    assert seen == [(20, 10)] * 5 + [(14, 7)] * 4
    np.testing.assert_array_equal(one, grey + 1000)
    np.testing.assert_array_equal(two, grey + 2500)  # the mirror image's answer is turned back
    parts = np.array([6000, 7000, 8000, 9000])  # top left, bottom left, top right, bottom right
    whole = grey + 4500
    np.testing.assert_allclose(six[0, 0], (whole[0, 0] + grey[0, 0] + parts[0]) / 2)
    np.testing.assert_allclose(six[9, 19], (whole[9, 19] + grey[9, 19] + parts[3]) / 2)
    np.testing.assert_allclose(six[5, 10], (whole[5, 10] + grey[5, 10] + parts.mean()) / 2)  # where all four overlap
    np.testing.assert_allclose(six[9, 0], (whole[9, 0] + grey[9, 0] + parts[1]) / 2)


@pytest.mark.parametrize("views", [0, 3, "6"])
def test_another_number_of_views_is_refused(views):
    with pytest.raises(ValueError, match=f"views={views!r} is unknown; valid: 1, 2, 6"):
        multi_view_saliency(lambda view: np.zeros(view.size[::-1]), Image.new("RGB", (4, 2)), views)


def test_a_detector_that_answers_in_another_size_is_refused():
    with pytest.raises(ValueError, match=r"saliency is of shape \(4, 2\); wanted: \(2, 4\)"):
        multi_view_saliency(lambda view: np.zeros(view.size), Image.new("RGB", (4, 2)), 1)


def test_the_detector_takes_rgb_only(detector):
    with pytest.raises(ValueError, match="mode of the image='L' is unknown; valid: RGB"):
        detector(Image.new("L", (4, 4)))


def test_weights_that_are_not_installed_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(files.metadata, "files", lambda name: None)
    with pytest.raises(FileNotFoundError, match="requirements-weights.txt, or name a folder of <id>.png"):
        U2NetP()


@pytest.mark.parametrize("threads", [-1, 1.5])
def test_another_number_of_threads_is_refused(threads):
    with pytest.raises(ValueError, match=f"threads={threads}; valid: a whole number from 0 on"):
        U2NetP(threads)
