"""Files of localization maps, saliency maps and pseudo labels, which one stage writes and the next one reads."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm

from safn.arguments import require_one_of, require_shape, require_unit_interval
from safn.data import VOCFolder
from safn.files import DataError, write_file
from safn.images import load_grey, save_mask
from safn.pseudo import pseudo_ground_truth
from safn.verification import verify_saliency

ABSENT = ("error", "skip", "map-only")  # images without saliency: refused, left out, or made of their maps alone
Size = tuple[int, int] | None  # height and width to which maps are resampled (bilinear)


def save_maps(path: Path, maps: np.ndarray, labels: np.ndarray) -> None:
    """Write those of the maps ``(N, h, w)``, in 0..1, whose labels ``(N,)`` are 1, in 8 bits, to ``<id>.npz``."""
    require_shape("maps", maps.shape, ("N", "h", "w"))
    require_shape("labels", labels.shape, maps.shape[:1])
    require_unit_interval("maps", maps)
    present, buffer = np.flatnonzero(labels), io.BytesIO()
    np.savez_compressed(buffer, classes=present.astype(np.int16), maps=np.rint(maps[present] * 255).astype(np.uint8))
    write_file(path, buffer.getvalue())


def load_maps(path: Path, num_classes: int, size: Size = None) -> np.ndarray:
    """Read the maps of all N classes, float32 ``(N, H, W)`` in 0..1, zero for absent classes."""
    present, values = load_present_maps(path, size)
    if len(present) and present.max() >= num_classes:
        raise ValueError(f"{path} holds maps of class {present.max()}; valid: 0 to {num_classes - 1}")
    full = np.zeros((num_classes, *values.shape[-2:]), np.float32)
    full[present] = values
    return full


def load_present_maps(path: Path, size: Size = None) -> tuple[np.ndarray, np.ndarray]:
    """Read the K present classes, int16 ``(K,)``, and their maps, float32 ``(K, H, W)`` in 0..1.

    A photo of many megapixels and classes leaves room for no more.
    """
    with np.load(path, allow_pickle=False) as file:
        present, values = file["classes"], file["maps"].astype(np.float32) / 255
    if size is None:
        return present, values
    if not len(present):
        return present, np.zeros((0, *size), np.float32)
    return present, F.interpolate(torch.from_numpy(values)[None], size, mode="bilinear", align_corners=False)[0].numpy()


def save_saliency(path: Path, saliency: np.ndarray) -> None:
    """Write a map ``(H, W)`` in 0..1 as 8-bit grey PNG."""
    require_shape("saliency", saliency.shape, ("H", "W"))
    require_unit_interval("saliency", saliency)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(saliency * 255).astype(np.uint8)).save(buffer, "png")
    write_file(path, buffer.getvalue())


def load_saliency(path: Path, size: Size = None) -> np.ndarray:
    """Read a grey map of any mode, float32 ``(H, W)`` in 0..1."""
    grey = load_grey(path)
    if size is not None and grey.size != size[::-1]:
        grey = grey.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(grey, np.float32) / 255


def ids_without_saliency(folder: Path, ids: list[str], absent: str = "error") -> list[str]:
    """List the ids without ``folder/<id>.png``; a ``DataError`` where all are, or some and ``absent`` is ``error``."""
    require_one_of("absent", absent, ABSENT)
    without = [image_id for image_id in ids if not (folder / f"{image_id}.png").exists()]
    if without and (absent == "error" or len(without) == len(ids)):
        text = f"{len(without)} of {len(ids)} saliency maps are missing, first {', '.join(without[:5])}"
        raise DataError(f"{folder}: {text}; complete the folder, or choose {' or '.join(ABSENT[1:])} by name")
    return without


def copy_saliency(folder: VOCFolder, ids: list[str], source: Path, out: Path, absent: str = "error") -> list[str]:
    """Write maps made elsewhere, ``source/<id>.png``, to ``out`` in 8 bits; return ``ids_without_saliency``.

    Raises:
        DataError: listing what ``verification.verify_saliency`` finds wrong. Nothing is written then.
    """
    without = ids_without_saliency(source, ids, absent)
    there = sorted(set(ids) - set(without))
    verify_saliency(folder, there, source).settle(source)
    for image_id in there:
        save_saliency(out / f"{image_id}.png", load_saliency(source / f"{image_id}.png"))
    return without


def write_pseudo_labels(
    folder: VOCFolder, ids: list[str], maps: Path, saliency: Path, out: Path, absent: str = "error", **rules: Any
) -> list[str]:
    """Write pseudo labels ``out/<id>.png`` at the size of the photo; return the ids that were left out.

    They are made of ``maps/<id>.npz``, ``saliency/<id>.png`` and the image labels, by the ``rules`` of
    ``pseudo_ground_truth``. ``absent`` (see ``ABSENT``) says what becomes of an image without saliency.
    """
    without = set(ids_without_saliency(saliency, ids, absent))
    left_out = [i for i in ids if i in without and absent == "skip"]
    for image_id in tqdm([i for i in ids if i not in left_out], "pseudo ground truth", mininterval=2, file=sys.stdout):
        source = None if image_id in without else saliency
        save_mask(out / f"{image_id}.png", pseudo_mask(folder, image_id, maps, source, **rules))
    return left_out


def pseudo_mask(folder: VOCFolder, image_id: str, maps: Path, saliency: Path | None, **rules: Any) -> np.ndarray:
    """Make the pseudo labels of one image, uint8 ``(H, W)``, from its files; without saliency, of its maps alone."""
    width, height = folder.size(image_id)
    classes, values = load_present_maps(maps / f"{image_id}.npz", (height, width))
    salient = None if saliency is None else load_saliency(saliency / f"{image_id}.png", (height, width))
    class_ids = np.arange(256, dtype=np.uint8)
    class_ids[1 : len(classes) + 1] = classes + 1
    return class_ids[pseudo_ground_truth(values, salient, folder.label(image_id)[classes], **rules)]
