from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

import safn
from safn.files import DataError
from safn.images import decoder_warning, image_head, load_grey, load_image, load_mask, palette, save_mask, unreadable


@pytest.fixture
def base(tiny_voc):
    return tiny_voc / "VOCdevkit" / "VOC2012"


def test_ids_are_read_whatever_the_palette_says(base):
    mask = load_mask(base / "SegmentationClass/a1.png")  # the palette of the fixture is not VOC's
    assert np.unique(mask).tolist() == [0, 2, 255] and (mask[6:20, 4:18] == 2).all() and mask[5, 3] == 255


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
    with pytest.raises(DataError, match=r"a\.jpg cannot be read: .*exceeds limit"):
        load_image(path)


@pytest.mark.parametrize("mask", [np.full((2, 2), 256), np.full((2, 2), -1), np.zeros((2, 2, 3))])
def test_ids_that_a_mask_cannot_hold_are_not_written(tmp_path, mask):
    with pytest.raises(ValueError, match=r"a\.png: a mask of shape .* valid: shape \(H, W\), ids 0 to 255"):
        save_mask(tmp_path / "a.png", mask)
    assert not list(tmp_path.iterdir())


def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def odd(*_, **__):
        raise TypeError("object of type 'float' has no len()")

    monkeypatch.setattr("safn.images._upright", odd)
    with pytest.raises(DataError, match=r"a\.png cannot be read: object of type 'float'"):
        load_image(tmp_path / "a.png")


# Kinds of files


GREY = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, 13)
WIDE = {
    "16 bits": Image.fromarray(GREY.astype(np.uint16) * 257),
    "floating point": Image.fromarray(GREY.astype(np.float32) / 255),
}


@pytest.mark.fault(22, "grey photo of 16 bits or floating point", "a PNG and a TIFF that hold the same picture")
@pytest.mark.parametrize("kind, name", [("16 bits", "a.png"), ("16 bits", "a.tif"), ("floating point", "a.tif")])
def test_grey_of_more_bits_is_scaled_to_its_range(tmp_path, kind, name, happened):
    WIDE[kind].save(tmp_path / name)
    assert (np.asarray(load_image(tmp_path / name)) == GREY[..., None]).all()
    assert (np.asarray(load_grey(tmp_path / name)) == GREY).all()
    happened("no message: scaled to 8 bits")


def test_a_portable_map_of_16_bits_is_scaled(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([65535, 257 * 100], ">u2").tobytes())
    assert np.asarray(load_grey(tmp_path / "a.pgm")).tolist() == [[255, 100]]


UNKNOWN = {
    "whole numbers of 32 bits have no known range": np.array([[0, 200]], np.int32),
    "holds values from 0 to 200; wanted: 0 to 1": np.array([[0, 200]], np.float32),
    "holds values from nan to nan": np.array([[0.5, np.nan]], np.float32),
    "16 bits with no value above 4095, nearly black": np.array([[0, 4095]], np.uint16),
    "16 bits with no value above 16383, nearly black": np.array([[0, 16383]], np.uint16),
}


@pytest.mark.fault(
    22, "photo whose range cannot be known", "32 bits, floating point up to 200, 12 or 14 bits in a file of 16"
)
@pytest.mark.parametrize("words", UNKNOWN)
def test_a_range_that_cannot_be_known_is_refused_with_the_name(tmp_path, words, happened):
    Image.fromarray(UNKNOWN[words]).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif cannot be read: .*{words}") as error:
        load_image(tmp_path / "a.tif")
    assert unreadable([tmp_path / "a.tif"]) == [str(error.value)]
    happened(error.value)


