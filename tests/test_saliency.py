from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from safn import saliency
from safn.saliency import U2NetP, load_saliency, missing, save_saliency


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


def test_maps_are_kept_to_8_bits(tmp_path):
    values = np.random.default_rng(0).random((7, 5)).astype(np.float32)
    save_saliency(tmp_path / "a.png", values)
    read = load_saliency(tmp_path / "a.png")
    assert read.dtype == np.float32 and read.shape == (7, 5) and np.abs(read - values).max() <= 0.5 / 255 + 1e-6
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"


def test_maps_of_others_are_brought_to_size_and_grey(tmp_path):
    Image.new("RGB", (10, 4), (51, 51, 51)).save(tmp_path / "a.png")
    read = load_saliency(tmp_path / "a.png", (8, 6))
    assert read.shape == (8, 6) and read == pytest.approx(0.2)


def test_missing_maps_are_listed_in_order(tmp_path):
    save_saliency(tmp_path / "b.png", np.zeros((2, 2)))
    assert missing(tmp_path, ["c", "b", "a"]) == ["c", "a"] and missing(tmp_path / "nowhere", ["b"]) == ["b"]


def test_weights_that_are_not_installed_are_told_with_the_remedy(monkeypatch):
    def not_installed(name):
        raise saliency.PackageNotFoundError(name)

    monkeypatch.setattr(saliency, "files", not_installed)
    with pytest.raises(FileNotFoundError, match="requirements-weights.txt, or name a folder"):
        U2NetP()


def test_other_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "u2netp.onnx").write_bytes(b"something else")
    found = SimpleNamespace(name="u2netp.onnx", locate=lambda: tmp_path / "u2netp.onnx")
    monkeypatch.setattr(saliency, "files", lambda name: [found])
    with pytest.raises(ValueError, match="not the published u2netp.onnx"):
        U2NetP()
