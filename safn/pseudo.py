"""Pseudo ground truth from localization maps and saliency: Eq. 5 and Algorithm 1 with its two ignore rules."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from safn.data import VOID, VOCFolder, save_mask
from safn.maps import load_present_maps
from safn.saliency import load_saliency, without_map


def harmonic_mean(maps: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    r"""Confidence of each class at each pixel.

    Eq. 5: :math:`H_c = 2 / (1/M_c + 1/S)`, and 0 where either is 0.

    Args:
        maps: M, ``(N, H, W)`` in 0..1.
        saliency: S, ``(H, W)`` in 0..1.

    Returns:
        float32 ``(N, H, W)`` in 0..1.
    """
    maps, saliency = np.asarray(maps, np.float32), np.asarray(saliency, np.float32)
    total = maps + saliency
    return np.divide(2 * maps * saliency, total, out=np.zeros_like(total), where=total > 0)


COMBINE = {
    "harmonic": harmonic_mean,
    "maps": lambda maps, saliency: np.asarray(maps, np.float32),
    "saliency": lambda maps, saliency: np.where(np.asarray(maps) > 0, saliency, 0).astype(np.float32),
}


def pseudo_ground_truth(
    maps: np.ndarray,
    saliency: np.ndarray | None,
    labels: np.ndarray,
    gamma: float = 0.2,
    ignore_saliency: float = 0.5,
    ignore_confidence: float = 0.9,
    combine: str = "harmonic",
) -> np.ndarray:
    """Algorithm 1 and the two kinds of ignored pixels (Sec. III-C).

    Background where no class reaches ``gamma``; elsewhere the class of the largest map. Ignored (255) are
    (i) background pixels with saliency above ``ignore_saliency``, (ii) pixels where two or more classes have a
    confidence above ``ignore_confidence``. A threshold of 1 switches its rule off. The paper gives neither value.

    Args:
        maps: M, ``(N, H, W)`` in 0..1, not finite counts as 0.
        saliency: S, ``(H, W)`` in 0..1; ``None``: the maps alone, and no pixel is ignored by rule (i).
        labels: ``(N,)``, 0 or 1; an image without a label is all background (rule (i) still applies).
        combine: ``harmonic`` (Eq. 5), or as controls ``maps`` or ``saliency`` alone; rule (ii) of the latter takes Eq. 5.

    Returns:
        uint8 ``(H, W)``: 0 background, c + 1 for channel c, 255 ignored.
    """
    present = np.flatnonzero(np.asarray(labels))
    maps = np.nan_to_num(np.asarray(maps)[present].astype(np.float32), nan=0, posinf=0, neginf=0)
    if saliency is None:
        saliency, combine = np.zeros(maps.shape[1:]), "maps"
    saliency = np.asarray(saliency, np.float32)
    result = np.zeros(saliency.shape, np.uint8)
    if len(present):
        confidence = COMBINE[combine](maps, saliency)
        foreground = confidence.max(0) >= gamma
        result[foreground] = (present[maps.argmax(0)] + 1)[foreground]
        # saliency alone is the same for every class, and would call each salient pixel disputed
        sure = harmonic_mean(maps, saliency) if combine == "saliency" else confidence
        result[(sure > ignore_confidence).sum(0) > 1] = VOID
    result[(result == 0) & (saliency > ignore_saliency)] = VOID
    return result


def write_folder(
    folder: VOCFolder,
    ids: list[str],
    maps: Path,
    saliency: Path,
    out: Path,
    absent: str = "error",
    **rules: float | str,
) -> list[str]:
    """Write ``out/<id>.png`` for each id from ``maps/<id>.npz`` and ``saliency/<id>.png`` at the size of the photo.

    ``absent``: an image without saliency is an ``error``, left out (``skip``), or made of its maps alone (``map-only``).

    Returns:
        the ids that were left out.

    Raises:
        DataError: saliency maps are missing and ``absent`` is ``error``; says how many.
    """
    without = set(without_map(saliency, ids, absent))
    left_out = [i for i in ids if i in without and absent == "skip"]
    for image_id in tqdm([i for i in ids if i not in left_out], "pseudo ground truth", mininterval=2, file=sys.stdout):
        source = None if image_id in without else saliency
        save_mask(out / f"{image_id}.png", of_image(folder, image_id, maps, source, **rules))
    return left_out


def of_image(folder: VOCFolder, image_id: str, maps: Path, saliency: Path | None, **rules: float | str) -> np.ndarray:
    """Pseudo ground truth of one image, uint8 ``(H, W)``; ``saliency`` ``None``: of its maps alone."""
    width, height = folder.size(image_id)
    classes, values = load_present_maps(maps / f"{image_id}.npz", (height, width))
    shown = None if saliency is None else load_saliency(saliency / f"{image_id}.png", (height, width))
    ids = np.arange(256, dtype=np.uint8)
    ids[1 : len(classes) + 1] = classes + 1
    return ids[pseudo_ground_truth(values, shown, folder.label(image_id)[classes], **rules)]
