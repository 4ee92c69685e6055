"""Multi-scale test (Sec. IV-A), dense CRF, and predictions of a folder of images."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from safn.data import DataError, Normalisation, load_image, save_mask
from safn.network import rescale

CRF = {"bi_w": 4, "bi_xy_std": 67, "bi_rgb_std": 3, "pos_w": 3, "pos_xy_std": 1, "iterations": 10}  # Sec. IV-A


@torch.inference_mode()
def multi_scale_maximum(
    network: Callable[[Tensor], Tensor], image: Tensor, scales: tuple[float, ...], flip: bool = False
) -> Tensor:
    """Class probabilities: at each pixel and class the largest softmax value over the scales, summing to 1 again.

    Args:
        network: ``(B, 3, H, W)`` -> logits ``(B, K, h, w)``.
        image: normalised, ``(1, 3, H, W)``.
        scales: the paper's are 0.5, 0.75, 1, 1.25, 1.5.
        flip: also look at the mirrored image (not in the paper).

    Returns:
        float32 ``(K, H, W)``.
    """
    best = None
    for scale in scales:
        scaled = rescale(image, scale)
        views = [scaled, scaled.flip(3)] if flip else [scaled]
        for mirrored, view in enumerate(views):
            logits = network(view).float()
            logits = logits.flip(3) if mirrored else logits
            logits = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)
            probability = logits.softmax(1)
            best = probability if best is None else torch.maximum(best, probability)
    return (best / best.sum(1, keepdim=True))[0].cpu()


def dense_crf(image: np.ndarray, probabilities: np.ndarray, floor: float = 1e-4, **parameters: float) -> np.ndarray:
    """Fully connected CRF with the paper's parameters (``CRF``).

    Classes whose probability stays below ``floor`` at every pixel cannot win and are left out: the time grows with
    the number of classes.

    Args:
        image: raw RGB, uint8 ``(H, W, 3)``; not normalised.
        probabilities: ``(K, H, W)``, summing to 1 over K.

    Returns:
        refined probabilities, float32 ``(K, H, W)``.

    Raises:
        ValueError: image and probabilities do not fit.
        ImportError: pydensecrf is not installed.
    """
    try:
        import pydensecrf.densecrf as dcrf
    except ImportError as error:
        raise ImportError("dense CRF needs pydensecrf: pip install pydensecrf2==1.1 (it needs a C++ compiler)") from error
    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[:2] != probabilities.shape[1:]:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, probabilities are of shape {probabilities.shape}; "
            "valid: uint8 (H, W, 3) and (K, H, W)"
        )
    p = {**CRF, **parameters}
    kept = np.flatnonzero(probabilities.max((1, 2)) >= floor)
    height, width = image.shape[:2]
    field = dcrf.DenseCRF2D(width, height, len(kept))
    unary = -np.log(probabilities[kept].clip(1e-8, 1)).reshape(len(kept), -1)
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=p["pos_xy_std"], compat=p["pos_w"])
    field.addPairwiseBilateral(sxy=p["bi_xy_std"], srgb=p["bi_rgb_std"], rgbim=image, compat=p["bi_w"])
    refined = np.zeros(probabilities.shape, np.float32)
    refined[kept] = np.array(field.inference(int(p["iterations"]))).reshape(len(kept), height, width)
    return refined


def _crf_prediction(path: Path, probabilities: np.ndarray) -> np.ndarray:
    torch.set_num_threads(1)
    return dense_crf(np.asarray(load_image(path)), probabilities.astype(np.float32)).argmax(0).astype(np.uint8)


def predict(
    network: torch.nn.Module,
    normalisation: Normalisation,
    images: dict[str, Path],
    folder: Path,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    crf: bool = False,
    processes: int = 1,
    description: str = "predict",
) -> Path:
    """Predict masks for images: ``folder/<id>.png``, indexed, at the size of the photo. Those there are kept.

    The CRF runs in ``processes`` of its own while the network goes on (pydensecrf holds the interpreter's lock).
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = {i: path for i, path in images.items() if not (folder / f"{i}.png").exists()}
    device = next(network.parameters()).device
    network.eval()
    with concurrent.futures.ProcessPoolExecutor(processes if crf else 1) as pool:
        pending: dict[concurrent.futures.Future, str] = {}
        for image_id, path in tqdm(todo.items(), description, mininterval=2, file=_stdout()):
            photo = load_image(path)
            probabilities = multi_scale_maximum(network, normalisation(photo)[None].to(device), scales, flip).numpy()
            if not crf:
                save_mask(folder / f"{image_id}.png", probabilities.argmax(0))
                continue
            pending[pool.submit(_crf_prediction, path, probabilities.astype(np.float16))] = image_id
            if len(pending) > 2 * processes:  # bounds the memory
                _collect(pending, folder, concurrent.futures.FIRST_COMPLETED)
        _collect(pending, folder, concurrent.futures.ALL_COMPLETED)
    return folder


def _collect(pending: dict, folder: Path, when: str) -> None:
    for future in concurrent.futures.wait(pending, return_when=when).done:
        image_id = pending.pop(future)
        try:
            save_mask(folder / f"{image_id}.png", future.result())
        except Exception as error:
            raise DataError(f"CRF of image {image_id} failed: {error!r}") from error


def _stdout():
    """Progress goes to standard output: notebooks show standard error as if something were wrong."""
    import sys

    return sys.stdout
