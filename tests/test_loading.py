from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safn.backbones import Normalisation
from safn.data import VOCFolder
from safn.images import save_mask
from safn.loading import Augmentation, EpochSampler, PlainSet, TrainingSet, plain_loader, resize_long, training_loader
from safn.verification import verify

UNIT = Normalisation((0, 0, 0), (1, 1, 1))


@pytest.fixture
def base(tiny_voc):
    return tiny_voc / "VOCdevkit" / "VOC2012"


def test_an_image_without_a_label_is_a_sample_like_others(tiny_voc):
    table = tiny_voc / "image_labels.csv"
    table.write_text(table.read_text().replace("a5,0,0,1", "a5,0,0,0"))
    folder = VOCFolder(tiny_voc)
    assert verify(folder).problems == [] and PlainSet(folder, ["a5"], UNIT)[0]["label"].tolist() == [0, 0, 0]


def test_normalisation_is_that_of_the_weights():
    image = Image.new("RGB", (2, 1), (255, 51, 0))
    values = Normalisation((0.5, 0.2, 0.1), (0.5, 0.1, 0.2))(image)
    assert values.shape == (3, 1, 2) and values.dtype == torch.float32
    assert values[:, 0, 0].tolist() == pytest.approx([1, 0, -0.5], abs=1e-6)
    assert Normalisation((0.485, 0.456, 0.406), (1, 1, 1)).fill == (124, 116, 104)


def test_small_images_are_padded_with_the_mean_and_masks_with_void():
    photo, mask = Image.new("RGB", (20, 10), (9, 9, 9)), np.full((10, 20), 3, np.uint8)
    cut = Augmentation(crop=32, resize=(20, 20), jitter=(0, 0, 0, 0))
    for seed in range(5):
        image, target = cut(photo, mask, np.random.default_rng(seed), (1, 2, 3))
        pixels, target = np.asarray(image), target.numpy()
        assert pixels.shape == (32, 32, 3) and target.shape == (32, 32)
        assert (target == 3).sum() == 200 and set(np.unique(target)) == {3, 255}
        assert (pixels[target == 3] == 9).all() and (pixels[target == 255] == (1, 2, 3)).all()


def test_image_and_mask_are_cut_alike_and_ids_are_never_mixed():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 30:70] = 2
    mask[30:50, 0:20] = 3
    photo = Image.fromarray(np.repeat((mask * 80)[..., None], 3, 2))
    cut = Augmentation(crop=32, resize=(50, 120), jitter=(0, 0, 0, 0))
    seen = set()
    for seed in range(20):
        image, target = cut(photo, mask, np.random.default_rng(seed), (0, 0, 0))
        target = target.numpy()
        assert set(np.unique(target)) <= {0, 2, 3, 255}
        same = np.rint(np.asarray(image)[..., 0] / 80) == np.where(target == 255, 0, target)
        assert same.mean() > 0.9  # only borders differ: bilinear against nearest
        seen |= set(np.unique(target))
    assert {0, 2, 3} <= seen


def test_the_long_side_and_the_flip_are_drawn():
    photo = Image.new("RGB", (40, 20), (0, 0, 0))
    left = np.zeros((20, 40), np.uint8)
    left[:, :10] = 1
    widths, sides = set(), set()
    for seed in range(60):
        cut = Augmentation(crop=64, resize=(30, 34), jitter=(0, 0, 0, 0))
        _, target = cut(photo, left, np.random.default_rng(seed), (0, 0, 0))
        columns = np.flatnonzero((target != 255).any(0))
        widths.add(len(columns))
        sides.add(bool((target[:, columns[0]] == 1).any()))
    assert widths == {30, 31, 32, 33, 34} and sides == {True, False}


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (6000, 4000)])
def test_photos_of_one_pixel_width_and_of_6000_pixels_become_samples(tiny_voc, base, size):
    Image.new("RGB", size, (200, 0, 0)).save(base / "JPEGImages/a0.jpg")
    save_mask(base / "SegmentationClass/a0.png", np.ones(size[::-1]))
    folder = VOCFolder(tiny_voc)
    assert verify(folder).problems == []
    samples = TrainingSet(folder, ["a0"], Augmentation(32, (20, 40)), UNIT, 0, {"a0": folder.mask_path("a0")})
    sample = samples[0, 0]
    assert sample["image"].shape == (3, 32, 32) and (sample["mask"] == 1).any() and sample["mask"].dtype == torch.int64
    assert min(PlainSet(folder, ["a0"], UNIT, 16)[0]["image"].shape) >= 1


