"""Maps and masks of images by trained networks, and the multi-scale test (Sec. IV-A)."""

import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from safn.arguments import processors, require_scales
from safn.backbones import ANY_SIZE, Normalisation, rescale
from safn.baseline import PlainClassifier, grad_cam
from safn.crf import dense_crf
from safn.files import DataError
from safn.images import load_image, save_mask
from safn.loading import PlainSet, plain_loader, shrink_to
from safn.map_files import save_maps
from safn.maps import localization_maps
from safn.network import SAFN
from safn.segmentation import DeepLab

TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)  # Sec. IV-A
GRAD_CAM_STRIDE = 8  # its maps are smooth, so they are stored at an eighth of the image


@torch.inference_mode()
def multi_scale_maximum(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    scales: tuple[float, ...] = TEST_SCALES,
    flip: bool = False,
) -> Tensor:
    """Take at each pixel and class the largest probability over rescaled inputs (Sec. IV-A).

    Args:
        network: ``(B, 3, H, W)`` -> logits ``(B, K, h, w)``. Inputs of a ``DeepLab`` are resized to its grid.
        image: normalised, ``(1, 3, H, W)``.
        flip: also see the mirrored image, which the paper does not.

    Returns:
        float32 ``(K, H, W)`` on the CPU, which sums to 1 over the classes.

    Example:
        >>> logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
        >>> multi_scale_maximum(lambda image: logits, torch.zeros(1, 3, 64, 64), (1, 0.5)).argmax(0).unique()
        tensor([1])
    """
    require_scales(scales)
    grid = network.grid if isinstance(network, DeepLab) else ANY_SIZE
    best = image.new_zeros(1)
    for scale in scales:
        view = rescale(image, scale, grid)
        outputs = [network(view), network(view.flip(3)).flip(3)] if flip else [network(view)]
        for logits in outputs:
            large = F.interpolate(logits.float(), image.shape[-2:], mode="bilinear")
            best = torch.maximum(best, large.softmax(1))
    return (best / best.sum(1, keepdim=True))[0].cpu()


