"""The one reader: photos, image labels and masks in the VOC layout."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from safn.files import write_file

VOID = 255
VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip


UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises of a file


class DataError(ValueError):
    """A data folder is incomplete or wrong; the message lists what, with ids and values."""


def palette() -> list[int]:
    """The 256 x 3 colours of VOC's indexed masks, flat, as ``Image.putpalette`` takes them."""
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((np.arange(256) >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.ravel().tolist()


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a uint8 ``(H, W)`` mask as an indexed PNG with VOC's palette; the file appears only when complete."""
    image, buffer = Image.fromarray(mask.astype(np.uint8)), io.BytesIO()
    image.putpalette(palette())
    image.save(buffer, "png", optimize=False)
    write_file(path, buffer.getvalue())


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What Pillow raises becomes an error that names the file; its warnings, of large photos and odd EXIF, are of no use to
    the user of a photo that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UNREADABLE as error:
        raise DataError(f"{what} cannot be read: {error}") from error


def load_mask(path: Path) -> np.ndarray:
    """Class ids of an indexed or 8-bit grey PNG, uint8 ``(H, W)``; ``convert`` would destroy the ids.

    Raises:
        DataError: the file cannot be read, or is RGB or of another mode.
    """
    with reading(f"{path}: the mask"), Image.open(path) as image:
        mode, mask = image.mode, np.array(image)
    if mode not in ("P", "L"):
        raise DataError(f"{path}: a mask is an indexed (mode P) PNG, this one is of mode {mode}")
    return mask


def read_labels(table: Path) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
    """The classes, image id -> 0/1 labels (float32 ``(N,)``), and each row that is wrong as one line with its id.

    Raises:
        DataError: the file or its header is no table of labels.
    """
    if not table.is_file():
        raise DataError(f"{table} is missing: one row an image, header id,<class>,..., values 0 or 1")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}; save it as CSV in UTF-8") from None
    classes, labels, problems = header[1:], {}, []
    if header[:1] != ["id"] or not classes or len(set(header)) < len(header):
        raise DataError(f"{table}: the header is {','.join(header)!r}; valid: id,<class>,... without repetition")
    for image_id, *values in rows:
        if image_id in labels:
            problems.append(f"{table.name}: {image_id} has more than one row: keep one")
        elif len(values) != len(classes):
            text = f"{image_id} has {len(values)} labels for the {len(classes)} classes {', '.join(classes)}"
            problems.append(f"{table.name}: {text}")
        elif wrong := [v for v in values if v not in ("0", "1", "0.0", "1.0")]:
            problems.append(f"{table.name}: {image_id} has labels {wrong}; valid are 0 and 1")
        else:
            labels[image_id] = np.array(values, np.float32)
    return classes, labels, problems


def load_image(path: Path) -> Image.Image:
    """An RGB image, upright (EXIF rotation applied), whatever the mode of the file.

    Raises:
        DataError: it cannot be read.
    """
    with reading(f"photo {path.stem}"), Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


class VOCFolder:
    """A data set in the VOC layout: ``root/VOCdevkit/VOC2012`` and ``root/image_labels.csv``."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.base = self.root / "VOCdevkit" / "VOC2012"
        self.classes, self.labels, self._table_problems = read_labels(self.root / "image_labels.csv")

    def ids(self, split: str, limit: int = 0) -> list[str]:
        """Image ids of a split; with ``limit`` so many of them, evenly spaced."""
        path = self._list(split)
        if not path.exists():
            raise DataError(f"{path} is missing")
        ids = path.read_text().split()
        if not ids:
            raise DataError(f"{path} is empty")
        if 0 < limit < len(ids):
            ids = [ids[int(k)] for k in np.linspace(0, len(ids) - 1, limit)]
        return ids

    def has_list(self, split: str) -> bool:
        """Whether there is a list of that name; only ``train_aug`` and ``val`` must be there."""
        return self._list(split).exists()

    def _list(self, split: str) -> Path:
        return self.base / "ImageSets" / "Segmentation" / f"{split}.txt"

    def label(self, image_id: str) -> np.ndarray:
        """0/1 labels, float32 ``(N,)``."""
        try:
            return self.labels[image_id]
        except KeyError:
            raise DataError(f"{image_id} has no valid row in {self.root / 'image_labels.csv'}") from None

    def image(self, image_id: str) -> Image.Image:
        return load_image(self.base / "JPEGImages" / f"{image_id}.jpg")

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height of ``image``, from the head of the file alone."""
        with reading(f"photo {image_id}"), Image.open(self.base / "JPEGImages" / f"{image_id}.jpg") as image:
            on_its_side = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return image.size[::-1] if on_its_side else image.size

    def photos(self, ids: list[str]) -> dict[str, Path]:
        """Id -> file of the photo."""
        return {i: self.base / "JPEGImages" / f"{i}.jpg" for i in ids}

    def mask_path(self, image_id: str) -> Path | None:
        """The true mask, SegmentationClassAug before SegmentationClass, or ``None`` where there is none."""
        paths = [self.base / name / f"{image_id}.png" for name in ("SegmentationClassAug", "SegmentationClass")]
        return next((path for path in paths if path.exists()), None)

    def mask(self, image_id: str) -> np.ndarray:
        """True class ids, uint8 ``(H, W)``; for scoring and for the fully supervised upper bound only."""
        path = self.mask_path(image_id)
        if path is None:
            raise DataError(f"{image_id} has no mask in SegmentationClassAug or SegmentationClass")
        return load_mask(path)

    def verify(self) -> list[str]:
        """Every problem of the folder as one line with id, found value and remedy; an empty list where all is well."""
        problems, splits = list(self._table_problems), {}
        for split in ("train_aug", "val"):
            try:
                splits[split] = self.ids(split)
            except DataError as error:
                problems.append(f"{error}: list the ids of the split in it, one a line")
        for split, ids in splits.items():
            repeated = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
            problems += [f"{split}.txt: {i} is listed more than once: keep one line" for i in repeated]
        both = sorted(set(splits.get("train_aug", ())) & set(splits.get("val", ())))
        problems += [f"{i}: in train_aug.txt and in val.txt: remove it from one of them" for i in both]
        for image_id in dict.fromkeys(i for ids in splits.values() for i in ids):
            problems += self._verify_image(image_id)
        return problems

    def _verify_image(self, image_id: str) -> list[str]:
        problems = []
        if image_id not in self.labels:
            problems.append(f"{image_id}: no valid row in image_labels.csv; the classes are {', '.join(self.classes)}")
        try:
            width, height = self.image(image_id).size
        except DataError as error:
            return [*problems, f"{image_id}: {error}; replace the file or drop the id from its list"]
        path = self.mask_path(image_id)
        if path is None:
            return problems
        try:
            mask = load_mask(path)
        except DataError as error:
            return [*problems, f"{image_id}: {error}"]
        if mask.shape != (height, width):
            problems.append(f"{image_id}: mask is {mask.shape[1]}x{mask.shape[0]}, photo is {width}x{height}")
        wrong = sorted(set(np.unique(mask).tolist()) - {*range(len(self.classes) + 1), VOID})
        if wrong:
            problems.append(f"{image_id}: mask holds ids {wrong}; valid are 0-{len(self.classes)} and {VOID}")
        return problems


def content_fingerprint(folder: VOCFolder, ids: list[str]) -> str:
    """SHA-256 over the photos and labels of ``ids``; 16 hex digits. Names the data beside every number."""
    digest = hashlib.sha256()
    for image_id in ids:
        digest.update(image_id.encode() + folder.label(image_id).tobytes())
        digest.update((folder.base / "JPEGImages" / f"{image_id}.jpg").read_bytes())
    return digest.hexdigest()[:16]
