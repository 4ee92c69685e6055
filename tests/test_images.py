from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safn.images import DataError, load_image, load_mask, palette, read_text, save_mask


def test_the_palette_is_that_of_voc():
    colours = np.array(palette()).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128),
             20: (0, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    assert {k: tuple(colours[k]) for k in known} == known
    assert len({tuple(c) for c in colours}) == 256


def test_a_mask_survives_writing_and_reading(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    save_mask(tmp_path / "a.png", mask)
    assert (load_mask(tmp_path / "a.png") == mask).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "LA"])
def test_a_mask_of_another_mode_is_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a.png.*mode {mode}$"):
        load_mask(tmp_path / "a.png")


@pytest.mark.parametrize("mode, suffix", [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png")])
def test_photos_of_every_mode_become_rgb(tmp_path, mode, suffix):
    Image.new("RGB", (6, 5), (102, 102, 102)).convert(mode).save(tmp_path / f"a.{suffix}")
    image = load_image(tmp_path / f"a.{suffix}")
    assert image.mode == "RGB" and image.size == (6, 5)
    assert np.abs(np.asarray(image).astype(int) - 102).max() <= 4


def test_a_rotated_photo_stands_upright(tmp_path):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    upright = np.asarray(load_image(tmp_path / "a.jpg")).astype(int)
    assert upright.shape == (24, 16, 3)
    assert upright[:7, 9:].min() > 200 and upright[:, :7].max() < 60 and upright[9:].max() < 60


def test_odd_exif_and_many_pixels_are_no_warning_and_far_too_many_an_error_with_the_name(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (20, 10)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05")  # five entries, none there
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # of 200
    assert load_image(path).size == (20, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match="photo a cannot be read: .*exceeds limit"):
        load_image(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_utf_8_and_with_its_mark_in_utf_16(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_text("caf\u00e9\n", encoding=encoding)
    assert read_text(path) == "caf\u00e9\n"


def test_text_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("caf\u00e9", encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.txt cannot be read: .*save it as text in UTF-8"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"b\.txt is missing"):
        read_text(tmp_path / "b.txt")


def test_one_error_lists_every_problem():
    assert str(DataError.from_problems("2 problems:", ["a", "b"])) == "2 problems:\n  - a\n  - b"


@pytest.mark.parametrize("mask", [np.full((2, 2), 256), np.full((2, 2), -1), np.zeros((2, 2, 3))])
def test_ids_that_a_mask_cannot_hold_are_not_written(tmp_path, mask):
    with pytest.raises(ValueError, match=r"a\.png: a mask of shape .* valid: shape \(H, W\), ids 0 to 255"):
        save_mask(tmp_path / "a.png", mask)
    assert not list(tmp_path.iterdir())


def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def odd(*_, **__):
        raise TypeError("object of type 'float' has no len()")

    monkeypatch.setattr("safn.images.ImageOps.exif_transpose", odd)
    with pytest.raises(DataError, match="photo a cannot be read: object of type 'float'"):
        load_image(tmp_path / "a.png")
