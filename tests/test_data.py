from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safn.data import (
    DataError,
    VOCFolder,
    content_fingerprint,
    load_image,
    load_mask,
    palette,
    read_text,
    save_mask,
)


@pytest.fixture
def base(tiny_voc):
    return tiny_voc / "VOCdevkit" / "VOC2012"


def problems(root, *starts):
    """The problems of a folder, which must be as many as ``starts`` and begin with them, in order."""
    found = VOCFolder(root).verify()
    assert len(found) == len(starts) and all(map(str.startswith, found, starts)), found
    return found


def test_ids_are_read_whatever_the_palette_says(base):
    mask = load_mask(base / "SegmentationClass/a1.png")  # the palette of the fixture is not VOC's
    assert np.unique(mask).tolist() == [0, 2, 255] and (mask[6:20, 4:18] == 2).all() and mask[5, 3] == 255


def test_a_folder_is_read(tiny_voc):
    folder = VOCFolder(tiny_voc)
    assert folder.classes == ["cat", "dog", "car"] and folder.verify() == []
    assert folder.ids("train_aug") == ["a0", "a1", "a2", "a3", "a4"] and folder.ids("val") == ["a5", "a6", "a7"]
    assert folder.label("a3").tolist() == [1, 1, 0] and folder.label("a3").dtype == np.float32
    assert folder.image("a0").size == (40, 32) and folder.mask("a0").shape == (32, 40)
    for image_id in folder.labels:
        assert set(np.flatnonzero(folder.label(image_id)) + 1) == set(np.unique(folder.mask(image_id))) - {0, 255}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_photo(tiny_voc, base, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (24, 16)).save(base / "JPEGImages/a0.jpg", exif=exif)
    folder = VOCFolder(tiny_voc)
    assert folder.size("a0") == folder.image("a0").size == ((24, 16) if orientation < 5 else (16, 24))
    (base / "JPEGImages/a0.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match="photo a0 cannot be read"):
        folder.size("a0")


def test_a_limit_takes_so_many_ids_evenly_spaced(tiny_voc):
    folder = VOCFolder(tiny_voc)
    assert folder.ids("train_aug", 3) == ["a0", "a2", "a4"] and folder.ids("train_aug", 1) == ["a0"]
    assert folder.ids("train_aug", 0) == folder.ids("train_aug", 99) == folder.ids("train_aug")


def test_augmented_masks_win_over_official_ones(tiny_voc, base):
    (base / "SegmentationClassAug").mkdir()
    save_mask(base / "SegmentationClassAug/a1.png", np.full((32, 40), 3))
    folder = VOCFolder(tiny_voc)
    assert (folder.mask("a1") == 3).all() and (folder.mask("a0") != 3).all()


def test_what_is_missing_is_named(tiny_voc, base):
    (base / "SegmentationClass/a0.png").unlink()
    folder = VOCFolder(tiny_voc)
    assert folder.mask_path("a0") is None and folder.verify() == []  # masks are for scoring only
    for call, text in (
        (lambda: folder.mask("a0"), "a0 has no mask"),
        (lambda: folder.label("zz"), "zz has no valid row"),
        (lambda: folder.ids("test"), "test.txt is missing"),
        (lambda: folder.image("zz"), "photo zz cannot be read"),
        (lambda: VOCFolder(base), "image_labels.csv is missing"),
    ):
        with pytest.raises(DataError, match=text):
            call()


@pytest.mark.fault(1, "truncated photo", "a JPEG cut after 2, 50 and 95 % of its bytes")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_photo_is_named_by_verify_and_on_reading(tiny_voc, base, share, happened):
    path = base / "JPEGImages/a6.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    (line,) = problems(tiny_voc, "a6: photo a6 cannot be read")
    with pytest.raises(DataError, match="photo a6 cannot be read"):
        VOCFolder(tiny_voc).image("a6")
    happened(f"before any training: {line}")


@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_truncated_mask_is_named(tiny_voc, base, share):
    path = base / "SegmentationClass/a6.png"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    (line,) = problems(tiny_voc, "a6: ")
    assert "a6.png: the mask cannot be read" in line


@pytest.mark.fault(2, "mask of another size, in RGB, or with unknown ids", "three such masks written")
def test_wrong_masks_are_named_with_shape_mode_and_values(tiny_voc, base, happened):
    folder = base / "SegmentationClass"
    Image.new("RGB", (40, 32)).save(folder / "a0.png")
    save_mask(folder / "a1.png", np.zeros((40, 32)))
    save_mask(folder / "a2.png", np.resize([0, 4, 21, 254, 255], (32, 40)))
    save_mask(folder / "a3.png", np.resize([0, 3, 255], (32, 40)))  # all valid
    lines = problems(tiny_voc, "a0: ", "a1: mask is 32x40, photo is 40x32", "a2: mask holds ids [4, 21, 254]")
    assert "mode RGB" in lines[0] and "valid are 0-3 and 255" in lines[2]
    happened("; ".join(lines[1:]))


def test_an_upright_photo_is_compared_with_its_mask(tiny_voc, base):
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(base / "JPEGImages/a0.jpg") as image:
        turned = image.transpose(Image.Transpose.ROTATE_270)
    turned.save(base / "JPEGImages/a0.jpg", exif=exif)
    assert turned.size == (32, 40) and VOCFolder(tiny_voc).verify() == []


@pytest.mark.fault(17, "id listed twice, id in training and in validation", "both written into the lists")
def test_repeated_overlapping_and_unlabelled_ids_are_named(tiny_voc, base, happened):
    lists = base / "ImageSets/Segmentation"
    (lists / "train_aug.txt").write_text("a0\na1\na1\nzz\n")
    (lists / "val.txt").write_text("a5\na0\n")
    lines = problems(
        tiny_voc,
        "train_aug.txt: a1 is listed more than once",
        "a0: in train_aug.txt and in val.txt",
        "zz: no valid row in image_labels.csv; the classes are cat, dog, car",
        "zz: photo zz cannot be read",
    )
    happened("; ".join(lines[:2]))


@pytest.mark.fault(17, "empty split", "a list of empty lines")
def test_an_empty_split_is_an_error(tiny_voc, base, happened):
    (base / "ImageSets/Segmentation/val.txt").write_text("\n\n")
    (line,) = VOCFolder(tiny_voc).verify()
    assert "val.txt is empty" in line
    with pytest.raises(DataError, match="val.txt is empty"):
        VOCFolder(tiny_voc).ids("val")
    happened(line)


@pytest.mark.fault(
    3, "id without labels, row of the wrong length, value that is no label", "such rows in image_labels.csv"
)
def test_wrong_rows_of_the_label_table_are_named_with_the_classes(tiny_voc, happened):
    table = tiny_voc / "image_labels.csv"
    rows = table.read_text().splitlines()
    rows[1], rows[2], rows[3], rows[4] = "a0,1,0", "a1,0,1,0,1", "a2,0,0,2", "a3,1,,dog"
    table.write_text("\n".join([*rows, "a4,0,1,0"]) + "\n")
    found = VOCFolder(tiny_voc).verify()
    assert [line for line in found if line.startswith("image_labels.csv")] == [
        "image_labels.csv: a0 has 2 labels for the 3 classes cat, dog, car",
        "image_labels.csv: a1 has 4 labels for the 3 classes cat, dog, car",
        "image_labels.csv: a2 has labels ['2']; valid are 0 and 1",
        "image_labels.csv: a3 has labels ['', 'dog']; valid are 0 and 1",
        "image_labels.csv: a4 has more than one row: keep one",
    ]
    with pytest.raises(DataError, match="a0 has no valid row"):
        VOCFolder(tiny_voc).label("a0")
    assert "a0: no valid row in image_labels.csv; the classes are cat, dog, car" in found
    happened("; ".join(found[:2]))


def test_labels_too_many_in_every_row_do_not_become_other_labels(tiny_voc):
    table = tiny_voc / "image_labels.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *(f"{row},1" for row in rows)]))
    assert VOCFolder(tiny_voc).labels == {}
    assert sum("has 4 labels for the 3 classes" in line for line in VOCFolder(tiny_voc).verify()) == 8


def test_ids_of_digits_keep_their_zeros_and_spreadsheets_marks_are_no_matter(tiny_voc):
    (tiny_voc / "image_labels.csv").write_text("\ufeffid,cat\r\n007,1\r\n2007_000032, 0.0\r\n", encoding="utf-8")
    folder = VOCFolder(tiny_voc)
    assert folder.classes == ["cat"] and folder.label("007") == [1] and folder.label("2007_000032") == [0]


@pytest.mark.parametrize("head", ["", "image,cat", "id", "id,cat,cat", "cat,id"])
def test_a_wrong_header_is_an_error(tiny_voc, head):
    (tiny_voc / "image_labels.csv").write_text(f"{head}\na0,1,0\n" if head else "")
    with pytest.raises(DataError, match="valid: id,<class>"):
        VOCFolder(tiny_voc)


def test_the_fingerprint_of_the_content_sees_photos_labels_and_order(tiny_voc, base):
    def now(*ids):
        return content_fingerprint(VOCFolder(tiny_voc), list(ids))

    before = now("a0", "a1")
    assert before == now("a0", "a1") and len({before, now("a1", "a0"), now("a0")}) == 3
    table = tiny_voc / "image_labels.csv"
    table.write_text(table.read_text().replace("a0,1,0,0", "a0,1,1,0"))
    relabelled = now("a0", "a1")
    (base / "JPEGImages/a0.jpg").write_bytes((base / "JPEGImages/a2.jpg").read_bytes())
    assert len({before, relabelled, now("a0", "a1")}) == 3


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

    monkeypatch.setattr("safn.data.ImageOps.exif_transpose", odd)
    with pytest.raises(DataError, match="photo a cannot be read: object of type 'float'"):
        load_image(tmp_path / "a.png")
