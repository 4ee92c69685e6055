"""Your own photographs and a table of image labels, laid out as a data folder in the VOC layout."""

import hashlib
import os
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
from PIL import Image

from safn.data import read_labels
from safn.files import DataError, write_csv
from safn.images import load_image, opened, unreadable

JPEG = ("JPEG", "MPO")  # MPO: the multi-picture JPEG that phones write
Labels = dict[str, np.ndarray]  # id -> 0/1 labels (N,)


def prepare(images: Path | str, table: Path | str, out: Path | str, val_share: float = 0.1) -> dict[str, list[str]]:
    """Lay ``images`` out in ``out``: photographs, ``train_aug.txt``, ``val.txt``, ``image_labels.csv``.

    Everything is checked first. An id is the name of the file without suffix, blanks replaced by ``_``.

    Args:
        table: CSV, header ``id,<class>,...``, a row of 0 and 1 for each image, its name with or without suffix.
        val_share: share of the images kept for validation.

    Returns:
        The ids of ``train_aug`` and of ``val``.

    Raises:
        DataError: listing every problem, or ``out`` exists or lies among the images.
    """
    images, table, out = Path(images), Path(table), Path(out)
    if out.exists():
        raise DataError(f"{out} exists: give another name, or remove it")
    if out.resolve().is_relative_to(images.resolve()):
        raise DataError(f"{out} lies among the images: give another folder")
    if not 0 < val_share < 1:
        raise DataError(f"val-share is {val_share}; valid: between 0 and 1")
    found, problems = find_images(images, besides=table)
    classes, rows, wrong = read_labels(table)
    labels, unmatched = match(rows, found)
    problems += wrong + unmatched
    problems += unreadable(found.values())
    shown = sum(rows.values(), np.zeros(len(classes)))
    problems += [f"class {name}: no image shows it" for name, count in zip(classes, shown) if not count]
    lists = {} if problems else split(labels, val_share)
    problems += [f"{s}: no image is left for it; show each class more often" for s, ids in lists.items() if not ids]
    if problems:
        raise DataError.from_problems(f"{images}: {len(problems)} problems, nothing was written:", problems)
    write(found, classes, labels, lists, out)
    return lists


def find_images(folder: Path, besides: Path | None = None) -> tuple[dict[str, Path], list[str]]:
    """Return id -> file of each image in ``folder`` by id, and a line for each file that is no image or repeats an id.

    Hidden files, folders and the file ``besides`` do not count.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    known, problems = Image.registered_extensions(), []
    table = os.path.realpath(besides) if besides else None
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        image_id = "_".join(path.stem.split())
        if path.name.startswith(".") or path.is_dir() or os.path.realpath(path) == table:
            continue
        if path.suffix.lower() not in known:
            problems.append(f"{path.name}: not an image that Pillow reads: convert or remove it")
        elif image_id in found:
            problems.append(f"{path.name}: the same id as {found[image_id].name}: rename one")
        else:
            found[image_id] = path
    return found, problems if found or problems else [f"{folder} holds no image"]


def match(rows: Labels, found: dict[str, Path]) -> tuple[Labels, list[str]]:
    """Return image id -> labels, and a line for each row or image without the other, and for each second row."""
    # NFC: é as one character, of which macOS makes two
    names = {normalize("NFC", name): i for i, path in found.items() for name in (path.name, path.stem)}
    labels: Labels = {}
    problems = []
    for name, values in rows.items():
        image_id = names.get(normalize("NFC", name), name)
        if image_id not in found:
            problems.append(f"{name}: labelled, but there is no such image")
        elif image_id in labels:
            problems.append(f"{name}: a second row for {found[image_id].name}")
        else:
            labels[image_id] = values
    problems += [f"{found[i].name}: no valid row in the table of labels" for i in found if i not in labels]
    return labels, problems


def split(labels: Labels, val_share: float) -> dict[str, list[str]]:
    """Choose training and validation ids in the order of a hash of the id, which depends on nothing else.

    An image stays in training where it is the last that shows one of its classes.
    """
    order = sorted(labels, key=lambda i: hashlib.sha256(i.encode()).digest())
    left = sum(labels.values())
    val: list[str] = []
    for image_id in order:
        rest = left - labels[image_id]
        if len(val) < max(1, round(val_share * len(order))) and (rest >= np.minimum(1, labels[image_id])).all():
            val.append(image_id)
            left = rest
    return {"train_aug": sorted(set(labels) - set(val)), "val": sorted(val)}


def write(found: dict[str, Path], classes: list[str], labels: Labels, lists: dict[str, list[str]], out: Path) -> None:
    """Write the data folder, which gets its name only when complete."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    photos = partial / "VOCdevkit" / "VOC2012" / "JPEGImages"
    listed = partial / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    try:
        photos.mkdir(parents=True)
        listed.mkdir(parents=True)
        for image_id, path in found.items():
            copy(path, photos / f"{image_id}.jpg")
        rows = [[i, *labels[i].astype(int)] for i in sorted(labels)]
        write_csv(partial / "image_labels.csv", [["id", *classes], *rows])
        for name, ids in lists.items():
            (listed / f"{name}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def copy(path: Path, target: Path) -> None:
    """Copy a JPEG as it is, with its EXIF, and convert any other format, upright."""
    with opened(path) as image:
        kind = image.format
    if kind in JPEG:
        shutil.copyfile(path, target)
    else:
        load_image(path).save(target, "jpeg", quality=95, subsampling=0)
