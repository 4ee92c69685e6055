from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from safn.data import DataError, VOCFolder, load_mask
from safn.maps import load_maps, maps_prediction, save_maps
from safn.pseudo import harmonic_mean, of_image, pseudo_ground_truth, write_folder
from safn.saliency import load_saliency, save_saliency

quick = settings(max_examples=60, deadline=None, derandomize=True)
SHARES = st.integers(0, 20).map(lambda k: k / 20)
MAPS = arrays(np.float32, (3, 3, 4), elements=SHARES)
SALIENCY = arrays(np.float32, (3, 4), elements=SHARES)
LABELS = arrays(np.int64, 3, elements=st.integers(0, 1))
BETWEEN = st.integers(0, 19).map(lambda k: k / 20 + 0.0213)  # no confidence lies exactly on a threshold


def eq5(m: float, s: float) -> float:
    return 0.0 if m == 0 or s == 0 else 2 / (1 / m + 1 / s)


def algorithm1(maps, saliency, labels, gamma, high, both) -> np.ndarray:
    """Algorithm 1 and the two ignore rules, pixel by pixel."""
    result = np.zeros(saliency.shape, int)
    for place in np.ndindex(*saliency.shape):
        classes = [c for c in range(len(maps)) if labels[c]]
        h = {c: eq5(float(maps[c][place]), float(saliency[place])) for c in classes}
        if classes and max(h.values()) >= gamma:
            result[place] = 1 + max(classes, key=lambda c: maps[c][place])
        if sum(v > both for v in h.values()) >= 2 or (result[place] == 0 and saliency[place] > high):
            result[place] = 255
    return result


def test_eq5_by_hand():
    maps = np.array([[[0.5, 1, 0, 0.2, 1]]])
    saliency = np.array([[0.5, 0.5, 0.7, 0, 1]])
    np.testing.assert_allclose(harmonic_mean(maps, saliency), [[[0.5, 2 / 3, 0, 0, 1]]], rtol=1e-6)


@quick
@given(MAPS, SALIENCY)
def test_eq5_is_the_harmonic_mean_and_0_where_either_is_0(maps, saliency):
    expected = [[[eq5(float(m), float(s)) for m, s in zip(*rows)] for rows in zip(one, saliency)] for one in maps]
    np.testing.assert_allclose(harmonic_mean(maps, saliency), expected, rtol=1e-5)


@quick
@given(MAPS, SALIENCY, LABELS, BETWEEN, BETWEEN, BETWEEN)
def test_pseudo_ground_truth_is_algorithm_1(maps, saliency, labels, gamma, high, both):
    made = pseudo_ground_truth(maps, saliency, labels, gamma, high, both)
    assert made.dtype == np.uint8
    assert made.tolist() == algorithm1(maps, saliency, labels, gamma, high, both).tolist()


@quick
@given(MAPS, SALIENCY, LABELS, BETWEEN)
def test_only_given_classes_appear_and_a_threshold_of_1_switches_its_rule_off(maps, saliency, labels, gamma):
    made = pseudo_ground_truth(maps, saliency, labels, gamma, ignore_saliency=1, ignore_confidence=1)
    assert set(np.unique(made)) <= {0, *(np.flatnonzero(labels) + 1)}
    assert not made[saliency == 0].any()


@quick
@given(arrays(np.float32, (3, 3, 4), elements=st.one_of(st.floats(0, 1, width=32), st.sampled_from([np.nan, np.inf, -np.inf]))),
       st.one_of(st.none(), SALIENCY), LABELS, SHARES, SHARES, SHARES,
       st.sampled_from(["harmonic", "maps", "saliency"]))  # fmt: skip
def test_every_mask_has_the_size_of_its_maps_and_the_given_ids_or_255(
    maps, saliency, labels, gamma, high, both, combine
):
    made = pseudo_ground_truth(maps, saliency, labels, gamma, high, both, combine)
    assert made.shape == (3, 4) and made.dtype == np.uint8
    assert set(np.unique(made)) <= {0, 255, *(np.flatnonzero(labels) + 1)}
    if not labels.any():
        assert (made == 255).tolist() == (
            np.zeros((3, 4)) if saliency is None else saliency > np.float32(high)
        ).tolist()


def test_the_order_of_the_rules_by_hand():
    maps = np.array([[[0.9, 0.1, 0.95, 0.95, 0.0, 0.6]], [[0.1, 0.1, 0.99, 0.80, 0.0, 0.7]]])
    saliency = np.array([[0.9, 0.9, 0.95, 0.95, 0.4, 0.1]])
    # class 1; salient but no class: ignored; both classes sure: ignored; one sure: it; nothing; H = 0.175 < 0.2
    made = pseudo_ground_truth(maps, saliency, [1, 1], gamma=0.2, ignore_saliency=0.5, ignore_confidence=0.9)
    assert made.tolist() == [[1, 255, 255, 1, 0, 0]]


