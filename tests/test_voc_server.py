"""Case 18 of the faults: the archive is checked before it is written."""

from __future__ import annotations

import gzip
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from safn.data import DataError
from safn.datasets import voc_server
from safn.datasets.voc_server import write_archive
from safn.images import palette, save_mask

SIZES = {"2008_000006": (9, 6), "2008_000011": (5, 7), "2008_000012": (4, 4)}
IDS = list(SIZES)


@pytest.fixture
def made(tmp_path):
    """A folder of three sound predictions that hold each id from 0 to 20."""
    folder = tmp_path / "crf"
    folder.mkdir()
    for k, (width, height) in enumerate(SIZES.values()):
        save_mask(folder / f"{IDS[k]}.png", (np.arange(height * width) % 21).reshape(height, width))
    return folder


def refused(folder, ids=IDS, sizes=SIZES) -> list[str]:
    out = folder.parent / "out.tar.gz"
    with pytest.raises(DataError) as error:
        write_archive(folder, ids, out, sizes)
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name], "nothing was written"
    head, *problems = str(error.value).split("\n  - ")
    assert head == f"{folder}: {len(problems)} problems, no archive was written:"
    return problems


def test_the_archive_holds_each_prediction_where_the_server_looks_for_it(made):
    out = made.parent / "out.tar.gz"
    write_archive(made, IDS, out, SIZES)
    with tarfile.open(out, "r:gz") as archive:
        names = archive.getnames()
        assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{i}.png" for i in IDS]
        for image_id, name in zip(IDS, names):
            assert archive.extractfile(name).read() == (made / f"{image_id}.png").read_bytes()
            with Image.open(archive.extractfile(name)) as image:
                assert (image.mode, image.size) == ("P", SIZES[image_id])
    assert sorted(p.name for p in made.parent.iterdir()) == ["crf", "out.tar.gz"]


def test_the_same_predictions_give_the_same_bytes(made):
    first, second = made.parent / "a.tar.gz", made.parent / "b.tar.gz"
    write_archive(made, IDS, first, SIZES)
    for path in made.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    write_archive(made, IDS[::-1], second, SIZES)
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes())[257:262] == b"ustar"


def test_ids_must_be_complete_and_none_extra(made):
    (made / f"{IDS[1]}.png").unlink()
    (made / "notes.txt").write_text("x")
    save_mask(made / "2008_000099.png", np.zeros((4, 4)))
    assert refused(made) == [
        f"{IDS[1]}: no prediction",
        "2008_000099.png: not one of the 3 ids",
        "notes.txt: not one of the 3 ids",
    ]
    assert refused(made.parent / "crf", [*IDS, IDS[0]])[0] == f"{IDS[0]}: listed more than once"


def test_every_wrong_prediction_is_listed_with_all_its_problems(made):
    first, second, third = (made / f"{i}.png" for i in IDS)
    save_mask(first, np.full((9, 6), 21))
    Image.fromarray(np.zeros((7, 5), np.uint8)).save(second)
    third.write_bytes(third.read_bytes()[:60])
    found = refused(made)
    assert found[:3] == [
        f"{IDS[0]}: 6x9 pixels, the photo has 9x6",
        f"{IDS[0]}: ids [21]; valid are 0-20",
        f"{IDS[1]}: mode L instead of P (indexed)",
    ]
    assert found[3].startswith(f"{IDS[2]}: ") and f"{IDS[2]}.png cannot be read: " in found[3] and len(found) == 4


def test_void_another_palette_another_format_and_a_missing_photo_are_refused(made):
    first, second, third = (made / f"{i}.png" for i in IDS)
    save_mask(first, np.full((6, 9), 255))
    grey = Image.fromarray(np.zeros((7, 5), np.uint8))
    grey.putpalette([v for k in range(256) for v in (k, k, k)])
    grey.save(second)
    flat = Image.fromarray(np.zeros((4, 4), np.uint8))
    flat.putpalette(palette())
    flat.save(third, "gif")
    assert refused(made, sizes={i: s for i, s in SIZES.items() if i != IDS[0]}) == [
        f"{IDS[0]}: no photo to compare its size with",
        f"{IDS[0]}: ids [255]; valid are 0-20",
        f"{IDS[1]}: another palette than VOC's",
        f"{IDS[2]}: GIF instead of PNG",
    ]


def test_an_empty_list_and_a_missing_folder_are_refused(made):
    assert refused(made, [])[0] == "the list of ids is empty"
    with pytest.raises(DataError, match="3 problems"):
        write_archive(made.parent / "none", IDS, made.parent / "o", SIZES)


def test_a_failure_while_writing_leaves_nothing_and_keeps_the_archive_before(made, monkeypatch):
    out = made.parent / "out.tar.gz"
    out.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_archive(made, IDS, out, SIZES)
    assert out.read_bytes() == b"before" and sorted(p.name for p in made.parent.iterdir()) == ["crf", "out.tar.gz"]


def test_the_official_list_says_which_and_the_photos_how_large(made, tmp_path):
    base = tmp_path / "data/VOCdevkit/VOC2012"
    (base / "JPEGImages").mkdir(parents=True)
    with pytest.raises(DataError, match=r"test\.txt is missing: it comes with VOC's test data"):
        voc_server.archive_test_set(made, tmp_path / "data", tmp_path / "o.tar.gz")
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/test.txt").write_text("\n".join(IDS) + "\n")
    for image_id, size in SIZES.items():
        Image.new("RGB", size).save(base / "JPEGImages" / f"{image_id}.jpg")
    assert voc_server.archive_test_set(made, tmp_path / "data", tmp_path / "o.tar.gz") == 3
    with tarfile.open(tmp_path / "o.tar.gz") as archive:
        assert len(archive.getnames()) == 3
    Image.new("RGB", (9, 7)).save(base / "JPEGImages" / f"{IDS[0]}.jpg")
    with pytest.raises(DataError, match="9x6 pixels, the photo has 9x7"):
        voc_server.archive_test_set(made, tmp_path / "data", tmp_path / "o.tar.gz")
