"""The drawn photo of Figures 1-3: a large boat, a small aeroplane, and a sun that no label names."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.path import Path as Outline

from safn.data import VOC_CLASSES
from safn.maps import localization_maps

HEIGHT, WIDTH = 150, 200  # pixels
AEROPLANE, BOAT = VOC_CLASSES.index("aeroplane"), VOC_CLASSES.index("boat")


def _inside(*corners: tuple[float, float]) -> np.ndarray:
    """Pixels inside a polygon, bool ``(HEIGHT, WIDTH)``."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Outline(corners).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(HEIGHT, WIDTH)


def _disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, edges repeated."""
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(values.astype(float), [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], "edge")
        values = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, padded)
    return values


class Scene:
    """The photo, its saliency, and class features that stand in for a trained network's."""

    def __init__(self) -> None:
        sail = _inside((95, 26), (95, 104), (42, 104)) | _inside((101, 36), (101, 104), (142, 104))
        hull = _inside((30, 109), (160, 109), (142, 130), (50, 130))
        mast = _inside((96, 20), (100, 20), (100, 112), (96, 112))
        body = _inside((150, 33), (182, 30), (187, 34), (182, 37), (150, 37))
        wings = _inside((164, 33), (170, 33), (164, 48), (159, 48)) | _inside(
            (151, 34), (155, 34), (151, 24), (147, 24)
        )
        self.sun = _disc(27, 30, 12)
        self.boat, self.plane = sail | hull | mast, body | wings
        rows = np.linspace(0, 1, HEIGHT)[:, None, None]
        photo = (1 - rows) * np.array([0.45, 0.68, 0.9]) + rows * np.array([0.86, 0.92, 0.96])
        photo = np.repeat(photo, WIDTH, 1)
        photo[112:] = np.linspace(0.9, 0.7, HEIGHT - 112)[:, None, None] * np.array([0.2, 0.47, 0.6])
        for mask, colour in (
            (self.sun, (0.99, 0.83, 0.36)),
            (sail, (0.98, 0.96, 0.92)),
            (mast, (0.36, 0.25, 0.2)),
            (hull, (0.72, 0.2, 0.2)),
            (wings, (0.42, 0.45, 0.52)),
            (body, (0.93, 0.94, 0.96)),
        ):
            photo[mask] = colour
        self.photo = photo
        self.features = self._features()
        labels = np.zeros(len(VOC_CLASSES))
        labels[[AEROPLANE, BOAT]] = 1
        self.labels = labels
        tensors = torch.from_numpy(self.features)[None], torch.from_numpy(labels)[None]
        self.maps = localization_maps(*tensors)[0].numpy()
        self.saliency = np.clip(_blur(self.boat | self.plane | self.sun, 1.5), 0, 1)

    def _features(self) -> np.ndarray:
        """MSF ``(N, HEIGHT, WIDTH)``: coarse blobs on both objects, weak noise for the other classes."""
        rng = np.random.default_rng(3)
        noise = rng.normal(0, 1, (len(VOC_CLASSES), HEIGHT, WIDTH))
        features = np.stack([2.5 * _blur(n, 12) - 0.05 for n in noise])
        features[BOAT] = _blur(self.boat, 9) + 0.25 * _blur(_disc(96, 110, 25), 8) - 0.08
        features[AEROPLANE] = 1.5 * _blur(self.plane, 6) - 0.03
        return features

    def response(self, scale: float) -> np.ndarray:
        """Features ``(HEIGHT, WIDTH)`` at a scale: parts of the boat at scale 1, all of it when it is shrunk."""
        boat = np.maximum(self.features[BOAT], 0) ** (1 + 5 * (scale - 0.5))
        plane = np.maximum(_blur(self.features[AEROPLANE], 1 + 8 * (1 - scale)), 0)
        return np.maximum(boat, plane)

    def weights(self, scales: tuple[float, ...]) -> np.ndarray:
        """Eq. 1 weights ``(S, HEIGHT, WIDTH)`` as one hopes for them: large scales on small objects, and the reverse."""
        preference = 3 * _blur(self.plane, 7) / _blur(self.plane, 7).max() - 2.5 * _blur(self.boat, 8)
        scores = np.stack([(scale - np.mean(scales)) * 4 * preference for scale in scales])
        return np.exp(scores) / np.exp(scores).sum(0)
