from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safn.data import DataError, VOCFolder
from safn.datasets import own_images
from safn.datasets.own_images import prepare
from safn.verification import verify

CLASSES = ["mug", "plant, green", "lamp"]


@pytest.fixture
def mine(tmp_path):
    """Ten images of many formats with a table of labels; image k shows class k % 3."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ['id,mug,"plant, green",lamp']
    for k, suffix in enumerate(["jpg", "JPG", "png", "webp", "bmp", "gif", "tif", "jpeg", "png", "jpg"]):
        image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        image = {2: image.convert("L"), 8: image.convert("RGBA"), 9: image.convert("CMYK")}.get(k, image)
        image.save(folder / f"photo {k}.{suffix}")
        rows.append(",".join([f"photo {k}" + (".jpg" if k == 0 else ""), *(str(int(k % 3 == c)) for c in range(3))]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def refused(mine, *arguments) -> list[str]:
    before = everything(mine.parent)
    with pytest.raises(DataError) as error:
        prepare(mine, mine / "labels.csv", mine.parent / "data", *arguments)
    assert everything(mine.parent) == before, "nothing is written"
    return str(error.value).split("\n  - ")[1:]


def test_images_of_any_format_become_a_sound_data_folder(mine, tmp_path):
    lists = prepare(mine, mine / "labels.csv", tmp_path / "data", 0.2)
    folder = VOCFolder(tmp_path / "data")
    assert verify(folder).problems == [] and folder.classes == CLASSES
    assert {s: folder.ids(s) for s in lists} == lists and (len(lists["train_aug"]), len(lists["val"])) == (8, 2)
    assert sorted(lists["train_aug"] + lists["val"]) == sorted(f"photo_{k}" for k in range(10))
    for k in range(10):
        assert folder.image(f"photo_{k}").size == (40, 30)
        assert folder.label(f"photo_{k}").tolist() == [k % 3 == c for c in range(3)]
    base = folder.base / "JPEGImages"
    for k, suffix in ((0, "jpg"), (1, "JPG"), (7, "jpeg"), (9, "jpg")):  # a JPEG stays as it is
        assert (base / f"photo_{k}.jpg").read_bytes() == (mine / f"photo {k}.{suffix}").read_bytes()
    flat = np.asarray(folder.image("photo_4")).astype(int) - np.asarray(Image.open(mine / "photo 4.bmp"))
    assert np.abs(flat).mean() < 8  # the bitmap, through a JPEG of quality 95


def test_a_photo_on_its_side_stands_upright(mine, tmp_path):
    for k, suffix in ((0, "jpg"), (2, "png")):
        path = mine / f"photo {k}.{suffix}"
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees
        Image.open(path).save(path, exif=exif)
    prepare(mine, mine / "labels.csv", tmp_path / "data")
    folder = VOCFolder(tmp_path / "data")
    assert [folder.image(f"photo_{k}").size for k in (0, 2, 4)] == [(30, 40), (30, 40), (40, 30)]


def test_an_accent_may_be_written_as_one_or_two_characters():
    found = {"cafe\u0301": Path("cafe\u0301.jpg")}  # as macOS names files
    assert own_images.match({"caf\u00e9": np.ones(1), "x.jpg": np.ones(1)}, found)[0].keys() == found.keys()


def test_every_problem_is_listed_and_nothing_is_written(mine):
    (mine / "photo 1.JPG").write_bytes((mine / "photo 1.JPG").read_bytes()[:-200])
    (mine / "photo 2.png").unlink()
    Image.new("RGB", (9, 9)).save(mine / "photo 3.png")
    Image.new("RGB", (9, 9)).save(mine / "extra.png")
    (mine / "notes.txt").write_text("x")
    (mine / ".hidden").write_text("x")
    text = (mine / "labels.csv").read_text().replace("photo 4,0,1,0", "photo 4,0,2,0")
    (mine / "labels.csv").write_text(text + "photo_5,1,0,0\nghost,1,0,0\nphoto 6,1,0,0\n")
    assert [p.split(" (")[0] for p in refused(mine)] == [
        "notes.txt: not an image that Pillow reads: convert or remove it",
        "photo 3.webp: the same id as photo 3.png: rename one",
        "labels.csv: photo 4 has labels ['2']; valid are 0 and 1",
        "labels.csv: photo 6 has more than one row: keep one",
        "photo 2: labelled, but there is no such image",
        "photo_5: a second row for photo 5.gif",
        "ghost: labelled, but there is no such image",
        "extra.png: no valid row in the table of labels",
        "photo 4.bmp: no valid row in the table of labels",
        f"{mine / 'photo 1.JPG'} cannot be read: image file is truncated",
    ]


def test_a_class_that_no_image_shows_a_wrong_share_and_an_existing_folder_are_refused(mine):
    labels = mine / "labels.csv"
    labels.write_text(
        labels.read_text().replace("lamp\n", "lamp,sofa\n").replace("0\n", "0,0\n").replace("1\n", "1,0\n")
    )
    assert refused(mine) == ["class sofa: no image shows it"]
    for share in (0, 1, float("nan")):
        with pytest.raises(DataError, match="valid: between 0 and 1"):
            prepare(mine, labels, mine.parent / "data", share)
    with pytest.raises(DataError, match="exists: give another name"):
        prepare(mine, labels, mine)
    with pytest.raises(DataError, match="new lies among the images: give another folder"):
        prepare(mine, mine / "labels.csv", mine / "new")
    with pytest.raises(DataError, match="is no folder"):
        prepare(mine / "none", labels, mine.parent / "data")


def test_the_split_depends_on_the_ids_alone_and_leaves_every_class_to_training():
    labels = {f"i{k}": np.array([k % 2 == 0, k == 7, k % 2], np.float32) for k in range(40)}
    lists = own_images.split(labels, 0.25)
    assert len(lists["val"]) == 10 and len(lists["train_aug"]) == 30 and "i7" in lists["train_aug"]
    assert own_images.split(dict(reversed(labels.items())), 0.25) == lists
    assert set(own_images.split(labels, 0.1)["val"]) < set(lists["val"])  # more for validation keeps what was there
    assert sum(labels[i] for i in lists["train_aug"]).min() >= 1
    lone = {"a": np.array([1, 0]), "b": np.array([0, 1])}
    assert own_images.split(lone, 0.5)["val"] == []


def test_where_each_class_is_shown_once_there_is_no_validation(mine):
    for k in range(3, 10):
        next(mine.glob(f"photo {k}.*")).unlink()
    labels = mine / "labels.csv"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:4]))
    assert refused(mine) == ["val: no image is left for it; show each class more often"]


def test_a_full_disk_leaves_nothing_behind(mine, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = everything(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "replace", full)
        prepare(mine, mine / "labels.csv", tmp_path / "data")
    assert everything(tmp_path) == before
    (tmp_path / "data.partial" / "old").mkdir(parents=True)  # of a killed call
    prepare(mine, mine / "labels.csv", tmp_path / "data")
    assert not (tmp_path / "data" / "old").exists() and verify(VOCFolder(tmp_path / "data")).problems == []


@pytest.mark.fault(22, "broken link in a folder of photos", "beside a file that is no image")
def test_a_broken_link_is_a_problem_among_others_and_the_table_may_be_a_link(mine, happened):
    (mine / "photo 3.webp").unlink()
    (mine / "photo 3.webp").symlink_to("nowhere")
    table = mine / "labels.csv"
    table.rename(mine.parent / "elsewhere.csv")
    table.symlink_to("../elsewhere.csv")
    (mine / "notes.txt").touch()
    first, second = refused(mine)
    assert first.startswith("notes.txt: not an image") and second.startswith(
        f"{mine / 'photo 3.webp'} cannot be read: "
    )
    happened("; ".join([first, second]))


def test_a_damaged_photo_that_can_be_read_is_a_note(mine, tmp_path, capsys):
    path = mine / "photo 0.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9" + content[len(content) // 2 + 2 :])
    prepare(mine, mine / "labels.csv", tmp_path / "data")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: photo 0.jpg can be read, but is damaged (Corrupt JPEG data: ")
