"""A data folder in the VOC layout: lists, image labels, photographs and masks."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from safn.images import DataError, load_image, load_mask, palette, pillow_errors, read_text, save_mask
from safn.metrics import VOID

__all__ = [
    "VOC_CLASSES", "VOID", "DataError", "VOCFolder", "content_fingerprint", "load_image", "load_mask", "palette",
    "pillow_errors", "read_labels", "read_text", "save_mask",
]  # fmt: skip
VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def read_labels(table: Path) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
    """Read a table of image labels: header ``id,<class>,...``, then a row of 0 and 1 for each image.

    Returns:
        The classes, image id -> 0/1 labels (float32 ``(N,)``), and a line for each row that is wrong.

    Raises:
        DataError: the file or its header is not a table of labels.
    """
    if not table.is_file():
        raise DataError(f"{table} is missing: one row an image, header id,<class>,..., values 0 or 1")
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(read_text(table), newline="")) if row]
    except csv.Error as error:
        raise DataError(f"{table} cannot be read: {error}; save it as CSV in UTF-8") from None
    header = rows[0] if rows else []
    classes, problems = header[1:], []
    labels: dict[str, np.ndarray] = {}
    if header[:1] != ["id"] or not classes or len(set(header)) < len(header):
        raise DataError(f"{table}: the header is {','.join(header)!r}; valid: id,<class>,... without repetition")
    for image_id, *values in rows[1:]:
        if problem := _wrong_row(image_id, values, classes, labels):
            problems.append(f"{table.name}: {image_id} has {problem}")
        else:
            labels[image_id] = np.array(values, np.float32)
    return classes, labels, problems


def _wrong_row(image_id: str, values: list[str], classes: list[str], labels: dict[str, np.ndarray]) -> str:
    """What is wrong with a row of the table, or an empty text."""
    wrong = [value for value in values if value not in ("0", "1", "0.0", "1.0")]
    if image_id in labels:
        return "more than one row: keep one"
    if len(values) != len(classes):
        return f"{len(values)} labels for the {len(classes)} classes {', '.join(classes)}"
    return f"labels {wrong}; valid are 0 and 1" if wrong else ""


class VOCFolder:
    """A data set in the VOC layout: ``root/VOCdevkit/VOC2012`` and ``root/image_labels.csv``.

    Attributes:
        classes: names of the N classes, without the background.
        labels: image id -> 0/1 labels, float32 ``(N,)``.

    Raises:
        DataError: the table of labels is missing or has a wrong header.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.base = self.root / "VOCdevkit" / "VOC2012"
        self.classes, self.labels, self._table_problems = read_labels(self.root / "image_labels.csv")

    def ids(self, split: str, limit: int = 0) -> list[str]:
        """Return the image ids of a split, or ``limit`` of them, evenly spaced (0: all)."""
        ids = read_text(self._list(split)).split()
        if not ids:
            raise DataError(f"{self._list(split)} is empty")
        if 0 < limit < len(ids):
            ids = [ids[int(k)] for k in np.linspace(0, len(ids) - 1, limit)]
        return ids

    def has_list(self, split: str) -> bool:
        """Whether there is a list of that name. Only ``train_aug`` and ``val`` must be there."""
        return self._list(split).exists()

    def _list(self, split: str) -> Path:
        return self.base / "ImageSets" / "Segmentation" / f"{split}.txt"

    def label(self, image_id: str) -> np.ndarray:
        """Return 0/1 labels, float32 ``(N,)``."""
        try:
            return self.labels[image_id]
        except KeyError:
            raise DataError(f"{image_id} has no valid row in {self.root / 'image_labels.csv'}") from None

    def photo(self, image_id: str) -> Path:
        """Return the file of a photograph."""
        return self.base / "JPEGImages" / f"{image_id}.jpg"

    def photos(self, ids: list[str]) -> dict[str, Path]:
        """Return id -> file of the photograph."""
        return {i: self.photo(i) for i in ids}

    def image(self, image_id: str) -> Image.Image:
        """Read a photograph, RGB and upright."""
        return load_image(self.photo(image_id))

    def size(self, image_id: str) -> tuple[int, int]:
        """Return the width and height of ``image``, from the head of the file alone."""
        with pillow_errors(f"photo {image_id}"), Image.open(self.photo(image_id)) as image:
            lying = image.getexif().get(ExifTags.Base.Orientation) in LYING
            return image.size[::-1] if lying else image.size

    def mask_path(self, image_id: str) -> Path | None:
        """Return the ground-truth mask, SegmentationClassAug before SegmentationClass, or ``None``."""
        for name in ("SegmentationClassAug", "SegmentationClass"):
            path = self.base / name / f"{image_id}.png"
            if path.exists():
                return path
        return None

    def with_mask(self, ids: list[str]) -> list[str]:
        """Return the ids that have a ground-truth mask, in their order."""
        return [i for i in ids if self.mask_path(i) is not None]

    def mask(self, image_id: str) -> np.ndarray:
        """Read the ground-truth class ids, uint8 ``(H, W)``, for scores and the fully supervised upper bound only."""
        path = self.mask_path(image_id)
        if path is None:
            raise DataError(f"{image_id} has no mask in SegmentationClassAug or SegmentationClass")
        return load_mask(path)

    def verify(self) -> list[str]:
        """List every problem of the folder, one a line with id, value found and remedy. An empty list: all is well."""
        problems, splits = list(self._table_problems), {}
        for split in ("train_aug", "val"):
            try:
                splits[split] = self.ids(split)
            except DataError as error:
                problems.append(f"{error}: list the ids of the split in it, one a line")
        for split, ids in splits.items():
            repeated = sorted(i for i, count in Counter(ids).items() if count > 1)
            problems += [f"{split}.txt: {i} is listed more than once: keep one line" for i in repeated]
        both = sorted(set(splits.get("train_aug", ())) & set(splits.get("val", ())))
        problems += [f"{i}: in train_aug.txt and in val.txt: remove it from one of them" for i in both]
        for image_id in dict.fromkeys(i for ids in splits.values() for i in ids):
            problems += [f"{image_id}: {problem}" for problem in self._image_problems(image_id)]
        return problems

    def _image_problems(self, image_id: str) -> Iterator[str]:
        if image_id not in self.labels:
            yield f"no valid row in image_labels.csv; the classes are {', '.join(self.classes)}"
        try:
            width, height = self.image(image_id).size
        except DataError as error:
            yield f"{error}; replace the file or drop the id from its list"
            return
        if (path := self.mask_path(image_id)) is None:
            return
        try:
            mask = load_mask(path)
        except DataError as error:
            yield str(error)
            return
        if mask.shape != (height, width):
            yield f"mask is {mask.shape[1]}x{mask.shape[0]}, photo is {width}x{height}"
        wrong = sorted(set(np.unique(mask).tolist()) - {*range(len(self.classes) + 1), VOID})
        if wrong:
            yield f"mask holds ids {wrong}; valid are 0-{len(self.classes)} and {VOID}"


def content_fingerprint(folder: VOCFolder, ids: list[str]) -> str:
    """Return 16 hex digits over the photographs and labels of ``ids``. They name the data beside every number."""
    digest = hashlib.sha256()
    for image_id in ids:
        digest.update(image_id.encode() + folder.label(image_id).tobytes())
        digest.update(folder.photo(image_id).read_bytes())
    return digest.hexdigest()[:16]
