"""The photographs that come with the package: whose they are, that they may be used, and that no network saw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safn
from safn.__main__ import main
from safn.data import VOC_CLASSES
from safn.datasets.free_photographs import FOLDER, IMAGES, MASKS
from safn.images import load_image, load_mask

PHOTOGRAPHS = safn.free_photographs()


def test_every_file_is_listed_and_every_photograph_is_there():
    assert {path.name for path in IMAGES.iterdir()} == {one.path.name for one in PHOTOGRAPHS.values()}
    assert {path.stem for path in MASKS.iterdir()} < set(PHOTOGRAPHS)


@pytest.mark.parametrize("one", PHOTOGRAPHS.values(), ids=list(PHOTOGRAPHS))
def test_author_source_and_licence_are_named(one):
    assert one.licence in ("CC0-1.0", "public domain")
    assert one.author and one.shows and one.changes and one.source.startswith("https://")
    package, file = one.found_in.split(": ")
    assert package and Path(file).name in ("README", "README.md", "_fetchers.py")


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


def test_none_is_among_the_photographs_of_training_and_test(voc12):
    photographs = list(voc12.rglob("*.jpg"))
    seen, known = np.stack([thumbnail(path) for path in photographs]), thumbnail(photographs[0])
    assert abs(seen - known).mean((1, 2, 3)).min() == 0
    for one in PHOTOGRAPHS.values():
        assert abs(seen - thumbnail(one.path)).mean((1, 2, 3)).min() > 10


def test_the_command_makes_their_masks(tmp_path, capsys):
    assert main(["predict", "voc", str(IMAGES), str(tmp_path / "masks")]) == 0
    assert "10 masks" in capsys.readouterr().out
    masks = {image_id: load_mask(tmp_path / "masks" / "multi" / f"{image_id}.png") for image_id in PHOTOGRAPHS}
    for image_id in ("cat", "cow", "dog", "sheep", "kingfisher"):
        truth, own = load_mask(PHOTOGRAPHS[image_id].mask), masks[image_id]
        target = VOC_CLASSES.index(PHOTOGRAPHS[image_id].labels[0]) + 1
        counted = truth != 255
        both, either = (truth == target) & (own == target), (truth == target) | (own == target)
        assert both[counted].sum() / either[counted].sum() > 0.65
    animals = {VOC_CLASSES.index(name) + 1 for name in ("bird", "cat", "cow", "dog", "horse", "sheep")}
    assert {0} < set(np.unique(masks["hedgehog"])) <= {0, *animals}  # it knows no hedgehog
