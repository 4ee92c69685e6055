from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from safn import SAFN, backbones
from safn.backbones import IMAGENET
from safn.data import VOCFolder
from safn.images import save_mask
from safn.loading import PlainSet
from safn.map_files import save_maps, save_saliency
from safn.metrics import ConfusionMatrix
from safn_book import galleries
from safn_book.galleries import Heat, Mask


@pytest.fixture(autouse=True)
def closed():
    yield
    assert plt.get_fignums() == []  # an open figure would be shown twice in a notebook


def pictures(figure) -> list[list[np.ndarray]]:
    """The pictures of a gallery by row, as they are drawn."""
    grid = [axis for axis in figure.axes if axis.images]
    columns = grid[0].get_gridspec().ncols
    drawn = [np.asarray(axis.images[0].get_array()) for axis in grid]
    return [drawn[k : k + columns] for k in range(0, len(drawn), columns)]


def titles(figure) -> list[str]:
    return [axis.get_title().replace("\n", " ") for axis in figure.axes if axis.get_title()]


def names(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def legend(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


GREY = Image.new("RGB", (40, 32), (100, 100, 100))


def test_a_mask_has_vocs_colours_over_a_grey_picture():
    ids = np.array([[0, 1], [15, 255]], np.uint8)
    drawn = galleries.overlay(Image.new("RGB", (2, 2), (100, 100, 100)), ids)
    colours = np.array([[128, 0, 0], [192, 128, 128], [224, 224, 192]])  # VOC's aeroplane, person, void
    np.testing.assert_allclose(drawn.reshape(4, 3)[1:], 0.3 * 100 + 0.7 * colours, atol=1)
    assert drawn[0, 0].tolist() == [100, 100, 100]  # background


def test_a_map_is_brighter_where_it_is_high_and_as_large_as_the_picture():
    values = np.zeros((4, 5))
    values[:, 3:] = 1
    drawn = galleries.heat(GREY, values)
    assert drawn.shape == (32, 40, 3) and drawn[:, 35:].mean() > drawn[:, :20].mean() + 50


def test_a_gallery_names_its_columns_rows_and_classes():
    row = {"image": GREY, "mask": Mask(np.array([[0, 2], [255, 0]], np.uint8).repeat(16, 0).repeat(20, 1), GREY)}
    figure = galleries.gallery([row, row], ["cat", "dog", "car"], ["first", "second"], letters=True)
    assert titles(figure) == ["(a) image", "(b) mask"] and names(figure) == ["first", "second"]
    assert legend(figure) == ["dog", "ignored"]


def test_maps_and_weights_share_a_colour_bar_from_0_to_1():
    weight = np.full((4, 5), 0.25)
    figure = galleries.gallery([{"image": GREY, "map": Heat(weight, GREY), "weight": Heat(weight)}], ["cat"])
    assert figure.axes[-1].get_ylim() == (0, 1) and len(figure.axes) == 4
    assert figure.axes[2].images[0].get_clim() == (0, 1)  # a weight of 0.25 is dark, whatever the others are
    assert len(galleries.gallery([{"image": GREY}], ["cat"]).axes) == 1


def test_examples_are_evenly_spaced():
    ids = [f"{k}" for k in range(11)]
    assert galleries.spaced(ids, 3) == ["0", "5", "10"] and galleries.spaced(ids[:2], 5) == ["0", "1"]


def test_examples_have_a_label_and_where_possible_a_mask(tiny_voc):
    folder = VOCFolder(tiny_voc)
    ids = folder.ids("train_aug")
    folder.labels["a0"] = np.zeros(3, np.float32)
    folder.mask_path("a1").unlink()
    assert galleries.examples(folder, ids, 9) == ["a2", "a3", "a4"]
    assert galleries.examples(folder, ["a0", "a1"], 9) == ["a1"]


@pytest.fixture
def made(tiny_voc, tmp_path):
    """The tiny folder, its training ids and the folders of stages: maps high at the top left, pseudo labels as the masks."""
    folder = VOCFolder(tiny_voc)
    paths = {name: tmp_path / name for name in ("maps", "saliency", "masks")}
    for path in paths.values():
        path.mkdir()
    for image_id in folder.ids("train_aug"):
        maps = np.zeros((3, 8, 10))
        maps[:, 2:5, 1:4] = 1
        save_maps(paths["maps"] / f"{image_id}.npz", maps, folder.label(image_id))
        save_saliency(paths["saliency"] / f"{image_id}.png", np.full((32, 40), 0.6))
        save_mask(paths["masks"] / f"{image_id}.png", folder.mask(image_id))
    return folder, folder.ids("train_aug"), paths


def test_a_gallery_shows_what_each_stage_made_of_an_image(made):
    folder, ids, paths = made
    made_from = {"maps": {"map": paths["maps"]}, "saliency": paths["saliency"], "masks": {"pseudo": paths["masks"]}}
    figure = galleries.image_gallery(folder, ids, **made_from)
    assert titles(figure) == ["image", "map", "saliency map", "pseudo", "ground truth"]
    for image_id, (image, heat, saliency, pseudo, truth) in zip(ids, pictures(figure)):
        np.testing.assert_array_equal(image, np.asarray(folder.image(image_id)))
        assert heat[12:16, 8:12].mean() > heat[25:].mean() + 50
        np.testing.assert_allclose(saliency, 0.6)
        np.testing.assert_array_equal(pseudo, truth)
        np.testing.assert_array_equal(truth, galleries.overlay(folder.image(image_id), folder.mask(image_id)))
    assert all(folder.label(i)[folder.classes.index(name)] for i, name in zip(ids, names(figure), strict=True))


def test_without_masks_the_map_is_that_of_the_first_label(made):
    folder, ids, paths = made
    for image_id in ids:
        folder.mask_path(image_id).unlink()
    figure = galleries.image_gallery(folder, ids, maps={"map": paths["maps"]})
    assert titles(figure) == ["image", "map"] and names(figure)[3] == "cat"  # a3 shows a cat and a dog


def test_the_largest_class_is_the_label_that_covers_most(made):
    folder, _, _ = made
    mask = np.zeros((32, 40), np.uint8)
    mask[0, :2], mask[1, :3], mask[2, :9] = 1, 2, 3
    save_mask(folder.mask_path("a3"), mask)  # labelled cat and dog, not car
    assert galleries.largest_class(folder, "a3") == 1


def test_images_with_one_class_come_from_small_to_large(made):
    folder, _, _ = made
    for k, side in ((0, 9), (1, 3), (2, 6)):
        mask = np.zeros((32, 40), np.uint8)
        mask[:side, :side] = k + 1
        save_mask(folder.base / "SegmentationClass" / f"a{k}.png", mask)
    assert galleries.by_object_size(folder, ["a0", "a1", "a2", "a3"], 9) == ["a1", "a2", "a0"]  # a3 has two classes
    assert galleries.by_object_size(folder, ["a3"], 9) == ["a3"]  # where no image has one class alone
    assert galleries.examples(folder, ["a0", "a1", "a2"], 2) == ["a1", "a0"]  # a small object and a large one


def test_without_labels_there_is_nothing_to_show(made):
    folder, ids, _ = made
    for image_id in folder.labels:
        folder.labels[image_id] = np.zeros(3, np.float32)
    assert galleries.examples(folder, ids, 3) == []
    figure = galleries.attention_gallery(None, PlainSet(folder, ids, IMAGENET, 32), 3)
    assert figure.axes == [] and len(figure.texts) == 1


def test_weights_are_drawn_as_they_are(made, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone(stride=4))
    torch.manual_seed(0)
    network = SAFN("tiny", 3, (1, 0.5), weights="none", attention_start="random").eval()
    folder, ids, _ = made
    figure = galleries.attention_gallery(network, PlainSet(folder, ids, IMAGENET), 3)
    assert titles(figure) == ["image", "localization map", "weight of scale 1", "weight of scale 0.5"]
    small_to_large = galleries.by_object_size(folder, ids, 3)
    assert names(figure) == [folder.classes[folder.label(i).argmax()] for i in small_to_large]
    for _, _, first, second in pictures(figure):
        np.testing.assert_allclose(first + second, 1, atol=1e-6)


def test_the_maps_of_each_scale_alone_have_a_column_each(made, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone(stride=4))
    network = SAFN("tiny", 3, (1, 0.5), "max", weights="none").eval()
    folder, ids, paths = made
    alone = galleries.scale_maps(network, PlainSet(folder, ids[:1], IMAGENET))
    figure = galleries.image_gallery(folder, ids[:1], maps={**alone, "max": paths["maps"]}, letters=True)
    assert titles(figure) == ["(a) image", "(b) scale 1", "(c) scale 0.5", "(d) max", "(e) ground truth"]
    for scale in (1, 0.5):  # a network of one scale at the image of that scale
        single = SAFN("tiny", 3, (scale,), weights="none").eval()
        single.load_state_dict(network.state_dict())
        sample = PlainSet(folder, ids[:1], IMAGENET)[0]
        with torch.inference_mode():
            expected = single.maps(sample["image"][None], sample["label"][None])[0].numpy()
        found = torch.from_numpy(alone[f"scale {scale:g}"][ids[0]])[None]
        size = expected.shape[-2:]
        np.testing.assert_allclose(torch.nn.functional.interpolate(found, size, mode="bilinear")[0], expected, atol=0.2)


def test_the_best_and_the_worst_images_stand_beside_their_miou(made):
    folder, ids, paths = made
    matrix = ConfusionMatrix(4)
    nothing = np.zeros((32, 40), int)
    counts = np.stack([matrix.update(folder.mask(i) if i == "a0" else nothing, folder.mask(i)) for i in ids])
    figure = galleries.best_and_worst(folder, ids, counts, paths["masks"], rows=2)
    np.testing.assert_array_equal(pictures(figure)[0][0], np.asarray(folder.image("a0")))
    # where all is called background, its IoU is its share of the image, and that of each class is 0
    background = [(folder.mask(i) == 0).sum() / (folder.mask(i) != 255).sum() for i in ids[1:]]
    least = min(share / (1 + folder.label(i).sum()) for share, i in zip(background, ids[1:]))
    first = folder.classes[galleries.largest_class(folder, "a0")]
    assert names(figure)[0] == f"{first}, 100 %" and names(figure)[1].endswith(f", {100 * least:.0f} %")


def test_ignored_pixels_of_an_image_count_as_background(made):
    folder, _, _ = made
    target = folder.mask("a0")
    counts = ConfusionMatrix(4).update(np.where(target == 0, 255, target), target)  # all but the background is right
    assert galleries.image_miou(folder, ["a0"], counts[None]) == {"a0": 1}


def test_an_image_without_a_label_has_its_score_alone_beside_it(made):
    folder, _, paths = made
    folder.labels["a0"] = np.zeros(3, np.float32)
    masks = {"prediction": paths["masks"]}
    assert names(galleries.image_gallery(folder, ["a0"], masks=masks, scores={"a0": 0.5})) == ["50 %"]


def test_without_masks_there_is_no_best_and_no_worst(made):
    folder, ids, paths = made
    for image_id in ids:
        folder.mask_path(image_id).unlink()
    assert galleries.best_and_worst(folder, ids, np.zeros((0, 4, 5), int), paths["masks"], rows=2).axes == []
