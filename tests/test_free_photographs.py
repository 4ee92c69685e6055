"""The photographs that come with the package: whose they are, that they may be used, and that no network saw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safn
from safn.data import VOC_CLASSES, load_image, load_mask
from safn.datasets.free_photographs import FOLDER, IMAGES, MASKS

PHOTOGRAPHS = safn.free_photographs()
SHARED = Path(__file__).resolve().parents[2] / "shared" / "voc12"


def test_every_file_is_listed_and_every_photograph_is_there():
    assert {path.name for path in IMAGES.iterdir()} == {one.path.name for one in PHOTOGRAPHS.values()}
    assert {path.stem for path in MASKS.iterdir()} < set(PHOTOGRAPHS)


@pytest.mark.parametrize("one", PHOTOGRAPHS.values(), ids=list(PHOTOGRAPHS))
def test_author_source_and_licence_are_named(one):
    assert one.licence in ("CC0-1.0", "public domain")
    assert one.author and one.shows and one.changes and one.source.startswith("https://")
    package, file = one.found_in.split(": ")
    assert package and Path(file).name in ("README", "_fetchers.py")


def test_they_are_few_small_and_of_many_classes():
    classes = {label for one in PHOTOGRAPHS.values() for label in one.labels}
    assert 6 <= len(PHOTOGRAPHS) <= 10 and len(classes) >= 4 and classes <= set(VOC_CLASSES)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 1e6
    assert all(max(load_image(one.path).size) <= 500 for one in PHOTOGRAPHS.values())
    assert [image_id for image_id, one in PHOTOGRAPHS.items() if not one.labels] == ["hedgehog"]


def test_masks_drawn_by_hand_are_those_of_voc():
    masked = [one for one in PHOTOGRAPHS.values() if one.mask]
    assert len(masked) >= 3
    for one in masked:
        mask = load_mask(one.mask)
        assert mask.shape == load_image(one.path).size[::-1]
        assert set(np.unique(mask)) == {0, 255, *(VOC_CLASSES.index(label) + 1 for label in one.labels)}
        assert 0.02 < np.mean(mask == 255) < 0.06  # along the edges


def thumbnail(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (32, 32))
        return np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), np.float32)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photographs of VOC")
def test_none_is_among_the_photographs_of_training_and_test():
    seen = np.stack([thumbnail(path) for path in SHARED.rglob("*.jpg")])
    known = thumbnail(next(SHARED.rglob("*.jpg")))
    assert abs(seen - known).mean((1, 2, 3)).min() == 0
    for one in PHOTOGRAPHS.values():
        assert abs(seen - thumbnail(one.path)).mean((1, 2, 3)).min() > 10
