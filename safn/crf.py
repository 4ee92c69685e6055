"""Dense CRF (Sec. IV-A)."""

from __future__ import annotations

import numpy as np

CRF = {
    "bi_w": 4,
    "bi_xy_std": 67,
    "bi_rgb_std": 3,
    "pos_w": 3,
    "pos_xy_std": 1,
    "iterations": 10,
}  # Sec. IV-A


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
        raise ImportError(
            "dense CRF needs pydensecrf: pip install pydensecrf2==1.1 (it needs a C++ compiler)"
        ) from error
    image = np.array(image, order="C")  # pydensecrf takes no read-only view
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
