from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from safn.data import VOCFolder
from safn.files import DataError
from safn.images import load_mask
from safn.map_files import (
    copy_saliency,
    ids_without_saliency,
    load_maps,
    load_saliency,
    pseudo_mask,
    save_maps,
    save_saliency,
    write_pseudo_labels,
)
from safn.maps import localization_maps, maps_prediction
from safn.pseudo import pseudo_ground_truth

quick = settings(max_examples=60, deadline=None, derandomize=True)
ODD = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 2.0, np.nan, np.inf, -np.inf]))
SHARES = st.integers(0, 20).map(lambda k: k / 20)
MAPS = arrays(np.float32, (3, 3, 4), elements=SHARES)
SALIENCY = arrays(np.float32, (3, 4), elements=SHARES)
LABELS = arrays(np.int64, 3, elements=st.integers(0, 1))


def test_files_hold_the_present_classes_in_8_bits(tmp_path):
    maps = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    save_maps(tmp_path / "a.npz", maps, np.array([0, 1, 0, 1], np.float32))
    read = load_maps(tmp_path / "a.npz", 4)
    assert read.dtype == np.float32 and (read[[0, 2]] == 0).all()
    assert np.abs(read[[1, 3]] - maps[[1, 3]]).max() <= 0.5 / 255 + 1e-6


def test_read_maps_are_resampled_between_pixel_centres(tmp_path):
    save_maps(tmp_path / "a.npz", np.array([[[0, 1]]], np.float32), np.ones(1))
    np.testing.assert_allclose(load_maps(tmp_path / "a.npz", 1, (2, 4))[0], [[0, 0.25, 0.75, 1]] * 2, atol=1e-6)


@quick
@given(arrays(np.float32, (3, 4, 5), elements=ODD), arrays(np.int64, 3, elements=st.integers(0, 1)),
       st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 100))  # fmt: skip
