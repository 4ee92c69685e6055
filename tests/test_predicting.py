"""Masks of a folder of images: what is checked, and what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import safn
from safn import backbones, files
from safn.files import DataError
from safn.images import load_mask
from safn.inference import multi_scale_maximum
from safn.masks import predict_folder
from safn.network import SAFN
from safn.segmentation import DeepLab


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


@pytest.fixture
def trained(tmp_path):
    """The folder of a tiny network with four outputs."""
    torch.manual_seed(0)
    safn.save(DeepLab("tiny", "aspp", 4, crop=33), tmp_path / "network", ["cat", "dog", "car"], 64)
    return tmp_path / "network"


def test_a_trained_run_predicts_a_folder_of_images(trained, photos, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for k, path in enumerate(photos.values()):
        Image.open(path).save(images / f"photo {k}.{('png', 'jpg', 'webp')[k]}")
    made = predict_folder(trained, images, out, (0.5, 1.0), accelerator="cpu")
    assert made == out / "multi" and {p.name for p in made.iterdir()} == {f"photo_{k}.png" for k in range(3)}
    network = safn.load(trained)
    assert network.grid == (backbones.BACKBONES["tiny"].stride, 1)
    photo = backbones.IMAGENET(Image.open(images / "photo 0.png").convert("RGB"))[None]
    expected = multi_scale_maximum(network, photo, (0.5, 1)).numpy().argmax(0)
    np.testing.assert_array_equal(load_mask(made / "photo_0.png"), expected)
    only = predict_folder(trained, images, tmp_path / "some", (1.0,), only=["photo_1"], accelerator="cpu")
    assert [p.name for p in only.iterdir()] == ["photo_1.png"]


@pytest.mark.parametrize("refined", ["multi", "crf"])
def test_photos_larger_than_those_of_the_training_are_shrunk_for_the_network(trained, tmp_path, refined):
    pytest.importorskip("pydensecrf.densecrf")
    images, pixels = tmp_path / "images", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    images.mkdir()
    Image.fromarray(pixels).resize((256, 192), Image.Resampling.NEAREST).save(images / "large.png")
    small = Image.open(images / "large.png").resize((64, 48), Image.Resampling.BILINEAR)
    small.save(images / "small.png")
    made = predict_folder(trained, images, tmp_path / "out", (1.0,), crf=refined == "crf", accelerator="cpu")
    large = load_mask(made / "large.png")
    assert large.shape == (192, 256) and len(np.unique(large)) > 1
    np.testing.assert_array_equal(large, load_mask(made / "small.png").repeat(4, 0).repeat(4, 1))
    whole = predict_folder(
        trained, images, tmp_path / "whole", (1.0,), crf=refined == "crf", accelerator="cpu", largest=0
    )
    assert (load_mask(whole / "large.png") != large).any()


def test_a_folder_is_predicted_only_where_everything_is_sound(trained, photos, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.open(photos["a"]).save(images / "a.png")
    Image.open(photos["b"]).save(images / "a.jpg")
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:60])
    with pytest.raises(DataError) as error:
        predict_folder(trained, images, out, only=["a", "b", "c"])
    first, second = str(error.value).split("\n  - ")[1:]
    assert first == "c: no such image" and f"{images / 'b.png'} cannot be read: " in second
    with pytest.raises(DataError, match="a.png: the same id as a.jpg"):
        predict_folder(trained, images, out)
    assert not out.exists()
    with pytest.raises(DataError, match="nowhere is not the folder of a trained network: network.json is missing"):
        predict_folder(tmp_path / "nowhere", images, out)


def test_masks_of_another_network_are_not_kept_as_if_they_were_this_one_s(trained, photos, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.open(photos["a"]).save(images / "a.png")
    predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    with pytest.raises(DataError, match=r"holds masks of .*'scales': \[1.0\].*give another folder"):
        predict_folder(trained, images, out, (0.5,), accelerator="cpu")


@pytest.fixture
def images(tmp_path, photos):
    """A folder of two images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        photos[name].rename(folder / f"{name}.png")
    return folder


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.fault(
    24, "a second folder of images with the names of the first", "safn predict with one folder for the masks of both"
)
def test_other_images_with_the_same_names_do_not_get_the_masks_of_the_first(trained, images, tmp_path, happened):
    out = tmp_path / "out"
    predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    Image.fromarray(np.zeros((33, 41, 3), np.uint8)).save(images / "b.png")
    with pytest.raises(DataError, match="holds masks of other images with these ids: b: give another folder") as error:
        predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    (images / "b.png").rename(images / "c.png")  # a new image may join those that are there
    made = predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    assert {p.name for p in made.iterdir()} == {"a.png", "b.png", "c.png"}
    (images / "c.png").rename(images / "b.png")  # the mask of the first b is still there
    with pytest.raises(DataError, match="other images with these ids: b"):
        predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    happened(error.value)


@pytest.mark.fault(24, "two predictions into one folder at once", "the second while the first holds the folder")
def test_two_calls_do_not_write_into_one_folder(trained, images, tmp_path, happened):
    out = tmp_path / "out"
    out.mkdir()
    with files.locked(out), pytest.raises(DataError, match="is at work in another process: wait for it") as error:
        predict_folder(trained, images, out, (1.0,), accelerator="cpu")
    assert not list(out.iterdir())
    assert predict_folder(trained, images, out, (1.0,), accelerator="cpu").name == "multi"
    happened(error.value)


@pytest.mark.fault(
    29,
    "masks asked for by a network that makes none, into the folder of the images, or for an empty list of ids",
    "safn predict with each",
)
def test_nothing_is_written_where_something_is_wrong(trained, images, tmp_path, happened):
    safn.save(SAFN("tiny", 3, (1,)), tmp_path / "classifier", ["cat", "dog", "car"])
    (tmp_path / "unknown" / "multi").mkdir(parents=True)
    (tmp_path / "unknown" / "multi" / "a.png").touch()
    before = everything(tmp_path)
    for network, out, only, text in (
        (
            tmp_path / "classifier",
            tmp_path / "out",
            None,
            "holds a SAFN, which makes no masks: give voc, or a folder of stage",
        ),
        (trained, images / "out", None, "out lies among the images"),
        (trained, images, None, "lies among the images"),
        (trained, tmp_path / "out", [], "the list of ids is empty"),
        (trained, tmp_path / "unknown", None, "holds masks of unknown origin"),
    ):
        with pytest.raises(DataError, match=text) as error:
            predict_folder(network, images, out, only=only)
        assert everything(tmp_path) == before
    happened(error.value)


def test_sizes_and_scales_that_cannot_be_leave_no_folder(trained, images, tmp_path):
    with pytest.raises(DataError, match="largest is -5; valid: a long side in pixels, or 0"):
        predict_folder(trained, images, tmp_path / "out", largest=-5)
    with pytest.raises(ValueError, match=r"scales=\(0,\); valid: different numbers above 0"):
        predict_folder(trained, images, tmp_path / "out", (0,))
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(29, "the right call after a refused one", "safn predict, first with a folder that is no network")
def test_after_a_refused_call_the_right_one_works(trained, images, tmp_path, happened):
    with pytest.raises(DataError):
        predict_folder(tmp_path, images, tmp_path / "out")
    assert predict_folder(trained, images, tmp_path / "out", (1.0,), accelerator="cpu").name == "multi"
    happened("no message: nothing was left that stands in its way")