def test_a_sample_depends_on_seed_epoch_and_index_alone(tiny_voc):
    folder = VOCFolder(tiny_voc)

    def sample(seed, epoch, index):
        return TrainingSet(folder, folder.ids("train_aug"), Augmentation(24, (30, 50)), UNIT, seed)[epoch, index][
            "image"
        ]

    first = sample(0, 0, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(first, sample(0, 0, 0))
    for other in (sample(1, 0, 0), sample(0, 1, 0), sample(0, 0, 3)):
        assert not torch.equal(first, other)


def test_each_epoch_visits_every_image_once_in_its_own_order(tiny_voc):
    folder = VOCFolder(tiny_voc)
    sampler, orders = EpochSampler(50, 3), []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs, order = zip(*sampler)
        assert set(epochs) == {epoch} and sorted(order) == list(range(50)) and list(sampler) == list(zip(epochs, order))
        orders.append(order)
    assert len(set(orders)) == 3
    samples = TrainingSet(folder, folder.ids("train_aug"), Augmentation(24, (24, 24)), UNIT, 0)
    batches = [batch["id"] for batch in training_loader(samples, 2, 0)]
    assert [len(b) for b in batches] == [2, 2] and len({i for b in batches for i in b}) == 4
    assert [len(b["id"]) for b in training_loader(samples, 8, 0)] == [5]  # fewer images than a batch: not none at all


def test_plain_samples_keep_order_and_shape(tiny_voc):
    folder = VOCFolder(tiny_voc)
    loaded = list(plain_loader(PlainSet(folder, ["a5", "a1"], UNIT, 20), 0))
    assert [batch["id"] for batch in loaded] == [["a5"], ["a1"]]
    assert loaded[0]["image"].shape == (1, 3, 16, 20) and loaded[1]["label"].tolist() == [[0, 1, 0]]
    whole = PlainSet(folder, ["a5"], UNIT)[0]["image"]
    assert np.allclose(whole.numpy().transpose(1, 2, 0) * 255, np.asarray(folder.image("a5")), atol=1e-3)


def test_batches_hold_images_of_one_shape_and_every_image_once(tiny_voc, base):
    folder = VOCFolder(tiny_voc)
    for image_id in ("a1", "a4"):
        Image.new("RGB", (30, 20)).save(base / "JPEGImages" / f"{image_id}.jpg")
    samples = PlainSet(folder, [f"a{k}" for k in range(6)], UNIT)
    batches = list(plain_loader(samples, 0, batch_size=3))
    assert [batch["id"] for batch in batches] == [["a0", "a2", "a3"], ["a5"], ["a1", "a4"]]
    assert batches[0]["image"].shape[0] == 3 and batches[2]["image"].shape == (2, 3, 20, 30)


quick = settings(max_examples=40, deadline=None, derandomize=True)
SIDES = st.integers(1, 200)


@quick
@given(SIDES, SIDES, st.integers(0, 300))
def test_resizing_reaches_the_long_side_and_keeps_the_ratio(width, height, long):
    found = resize_long(Image.new("RGB", (width, height)), long).size
    if not long:
        assert found == (width, height)
    else:
        assert max(found) == long and min(found) >= 1
        assert abs(min(found) - max(1, long * min(width, height) / max(width, height))) <= 0.5


@quick
@given(SIDES, SIDES, st.integers(32, 64), st.integers(1, 90), st.integers(0, 90), st.integers(0, 99))
def test_every_crop_has_its_size_and_no_other_ids_than_its_mask(width, height, crop, low, more, seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.array([0, 1, 20, 255], np.uint8), (height, width))
    photo = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    image, target = Augmentation(crop, (low, low + more))(photo, mask, rng, (1, 2, 3))
    assert image.size == (crop, crop) and target.shape == (crop, crop) and target.dtype == torch.uint8
    assert set(np.unique(target)) <= {*np.unique(mask), 255}
    values = UNIT(image)
    assert values.shape == (3, crop, crop) and values.min() >= 0 and values.max() <= 1


@pytest.mark.parametrize("size, long, result", [((40, 20), 10, (10, 5)), ((3, 300), 30, (1, 30)), ((7, 9), 0, (7, 9))])
def test_resizing_keeps_the_ratio_and_at_least_a_pixel(size, long, result):
    assert resize_long(Image.new("RGB", size), long).size == result
