"""Maps and predictions of folders of images by trained networks, and the multi-scale test (Sec. IV-A)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from safn.backbones import Normalisation
from safn.crf import dense_crf
from safn.data import DataError, load_image, save_mask
from safn.loading import PlainSet, at_most, plain_loader
from safn.maps import grad_cam, localization_maps, save_maps
from safn.network import SAFN, PlainClassifier, rescale

TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)  # Sec. IV-A


@torch.inference_mode()
def multi_scale_maximum(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    scales: tuple[float, ...],
    flip: bool = False,
) -> Tensor:
    """Class probabilities: at each pixel and class the largest softmax value over the scales, summing to 1 again.

    Args:
        network: ``(B, 3, H, W)`` -> logits ``(B, K, h, w)``. If it has a ``grid``, as ``DeepLab`` has, the sides of the
            copies follow it.
        image: normalised, ``(1, 3, H, W)``.
        scales: the paper's are 0.5, 0.75, 1, 1.25, 1.5.
        flip: also look at the mirrored image (not in the paper).

    Returns:
        float32 ``(K, H, W)``.
    """
    best, grid = None, getattr(network, "grid", (1, 0))
    for scale in scales:
        scaled = rescale(image, scale, grid)
        views = [scaled, scaled.flip(3)] if flip else [scaled]
        for mirrored, view in enumerate(views):
            logits = network(view).float()
            logits = logits.flip(3) if mirrored else logits
            logits = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)
            probability = logits.softmax(1)
            best = probability if best is None else torch.maximum(best, probability)
    return (best / best.sum(1, keepdim=True))[0].cpu()


def _crf_prediction(path: Path, probabilities: np.ndarray, largest: int = 0) -> np.ndarray:
    torch.set_num_threads(1)
    photo = load_image(path)
    refined = dense_crf(np.asarray(at_most(photo, largest)), probabilities.astype(np.float32))
    return _at_size(refined.argmax(0), photo.size)


def _at_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask ``(h, w)`` at the width and height of ``size``, by nearest neighbour."""
    mask = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST))


def on_device(network: torch.nn.Module, accelerator: str) -> torch.nn.Module:
    """``network`` on the device that lightning would take for ``accelerator``, channels last, for inference."""
    found = best_device()
    kind = {"auto": found, "gpu": "cuda" if found == "cpu" else found}.get(accelerator, accelerator)
    return network.to(kind, memory_format=torch.channels_last).eval()


@torch.inference_mode()
def flipped_features(network: SAFN, images: Tensor) -> Tensor:
    """MSF ``(B, N, h, w)``, averaged with that of the mirrored images."""
    return (network.features(images) + network.features(images.flip(3)).flip(3)) / 2


@torch.inference_mode()
def write_maps(
    network: SAFN,
    samples: PlainSet,
    out: Path,
    predicted: bool = False,
    flip: bool = True,
    workers: int = 0,
    batch_size: int = 4,
) -> int:
    """Write ``out/<id>.npz`` for each sample, up to ``batch_size`` of one shape at a time; returns how many present
    classes have an empty map.

    ``predicted``: for the classes with a score above 0.5 instead of the given labels.
    """
    out.mkdir(parents=True, exist_ok=True)
    device, empty = next(network.parameters()).device, 0
    for batch in tqdm(plain_loader(samples, workers, batch_size), f"maps {out.name}", mininterval=2, file=sys.stdout):
        images = batch["image"].to(device)
        features = flipped_features(network, images) if flip else network.features(images)
        labels = predicted_labels(features.mean((2, 3))) if predicted else batch["label"].to(device)
        maps = localization_maps(features, labels)
        empty += int((labels.bool() & (maps.amax((2, 3)) == 0)).sum())
        for image_id, one, label in zip(batch["id"], maps.cpu().numpy(), labels.cpu().numpy()):
            save_maps(out / f"{image_id}.npz", one, label)
    return empty


