"""Photographs that live on the GPU: decoded once, augmented there in batches, whole ones grouped by their shape."""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safn.data import DataError, VOCFolder
from safn.loading import Augmentation, Normalisation
from safn.map_files import load_saliency
from safn.metrics import VOID

MULTIPLE = 16  # of the stored side: tensor cores want it
GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow has them
HUE = 3  # its place in Augmentation.jitter
KINDS = {"train_aug": ("photos", "masks", "saliency"), "val": ("photos", "masks")}


def decode(root: Path, work: Path, processes: int, limits: dict[str, int]) -> None:
    """Decode photographs, masks and saliency maps into ``work/<split>_<kind>.npy``, each at the top left of a square.

    Args:
        root: folder in the VOC layout, with ``saliency/<id>.png``.
        limits: of each split so many images, evenly spaced (0: all). What is decoded already stays.

    Raises:
        DataError: an image has no mask.
    """
    folder = VOCFolder(root)
    for split, kinds in KINDS.items():
        ids, done = folder.ids(split, limits[split]), work / f"{split}.json"
        if done.exists() and json.loads(done.read_text())["ids"] == ids:
            continue
        if absent := [i for i in ids if folder.mask_path(i) is None]:
            raise DataError(f"{len(absent)} images have no mask, which scores them: {', '.join(absent[:5])}")
        sizes = [folder.size(i)[::-1] for i in ids]
        side = -(-max(max(size) for size in sizes) // MULTIPLE) * MULTIPLE
        for kind in kinds:
            shape = (len(ids), 3, side, side) if kind == "photos" else (len(ids), side, side)
            np.lib.format.open_memmap(work / f"{split}_{kind}.npy", "w+", np.uint8, shape)
        tasks = [(root, work, split, k, ids[k::processes], processes) for k in range(processes)]
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            pool.starmap(_decode_some, tasks)
        labels = [folder.label(i).tolist() for i in ids]
        done.write_text(json.dumps({"ids": ids, "sizes": sizes, "labels": labels, "classes": folder.classes}))


def _decode_some(root: Path, work: Path, split: str, first: int, ids: list[str], step: int) -> None:
    folder = VOCFolder(root)
    arrays = {kind: np.load(work / f"{split}_{kind}.npy", mmap_mode="r+") for kind in KINDS[split]}
    for row, image_id in enumerate(ids):
        index = first + row * step
        photo = np.asarray(folder.image(image_id))
        height, width = photo.shape[:2]
        arrays["photos"][index, :, :height, :width] = photo.transpose(2, 0, 1)
        arrays["masks"][index] = VOID
        arrays["masks"][index, :height, :width] = folder.mask(image_id)
        if "saliency" in arrays:
            saliency = load_saliency(root / "saliency" / f"{image_id}.png", (height, width))
            arrays["saliency"][index, :height, :width] = np.rint(saliency * 255)


@dataclass
class Photographs:
    """One split on a device; every image lies at the top left of a square of side S.

    Attributes:
        photos: uint8 ``(n, 3, S, S)``.
        masks: ground truth, uint8 ``(n, S, S)``, 255 where ignored and outside.
        saliency: uint8 ``(n, S, S)``, of the training images alone.
        sizes: height and width of each image, int64 ``(n, 2)``, in NumPy.
        labels: float32 ``(n, N)``.
    """

    ids: list[str]
    classes: list[str]
    sizes: np.ndarray
    labels: Tensor
    photos: Tensor
    masks: Tensor
    saliency: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)


def load(work: Path, split: str, device: torch.device) -> Photographs:
    """Load what ``decode`` wrote onto a device."""
    about = json.loads((work / f"{split}.json").read_text())
    arrays = {kind: torch.from_numpy(np.load(work / f"{split}_{kind}.npy")).to(device) for kind in KINDS[split]}
    labels = torch.tensor(about["labels"], dtype=torch.float32, device=device)
    return Photographs(about["ids"], about["classes"], np.array(about["sizes"]), labels, **arrays)


# one row of numbers a sample, all that a batch needs to know; then six colour changes of three numbers each
INDEX, HEIGHT, WIDTH, TALL, WIDE, MIRRORED, LEFT, TOP, TURN = range(9)
CHANGES = 6  # three before the hue is turned, three after it
SAMPLE = 9 + 3 * CHANGES