def test_written_and_resampled_maps_stay_in_range_and_predict_given_classes_only(features, labels, size, percent):
    maps = localization_maps(torch.tensor(features)[None], torch.tensor(labels)[None])[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        save_maps(Path(folder) / "a.npz", maps, labels)
        read = load_maps(Path(folder) / "a.npz", 3, size)
    assert read.shape == (3, *(size or (4, 5))) and np.isfinite(read).all()
    assert read.min() >= 0 and read.max() <= 1 and not read[labels == 0].any()
    made = maps_prediction(read, percent / 100)
    assert made.shape == read.shape[1:] and set(np.unique(made)) <= {0, *(np.flatnonzero(labels) + 1)}


@pytest.mark.parametrize("size", [None, (8, 9)])
def test_an_image_without_a_label_has_zero_maps(tmp_path, size):
    save_maps(tmp_path / "a.npz", np.ones((3, 5, 6), np.float32), np.zeros(3))
    maps = load_maps(tmp_path / "a.npz", 3, size)
    assert maps.shape == (3, *(size or (5, 6))) and not maps.any()
    assert not maps_prediction(maps, 0.1).any()


@pytest.mark.fault(10, "maps that would run code", "a pickle in maps.npz whose payload makes a file")
def test_a_malicious_file_of_maps_is_not_executed(tmp_path, happened):
    trace, path = tmp_path / "trace", tmp_path / "a.npz"
    np.savez(path, classes=np.zeros(1, np.int16), maps=np.array([tiny.Payload(trace)], object))
    with pytest.raises(ValueError, match="allow_pickle=False") as error:
        load_maps(path, 1)
    assert not trace.exists()
    happened(error.value, "nothing: the payload left no trace")


@pytest.mark.parametrize(
    ("maps", "labels", "text"),
    [
        (np.zeros((4, 4)), np.ones(4), r"maps is of shape \(4, 4\); wanted: \(N, h, w\)"),
        (np.zeros((2, 4, 4)), np.ones(3), r"labels is of shape \(3,\); wanted: \(2,\)"),
        (np.full((2, 4, 4), 2.0), np.ones(2), "maps holds values from 0 to 2; wanted: 0 to 1"),
        (np.full((2, 4, 4), np.nan), np.ones(2), "maps holds values from nan to nan; wanted: 0 to 1, no NaN"),
    ],
)
def test_maps_of_another_shape_or_range_are_not_written(tmp_path, maps, labels, text):
    with pytest.raises(ValueError, match=text):
        save_maps(tmp_path / "a.npz", maps, labels)
    assert not list(tmp_path.iterdir())


def test_maps_of_more_classes_are_refused(tmp_path):
    save_maps(tmp_path / "a.npz", np.ones((4, 2, 2)), np.array([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="a.npz holds maps of class 3; valid: 0 to 2"):
        load_maps(tmp_path / "a.npz", 3)


def test_maps_are_kept_to_8_bits(tmp_path):
    values = np.random.default_rng(0).random((7, 5)).astype(np.float32)
    save_saliency(tmp_path / "a.png", values)
    read = load_saliency(tmp_path / "a.png")
    assert read.dtype == np.float32 and read.shape == (7, 5) and np.abs(read - values).max() <= 0.5 / 255 + 1e-6
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"


def test_maps_of_others_are_brought_to_size_and_grey(tmp_path):
    Image.new("RGB", (10, 4), (51, 51, 51)).save(tmp_path / "a.png")
    read = load_saliency(tmp_path / "a.png", (8, 6))
    assert read.shape == (8, 6) and read == pytest.approx(0.2)


def test_maps_of_16_bits_keep_their_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_saliency(tmp_path / "a.png"), [[0, 100 / 255, 1]], atol=1e-6)


def test_missing_maps_are_listed_in_order(tmp_path):
    save_saliency(tmp_path / "b.png", np.zeros((2, 2)))
    assert ids_without_saliency(tmp_path, ["c", "b", "a"], "skip") == ["c", "a"]
    with pytest.raises(ValueError, match="absent='ignore' is unknown; valid: error, skip, map-only"):
        ids_without_saliency(tmp_path, ["b"], "ignore")


@pytest.mark.fault(6, "saliency maps missing from a folder of one's own", "two of three maps not there")
def test_missing_maps_are_an_error_unless_named(tiny_voc, tmp_path, happened):
    folder, ids, source, out = VOCFolder(tiny_voc), ["a0", "a1", "a2"], tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    with pytest.raises(DataError, match="3 of 3 saliency maps are missing"):
        copy_saliency(folder, ids, source, out, "skip")  # none at all is another folder
    save_saliency(source / "a1.png", np.full((32, 40), 0.6))
    with pytest.raises(
        DataError, match="2 of 3 saliency maps are missing, first a0, a2; complete .* skip or map-only"
    ) as error:
        copy_saliency(folder, ids, source, out)
    assert not list(out.iterdir())
    for absent in ("skip", "map-only"):
        assert copy_saliency(folder, ids, source, out, absent) == ["a0", "a2"]
        assert [p.name for p in out.iterdir()] == ["a1.png"] and load_saliency(out / "a1.png") == pytest.approx(0.6)
    happened(error.value)


def test_a_kill_while_a_map_is_written_leaves_none_that_the_next_run_would_keep(tiny_voc, tmp_path):
    values = np.random.default_rng(0).random((32, 40))
    tiny.killed_while_writing(lambda: save_saliency(tmp_path / "a.png", values))
    assert not (tmp_path / "a.png").exists() and (tmp_path / "a.png.partial").exists()
    save_saliency(tmp_path / "a0.png", values)
    tiny.killed_while_writing(lambda: copy_saliency(VOCFolder(tiny_voc), ["a0"], tmp_path, tmp_path))
    assert np.abs(load_saliency(tmp_path / "a0.png") - values).max() < 0.01  # the older one


@pytest.mark.parametrize("saliency", [np.full((2, 2), 255.0), np.full((2, 2), np.nan), np.zeros((1, 2, 2))])
def test_saliency_of_another_shape_or_range_is_not_written(tmp_path, saliency):
    with pytest.raises(ValueError, match="saliency (is of shape|holds values from) .*; wanted: "):
        save_saliency(tmp_path / "a.png", saliency)
    assert not list(tmp_path.iterdir())


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
    write_pseudo_labels(folder, ids, *sources, out, gamma=0.4, ignore_saliency=0.6)
    assert sorted(p.name for p in out.iterdir()) == [f"{i}.png" for i in ids]
    for image_id in ids:
        mask = load_mask(out / f"{image_id}.png")
        assert mask.shape == (32, 40) and len(np.unique(mask)) > 1
        assert (mask == pseudo_mask(folder, image_id, *sources, gamma=0.4, ignore_saliency=0.6)).all()


def test_images_without_saliency_are_refused_left_out_or_made_of_their_maps_by_name(made_of, tmp_path):
    folder, ids, maps, saliency = made_of
    (saliency / "a3.png").unlink()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="1 of 5 saliency maps are missing, first a3"):
        write_pseudo_labels(folder, ids, maps, saliency, out)
    assert not list(out.iterdir())
    assert write_pseudo_labels(folder, ids, maps, saliency, out, "skip") == ["a3"]
    assert sorted(p.stem for p in out.iterdir()) == ["a0", "a1", "a2", "a4"]
    assert write_pseudo_labels(folder, ids, maps, saliency, out, "map-only", gamma=0.4, ignore_confidence=0.95) == []
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
        found = pseudo_mask(folder, "a", Path(name), Path(name), gamma=0.3)
        assert found.tolist() == pseudo_ground_truth(*kept, labels, gamma=0.3).tolist() and found.dtype == np.uint8


@pytest.mark.fault(22, "saliency maps of 16 bits, of 1 bit, and grey ones in RGB", "one of each, copied into a run")
@pytest.mark.parametrize("kind", ["16 bits", "1 bit", "RGB"])
def test_maps_of_others_are_kept_in_8_bits_of_grey(tiny_voc, tmp_path, kind, happened):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    white = np.tile(np.uint8([0, 255]), (32, 20))
    image = Image.fromarray(white.astype(np.uint16) * 257) if kind == "16 bits" else Image.fromarray(white)
    image = image.convert({"1 bit": "1", "RGB": "RGB"}.get(kind, image.mode))
    image.save(source / "a0.png")
    assert copy_saliency(VOCFolder(tiny_voc), ["a0"], source, out) == []
    with Image.open(out / "a0.png") as image:
        assert image.mode == "L" and (np.asarray(image) == white).all()
    happened("no message: read, and kept in 8 bits of grey")


def test_of_wrong_maps_none_is_copied(tiny_voc, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    Image.new("L", (40, 32), 200).save(source / "a0.png")
    Image.new("RGB", (40, 32), (200, 0, 0)).save(source / "a1.png")
    with pytest.raises(DataError, match=r"(?s)1 problems.*a1\.png cannot be read: it has colours"):
        copy_saliency(VOCFolder(tiny_voc), ["a0", "a1"], source, out)
    assert not list(out.iterdir())
