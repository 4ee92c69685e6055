"""A data folder in the VOC layout, and the lists and tables in it. Every error names the file."""

import codecs
import csv
import hashlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from safn.files import DataError
from safn.images import image_head, load_image, load_mask
from safn.metrics import VOID

VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
RESERVED = ("", "background", "void")  # names that no class may have: 0 and 255 have them already


def read_text(path: Path) -> str:
    """Read a text file in UTF-8 or, where it begins with a byte order mark, in UTF-16."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    content = path.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}; save it as text in UTF-8") from None


def read_labels(table: Path) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
    """Read a table of image labels: header ``id,<class>,...``, then a row of 0 and 1 for each image.

    Returns:
        The classes, image id -> 0/1 labels (float32 ``(N,)``), and a line for each row that is wrong.

    Raises:
        DataError: the file or its header is not a table of labels.
    """
    try:
        table_rows = csv.reader(io.StringIO(read_text(table), newline=""))
        rows = [row for row in ([cell.strip() for cell in cells] for cells in table_rows) if any(row)]
    except csv.Error as error:
        raise DataError(f"{table} cannot be read: {error}; save it as CSV in UTF-8") from None
    header = rows[0] if rows else []
    classes, problems = header[1:], []
    labels: dict[str, np.ndarray] = {}
    if header[:1] != ["id"] or not classes or len(set(header)) < len(header):
        raise DataError(f"{table}: the header is {','.join(header)!r}; valid: id,<class>,... without repetition")
    if len(classes) >= VOID:
        raise DataError(f"{table}: {len(classes)} classes; valid: up to {VOID - 1}, for {VOID} is the ignored pixel")
    if reserved := [name for name in classes if name.lower() in RESERVED]:
        raise DataError(f"{table}: the header names a class {reserved[0]!r}; give it another name, or remove it")
    for image_id, *values in rows[1:]:
        wrong = [value for value in values if value not in ("0", "1", "0.0", "1.0")]
        if image_id in labels:
            problems.append(f"{table.name}: {image_id} has more than one row: keep one")
        elif len(values) != len(classes):
            found = f"{len(values)} labels for the {len(classes)} classes {', '.join(classes)}"
            problems.append(f"{table.name}: {image_id} has {found}")
        elif wrong:
            problems.append(f"{table.name}: {image_id} has labels {wrong}; valid are 0 and 1")
        else:
            labels[image_id] = np.array(values, np.float32)
    return classes, labels, problems


class VOCFolder:
    """A data set in the VOC layout: ``root/VOCdevkit/VOC2012`` and ``root/image_labels.csv``.

    Its methods raise ``DataError`` where a file is missing or damaged.

    Attributes:
        classes: names of the N classes, without the background.
        labels: image id -> 0/1 labels, float32 ``(N,)``.
        table_problems: a line for each row of ``image_labels.csv`` that is wrong.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.base = self.root / "VOCdevkit" / "VOC2012"
        self.classes, self.labels, self.table_problems = read_labels(self.root / "image_labels.csv")

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
        if image_id not in self.labels:
            raise DataError(f"{image_id} has no valid row in {self.root / 'image_labels.csv'}")
        return self.labels[image_id]

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
        return image_head(self.photo(image_id))[0]

    def mask_paths(self, image_id: str) -> list[Path]:
        """Return the ground-truth masks that are there, a broken link as well: at most two, the first of which counts."""
        paths = [self.base / name / f"{image_id}.png" for name in ("SegmentationClassAug", "SegmentationClass")]
        return [path for path in paths if os.path.lexists(path)]

    def mask_path(self, image_id: str) -> Path | None:
        """Return the ground-truth mask, SegmentationClassAug before SegmentationClass, or ``None``."""
        return next(iter(self.mask_paths(image_id)), None)

    def with_mask(self, ids: list[str]) -> list[str]:
        """Return the ids that have a ground-truth mask, in their order."""
        return [i for i in ids if self.mask_path(i) is not None]

    def mask(self, image_id: str) -> np.ndarray:
        """Read the ground-truth class ids, uint8 ``(H, W)``, for scores and the fully supervised upper bound only."""
        path = self.mask_path(image_id)
        if path is None:
            raise DataError(f"{image_id} has no mask in SegmentationClassAug or SegmentationClass")
        return load_mask(path)


def content_fingerprint(folder: VOCFolder, ids: list[str]) -> str:
    """Return 16 hex digits over the photographs and labels of ``ids``. They name the data beside every number."""
    digest = hashlib.sha256()
    for image_id in ids:
        digest.update(image_id.encode() + folder.label(image_id).tobytes())
        digest.update(folder.photo(image_id).read_bytes())
    return digest.hexdigest()[:16]
