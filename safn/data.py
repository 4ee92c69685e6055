"""The one reader: photos, image labels and masks in the VOC layout, and the training sets made from them."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from safn.records import Input, need, write_file

VOID = 255
VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip


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


def load_mask(path: Path) -> np.ndarray:
    """Class ids of an indexed or 8-bit grey PNG, uint8 ``(H, W)``; ``convert`` would destroy the ids.

    Raises:
        DataError: the file cannot be read, or is RGB or of another mode.
    """
    try:
        with Image.open(path) as image:
            mode, mask = image.mode, np.array(image)
    except OSError as error:
        raise DataError(f"{path}: the mask cannot be read: {error}") from error
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
    with table.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
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
    """An RGB image, upright (EXIF rotation applied), whatever the mode of the file."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


class VOCFolder:
    """A data set in the VOC layout: ``root/VOCdevkit/VOC2012`` and ``root/image_labels.csv``."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.base = self.root / "VOCdevkit" / "VOC2012"
        self.classes, self.labels, self._table_problems = read_labels(self.root / "image_labels.csv")

    def ids(self, split: str, limit: int = 0) -> list[str]:
        """Image ids of a split; with ``limit`` so many of them, evenly spaced."""
        path = self.base / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not path.exists():
            raise DataError(f"{path} is missing")
        ids = path.read_text().split()
        if not ids:
            raise DataError(f"{path} is empty")
        if 0 < limit < len(ids):
            ids = [ids[int(k)] for k in np.linspace(0, len(ids) - 1, limit)]
        return ids

    def label(self, image_id: str) -> np.ndarray:
        """0/1 labels, float32 ``(N,)``."""
        try:
            return self.labels[image_id]
        except KeyError:
            raise DataError(f"{image_id} has no valid row in {self.root / 'image_labels.csv'}") from None

    def image(self, image_id: str) -> Image.Image:
        try:
            return load_image(self.base / "JPEGImages" / f"{image_id}.jpg")
        except OSError as error:
            raise DataError(f"photo {image_id} cannot be read: {error}") from error

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


@dataclass(frozen=True)
class Augmentation:
    """Random resize, flip, colour jitter and crop (Sec. IV-A; ranges the paper leaves open: a public peer's)."""

    crop: int
    resize: tuple[int, int]  # long side in pixels, uniform
    flip: bool = True
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)  # brightness, contrast, saturation, hue

    def __call__(
        self,
        image: Image.Image,
        mask: np.ndarray | None,
        rng: np.random.Generator,
        fill: tuple[int, int, int],
    ) -> tuple[Image.Image, torch.Tensor | None]:
        """``crop`` x ``crop`` image and, where a mask is given, uint8 mask; padded with ``fill`` and 255."""
        long = int(rng.integers(self.resize[0], self.resize[1] + 1))
        ratio = long / max(image.size)
        width, height = (max(1, round(side * ratio)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        masked = None if mask is None else Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        if self.flip and rng.random() < 0.5:
            image = ImageOps.mirror(image)
            masked = None if masked is None else ImageOps.mirror(masked)
        image = self._colours(image, rng)
        left, top = (int(rng.integers(min(0, side - self.crop), max(0, side - self.crop) + 1)) for side in image.size)
        canvas = Image.new("RGB", (self.crop, self.crop), fill)
        canvas.paste(image, (-left, -top))
        if masked is None:
            return canvas, None
        target = Image.new("L", (self.crop, self.crop), VOID)
        target.paste(masked, (-left, -top))
        return canvas, torch.from_numpy(np.array(target))

    def _colours(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for k in rng.permutation(4):
            amount = rng.uniform(-self.jitter[k], self.jitter[k])
            if self.jitter[k]:
                image = adjust[k](image, amount if k == 3 else 1 + amount)
        return image


@dataclass(frozen=True)
class Normalisation:
    """What the pretrained weights expect of an RGB image in 0..1: mean and standard deviation a channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """float32 ``(3, H, W)``."""
        return F.normalize(F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True), self.mean, self.std)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour that becomes zero."""
        return tuple(round(255 * m) for m in self.mean)


class TrainingSet(Dataset):
    """Augmented samples. All randomness of a sample comes from (seed, epoch, index), so neither the number of
    workers, nor an interruption, nor another model changes what is drawn."""

    def __init__(
        self,
        folder: VOCFolder,
        ids: list[str],
        augmentation: Augmentation,
        normalisation: Normalisation,
        seed: int,
        masks: dict[str, Path] | None = None,
    ) -> None:
        """``masks``: the training mask of each id (segmentation), or ``None`` (classification)."""
        self.folder, self.ids, self.augmentation, self.normalisation = (
            folder,
            ids,
            augmentation,
            normalisation,
        )
        self.seed, self.masks = seed, masks

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor | str]:
        epoch, index = key
        image_id = self.ids[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        mask = None if self.masks is None else load_mask(self.masks[image_id])
        image, target = self.augmentation(self.folder.image(image_id), mask, rng, self.normalisation.fill)
        sample = {
            "id": image_id,
            "image": self.normalisation(image),
            "label": torch.from_numpy(self.folder.label(image_id)),
        }
        return sample if target is None else {**sample, "mask": target.long()}


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that depends on (seed, epoch) alone; ``set_epoch`` is called by lightning."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(i)) for i in order])


class PlainSet(Dataset):
    """Whole images without augmentation, long side ``size`` pixels (0: as they are)."""

    def __init__(self, folder: VOCFolder, ids: list[str], normalisation: Normalisation, size: int = 0) -> None:
        self.folder, self.ids, self.normalisation, self.size = folder, ids, normalisation, size

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | str]:
        image_id = self.ids[index]
        image = resize_long(self.folder.image(image_id), self.size)
        label = torch.from_numpy(self.folder.label(image_id))
        return {"id": image_id, "image": self.normalisation(image), "label": label}


def resize_long(image: Image.Image, size: int) -> Image.Image:
    """``image`` with its long side ``size`` pixels (0: unchanged)."""
    if not size or max(image.size) == size:
        return image
    ratio = size / max(image.size)
    return image.resize(tuple(max(1, round(s * ratio)) for s in image.size), Image.Resampling.BILINEAR)


def training_loader(dataset: TrainingSet, batch_size: int, workers: int) -> DataLoader:
    """Batches in the reproducible order of ``EpochSampler``; the last, smaller batch is dropped."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=EpochSampler(len(dataset), dataset.seed),
        num_workers=workers,
        drop_last=len(dataset) >= batch_size,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def plain_loader(dataset: PlainSet, workers: int) -> DataLoader:
    """One image a batch, in order."""
    return DataLoader(dataset, 1, num_workers=workers, pin_memory=torch.cuda.is_available())


def content_fingerprint(folder: VOCFolder, ids: list[str]) -> str:
    """SHA-256 over the photos and labels of ``ids``; 16 hex digits. Names the data beside every number."""
    digest = hashlib.sha256()
    for image_id in ids:
        digest.update(image_id.encode() + folder.label(image_id).tobytes())
        digest.update((folder.base / "JPEGImages" / f"{image_id}.jpg").read_bytes())
    return digest.hexdigest()[:16]


def of_stage(runs: Path | str) -> tuple[Input, VOCFolder, list[str], list[str]]:
    """Stage 00, its data folder, the training ids and the validation ids that all later stages use."""
    stage = need(runs, "00_data")
    lists = [(stage.folder / f"{split}.txt").read_text().split() for split in ("train", "val")]
    return stage, VOCFolder(stage.folder / stage.record["root"]), *lists
