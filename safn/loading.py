"""Samples of a data folder: augmented for training, whole for maps and tests, in a reproducible order of batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset, Sampler

from safn.backbones import Normalisation
from safn.data import VOCFolder
from safn.images import load_mask
from safn.metrics import VOID

# ``id``, ``image`` float32 (3, H, W), ``label`` float32 (N,), ``mask`` int64 (H, W) where given
Sample = dict[str, Any]


@dataclass(frozen=True)
class Augmentation:
    """Random resize, flip, colour jitter and crop (Sec. IV-A; the ranges, which the paper leaves open, are a peer's).

    Example:
        >>> image, mask = Augmentation(crop=32, resize=(40, 40))(Image.new("RGB", (50, 20)), None, np.random.default_rng(0))
        >>> image.size
        (32, 32)
    """

    crop: int  #: side in pixels
    resize: tuple[int, int]  #: long side in pixels, uniform
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)  #: brightness, contrast, saturation, hue

    def __call__(
        self,
        image: Image.Image,
        mask: np.ndarray | None,
        rng: np.random.Generator,
        fill: tuple[int, ...] = (0, 0, 0),
    ) -> tuple[Image.Image, torch.Tensor | None]:
        """Return a square image, padded with ``fill``, and where a mask is given a uint8 mask, padded with 255."""
        image = resize_long(image, int(rng.integers(self.resize[0], self.resize[1] + 1)))
        flipped = rng.random() < 0.5
        image = self._change_colours(ImageOps.mirror(image) if flipped else image, rng)
        left = self._offset(image.width, rng)
        top = self._offset(image.height, rng)
        canvas = Image.new("RGB", (self.crop, self.crop), fill)
        canvas.paste(image, (-left, -top))
        if mask is None:
            return canvas, None
        ids = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
        target = Image.new("L", (self.crop, self.crop), VOID)
        target.paste(ImageOps.mirror(ids) if flipped else ids, (-left, -top))
        return canvas, torch.from_numpy(np.array(target))

    def _offset(self, side: int, rng: np.random.Generator) -> int:  # inside a larger image, before a smaller one
        return int(rng.integers(min(0, side - self.crop), max(0, side - self.crop) + 1))

    def _change_colours(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        from torchvision.transforms.v2 import functional as F

        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for k in rng.permutation(4):
            amount = rng.uniform(-self.jitter[k], self.jitter[k])
            if self.jitter[k]:
                image = adjust[k](image, amount if k == 3 else 1 + amount)
        return image


@dataclass(eq=False)
class TrainingSet(Dataset):
    """Augmented samples, each drawn from (seed, epoch, index) alone.

    Neither the number of workers, nor an interruption, nor another network changes what is drawn.
    """

    folder: VOCFolder
    ids: list[str]
    augmentation: Augmentation
    normalisation: Normalisation
    seed: int
    masks: dict[str, Path] | None = None  #: the training mask of each id (segmentation), or ``None`` (classification)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        image_id = self.ids[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        mask = None if self.masks is None else load_mask(self.masks[image_id])
        image, target = self.augmentation(self.folder.image(image_id), mask, rng, self.normalisation.fill)
        label = torch.from_numpy(self.folder.label(image_id))
        sample = {"id": image_id, "image": self.normalisation(image), "label": label}
        return sample if target is None else {**sample, "mask": target.long()}


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that depends on (seed, epoch) alone. Lightning calls ``set_epoch``."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(i)) for i in order])


@dataclass(eq=False)
class PlainSet(Dataset):
    """Whole images without augmentation."""

    folder: VOCFolder
    ids: list[str]
    normalisation: Normalisation
    size: int = 0  #: long side in pixels (0: as they are)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image_id = self.ids[index]
        image = resize_long(self.folder.image(image_id), self.size)
        label = torch.from_numpy(self.folder.label(image_id))
        return {"id": image_id, "image": self.normalisation(image), "label": label}


def resize_long(image: Image.Image, size: int) -> Image.Image:
    """Resize an image so that its long side has ``size`` pixels (0: unchanged), bilinearly.

    Example:
        >>> resize_long(Image.new("RGB", (40, 20)), 10).size
        (10, 5)
    """
    if not size or max(image.size) == size:
        return image
    ratio = size / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def shrink_to(image: Image.Image, largest: int) -> Image.Image:
    """Shrink an image whose long side has more than ``largest`` pixels (0: never)."""
    return resize_long(image, largest) if 0 < largest < max(image.size) else image


def training_loader(dataset: TrainingSet, batch_size: int, workers: int) -> DataLoader:
    """Load batches in the reproducible order of ``EpochSampler``. The last, smaller batch is dropped."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=EpochSampler(len(dataset), dataset.seed),
        num_workers=workers,
        drop_last=len(dataset) >= batch_size,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def plain_loader(dataset: PlainSet, workers: int, batch_size: int = 1) -> DataLoader:
    """Load batches of up to ``batch_size`` images of one shape. One image a batch stays in order."""
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": torch.cuda.is_available()}
    if batch_size == 1:
        return DataLoader(dataset, 1, **options)
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, image_id in enumerate(dataset.ids):
        shapes.setdefault(dataset.folder.size(image_id), []).append(index)
    batches = [same[k : k + batch_size] for same in shapes.values() for k in range(0, len(same), batch_size)]
    return DataLoader(dataset, batch_sampler=batches, **options)
