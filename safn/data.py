"""A data folder in the VOC layout, and the images, masks and texts in it. Every error names the file."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from safn.files import write_file
from safn.metrics import VOID

VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class DataError(ValueError):
    """Say which files are missing, damaged or do not fit, with ids and values.

    Example:
        >>> print(DataError.from_problems("1 problem:", ["a7: no valid row in image_labels.csv"]))
        1 problem:
          - a7: no valid row in image_labels.csv
    """

    @classmethod
    def from_problems(cls, head: str, problems: list[str]) -> DataError:
        """Return one error with a line for each problem."""
        return cls("\n  - ".join([head, *problems]))


def palette() -> list[int]:
    """Return the 256 x 3 colours of VOC's indexed masks, flat, as ``Image.putpalette`` takes them.

    Example:
        >>> palette()[3:6]  # aeroplane
        [128, 0, 0]
    """
    colours = np.zeros((256, 3), int)
    ids = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.ravel().tolist()


@contextmanager
def pillow_errors(what: str) -> Iterator[None]:
    """Make a ``DataError`` of whatever Pillow raises, and silence its warnings of large images and odd EXIF blocks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise DataError(f"{what} cannot be read: {error}") from error


def load_image(path: Path) -> Image.Image:
    """Read an RGB image, upright (EXIF rotation applied), whatever the mode of the file."""
    with pillow_errors(f"photo {path.stem}"), Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def load_mask(path: Path) -> np.ndarray:
    """Read the class ids of an indexed or 8-bit grey PNG, uint8 ``(H, W)``. ``convert`` would destroy them."""
    with pillow_errors(f"{path}: the mask"), Image.open(path) as image:
        mode, mask = image.mode, np.array(image)
    if mode not in ("P", "L"):
        raise DataError(f"{path}: a mask is an indexed (mode P) PNG, this one is of mode {mode}")
    return mask


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask ``(H, W)`` of ids in 0..255 as an indexed PNG with VOC's palette.

    Raises:
        ValueError: the mask has another shape, or other ids.
    """
    if mask.ndim != 2 or mask.min() < 0 or mask.max() > 255:
        found = f"shape {mask.shape}, ids {mask.min()} to {mask.max()}"
        raise ValueError(f"{path}: a mask of {found}; valid: shape (H, W), ids 0 to 255")
    image, buffer = Image.fromarray(mask.astype(np.uint8)), io.BytesIO()
    image.putpalette(palette())
    image.save(buffer, "png", optimize=False)
    write_file(path, buffer.getvalue())


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
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(read_text(table), newline="")) if row]
    except csv.Error as error:
        raise DataError(f"{table} cannot be read: {error}; save it as CSV in UTF-8") from None
    header = rows[0] if rows else []
    classes, problems = header[1:], []
    labels: dict[str, np.ndarray] = {}
    if header[:1] != ["id"] or not classes or len(set(header)) < len(header):
        raise DataError(f"{table}: the header is {','.join(header)!r}; valid: id,<class>,... without repetition")
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
        with pillow_errors(f"photo {image_id}"), Image.open(self.photo(image_id)) as image:
            lying = image.getexif().get(ExifTags.Base.Orientation) in LYING
            return image.size[::-1] if lying else image.size

    def mask_path(self, image_id: str) -> Path | None:
        """Return the ground-truth mask, SegmentationClassAug before SegmentationClass, or ``None``."""
        paths = [self.base / name / f"{image_id}.png" for name in ("SegmentationClassAug", "SegmentationClass")]
        return next((path for path in paths if path.exists()), None)

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
        problems = list(self._table_problems)
        splits: dict[str, list[str]] = {}
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
            mask = self.mask(image_id) if self.mask_path(image_id) else np.zeros((height, width), np.uint8)
        except DataError as error:
            yield f"{error}; replace the file or drop the id from its list"
            return
        if mask.shape != (height, width):
            yield f"mask is {mask.shape[1]}x{mask.shape[0]}, photo is {width}x{height}"
        unknown = sorted(set(np.unique(mask).tolist()) - {*range(len(self.classes) + 1), VOID})
        if unknown:
            yield f"mask holds ids {unknown}; valid are 0-{len(self.classes)} and {VOID}"


def content_fingerprint(folder: VOCFolder, ids: list[str]) -> str:
    """Return 16 hex digits over the photographs and labels of ``ids``. They name the data beside every number."""
    digest = hashlib.sha256()
    for image_id in ids:
        digest.update(image_id.encode() + folder.label(image_id).tobytes())
        digest.update(folder.photo(image_id).read_bytes())
    return digest.hexdigest()[:16]
