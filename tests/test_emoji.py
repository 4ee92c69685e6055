from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from safn.data import VOC_CLASSES, VOCFolder
from safn.datasets import emoji
from safn.verification import verify


def installed() -> bool:
    try:
        emoji._font()
    except FileNotFoundError:
        return False
    return True


DISTRACTORS = emoji.TABLES["distractors"].split()
drawn = pytest.mark.skipif(not installed(), reason="the OpenMoji font is not installed: requirements-weights.txt")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("emoji")
    emoji.generate(root, 20, 20, 64, seed=3)
    return root


def digest(root) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@drawn
def test_the_folder_is_sound_and_complete(made):
    folder = VOCFolder(made)
    assert verify(folder).problems == [] and folder.classes == VOC_CLASSES
    assert len(folder.ids("train")) == 20 == len(folder.ids("val")) and folder.ids("train") == folder.ids("train_aug")
    assert not set(folder.ids("train")) & set(folder.ids("val"))
    assert all(folder.image(i).size == (64, 64) for i in folder.ids("val"))


@drawn
def test_labels_are_those_of_the_masks(made):
    folder = VOCFolder(made)
    for image_id in folder.labels:
        mask = folder.mask(image_id)
        present = [c for c in range(20) if (mask == c + 1).any()]
        assert np.flatnonzero(folder.label(image_id)).tolist() == present
    assert np.isin(255, np.stack([folder.mask(i) for i in folder.labels]))  # objects have void borders


@drawn
def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(made, tmp_path):
    emoji.generate(tmp_path / "a", 20, 20, 64, seed=3)
    assert digest(tmp_path / "a") == digest(made)
    first, other = (np.asarray(emoji.scene("train", 0, 64, seed)[0]) for seed in (3, 4))
    assert (first != other).any()


@drawn
def test_a_longer_set_begins_with_the_shorter_one(made, tmp_path):
    emoji.generate(tmp_path, 21, 20, 64, seed=3)
    short, long = digest(made), digest(tmp_path)
    photos = [name for name in short if name.endswith((".jpg", ".png"))]
    assert len(photos) == 80 and all(short[name] == long[name] for name in photos)


@drawn
def test_small_and_large_objects_both_occur():
    shares = []
    for index in range(40):
        mask = emoji.scene("train", index, 64, 0)[1]
        shares += [(mask == c).mean() for c in range(1, 21) if (mask == c).any()]
    assert min(shares) >= 0.004 and min(shares) < 0.05 and max(shares) > 0.3


@drawn
def test_every_glyph_is_in_the_font():
    for glyph in [g for glyphs in emoji.GLYPHS.values() for g in glyphs.split()] + DISTRACTORS:
        assert emoji.render(glyph).getchannel("A").getextrema()[1] == 255, glyph


def test_classes_are_those_of_voc_and_distractors_are_none_of_them():
    assert list(emoji.GLYPHS) == VOC_CLASSES
    every = [g for glyphs in emoji.GLYPHS.values() for g in glyphs.split()]
    assert len(set(every)) == len(every) and not set(every) & set(DISTRACTORS)


@pytest.mark.parametrize("name", VOC_CLASSES)
def test_of_three_glyphs_or_more_a_third_is_kept_for_validation(name):
    every, train, val = emoji.GLYPHS[name].split(), set(emoji.glyphs(name, "train")), set(emoji.glyphs(name, "val"))
    assert train and val == set(every) and len(set(every) - train) == len(every) // 3


@pytest.mark.parametrize("name", [n for n, s in emoji.SURFACES.items() if s["seams"] != "clouds"])
def test_a_surface_has_its_colours_at_top_and_bottom(name):
    top, bottom, *_, seams = emoji.SURFACES[name].values()
    many = np.mean([emoji.surface(name, 64, np.random.default_rng(seed)) for seed in range(8)], 0)
    dark = 25 * 1.5 / 64 * sum(seams or ())  # lines between stones, which may overlap
    for rows, colour in ((many[:8], top), (many[-8:], bottom)):
        difference = rows.mean((0, 1)) - colour
        assert (difference < 12).all() and (difference > -12 - dark).all()


def test_there_are_lines_between_stones():
    tiles = emoji.surface("tiles", 120, np.random.default_rng(0)).mean(2)  # 6 x 6 of them: a line each 20 pixels
    rows = tiles.mean(1).reshape(6, 20)
    assert (rows[:, :2].max(1) < rows[:, 2:].min(1)).all()


def test_clouds_are_brighter_than_the_sky():
    sky = emoji.surface("sky", 64, np.random.default_rng(1))
    low, high = np.quantile(sky[..., 0], (0.05, 0.95))
    assert 100 < low < 200 < high <= 240


def test_places_are_made_of_known_surfaces_and_all_of_them_occur():
    used = {name for place in emoji.PLACES for name in place}
    assert used - {""} == set(emoji.SURFACES)


@drawn
def test_the_place_is_the_same_whatever_stands_there():
    image = np.asarray(emoji.background(64, np.random.default_rng((0, False, 5))), float)
    scene, mask = emoji.scene("train", 5, 64, 0)
    alike = (np.asarray(scene, float) == image).all(2)
    assert alike[mask == 0].mean() > 0.8 and not alike[(mask > 0) & (mask < 255)].any()


def test_too_few_or_too_small_images_are_refused_and_nothing_is_written(tmp_path):
    for wrong, valid in ({"train": 19}, 20), ({"val": 0}, 20), ({"size": 31}, 32):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}={value}; valid: a whole number from {valid} on"):
            emoji.generate(tmp_path / "a", **wrong)
    assert not (tmp_path / "a").exists()


@drawn
def test_a_glyph_the_font_lacks_is_an_error():
    with pytest.raises(ValueError, match="no glyph ' '"):
        emoji.render(" ")


def test_a_font_that_is_not_installed_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setattr("safn.files.metadata.files", lambda name: None)
    emoji._font.cache_clear()
    with pytest.raises(FileNotFoundError, match="requirements-weights.txt"):
        emoji._font()
    emoji._font.cache_clear()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_pasted_lies_mostly_inside(seed):
    rng = np.random.default_rng(seed)
    image, glyph = Image.new("RGB", (50, 50)), Image.new("RGBA", (30, 20), (255, 0, 0, 255))
    shape = emoji._paste(image, glyph, rng)
    assert (np.asarray(image)[..., 0] == 255).tolist() == shape.tolist()
    assert 0.6 * 600 <= shape.sum() <= 600