def draw(augmentation: Augmentation, index: int, size: tuple[int, int], seed: int, epoch: int) -> np.ndarray:
    """Draw what ``TrainingSet`` draws for a sample, in the same order from the same generator, float32 ``(SAMPLE,)``.

    Args:
        size: height and width of the photograph.
    """
    rng = np.random.default_rng((seed, epoch, index))
    long = int(rng.integers(augmentation.resize[0], augmentation.resize[1] + 1))
    height, width = size
    ratio = long / max(size)
    wide, tall = (max(1, round(side * ratio)) for side in (width, height))
    mirrored = rng.random() < 0.5
    order = rng.permutation(4)
    amounts = [rng.uniform(-augmentation.jitter[k], augmentation.jitter[k]) for k in order]
    crop = augmentation.crop
    left, top = (int(rng.integers(min(0, side - crop), max(0, side - crop) + 1)) for side in (wide, tall))
    turn, changes = colour_changes(order, amounts)
    return np.array([index, height, width, tall, wide, mirrored, left, top, turn, *changes.ravel()], np.float32)


def colour_changes(order: np.ndarray, amounts: list[float]) -> tuple[float, np.ndarray]:
    """The turn of the hue, and the other changes as ``(CHANGES, 3)``: x becomes a x + b grey(x) + c mean(grey(x))."""
    changes, turn = np.tile((1.0, 0.0, 0.0), (CHANGES, 1)), 0.0
    slot = 0
    for kind, amount in zip(order, amounts):
        if kind == HUE:
            turn, slot = amount, CHANGES // 2
            continue
        factor = 1 + amount
        changes[slot] = [(factor, 0, 0), (factor, 0, -amount), (factor, -amount, 0)][
            kind
        ]  # brightness, contrast, saturation
        slot += 1
    return turn, changes


def epoch_of(photographs: Photographs, augmentation: Augmentation, seed: int, epoch: int, batch: int) -> np.ndarray:
    """An epoch in the order of ``EpochSampler``, float32 ``(steps, batch, SAMPLE)``; the rest is dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(len(photographs))
    steps = len(order) // batch
    chosen = order[: steps * batch].tolist()
    rows = [draw(augmentation, i, tuple(photographs.sizes[i].tolist()), seed, epoch) for i in chosen]
    return np.stack(rows).reshape(steps, batch, SAMPLE)


def places(samples: Tensor, axis: str, crop: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of the crop lie on the photograph, before the middle of a pixel is added.

    Returns:
        float64 ``(B, crop)`` positions on the resized photograph, the mirror image undone; and which are on it.
    """
    offset, size = (TOP, TALL) if axis == "rows" else (LEFT, WIDE)
    sides = samples[:, size, None].double()
    position = torch.arange(crop, device=samples.device) + samples[:, offset, None].double()
    inside = (position >= 0) & (position < sides)
    if axis == "columns":
        position = torch.where(samples[:, MIRRORED, None] > 0, sides - 1 - position, position)
    return position, inside


def resampling(samples: Tensor, axis: str, crop: int, side: int) -> tuple[Tensor, Tensor]:
    """Weights of the stored pixels in each pixel of the crop: Pillow's antialiased bilinear filter, mirror and crop.

    Returns:
        float32 ``(B, crop, side)``, rows summing to 1, or 0 outside; and which are inside, ``(B, crop)``.
    """
    given, size = (HEIGHT, TALL) if axis == "rows" else (WIDTH, WIDE)
    position, inside = places(samples, axis, crop)
    ratio = samples[:, given, None].double() / samples[:, size, None].double()
    middle = ((position + 0.5) * ratio).float()[..., None]
    reach = ratio.clamp(min=1).float()[..., None]
    stored = torch.arange(side, device=samples.device)
    weights = (1 - (stored + 0.5 - middle).abs() / reach).clamp(min=0)
    weights = weights * (stored < samples[:, given, None, None])
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-6)
    return weights * inside[..., None], inside


def crops(photos: Tensor, samples: Tensor, crop: int, colours: bool = True) -> tuple[Tensor, Tensor]:
    """Resize, mirror, change the colours and crop, as ``Augmentation`` does.

    Args:
        photos: uint8 ``(n, 3, S, S)``.
        samples: ``(B, SAMPLE)`` of ``draw``.

    Returns:
        ``(B, 3, crop, crop)`` in 0..1, float16 on a GPU; which pixels are of the photograph, ``(B, 1, crop, crop)``.
    """
    kind = torch.float16 if photos.is_cuda else torch.float32  # holds 0..255 exactly, and what lies between to 1/16
    rows, above = resampling(samples, "rows", crop, photos.shape[-1])
    columns, beside = resampling(samples, "columns", crop, photos.shape[-1])
    chosen = photos[samples[:, INDEX].long()].to(kind)
    pixels = rows.to(kind)[:, None] @ (chosen @ columns.to(kind).transpose(1, 2)[:, None])
    inside = above[:, None, :, None] & beside[:, None, None, :]
    pixels = pixels / 255
    return (recoloured(pixels, inside, samples) if colours else pixels), inside


