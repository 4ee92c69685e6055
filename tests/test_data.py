from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safn.data import VOCFolder, content_fingerprint, read_text
from safn.files import DataError
from safn.images import save_mask
from safn.verification import verify


@pytest.fixture
def base(tiny_voc):
    return tiny_voc / "VOCdevkit" / "VOC2012"


def test_a_folder_is_read(tiny_voc):
    folder = VOCFolder(tiny_voc)
    assert folder.classes == ["cat", "dog", "car"] and verify(folder).problems == []
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
    with pytest.raises(DataError, match=r"a0\.jpg cannot be read"):
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
    assert folder.mask_path("a0") is None and verify(folder).problems == []  # masks are for scoring only
    for call, text in (
        (lambda: folder.mask("a0"), "a0 has no mask"),
        (lambda: folder.label("zz"), "zz has no valid row"),
        (lambda: folder.ids("test"), "test.txt is missing"),
        (lambda: folder.image("zz"), r"zz\.jpg cannot be read"),
        (lambda: VOCFolder(base), "image_labels.csv is missing"),
    ):
        with pytest.raises(DataError, match=text):
            call()


def test_ids_of_digits_keep_their_zeros_and_spreadsheets_marks_are_no_matter(tiny_voc):
    table = "\ufeffid,cat\r\n007,1 \r\n \r\n2007_000032, 0.0\r\n,\r\n"
    (tiny_voc / "image_labels.csv").write_text(table, encoding="utf-8", newline="")
    folder = VOCFolder(tiny_voc)
    assert (
        folder.classes == ["cat"]
        and folder.table_problems == []
        and folder.label("007") == [1]
        and folder.label("2007_000032") == [0]
    )


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
