"""VOC 2012 and SBD through torchvision into the VOC layout: lists, labels from the annotations, masks."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision.datasets import SBDataset, VOCSegmentation
from tqdm import tqdm

from safn.data import VOC_CLASSES, DataError, save_mask

COUNTS = {"train": 1464, "val": 1449, "train_aug": 10582}


def prepare(root: Path | str, download: bool = False) -> None:
    """Complete ``root`` (what torchvision calls root; SBD in ``root/sbd``) to the layout of ``data.VOCFolder``.

    Writes ``train_aug.txt``, ``image_labels.csv`` and ``SegmentationClassAug``. ``download`` fetches both archives
    with torchvision, which checks their MD5.

    Raises:
        DataError: listing every count that is not the official one, and every missing file.
    """
    root = Path(root)
    if download:
        fetch(root)
    base, masks = root / "VOCdevkit" / "VOC2012", root / "sbd" / "cls"
    lists, extra = official_lists(root)
    lists["train_aug"] = train_aug(lists["train"], lists["val"], extra)
    problems = wrong_counts(lists)
    problems += [f"{path} is missing" for path in missing_files(base, masks, lists)]
    if problems:
        raise DataError("\n  - ".join([f"{root}: the download is incomplete:", *problems]))
    write_labels(root / "image_labels.csv", base / "Annotations", sorted({i for ids in lists.values() for i in ids}))
    write_masks(base, masks, lists)
    # last: a list that is there means that all it lists is there
    (base / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("\n".join(lists["train_aug"]) + "\n")


def fetch(root: Path) -> None:
    """Both archives, checked and unpacked by torchvision; may be repeated.

    Raises:
        DataError: SBD was unpacked in part, over which torchvision cannot unpack it again.
    """
    VOCSegmentation(str(root), year="2012", image_set="trainval", download=True)
    sbd = root / "sbd"
    if (sbd / "val.txt").exists():  # what torchvision moves into place last: SBD is complete
        return
    if parts := [name for name in ("cls", "img", "inst", "train.txt") if (sbd / name).exists()]:
        raise DataError(f"{sbd} was unpacked in part: remove {', '.join(parts)} in it, then repeat")
    SBDataset(str(sbd), "train", "segmentation", download=True)


def official_lists(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    """VOC's train and val, and the ids of SBD (its own lists; train_noval is what others made of them).

    Raises:
        DataError: naming every list that is missing.
    """
    paths = {s: root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / f"{s}.txt" for s in ("train", "val")}
    sbd = [root / "sbd" / f"{s}.txt" for s in ("train", "val")]
    if problems := [f"{path} is missing" for path in [*paths.values(), *sbd] if not path.is_file()]:
        raise DataError("\n  - ".join([f"{root}: the download is incomplete (download=True fetches it):", *problems]))
    return {s: read_list(path) for s, path in paths.items()}, [i for path in sbd for i in read_list(path)]


def read_list(path: Path) -> list[str]:
    """The ids of a list file."""
    return path.read_text().split()


def train_aug(train: list[str], val: list[str], extra: list[str]) -> list[str]:
    """(VOC train + SBD train + SBD val) minus VOC val, sorted."""
    return sorted((set(train) | set(extra)) - set(val))


def wrong_counts(lists: dict[str, list[str]]) -> list[str]:
    """A line for each list that is not of the official length, for repeated ids and for lists that overlap."""
    problems = [
        f"{name}: {len(ids)} ids, the official list has {COUNTS[name]}"
        for name, ids in lists.items()
        if len(ids) != COUNTS[name]
    ]
    problems += [
        f"{name}: {len(ids) - len(set(ids))} repeated ids" for name, ids in lists.items() if len(set(ids)) < len(ids)
    ]
    both = set(lists["train_aug"]) & set(lists["val"])
    problems += [f"train_aug and val share {len(both)} ids"] if both else []
    outside = set(lists["train"]) - set(lists["train_aug"])
    return problems + ([f"{len(outside)} ids of train are not in train_aug"] if outside else [])


def missing_files(base: Path, masks: Path, lists: dict[str, list[str]]) -> list[Path]:
    """Photos, annotations and masks that the lists name and that are not there."""
    official = set(lists["train"]) | set(lists["val"])
    paths = []
    for i in sorted(official | set(lists["train_aug"])):
        mask = base / "SegmentationClass" / f"{i}.png" if i in official else masks / f"{i}.mat"
        paths += [base / "JPEGImages" / f"{i}.jpg", base / "Annotations" / f"{i}.xml", mask]
    return [path for path in paths if not path.exists()]


def xml_labels(path: Path) -> list[int]:
    """0/1 for each of the 20 classes: what the annotation names, objects marked difficult included.

    Raises:
        DataError: the annotation names another class.
    """
    names = {element.findtext("name") for element in ElementTree.parse(path).getroot().iter("object")}
    unknown = sorted(names - set(VOC_CLASSES))
    if unknown:
        raise DataError(f"{path.name} names {unknown}; valid: {', '.join(VOC_CLASSES)}")
    return [int(name in names) for name in VOC_CLASSES]


def write_labels(table: Path, annotations: Path, ids: list[str]) -> None:
    """``image_labels.csv`` from the XML annotations (not from the masks: that would leak pixel supervision)."""
    rows = [[i, *xml_labels(annotations / f"{i}.xml")] for i in ids]
    pd.DataFrame(rows, columns=["id", *VOC_CLASSES]).to_csv(table, index=False)


def sbd_mask(path: Path) -> np.ndarray:
    """Class ids of one of SBD's ``.mat`` files, uint8 ``(H, W)``; they have no void border."""
    from scipy.io import loadmat

    return loadmat(path, mat_dtype=False)["GTcls"][0]["Segmentation"][0].astype(np.uint8)


def write_masks(base: Path, masks: Path, lists: dict[str, list[str]]) -> None:
    """``SegmentationClassAug``: SBD's masks as indexed PNG; ``data.VOCFolder`` finds the official ones where they are."""
    out = base / "SegmentationClassAug"
    out.mkdir(exist_ok=True)
    official = set(lists["train"]) | set(lists["val"])
    for image_id in tqdm([i for i in lists["train_aug"] if i not in official], "masks"):
        save_mask(out / f"{image_id}.png", sbd_mask(masks / f"{image_id}.mat"))
