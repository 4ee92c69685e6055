"""Maps and masks of folders of images by trained networks, and the multi-scale test (Sec. IV-A)."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from safn import trained
from safn.backbones import ANY_SIZE, Grid, Normalisation, rescale
from safn.baseline import PlainClassifier, grad_cam
from safn.crf_workers import CRFWorkers, resize_mask
from safn.datasets.own_images import find_images
from safn.files import DataError, locked, write_json
from safn.images import load_image, save_mask, unreadable
from safn.loading import PlainSet, plain_loader, shrink_to
from safn.map_files import save_maps
from safn.maps import localization_maps
from safn.network import SAFN
from safn.segmentation import DeepLab

TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)  # Sec. IV-A
GRAD_CAM_STRIDE = 8  # its maps are smooth, so they are stored at an eighth of the image
MADE_OF = "predictions.json"  # what the masks of a folder were made of


@torch.inference_mode()
def multi_scale_maximum(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    scales: tuple[float, ...] = TEST_SCALES,
    flip: bool = False,
    grid: Grid | None = None,
) -> Tensor:
    """Take at each pixel and class the largest probability over rescaled inputs (Sec. IV-A).

    Args:
        network: ``(B, 3, H, W)`` -> logits ``(B, K, h, w)``.
        image: normalised, ``(1, 3, H, W)``.
        flip: also see the mirrored image, which the paper does not.
        grid: which heights and widths an input may have. ``None``: that of a ``DeepLab``, and any of another network.

    Returns:
        float32 ``(K, H, W)`` on the CPU, which sums to 1 over the classes.

    Example:
        >>> logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
        >>> multi_scale_maximum(lambda image: logits, torch.zeros(1, 3, 64, 64), (1, 0.5)).argmax(0).unique()
        tensor([1])
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales are {tuple(scales)}; valid: one or more numbers above 0")
    if grid is None:
        grid = network.grid if isinstance(network, DeepLab) else ANY_SIZE
    best = image.new_zeros(1)
    for scale in scales:
        view = rescale(image, scale, grid)
        outputs = [network(view), network(view.flip(3)).flip(3)] if flip else [network(view)]
        for logits in outputs:
            large = F.interpolate(logits.float(), image.shape[-2:], mode="bilinear", align_corners=False)
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


