"""SAFN step by step on a photograph, by the two trained networks that come with the package.

``steps = Steps(path, ["cat"])`` computes each step when it is asked for, in seconds: ``steps.maps``, ``steps.pseudo_label``.
``columns(names, all_steps)`` draws some of them for several photographs.
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import safn
from safn import crf
from safn.datasets.free_photographs import free_photographs
from safn.images import load_image, load_mask
from safn.inference import TEST_SCALES, multi_scale_maximum, resize_mask
from safn.loading import resize_long, shrink_to
from safn.maps import localization_maps
from safn.network import aggregate
from safn.saliency import U2NetP, multi_view_saliency
from safn_book.galleries import Heat, Mask, Row, gallery

MAIN = "attention_1-0.75-0.5_seed0"  # the run whose chapters show photographs: the networks are not of the run
CLASSIFIER, SEGMENTER = "voc-safn", "voc"
# As in the profile voc-subset, which trained both networks
MAP_SIZE = 288  # long side in pixels of the image that the maps are made of
VIEWS = 6  # of the image for the saliency detector
RULES: dict[str, Any] = {"gamma": 0.2, "ignore_saliency": 0.06, "ignore_confidence": 0.9}
load = cache(safn.load)  # each network once
detector = cache(U2NetP)


class Steps:
    """Compute what SAFN makes of a photograph. N classes, S scales, a photograph of H x W pixels, maps of h x w.

    Args:
        photograph: an image file.
        labels: names of the classes that it shows. ``None``: those with a probability above 0.5.
        mask: file of its ground-truth mask, where there is one.
        refine: whether the dense CRF refines the segmentation. ``None``: where it is installed.

    Raises:
        ValueError: a label is no class of the network.

    Example:
        >>> steps = Steps(free_photographs()["cat"].path)
        >>> [steps.classes[k] for k in steps.labels.nonzero()[0]], steps.scale_maps.shape
        (['cat'], (3, 20, 14, 18))
    """

    def __init__(
        self,
        photograph: Path | str,
        labels: Sequence[str] | None = None,
        mask: Path | None = None,
        refine: bool | None = None,
    ) -> None:
        self.name = Path(photograph).stem
        self.picture = load_image(Path(photograph))
        self.network = load(CLASSIFIER)
        self.classes: list[str] = self.network.classes
        self.scales: tuple[float, ...] = self.network.scales
        self.refine = crf.is_installed() if refine is None else refine
        self._names, self._mask = labels, mask
        if unknown := set(labels or ()) - set(self.classes):
            raise ValueError(f"labels={sorted(unknown)} are unknown; valid: {', '.join(self.classes)}")

    @cached_property
    def features(self) -> Tensor:
        """The class features of each scale, F of Eq. 2, ``(1, S, N, h, w)``."""
        image = resize_long(self.picture, MAP_SIZE)
        with torch.inference_mode():
            return self.network.scale_features(self.network.normalisation(image)[None])

    @cached_property
    def scale_weights(self) -> np.ndarray:
        """The weight of each scale, W of Eq. 1, float32 ``(S, h, w)``. They sum to 1 over the scales."""
        with torch.inference_mode():
            return self.network.attention(self.features)[0].numpy()

    @property
    def fused(self) -> Tensor:
        """MSF of Eq. 2, ``(1, N, h, w)``."""
        return aggregate(self.features, torch.from_numpy(self.scale_weights)[None])

    @property
    def scores(self) -> np.ndarray:
        """The probability of each class, float32 ``(N,)`` in 0..1."""
        return self.fused.mean((2, 3)).sigmoid()[0].numpy()

    @property
    def labels(self) -> np.ndarray:
        """1 for the classes that the photograph shows, else 0, float32 ``(N,)``."""
        shown = self.scores > 0.5 if self._names is None else np.isin(self.classes, self._names)
        return shown.astype(np.float32)

    @property
    def maps(self) -> np.ndarray:
        """The localization maps of the labels (Eq. 4), float32 ``(N, h, w)`` in 0..1, 0 for other classes."""
        return localization_maps(self.fused, torch.from_numpy(self.labels)[None])[0].numpy()

    @property
    def scale_maps(self) -> np.ndarray:
        """The maps of each scale alone (Fig. 5), float32 ``(S, N, h, w)`` in 0..1."""
        labels = torch.from_numpy(self.labels)[None].expand(len(self.scales), -1)
        return localization_maps(self.features[0], labels).numpy()

    @cached_property
    def saliency(self) -> np.ndarray:
        """The saliency map of U2-Net-p in six views, float32 ``(H, W)`` in 0..1."""
        return multi_view_saliency(detector(), self.picture, VIEWS)

    @cached_property
    def pseudo_label(self) -> np.ndarray:
        """The pseudo labels (Algorithm 1), uint8 ``(H, W)`` with 0 background, c + 1 class c, 255 ignored."""
        maps = torch.from_numpy(self.maps)[None]
        large = F.interpolate(maps, self.saliency.shape, mode="bilinear", align_corners=False)[0].numpy()
        return safn.pseudo_ground_truth(large, self.saliency, self.labels, **RULES)

    @cached_property
    def segmentation(self) -> np.ndarray:
        """The mask of DeepLab-LargeFOV at five scales, after the CRF with ``refine``, uint8 ``(H, W)``. No labels enter."""
        network = load(SEGMENTER)
        image = shrink_to(self.picture, network.description["longest_side"])
        probabilities = multi_scale_maximum(network, network.normalisation(image)[None], TEST_SCALES).numpy()
        if self.refine:
            probabilities = safn.dense_crf(np.asarray(image), probabilities)
        return resize_mask(probabilities.argmax(0), self.picture.size)

    @cached_property
    def ground_truth(self) -> np.ndarray | None:
        """The mask drawn by hand, uint8 ``(H, W)`` with 255 along the edges, or ``None``."""
        return load_mask(self._mask) if self._mask else None

    def iou(self, mask: np.ndarray) -> float:
        """Score a mask against the ground truth: IoU in 0..1 of the class that is shown, ignored pixels excluded."""
        if self.ground_truth is None:
            raise ValueError(f"{self.name} has no ground-truth mask")
        counts = safn.ConfusionMatrix(len(self.classes) + 1)
        counts.update(mask, self.ground_truth)
        return float(counts.iou("drop")[self.shown_class + 1])

    def shares(self) -> dict[str, float]:
        """Return the share of each class in the segmentation, in 0..1, the largest first, without the background."""
        pixels = np.bincount(self.segmentation.ravel(), minlength=len(self.classes) + 1)[1:] / self.segmentation.size
        return {self.classes[k]: float(pixels[k]) for k in (-pixels).argsort() if pixels[k]}

    @cached_property
    def shown_class(self) -> int:
        """The label whose maps are drawn, which is that with the largest score. Set another one to draw its maps."""
        return int((self.labels * self.scores).argmax())

    def row(self, names: Sequence[str]) -> Row:
        """Return what steps look like, by title, each one picture or one for each scale. ``names`` are of ``STEPS``."""
        if unknown := [name for name in names if name not in STEPS]:
            raise ValueError(f"names={unknown} are unknown; valid: {', '.join(STEPS)}")
        row: Row = {}
        for name in names:
            row |= STEPS[name](self)
        return row

    @property
    def _truth(self) -> Image.Image | Mask:
        if self.ground_truth is None:
            return Image.new("RGB", self.picture.size, "white")
        return Mask(self.ground_truth, self.picture)


# What each step looks like, by title. Nothing is computed before it is asked for.
STEPS: dict[str, Callable[[Steps], Row]] = {
    "photograph": lambda s: {"photograph": s.picture},
    "scale maps": lambda s: {
        f"map of scale {scale:g}": Heat(maps[s.shown_class], s.picture) for scale, maps in zip(s.scales, s.scale_maps)
    },
    "map": lambda s: {"fused map": Heat(s.maps[s.shown_class], s.picture)},
    "saliency": lambda s: {"saliency map": Heat(s.saliency)},
    "scale weights": lambda s: {
        f"weight of scale {scale:g}": Heat(weights) for scale, weights in zip(s.scales, s.scale_weights)
    },
    "pseudo labels": lambda s: {"pseudo labels": Mask(s.pseudo_label, s.picture)},
    "segmentation": lambda s: {"segmentation": Mask(s.segmentation, s.picture)},
    "ground truth": lambda s: {"ground truth": s._truth},
}


def free_steps(*ids: str) -> list[Steps]:
    """Return the steps of the free photographs with these ids (none: all), with their labels and masks."""
    photographs = free_photographs()
    chosen = [photographs[image_id] for image_id in ids or photographs]
    return [Steps(one.path, one.labels or None, one.mask) for one in chosen]


def columns(names: Sequence[str], *photographs: Steps) -> Figure:
    """Draw the same steps of photographs, one a row, beside it the class of its maps or, without maps, its name."""
    maps = {"scale maps", "map", "pseudo labels"} & {*names}
    beside = [steps.classes[steps.shown_class] if maps else steps.name for steps in photographs]
    rows = [steps.row(names) for steps in photographs]
    return gallery(rows, photographs[0].classes, beside)
