"""The dense CRF (Sec. IV-A)."""

import importlib.util
from typing import Any

import numpy as np

from safn.arguments import require_count, require_number, require_shape, require_unit_interval

# The build of pydensecrf asks for a Cython that ends at Python 3.12: with today's it builds on all.
HOW = "pip install 'cython>=3.1' setuptools wheel && pip install --no-build-isolation --no-deps pydensecrf2==1.1"
SMALLEST_STD = 0.01  # pydensecrf's lattice overflows below, and ends the process


def dense_crf(
    image: np.ndarray,
    probabilities: np.ndarray,
    *,
    bi_w: float = 4,
    bi_xy_std: float = 67,
    bi_rgb_std: float = 3,
    pos_w: float = 3,
    pos_xy_std: float = 1,
    iterations: int = 10,
    floor: float = 1e-4,
) -> np.ndarray:
    """Refine probabilities with a fully connected CRF; the defaults are the paper's (Sec. IV-A).

    Args:
        image: raw RGB, uint8 ``(H, W, 3)``; not normalised.
        probabilities: ``(K, H, W)`` in 0..1, summing to 1 over K.
        bi_w, bi_xy_std, bi_rgb_std: kernel over position and colour: its weight, from 0 on, and its standard deviations
            in pixels and in colour values of 0..255, from 0.01 on.
        pos_w, pos_xy_std: kernel over position alone, likewise.
        iterations: from 1 on.
        floor: in 0..1. A class whose probability is below it at every pixel cannot win and is left out, to save time.

    Returns:
        refined probabilities, float32 ``(K, H, W)``.

    Raises:
        ValueError: an argument is not one of these.
        ImportError: pydensecrf is not installed.

    Example:
        >>> image, probabilities = np.zeros((4, 6, 3), np.uint8), np.full((2, 4, 6), 0.4)
        >>> probabilities[1] = 0.6
        >>> probabilities[:, 0, 0] = 0.6, 0.4  # one colour: the many overrule the few
        >>> dense_crf(image, probabilities).argmax(0)[0].tolist()
        [1, 1, 1, 1, 1, 1]
    """
    probabilities = np.asarray(probabilities)
    _require_image(image, probabilities)
    for name, weight in {"bi_w": bi_w, "pos_w": pos_w}.items():
        require_number(name, weight, 0)
    for name, std in {"bi_xy_std": bi_xy_std, "bi_rgb_std": bi_rgb_std, "pos_xy_std": pos_xy_std}.items():
        require_number(name, std, SMALLEST_STD)
    require_count("iterations", iterations)
    require_number("floor", floor, 0, 1)
    image = np.array(image, order="C")  # pydensecrf takes no read-only view
    largest = probabilities.max((1, 2))
    kept = np.flatnonzero(largest >= min(floor, largest.max()))
    field = _pydensecrf().DenseCRF2D(image.shape[1], image.shape[0], len(kept))
    unary = -np.log(probabilities[kept].clip(1e-8, 1)).reshape(len(kept), -1)
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=pos_xy_std, compat=pos_w)
    field.addPairwiseBilateral(sxy=bi_xy_std, srgb=bi_rgb_std, rgbim=image, compat=bi_w)
    refined = np.zeros(probabilities.shape, np.float32)
    refined[kept] = np.array(field.inference(int(iterations))).reshape(len(kept), *image.shape[:2])
    return refined


def _require_image(image: np.ndarray, probabilities: np.ndarray) -> None:
    require_shape("image", image.shape, ("H", "W", 3))
    require_shape("probabilities", probabilities.shape, ("K", *image.shape[:2]))
    if image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype}; wanted: uint8, the raw RGB values")
    require_unit_interval("probabilities", probabilities)
    sums = probabilities.sum(0, dtype=np.float32)
    if not (abs(sums - 1) < 0.01).all():
        raise ValueError(f"probabilities sum to {sums.min():g} to {sums.max():g} over the classes; wanted: 1")


def _pydensecrf() -> Any:
    try:
        import pydensecrf.densecrf
    except ImportError as error:
        raise ImportError(f"the dense CRF needs pydensecrf and a C++ compiler: make crf, or {HOW}") from error
    return pydensecrf.densecrf


def is_installed() -> bool:
    """Say whether pydensecrf is there, without which ``dense_crf`` raises ImportError."""
    return importlib.util.find_spec("pydensecrf") is not None
