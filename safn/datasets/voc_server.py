"""Archive of test predictions for the VOC evaluation server, from which the paper's test results come (Sec. IV-A)."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np

from safn.data import VOC_CLASSES, read_text
from safn.files import DataError
from safn.images import image_head, opened, palette

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
CLASSES = len(VOC_CLASSES)


def archive_test_set(predictions: Path | str, root: Path | str, out: Path | str) -> int:
    """Archive the predictions of the official test list of ``root``, which holds ``VOCdevkit``; returns how many."""
    base = Path(root) / "VOCdevkit" / "VOC2012"
    test = base / "ImageSets" / "Segmentation" / "test.txt"
    if not test.is_file():
        raise DataError(f"{test} is missing: it comes with VOC's test data, from the evaluation server")
    ids = read_text(test).split()
    sizes = {}
    for image_id in ids:
        photo = base / "JPEGImages" / f"{image_id}.jpg"
        if photo.is_file():
            sizes[image_id] = image_head(photo)[0]
    write_archive(Path(predictions), ids, Path(out), sizes)
    return len(ids)


def write_archive(predictions: Path, ids: list[str], out: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """Write ``predictions/<id>.png`` as the ``tar.gz`` that the server takes, checked before anything is written.

    The same predictions give the same bytes. The archive gets its name only when complete.

    Args:
        sizes: id -> (width, height) of the photograph in pixels.

    Raises:
        DataError: listing every problem of every prediction.
    """
    if problems := wrong_predictions(predictions, ids, sizes):
        raise DataError.from_problems(f"{predictions}: {len(problems)} problems, no archive was written:", problems)
    partial = out.with_name(out.name + ".partial")
    try:
        with (
            partial.open("wb") as file,
            gzip.GzipFile("", "wb", 9, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for image_id in sorted(ids):
                path = predictions / f"{image_id}.png"
                entry = tarfile.TarInfo(f"{FOLDER}/{image_id}.png")
                entry.size = path.stat().st_size  # owner, time and mode stay those of TarInfo, not of this machine
                with path.open("rb") as png:
                    archive.addfile(entry, png)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def wrong_predictions(predictions: Path, ids: list[str], sizes: dict[str, tuple[int, int]]) -> list[str]:
    """List every problem that the server would have with the predictions, with its id and the value found."""
    there = {path.name for path in predictions.iterdir()} if predictions.is_dir() else set()
    wanted = {f"{i}.png" for i in ids}
    problems = [] if ids else ["the list of ids is empty"]
    problems += [f"{i}: listed more than once" for i, count in sorted(Counter(ids).items()) if count > 1]
    problems += [f"{name[:-4]}: no prediction" for name in sorted(wanted - there)]
    problems += [f"{name}: not one of the {len(ids)} ids" for name in sorted(there - wanted)]
    for name in sorted(wanted & there):
        image_id = name[:-4]
        for problem in _wrong(predictions / name, sizes.get(image_id)):
            problems.append(f"{image_id}: {problem}")
    return problems


def _wrong(path: Path, size: tuple[int, int] | None) -> list[str]:
    try:
        with opened(path) as image:
            kind, mode, found = image.format, image.mode, image.size
            colours = image.getpalette() if mode == "P" else None
            ids = np.unique(np.array(image)).tolist()
    except DataError as error:
        return [str(error)]
    if kind != "PNG":
        return [f"{kind} instead of PNG"]
    problems = [] if size else ["no photo to compare its size with"]
    if size and found != tuple(size):
        problems.append(f"{found[0]}x{found[1]} pixels, the photo has {size[0]}x{size[1]}")
    if colours is None:
        return [*problems, f"mode {mode} instead of P (indexed)"]
    used = 3 * (CLASSES + 1)  # red, green and blue of each id
    if colours[:used] != palette()[:used]:
        problems.append("another palette than VOC's")
    if wrong := [i for i in ids if i > CLASSES]:
        problems.append(f"ids {wrong}; valid are 0-{CLASSES}")
    return problems