def predicted_labels(scores: Tensor) -> Tensor:
    """Classes with a probability above 0.5, ``(B, N)`` -> 0/1."""
    return (scores > 0).float()


def write_grad_cam(network: PlainClassifier, samples: PlainSet, out: Path, predicted: bool = False) -> None:
    """Write Grad-CAM maps ``out/<id>.npz`` of the last backbone layer for each sample."""
    out.mkdir(parents=True, exist_ok=True)
    for sample in tqdm(plain_loader(samples, 0), f"Grad-CAM {out.name}", mininterval=2, file=sys.stdout):
        with torch.no_grad():
            labels = predicted_labels(network(sample["image"])) if predicted else sample["label"]
        small = torch.nn.functional.adaptive_avg_pool2d  # a Grad-CAM map is smooth: store it at an eighth
        maps = grad_cam(network, list(network.backbone.children())[-1], sample["image"], labels)
        maps = small(maps, [max(1, side // 8) for side in maps.shape[-2:]])
        save_maps(out / f"{sample['id'][0]}.npz", maps[0].numpy(), labels[0].numpy())


def predict(
    network: torch.nn.Module,
    normalisation: Normalisation,
    images: dict[str, Path],
    folder: Path,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    refined: Path | None = None,
    processes: int = 0,
    pool: concurrent.futures.Executor | None = None,
    largest: int = 0,
) -> tuple[float, float]:
    """Predict masks: ``folder/<id>.png``, indexed, at the size of the photo, and with the CRF ``refined/<id>.png``.
    Images that have them are left out.

    The CRF runs in ``processes`` of its own (0: one a core) while the network goes on: pydensecrf holds the
    interpreter's lock. ``pool``: of as many processes, which are running already.

    Returns:
        seconds of the network alone, and seconds of everything.
    """
    folders = [folder] if refined is None else [folder, refined]
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)
    todo = {i: path for i, path in images.items() if not all((f / f"{i}.png").exists() for f in folders)}
    device, started, busy = next(network.parameters()).device, time.time(), 0.0
    processes = processes or os.cpu_count()
    network.eval()
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    workers = contextlib.nullcontext(pool) if pool else concurrent.futures.ProcessPoolExecutor(processes, spawn)
    with workers as pool:
        pending: dict[concurrent.futures.Future, str] = {}
        for image_id, path in tqdm(todo.items(), f"predict {folder.name}", mininterval=2, file=sys.stdout):
            begun = time.time()
            photo = load_image(path)
            shown = normalisation(at_most(photo, largest))[None].to(device)
            probabilities = multi_scale_maximum(network, shown, scales, flip).numpy()
            save_mask(folder / f"{image_id}.png", _at_size(probabilities.argmax(0), photo.size))
            busy += time.time() - begun
            if refined is not None:
                half = torch.from_numpy(probabilities).half().numpy()  # NumPy's own is 50 times slower on tiny values
                try:
                    pending[pool.submit(_crf_prediction, path, half, largest)] = image_id
                except concurrent.futures.BrokenExecutor:  # a process has died: name the image
                    _collect(pending, refined, concurrent.futures.ALL_COMPLETED)
                    raise
                if len(pending) > 2 * processes:  # bounds the memory
                    _collect(pending, refined, concurrent.futures.FIRST_COMPLETED)
        _collect(pending, refined, concurrent.futures.ALL_COMPLETED)
    return busy, time.time() - started


def _collect(pending: dict, folder: Path, when: str) -> None:
    done = concurrent.futures.wait(pending, return_when=when).done
    for future in [f for f in pending if f in done]:  # in the order of the images
        image_id = pending.pop(future)
        try:
            save_mask(folder / f"{image_id}.png", future.result())
        except Exception as error:
            raise DataError(f"CRF of image {image_id} failed: {error!r}") from error


def best_device() -> str:
    """What lightning takes for ``auto``: ``cuda``, ``mps`` or another, and ``cpu`` where there is none."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"