def recoloured(pixels: Tensor, inside: Tensor, samples: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in the order of each sample; contrast takes the mean of the crop."""
    changes = samples[:, TURN + 1 :].view(-1, CHANGES, 3).to(pixels.dtype)
    for k in range(CHANGES // 2):
        pixels = blended(pixels, inside, changes[:, k])
    pixels = turned(pixels, samples[:, TURN].to(pixels.dtype))
    for k in range(CHANGES // 2, CHANGES):
        pixels = blended(pixels, inside, changes[:, k])
    return pixels


def blended(pixels: Tensor, inside: Tensor, change: Tensor) -> Tensor:
    """a x + b grey(x) + c mean(grey(x)), kept in 0..1; ``change``: ``(B, 3)``."""
    own, of_grey, of_mean = change[:, :, None, None, None].unbind(1)
    red, green, blue = pixels.split(1, 1)
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    count = inside.sum((2, 3), keepdim=True).clamp(min=1)
    mean = ((grey * inside).sum((2, 3), keepdim=True, dtype=torch.float32) / count).to(pixels.dtype)
    return (own * pixels + (of_grey * grey + of_mean * mean)).clamp(0, 1)


def turned(pixels: Tensor, turn: Tensor) -> Tensor:
    """Pixels with their hue changed by ``turn`` ``(B,)``, in whole turns."""
    red, green, blue = pixels.unbind(1)
    value, least = pixels.amax(1), pixels.amin(1)
    chroma = value - least
    by = chroma.clamp(min=1e-4)  # grey pixels have no hue
    hue = torch.where(value == green, 2 + (blue - red) / by, 4 + (red - green) / by)
    hue = torch.where(value == red, (green - blue) / by, hue) + 6 * turn[:, None, None]
    channels = []
    for start in (5, 3, 1):  # red, green, blue from hue, chroma and value
        sixth = (hue + start) % 6
        channels.append(value - chroma * torch.minimum(sixth, 4 - sixth).clamp(0, 1))
    return torch.stack(channels, 1)


def batch(
    photos: Tensor, samples: Tensor, crop: int, normalisation: Normalisation, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Normalised float32 crops ``(B, 3, crop, crop)`` and, of ``masks`` ``(n, S, S)``, the targets of a batch.

    With masks the colours stay, as in the training of segmentation networks. A CUDA graph can hold it: it moves nothing
    between processor and GPU.
    """
    with torch.autocast(photos.device.type, enabled=False):  # bf16 would round the pixels
        pixels, inside = crops(photos, samples, crop, colours=masks is None)
        fill, mean, std = constants(normalisation, photos.device)
        images = (torch.where(inside, pixels.float(), fill) - mean) / std
    return images, None if masks is None else targets(masks, samples, crop)


@functools.lru_cache
def constants(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Fill colour, mean and standard deviation as ``(3, 1, 1)``, moved to the device once."""
    fill = [value / 255 for value in normalisation.fill]
    return tuple(torch.tensor(v, device=device).view(3, 1, 1) for v in (fill, normalisation.mean, normalisation.std))


def targets(masks: Tensor, samples: Tensor, crop: int) -> Tensor:
    """Masks resized by nearest neighbour, mirrored and cropped, int64 ``(B, crop, crop)``, 255 outside."""
    chosen = []
    for axis, given, size in (("rows", HEIGHT, TALL), ("columns", WIDTH, WIDE)):
        position, inside = places(samples, axis, crop)
        ratio = samples[:, given, None].double() / samples[:, size, None].double()
        stored = ((position + 0.5) * ratio).floor().long()
        chosen.append((stored * inside, inside))
    (rows, above), (columns, beside) = chosen
    found = masks[samples[:, INDEX].long()[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found.masked_fill(~(above[:, :, None] & beside[:, None, :]), VOID).long()


def whole(
    photographs: Photographs, normalisation: Normalisation, size: int, most: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices of up to ``most`` photographs of one shape and their pixels ``(B, 3, h, w)``, normalised, long side
    ``size`` pixels (0: as they are)."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(photographs.sizes.tolist()):
        shapes.setdefault(tuple(shape), []).append(index)
    mean = torch.tensor(normalisation.mean, device=photographs.photos.device).view(3, 1, 1)
    std = torch.tensor(normalisation.std, device=photographs.photos.device).view(3, 1, 1)
    for (height, width), same in shapes.items():
        ratio = size / max(height, width) if size else 1
        wanted = [max(1, round(side * ratio)) for side in (height, width)]
        for first in range(0, len(same), most):
            chosen = same[first : first + most]
            images = photographs.photos[chosen, :, :height, :width].float()
            if wanted != [height, width]:
                images = F.interpolate(images, wanted, mode="bilinear", align_corners=False, antialias=True).round()
            yield chosen, (images / 255 - mean) / std
