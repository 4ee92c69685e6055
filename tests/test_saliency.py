from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from PIL import Image, ImageDraw

from safn import saliency
from safn.data import DataError
from safn.saliency import U2NetP, copy_maps, load_saliency, missing, save_saliency


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

    one, two, six = (saliency.of_views(detector, image, views) for views in saliency.VIEWS)
    assert seen == [(20, 10)] * 5 + [(14, 7)] * 4
    np.testing.assert_array_equal(one, grey + 1000)
    np.testing.assert_array_equal(two, grey + 2500)  # the mirror image's answer is turned back
    parts = np.array([6000, 7000, 8000, 9000])  # top left, bottom left, top right, bottom right
    whole = grey + 4500
    np.testing.assert_allclose(six[0, 0], (whole[0, 0] + grey[0, 0] + parts[0]) / 2)
    np.testing.assert_allclose(six[9, 19], (whole[9, 19] + grey[9, 19] + parts[3]) / 2)
    np.testing.assert_allclose(six[5, 10], (whole[5, 10] + grey[5, 10] + parts.mean()) / 2)  # where all four overlap
    np.testing.assert_allclose(six[9, 0], (whole[9, 0] + grey[9, 0] + parts[1]) / 2)


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


def test_maps_of_16_bits_keep_their_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_saliency(tmp_path / "a.png"), [[0, 100 / 255, 1]], atol=1e-6)


def test_missing_maps_are_listed_in_order(tmp_path):
    save_saliency(tmp_path / "b.png", np.zeros((2, 2)))
    assert missing(tmp_path, ["c", "b", "a"]) == ["c", "a"] and missing(tmp_path / "nowhere", ["b"]) == ["b"]


@pytest.mark.fault(6, "saliency maps missing from a folder of one's own", "two of three maps not there")
def test_missing_maps_are_an_error_unless_named(tmp_path, happened):
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    with pytest.raises(DataError, match="3 of 3 saliency maps are missing"):
        copy_maps(source, list("abc"), out, "skip")  # none at all is another folder
    save_saliency(source / "b.png", np.full((2, 2), 0.2))
    with pytest.raises(
        DataError, match="2 of 3 saliency maps are missing, first a, c; complete .* skip or map-only"
    ) as error:
        copy_maps(source, list("abc"), out)
    assert not list(out.iterdir())
    for absent in ("skip", "map-only"):
        assert copy_maps(source, list("abc"), out, absent) == ["a", "c"]
        assert [p.name for p in out.iterdir()] == ["b.png"] and load_saliency(out / "b.png") == pytest.approx(0.2)
    happened(error.value)


def test_a_kill_while_a_map_is_written_leaves_none_that_the_next_run_would_keep(tmp_path):
    values = np.random.default_rng(0).random((40, 40))
    tiny.killed_while_writing(lambda: save_saliency(tmp_path / "a.png", values))
    assert missing(tmp_path, ["a"]) == ["a"] and (tmp_path / "a.png.partial").exists()
    save_saliency(tmp_path / "b.png", values)
    tiny.killed_while_writing(lambda: copy_maps(tmp_path, ["b"], tmp_path))
    assert np.abs(load_saliency(tmp_path / "b.png") - values).max() < 0.01  # the older one


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
