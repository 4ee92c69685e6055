"""Samples of a data folder: augmented for training, whole for maps and tests, in a reproducible order of batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from safn.backbones import Normalisation
from safn.data import VOID, VOCFolder, load_mask


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


def shrink_to(image: Image.Image, largest: int) -> Image.Image:
    """Shrink an image whose long side has more than ``largest`` pixels (0: never)."""
    return resize_long(image, largest) if 0 < largest < max(image.size) else image


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


def plain_loader(dataset: PlainSet, workers: int, batch_size: int = 1) -> DataLoader:
    """Batches of up to ``batch_size`` images of one shape; one image a batch stays in order."""
    batches = by_shape(dataset, batch_size) if batch_size > 1 else None
    sizes = {"batch_size": 1} if batches is None else {"batch_sampler": batches}
    return DataLoader(dataset, **sizes, num_workers=workers, pin_memory=torch.cuda.is_available())


def by_shape(dataset: PlainSet, batch_size: int) -> list[list[int]]:
    """Indices of images of one shape, up to ``batch_size`` together."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, image_id in enumerate(dataset.ids):
        shapes.setdefault(dataset.folder.size(image_id), []).append(index)
    return [same[k : k + batch_size] for same in shapes.values() for k in range(0, len(same), batch_size)]