@pytest.mark.parametrize("combine", ["harmonic", "maps", "saliency"])
@pytest.mark.parametrize("value", [0.0, np.nan, -np.inf, np.inf])
def test_maps_without_information_never_make_the_image_foreground(combine, value):
    made = pseudo_ground_truth(np.full((2, 3, 3), value), np.full((3, 3), 0.4), [1, 1], combine=combine)
    assert not made.any()


def test_an_image_without_a_label_is_background_and_ignored_where_salient():
    made = pseudo_ground_truth(np.ones((2, 1, 3)), np.array([[0.1, 0.5, 0.6]]), [0, 0])
    assert made.tolist() == [[0, 0, 255]]


def test_controls_use_one_source_for_the_confidence():
    maps, saliency = np.array([[[0.3, 0.1, 0.0, 0.3]]]), np.array([[0.1, 0.3, 0.3, 0.3]])

    def made(combine):
        return pseudo_ground_truth(maps, saliency, [1], gamma=0.25, combine=combine).tolist()[0]

    assert made("maps") == [1, 0, 0, 1] and made("saliency") == [0, 1, 0, 1] and made("harmonic") == [0, 0, 0, 1]


@pytest.fixture
def made_of(tiny_voc, tmp_path):
    """The tiny folder, its training ids, maps (at half size) and saliency (at another size) of each."""
    folder, rng = VOCFolder(tiny_voc), np.random.default_rng(0)
    for name in ("maps", "saliency"):
        (tmp_path / name).mkdir()
    for image_id in folder.ids("train_aug"):
        save_maps(tmp_path / "maps" / f"{image_id}.npz", rng.random((3, 16, 20)), folder.label(image_id))
        save_saliency(tmp_path / "saliency" / f"{image_id}.png", rng.random((10, 10)))
    return folder, folder.ids("train_aug"), tmp_path / "maps", tmp_path / "saliency"


def test_masks_are_written_at_the_size_of_the_photo(made_of, tmp_path):
    folder, ids, *sources = made_of
    out = tmp_path / "out"
    out.mkdir()
    write_folder(folder, ids, *sources, out, gamma=0.4, ignore_saliency=0.6)
    assert sorted(p.name for p in out.iterdir()) == [f"{i}.png" for i in ids]
    for image_id in ids:
        mask = load_mask(out / f"{image_id}.png")
        assert mask.shape == (32, 40) and len(np.unique(mask)) > 1
        assert (mask == of_image(folder, image_id, *sources, gamma=0.4, ignore_saliency=0.6)).all()


def test_images_without_saliency_are_refused_left_out_or_made_of_their_maps_by_name(made_of, tmp_path):
    folder, ids, maps, saliency = made_of
    (saliency / "a3.png").unlink()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="1 of 5 saliency maps are missing, first a3"):
        write_folder(folder, ids, maps, saliency, out)
    assert not list(out.iterdir())
    assert write_folder(folder, ids, maps, saliency, out, "skip") == ["a3"]
    assert sorted(p.stem for p in out.iterdir()) == ["a0", "a1", "a2", "a4"]
    assert write_folder(folder, ids, maps, saliency, out, "map-only", gamma=0.4, ignore_confidence=0.95) == []
    values = load_maps(maps / "a3.npz", 3, (32, 40))
    alone = maps_prediction(values, 0.4)
    alone[(values > 0.95).sum(0) > 1] = 255
    assert (load_mask(out / "a3.png") == alone).all() and {0, 1, 2} <= set(np.unique(alone))


@quick
@given(MAPS, SALIENCY, LABELS)
def test_of_an_image_only_the_present_maps_are_read(maps, saliency, labels):
    with tempfile.TemporaryDirectory() as name:
        save_maps(Path(name) / "a.npz", maps, labels)
        save_saliency(Path(name) / "a.png", saliency)
        folder = SimpleNamespace(size=lambda _: (4, 3), label=lambda _: labels, classes=("x", "y", "z"))
        kept = load_maps(Path(name) / "a.npz", 3), load_saliency(Path(name) / "a.png")
        found = of_image(folder, "a", Path(name), Path(name), gamma=0.3)
        assert found.tolist() == pseudo_ground_truth(*kept, labels, gamma=0.3).tolist() and found.dtype == np.uint8