def predicted_labels(scores: Tensor) -> Tensor:
    """Return 1 for the classes with a probability above 0.5, else 0, ``(B, N)``."""
    return (scores > 0).float()


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

    They are those of the image labels, or of the classes with a ``predicted`` probability above 0.5. With ``flip`` they
    are averaged with those of the mirrored image. Up to ``batch_size`` images of one shape go together.
    """
    out.mkdir(parents=True, exist_ok=True)
    device, empty = next(network.parameters()).device, 0
    for batch in _progress(plain_loader(samples, workers, batch_size), f"maps {out.name}"):
        images = batch["image"].to(device)
        features = flipped_features(network, images) if flip else network.features(images)
        labels = predicted_labels(features.mean((2, 3))) if predicted else batch["label"].to(device)
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
            labels = predicted_labels(network(sample["image"])) if predicted else sample["label"]
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
    pool: Executor | None = None,
    largest: int = 0,
    grid: Grid | None = None,
) -> tuple[float, float]:
    """Write masks ``folder/<id>.png``, indexed, as large as the photograph, and after the CRF ``refined/<id>.png``.

    Masks that are there are kept, so a killed call goes on. Returns the seconds of the network alone, and of everything.
    An image that cannot be read, or whose CRF failed, is a ``DataError``.

    Args:
        images: id -> file.
        scales, flip, grid: see ``multi_scale_maximum``.
        refined: folder of the masks after the CRF, ``None``: no CRF.
        processes: of the CRF (0: one for each core).
        pool: of as many processes, which are running already.
        largest: long side in pixels to which larger photographs are shrunk for the network (0: never).
    """
    folders = [path for path in (folder, refined) if path]
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)
    todo = {i: path for i, path in images.items() if not all((f / f"{i}.png").exists() for f in folders)}
    device, started, busy = next(network.parameters()).device, time.time(), 0.0
    network.eval()
    crf = CRFWorkers(refined, processes, pool, largest) if refined else None
    with crf or nullcontext():
        for image_id, path in _progress(todo.items(), f"predict {folder.name}"):
            begun = time.time()
            photo = load_image(path)
            image = normalisation(shrink_to(photo, largest))[None].to(device)
            probabilities = multi_scale_maximum(network, image, scales, flip, grid).numpy()
            save_mask(folder / f"{image_id}.png", resize_mask(probabilities.argmax(0), photo.size))
            busy += time.time() - begun
            if crf:
                crf.submit(image_id, path, probabilities)
    return busy, time.time() - started


def predict_folder(
    network: Path | str,
    images: Path | str,
    out: Path | str,
    scales: tuple[float, ...] = TEST_SCALES,
    crf: bool = False,
    only: list[str] | None = None,
    accelerator: str = "auto",
    largest: int | None = None,
) -> Path:
    """Write a mask for each image of a folder: ``out/multi/<id>.png``, and after the CRF ``out/crf/<id>.png``.

    Everything is checked before anything is written. Masks that are there are kept. Returns the folder of the final masks.

    Args:
        network: folder of a trained ``DeepLab``, such as ``runs/paper/06_train_segmentation/<run>``.
        only: ids of the images that count, ``None``: all.
        largest: see ``predict``. ``None``: the longest side of the images that it was trained on.

    Raises:
        DataError: listing what is missing or unreadable, and why masks cannot be written to ``out``.
    """
    folder, images, out = trained.find(network), Path(images), Path(out)
    description = trained.read_description(folder)
    if description["kind"] != "DeepLab":
        raise DataError(
            f"{network} holds a {description['kind']}, which makes no masks: give voc, or a folder of stage 06"
        )
    chosen, problems = find_images(images)
    if only is not None:
        problems = [f"{i}: no such image" for i in only if i not in chosen] if only else ["the list of ids is empty"]
        chosen = {i: chosen[i] for i in only if i in chosen}
    problems += unreadable(chosen.values())
    inside = out.resolve().is_relative_to(images.resolve())
    if inside or images.resolve() in (out.resolve() / "multi", out.resolve() / "crf"):
        problems.append(f"{out} lies among the images: give another folder for the masks")
    largest = description["longest_side"] if largest is None else largest
    settings = {"network": trained.fingerprint(folder), "scales": list(scales), "largest": largest}
    contents = {} if problems else {i: hashlib.sha256(path.read_bytes()).hexdigest() for i, path in chosen.items()}
    known, others = _earlier_masks(out, settings, contents)
    if problems := problems + others:
        raise DataError.from_problems(f"{images}: {len(problems)} problems, nothing was predicted:", problems)
    deeplab = on_device(trained.load(folder), accelerator)
    out.mkdir(parents=True, exist_ok=True)
    refined = out / "crf" if crf else None
    with locked(out):
        write_json(out / MADE_OF, {"settings": settings, "images": {**known, **contents}})
        predict(deeplab, deeplab.normalisation, chosen, out / "multi", scales, refined=refined, largest=largest)
    return refined or out / "multi"


def _earlier_masks(out: Path, settings: dict[str, Any], contents: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the contents of the images whose masks ``out`` holds, and why new masks cannot lie beside them."""
    path = out / MADE_OF
    if not path.exists():
        masks = [*out.glob("multi/*.png"), *out.glob("crf/*.png")]
        return {}, [f"{out} holds masks of unknown origin: give another folder"] if masks else []
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        before, known = earlier["settings"], earlier["images"]
    except (ValueError, KeyError, TypeError) as error:
        return {}, [f"{path} is damaged ({error!r}): give another folder"]
    problems = []
    if before != settings:
        problems.append(f"{out} holds masks of {before}, these would be of {settings}: give another folder")
    if others := [i for i, content in contents.items() if known.get(i, content) != content]:
        problems.append(f"{out} holds masks of other images with these ids: {', '.join(others)}: give another folder")
    return known, problems


def _progress(items: Iterable, text: str) -> Iterable:
    return tqdm(items, text, mininterval=2, file=sys.stdout)
