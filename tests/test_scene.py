"""The drawn photo shows what the figures explain."""

from __future__ import annotations

import numpy as np

from safn.data import VOC_CLASSES
from safn_book.scene import AEROPLANE, BOAT, HEIGHT, WIDTH, Scene


def test_weights_sum_to_one_and_prefer_scale_1_on_the_small_object():
    scene = Scene()
    weights = scene.weights((1, 0.75, 0.5))
    assert abs(weights.sum(0) - 1).max() < 1e-9
    assert weights[0][scene.plane].mean() > 0.5 > weights[0][scene.boat].mean()


def test_only_the_labelled_classes_have_maps_and_the_sun_is_salient_without_a_label():
    scene = Scene()
    assert scene.photo.shape == (HEIGHT, WIDTH, 3) and scene.photo.min() >= 0 and scene.photo.max() <= 1
    present = {c for c in range(len(VOC_CLASSES)) if scene.maps[c].any()}
    assert present == {AEROPLANE, BOAT} == set(np.flatnonzero(scene.labels))
    assert scene.saliency[scene.sun].mean() > 0.8 and scene.maps[:, scene.sun].max() < 0.2