def test_a_dark_map_of_16_bits_is_a_map(tmp_path):
    Image.fromarray(np.array([[0, 257 * 3]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(load_grey(tmp_path / "a.png")).tolist() == [[0, 3]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_a_grey_map_of_any_mode_is_grey(tmp_path, mode):
    black_and_white = Image.fromarray(np.uint8([[0, 255], [255, 0]]))
    black_and_white.convert("RGB").convert(mode).save(tmp_path / "a.png")
    read = load_grey(tmp_path / "a.png")
    assert read.mode == "L" and np.asarray(read).tolist() == [[0, 255], [255, 0]]


@pytest.mark.fault(22, "saliency map with colours or transparent parts", "a coloured map, and a cut-out")
@pytest.mark.parametrize("colour", [(200, 20, 20), (255, 255, 255, 0)])
def test_colours_and_transparent_parts_of_a_map_are_refused(tmp_path, colour, happened):
    Image.new("RGBA" if len(colour) == 4 else "RGB", (3, 2), colour).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be read: it has colours or transparent parts") as error:
        load_grey(tmp_path / "a.png")
    happened(error.value)


@pytest.mark.fault(21, "mask of 2 or 4 bits of grey, which Pillow scales", "ids 1 and 2, read as 17 and 34")
@pytest.mark.parametrize("bits", [2, 4])
def test_a_mask_of_few_bits_of_grey_is_refused_and_of_few_colours_read(tmp_path, bits, happened):
    path, row = tmp_path / "a.png", {2: 0b01100000, 4: 0x12}[bits]
    ids = Image.frombytes("P", (2, 1), b"\1\2")
    ids.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    ids.save(path, bits=bits)
    assert load_mask(path).tolist() == [[1, 2]]
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0), b"IDAT": zlib.compress(bytes([0, row]))}
    body = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks.items()]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body) + struct.pack(">I", 0) + b"IEND\xaeB`\x82")
    with pytest.raises(DataError, match="this one is a PNG of mode L with few bits") as error:
        load_mask(path)
    happened(error.value)


def test_a_mask_that_is_no_png_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", "jpeg")
    with pytest.raises(DataError, match=r"a mask is an indexed \(mode P\) PNG, this one is a JPEG of mode L$"):
        load_mask(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = ImageOps.exif_transpose(image)
    read = load_grey(tmp_path / "a.png")
    assert (np.asarray(read) == np.asarray(expected)).all() and image_head(tmp_path / "a.png") == (
        read.size,
        orientation,
    )


@pytest.mark.fault(22, "EXIF block with one bad entry", "a single number where Pillow expects an array")
@pytest.mark.parametrize("container", ["jpeg", "png", "webp"])
def test_a_bad_exif_entry_beside_the_orientation_is_no_matter(tmp_path, container, happened):
    orientation = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    number = b"\x02\xbc\0\x0b\0\0\0\x01\0\0\0\0"  # XMP as one float
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + orientation + number + b"\0\0\0\0"
    Image.fromarray(GREY).convert("RGB").save(tmp_path / "a.img", container, exif=exif)
    with Image.open(tmp_path / "a.img") as image, pytest.raises(TypeError, match="'float' has no len"):
        ImageOps.exif_transpose(image)
    assert load_image(tmp_path / "a.img").size == GREY.shape
    happened("no message: turned upright, its other entries are not read")


@pytest.mark.fault(22, "broken link, empty file, folder in the place of an image", "one of each")
def test_what_is_no_image_is_named(tmp_path, happened):
    (tmp_path / "link.jpg").symlink_to("nowhere")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    paths = sorted(tmp_path.iterdir())
    lines = unreadable(paths)
    assert [line.startswith(f"{path} cannot be read: ") for path, line in zip(paths, lines, strict=True)] == [True] * 3
    happened(lines[2])


def test_a_sound_photo_has_no_warning_of_the_decoder(tmp_path):
    for name in ("a.jpg", "a.png"):
        Image.fromarray(GREY).save(tmp_path / name)
        assert decoder_warning(tmp_path / name) == ""


def test_only_one_module_opens_images():
    opening = [path.name for path in Path(safn.__file__).parent.rglob("*.py") if "Image.open(" in path.read_text()]
    assert opening == ["images.py"]


@pytest.mark.fault(22, "damaged AVIF", "each of 40 files with eight other bytes")
@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_is_read_or_refused_with_its_name(tmp_path, happened):
    path, rng, refused = tmp_path / "a.avif", np.random.default_rng(0), []
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(path)
    sound = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        damaged = sound.copy()
        damaged[rng.integers(0, len(sound), 8)] = rng.integers(0, 255, 8)
        path.write_bytes(damaged.tobytes())
        try:
            assert load_image(path).mode == "RGB"
        except DataError as error:
            assert str(error).startswith(f"{path} cannot be read: ")
            refused.append(error)
    assert refused
    happened(f"of 40 files {len(refused)} are refused with their names, such as: {str(refused[0]).split(': ')[-1]}")
