"""Case 18 of the faults: the archive is checked before it is written."""

from __future__ import annotations

import gzip
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from safn.data import DataError
from safn.datasets.voc import archive_test_set
from safn.images import save_mask

SIZES = {"2008_000006": (9, 6), "2008_000011": (5, 7), "2008_000012": (4, 4)}
IDS = list(SIZES)


@pytest.fixture
def data(tmp_path):
    """The test data of VOC: a list of three photographs."""
    base = tmp_path / "data/VOCdevkit/VOC2012"
    (base / "JPEGImages").mkdir(parents=True)
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/test.txt").write_text("\n".join(IDS[::-1]) + "\n")
    for image_id, size in SIZES.items():
        Image.new("RGB", size).save(base / "JPEGImages" / f"{image_id}.jpg")
    return tmp_path / "data"


@pytest.fixture
def made(tmp_path):
    """A folder of three sound predictions that hold each id from 0 to 20."""
    folder = tmp_path / "crf"
    folder.mkdir()
    for k, (width, height) in enumerate(SIZES.values()):
        save_mask(folder / f"{IDS[k]}.png", (np.arange(height * width) % 21).reshape(height, width))
    return folder


def refused(made, data) -> list[str]:
    out = made.parent / "out.tar.gz"
    with pytest.raises(DataError) as error:
        archive_test_set(made, data, out)
    assert not list(made.parent.glob("out*")), "nothing was written"
    head, *problems = str(error.value).split("\n  - ")
    assert head == f"{made}: {len(problems)} problems, no archive was written:"
    return problems


def test_the_archive_holds_each_prediction_where_the_server_looks_for_it(made, data):
    out = made.parent / "out.tar.gz"
    assert archive_test_set(made, data, out) == 3
    with tarfile.open(out, "r:gz") as archive:
        names = archive.getnames()
        assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{i}.png" for i in IDS]
        for image_id, name in zip(IDS, names):
            assert archive.extractfile(name).read() == (made / f"{image_id}.png").read_bytes()
            with Image.open(archive.extractfile(name)) as image:
                assert (image.mode, image.size) == ("P", SIZES[image_id])
    assert sorted(p.name for p in made.parent.iterdir()) == ["crf", "data", "out.tar.gz"]


def test_the_same_predictions_give_the_same_bytes(made, data):
    first, second = made.parent / "a.tar.gz", made.parent / "b.tar.gz"
    archive_test_set(made, data, first)
    for path in made.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    archive_test_set(made, data, second)
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes())[257:262] == b"ustar"


def test_what_is_missing_or_unreadable_is_named(made, data):
    first, second, _ = (made / f"{i}.png" for i in IDS)
    first.unlink()
    second.write_bytes(second.read_bytes()[:60])
    missing, damaged = refused(made, data)
    assert missing == f"{IDS[0]}: no prediction"
    assert damaged.startswith(f"{IDS[1]}: ") and f"{IDS[1]}.png cannot be read: " in damaged
    (data / "VOCdevkit/VOC2012/JPEGImages" / f"{IDS[2]}.jpg").unlink()
    assert f"{IDS[2]}.jpg cannot be read: " in refused(made, data)[2]


def test_each_wrong_prediction_is_listed(made, data):
    first, second, third = (made / f"{i}.png" for i in IDS)
    save_mask(first, np.zeros((9, 6)))
    Image.fromarray(np.zeros((7, 5), np.uint8)).save(second)
    save_mask(third, np.full((4, 4), 255))
    assert refused(made, data) == [
        f"{IDS[0]}: 6x9 pixels, the photo has 9x6",
        f"{IDS[1]}: PNG of mode L instead of an indexed PNG (mode P)",
        f"{IDS[2]}: ids [255]; valid are 0-20",
    ]
    save_mask(third, np.full((3, 4), 255))
    assert refused(made, data)[2] == f"{IDS[2]}: 4x3 pixels, the photo has 4x4, and ids [255]; valid are 0-20"
    with Image.open(second) as image:
        image.convert("P").save(second, "gif")
    assert refused(made, data)[1].startswith(f"{IDS[1]}: GIF of mode ")


def test_without_the_official_list_there_is_no_archive(made, tmp_path):
    with pytest.raises(DataError, match=r"test\.txt is missing: it comes with VOC's test data"):
        archive_test_set(made, tmp_path / "nowhere", tmp_path / "o.tar.gz")


def test_a_failure_while_writing_leaves_nothing_and_keeps_the_archive_before(made, data, monkeypatch):
    out = made.parent / "out.tar.gz"
    out.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        archive_test_set(made, data, out)
    assert out.read_bytes() == b"before" and sorted(p.name for p in made.parent.iterdir()) == [
        "crf",
        "data",
        "out.tar.gz",
    ]


def test_an_empty_list_is_no_archive_of_nothing(made, data):
    (data / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt").write_text("\n")
    with pytest.raises(DataError, match="test.txt is empty"):
        archive_test_set(made, data, made.parent / "out.tar.gz")
    assert not list(made.parent.glob("out*"))
