from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from safn.data import VOC_CLASSES, VOCFolder
from safn.datasets import voc
from safn.files import DataError
from safn.images import load_mask
from safn.verification import verify


def annotation(path, *names):
    objects = "".join(f"<object><name>{n}</name><difficult>{k % 2}</difficult></object>" for k, n in enumerate(names))
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{objects}</annotation>")
    return path


def test_the_official_lists_are_accepted_and_shorter_ones_are_not(voc12):
    lists = {name: (voc12 / "lists" / f"{name}.txt").read_text().split() for name in voc.COUNTS}
    assert voc.wrong_counts(lists) == []
    lists["val"], lists["train"] = lists["val"][:-1], [*lists["train"][1:], lists["train"][1]]
    assert voc.wrong_counts(lists) == [
        "train: 1463 ids, the official list has 1464",
        "val: 1448 ids, the official list has 1449",
    ]


def test_train_aug_is_train_and_sbd_without_val(tmp_path):
    names = ("VOCdevkit/VOC2012/ImageSets/Segmentation/train", "VOCdevkit/VOC2012/ImageSets/Segmentation/val")
    for name, ids in zip((*names, "sbd/train", "sbd/val"), ("b a", "d e", "b c", "d f")):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids.split()) + "\n")
    assert voc.official_lists(tmp_path) == {"train": ["b", "a"], "val": ["d", "e"], "train_aug": list("abcf")}


@pytest.mark.fault(3, "unknown class", "an annotation of VOC that names a unicorn")
def test_labels_are_those_of_the_annotation_difficult_ones_too(tmp_path, happened):
    labels = voc.xml_labels(annotation(tmp_path / "a.xml", "dog", "person", "dog"))
    assert [VOC_CLASSES[k] for k in np.flatnonzero(labels)] == ["dog", "person"]
    assert voc.xml_labels(annotation(tmp_path / "c.xml")) == [0] * 20
    with pytest.raises(DataError, match="unicorn.*valid: aeroplane, bicycle") as error:
        voc.xml_labels(annotation(tmp_path / "b.xml", "unicorn"))
    happened(error.value)


def test_masks_of_sbd_become_indexed_pngs_and_official_ones_stay(tmp_path):
    mask = np.array([[0, 12], [20, 0]], np.uint8)
    masks = tmp_path / "cls"
    masks.mkdir()
    savemat(masks / "c.mat", {"GTcls": {"Segmentation": mask, "Boundaries": mask}})
    base = tmp_path / "VOC2012"
    base.mkdir()
    voc.write_masks(base, masks, {"train": ["a"], "val": ["b"], "train_aug": ["a", "c"]})
    assert [p.name for p in (base / "SegmentationClassAug").iterdir()] == ["c.png"]
    assert (load_mask(base / "SegmentationClassAug" / "c.png") == mask).all()


def test_missing_files_are_named(tmp_path):
    missing = voc.missing_files(tmp_path, tmp_path / "cls", {"train": ["a"], "val": [], "train_aug": ["a", "c"]})
    assert {p.relative_to(tmp_path).as_posix() for p in missing} == {
        "JPEGImages/a.jpg", "Annotations/a.xml", "SegmentationClass/a.png",
        "JPEGImages/c.jpg", "Annotations/c.xml", "cls/c.mat",
    }  # fmt: skip


# The whole of it, on archives of three photos: a in train, b in val, c in SBD only


@pytest.fixture
def archives(tmp_path, monkeypatch):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    for name, ids in {"train": "a", "val": "b", "trainval": "a\nb"}.items():
        (base / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(ids + "\n")
    for i in "abc":
        Image.new("RGB", (4, 3)).save(base / "JPEGImages" / f"{i}.jpg")
        annotation(base / "Annotations" / f"{i}.xml", "cat")
    for i in "ab":
        Image.new("P", (4, 3)).save(base / "SegmentationClass" / f"{i}.png")
    monkeypatch.setattr(voc, "COUNTS", {"train": 1, "val": 1, "train_aug": 2})
    return tmp_path


def sbd(folder):
    for name in ("cls", "img", "inst"):
        (folder / name).mkdir(parents=True)
    for name, ids in {"train": "a\nb\n", "val": "c\n"}.items():
        (folder / f"{name}.txt").write_text(ids)
    for i in "abc":
        savemat(folder / "cls" / f"{i}.mat", {"GTcls": {"Segmentation": np.full((3, 4), 8, np.uint8)}})


def test_prepared_archives_are_a_sound_folder_and_may_be_prepared_again(archives):
    sbd(archives / "sbd")
    for _ in range(2):
        voc.prepare(archives)
        folder = VOCFolder(archives)
        assert (
            verify(folder).problems == []
            and folder.ids("train_aug") == ["a", "c"]
            and sorted(folder.labels) == list("abc")
        )
        assert folder.classes == VOC_CLASSES and folder.label("b").tolist() == [name == "cat" for name in VOC_CLASSES]
        assert (folder.mask("c") == 8).all() and (folder.mask("a") == 0).all()


def test_a_download_may_be_repeated_and_half_an_archive_is_told(archives, monkeypatch):
    def unpack(url, root, filename, md5):
        if "benchmark" in filename:
            sbd(archives / "sbd" / "benchmark_RELEASE" / "dataset")

    for module in ("sbd", "voc"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", unpack)
    for _ in range(2):
        voc.prepare(archives, download=True)
    assert verify(VOCFolder(archives)).problems == []
    (archives / "sbd" / "val.txt").unlink()
    with pytest.raises(DataError, match="unpacked in part: remove cls, img, inst, train.txt"):
        voc.prepare(archives, download=True)


def test_every_missing_list_and_every_missing_file_is_named(archives):
    (archives / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"(?s)val.txt is missing.*sbd.train.txt is missing.*sbd.val.txt is missing"):
        voc.prepare(archives)
    (archives / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text("b\n")
    sbd(archives / "sbd")
    (archives / "VOCdevkit" / "VOC2012" / "JPEGImages" / "c.jpg").unlink()
    (archives / "sbd" / "cls" / "c.mat").unlink()
    with pytest.raises(DataError, match=r"(?s)c.jpg is missing.*c.mat is missing"):
        voc.prepare(archives)
    assert not (archives / "image_labels.csv").exists()