def best_device() -> str:
    """Return the accelerator that lightning takes for ``auto``: ``cuda``, ``mps``, ... or ``cpu``."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def on_device(network: Any, accelerator: str) -> Any:
    """Move a network to the device that lightning takes for ``accelerator``, channels last, in evaluation mode."""
    device = best_device() if accelerator in ("auto", "gpu") else accelerator
    if accelerator == "gpu" and device == "cpu":
        device = "cuda"  # torch says that there is none
    return network.to(device).to(memory_format=torch.channels_last).eval()


@torch.inference_mode()
def flipped_features(network: SAFN, images: Tensor) -> Tensor:
    """Average MSF ``(B, N, h, w)`` with that of the mirrored images."""
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
    """Write the localization maps of each sample (Eq. 4) to ``out/<id>.npz``; returns how many maps are empty.

    They are those of the image labels, or of the classes with a ``predicted`` probability above 0.5, which is a score
    above 0. With ``flip`` they are averaged with those of the mirrored image.
    """
    out.mkdir(parents=True, exist_ok=True)
    device, empty = next(network.parameters()).device, 0
    for batch in _progress(plain_loader(samples, workers, batch_size), f"maps {out.name}"):
        images = batch["image"].to(device)
        features = flipped_features(network, images) if flip else network.features(images)
        labels = features.mean((2, 3)) > 0 if predicted else batch["label"].to(device)
        maps = localization_maps(features, labels)
        empty += int((labels.bool() & (maps.amax((2, 3)) == 0)).sum())
        for image_id, one, label in zip(batch["id"], maps.cpu().numpy(), labels.cpu().numpy()):
            save_maps(out / f"{image_id}.npz", one, label)
    return empty


def write_grad_cam(network: PlainClassifier, samples: PlainSet, out: Path, predicted: bool = False) -> None:
    """Write Grad-CAM maps of the last backbone layer to ``out/<id>.npz`` (Fig. 6 (b)). ``predicted``: as above."""
    out.mkdir(parents=True, exist_ok=True)
    last = list(network.backbone.children())[-1]
    for sample in _progress(plain_loader(samples, 0), f"Grad-CAM {out.name}"):
        with torch.no_grad():
            labels = network(sample["image"]) > 0 if predicted else sample["label"]
        maps = grad_cam(network, last, sample["image"], labels)
        height, width = (max(1, side // GRAD_CAM_STRIDE) for side in maps.shape[-2:])
        small = F.adaptive_avg_pool2d(maps, (height, width))
        save_maps(out / f"{sample['id'][0]}.npz", small[0].numpy(), labels[0].numpy())


def predict(
    network: nn.Module,
    normalisation: Normalisation,
    images: dict[str, Path],
    folder: Path,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    refined: Path | None = None,
    processes: int = 0,
    largest: int = 0,
) -> tuple[float, float]:
    """Write masks ``folder/<id>.png``, indexed, as large as the photograph, and after the CRF ``refined/<id>.png``.

    Masks that are there are kept, so a killed call goes on. Returns the seconds of the network alone, and of everything.
    An image that cannot be read, or whose CRF failed, is a ``DataError``.

    Args:
        images: id -> file.
        scales, flip: see ``multi_scale_maximum``.
        refined: folder of the masks after the CRF, ``None``: no CRF.
        processes: of the CRF (0: one for each core). They work while the network goes on.
        largest: long side in pixels to which larger photographs are shrunk for the network (0: never).
    """
    folders = [path for path in (folder, refined) if path]
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)
    todo = {i: path for i, path in images.items() if not all((f / f"{i}.png").exists() for f in folders)}
    device, started, busy = next(network.parameters()).device, time.time(), 0.0
    network.eval()
    processes, waiting = processors(processes), deque[tuple[str, Future]]()
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(processes, spawn) if refined else nullcontext() as pool:
        for image_id, path in _progress(todo.items(), f"predict {folder.name}"):
            begun = time.time()
            photo = load_image(path)
            image = normalisation(shrink_to(photo, largest))[None].to(device)
            probabilities = multi_scale_maximum(network, image, scales, flip)
            save_mask(folder / f"{image_id}.png", resize_mask(probabilities.numpy().argmax(0), photo.size))
            busy += time.time() - begun
            if refined and pool:
                try:  # NumPy's own conversion to float16 is slow on tiny values
                    refining = pool.submit(crf_mask, path, probabilities.half().numpy(), largest)
                except BrokenExecutor:  # a process has died: name its image
                    _write_refined(waiting, refined)
                    raise
                waiting.append((image_id, refining))
                _write_refined(waiting, refined, most=2 * processes)  # which bounds the memory
        if refined:
            _write_refined(waiting, refined)
    return busy, time.time() - started


def crf_mask(path: Path, probabilities: np.ndarray, largest: int = 0) -> np.ndarray:
    """Refine the probabilities ``(K, h, w)`` of a photograph on one thread; returns ids ``(H, W)`` at its size."""
    torch.set_num_threads(1)
    photo = load_image(path)
    refined = dense_crf(np.asarray(shrink_to(photo, largest)), probabilities.astype(np.float32))
    return resize_mask(refined.argmax(0), photo.size)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask of ids ``(h, w)`` to this width and height, by nearest neighbour, uint8."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _write_refined(waiting: deque[tuple[str, Future]], folder: Path, most: int = 0) -> None:
    """Write masks after the CRF, the oldest first, until at most so many wait."""
    while len(waiting) > most:
        image_id, future = waiting.popleft()
        try:
            save_mask(folder / f"{image_id}.png", future.result())
        except Exception as error:
            raise DataError(f"CRF of image {image_id} failed: {error!r}") from error


def _progress(items: Iterable, text: str) -> Iterable:
    return tqdm(items, text, mininterval=2, file=sys.stdout)
