from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from safn.backbones import IMAGENET
from safn.data import VOCFolder, save_mask
from safn.loading import PlainSet
from safn.map_files import save_maps, save_saliency
from safn.metrics import ConfusionMatrix
from safn_book import galleries


@pytest.fixture(autouse=True)
def closed():
    yield
    assert plt.get_fignums() == []  # an open figure would be shown twice in a notebook


def shown(figure) -> list[list[np.ndarray]]:
    """The pictures of a gallery, a list a row."""
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    columns = figure.axes[0].get_gridspec().ncols
    return [pictures[k : k + columns] for k in range(0, len(pictures), columns)]


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def test_masks_are_drawn_in_vocs_colours():
    assert galleries.colours(np.array([[0, 1, 15, 255]], np.uint8)).tolist() == [
        [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    ]


def test_heat_is_brighter_where_the_map_is_and_as_large_as_the_photo():
    values = np.zeros((4, 5))
    values[:, 3:] = 1
    laid = galleries.heat(Image.new("RGB", (40, 32), (100, 100, 100)), values)
    assert laid.shape == (32, 40, 3) and laid.dtype == np.uint8
    assert laid[:, 35:].mean() > laid[:, :20].mean() + 50


def test_a_gallery_names_the_classes_that_occur():
    row = {"photo": np.zeros((4, 4, 3), np.uint8), "mask": np.array([[0, 2], [255, 0]], np.uint8)}
    figure = galleries.gallery([row, row], ["cat", "dog", "car"])
    assert titles(figure) == ["photo", "mask"] and legend(figure) == ["dog", "ignored"] and len(figure.axes) == 4
    assert legend(galleries.gallery([{"photo": row["photo"]}], ["cat"])) == []


def test_a_gallery_s_rows_have_names():
    row = {"photo": np.zeros((4, 4, 3), np.uint8), "map": np.zeros((4, 4, 3), np.uint8)}
    figure = galleries.gallery([row, row], ["cat", "dog"], names=["dog", "cat"])
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [["dog"], [], ["cat"], []]


def test_examples_are_spaced_not_chosen():
    ids = [f"{k}" for k in range(11)]
    assert galleries.spaced(ids, 3) == ["0", "5", "10"] and galleries.spaced(ids[:2], 5) == ["0", "1"]


def test_the_largest_class_is_the_labelled_one_that_covers_most():
    mask = np.array([[1, 2, 2, 3, 3, 3]])
    assert (
        galleries.largest_class(mask, np.array([1, 1, 0])) == 1
        and galleries.largest_class(mask, np.array([1, 1, 1])) == 2
    )


@pytest.fixture
def made(tiny_voc, tmp_path):
    """The tiny folder, its ids and the folders of the stages."""
    folder = VOCFolder(tiny_voc)
    paths = {name: tmp_path / name for name in ("maps", "saliency", "masks")}
    for path in paths.values():
        path.mkdir()
    for k, image_id in enumerate(folder.ids("train_aug")):
        maps = np.zeros((3, 8, 10))
        maps[k % 3, 2:5, 1:4] = 1
        save_maps(paths["maps"] / f"{image_id}.npz", maps, folder.label(image_id))
        save_saliency(paths["saliency"] / f"{image_id}.png", np.full((32, 40), 0.6))
        save_mask(paths["masks"] / f"{image_id}.png", np.where(folder.mask(image_id) == 255, 0, folder.mask(image_id)))
    return folder, folder.ids("train_aug"), paths


def test_galleries_show_each_stage_of_the_same_image(made):
    folder, ids, p = made
    figure = galleries.pseudo_gallery(folder, ids, p["maps"], p["saliency"], p["masks"], 2)
    assert titles(figure) == ["image", "localization map", "saliency map", "pseudo ground truth", "true mask"]
    rows = shown(figure)
    assert len(rows) == 2 and (rows[0][0] == np.asarray(folder.image("a0"))).all()
    names = [axis.texts[0].get_text() for axis in figure.axes[::5]]
    assert all(folder.label(i)[folder.classes.index(name)] for i, name in zip(("a0", "a4"), names))
    assert (rows[1][2] == 153).all() and (rows[1][4] == galleries.colours(folder.mask("a4"))).all()

    figure = galleries.map_gallery(folder, ids, {"SAFN": p["maps"]}, 1)
    photo, laid, _ = shown(figure)[0]
    assert titles(figure) == ["image", "SAFN", "true mask"] and laid[12:16, 8:12].mean() > laid[25:].mean() + 50

    masks = shown(galleries.mask_gallery(folder, ids, {"pseudo": p["masks"]}, 3))
    assert len(masks) == 3 and all((row[1][row[2].sum(2) == 0] == 0).all() for row in masks)
    assert titles(galleries.figure4(folder, ids, p["masks"], 2)) == ["(a) image", "(b) true mask", "(c) ours"]


def test_images_with_one_class_come_from_small_to_large(made):
    folder, _, _ = made
    for k, side in ((0, 9), (1, 3), (2, 6)):
        mask = np.zeros((32, 40), np.uint8)
        mask[:side, :side] = k + 1
        save_mask(folder.base / "SegmentationClass" / f"a{k}.png", mask)
    assert galleries.by_object_size(folder, ["a0", "a1", "a2", "a3"], 3)[:1] == [("a1", 1)]
    picked = galleries.by_object_size(folder, ["a0", "a1", "a2", "a3"], 9)
    assert "a3" not in dict(picked) and [i for i, _ in picked] == sorted(dict(picked), key=["a1", "a2", "a0"].index)


def test_figure_4_has_a_column_for_the_second_network(made):
    folder, ids, p = made
    save_mask(p["saliency"] / "a0.png", np.full((32, 40), 3))
    figure = galleries.figure4(folder, ids, p["masks"], 1, second=p["saliency"])
    assert titles(figure) == ["(a) image", "(b) true mask", "(c) ours", "(d) ours, second network"]
    assert (shown(figure)[0][3] == galleries.colours(np.full((32, 40), 3, np.uint8))).all()


def test_without_masks_the_galleries_show_photos_all_the_same(made):
    folder, ids, p = made
    for image_id in ids:
        folder.mask_path(image_id).unlink()
    assert titles(galleries.map_gallery(folder, ids, {"SAFN": p["maps"]}, 2)) == ["image", "SAFN"]
    assert titles(galleries.mask_gallery(folder, ids, {"pseudo": p["masks"]}, 2)) == ["image", "pseudo"]
    figure = galleries.pseudo_gallery(folder, ids, p["maps"], p["saliency"], p["masks"], 5)
    assert titles(figure) == ["image", "localization map", "saliency map", "pseudo ground truth"]
    for k, row in enumerate(shown(figure)):  # the map of its first class, which lies top left
        assert k == 3 or row[1][12:16, 8:12].mean() > row[1][25:].mean() + 50
    assert titles(galleries.figure4(folder, ids, p["masks"], 2)) == ["(a) image", "(c) ours"]
    assert galleries.by_object_size(folder, ids, 2) == [("a0", 0), ("a4", 1)]


def test_galleries_of_images_without_labels_say_so(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    for image_id in folder.labels:
        folder.labels[image_id] = np.zeros(3, np.float32)
    samples = PlainSet(folder, list(folder.labels), IMAGENET, 32)
    for figure in (galleries.map_gallery(folder, samples.ids, {}, 3), galleries.attention_gallery(None, samples, 3)):
        assert "nothing to show" in figure.texts[0].get_text()


def test_a_gallery_of_nothing_says_so():
    for rows in ([], [{}]):
        figure = galleries.gallery(rows, ["cat"])
        assert figure.axes == [] and "no image has a true mask" in figure.texts[0].get_text()


def test_the_best_and_the_worst_images_stand_beside_their_own_miou(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    ids, matrix = folder.ids("train_aug"), ConfusionMatrix(4)
    for k, image_id in enumerate(ids):  # a0 is right, a4 is all background
        mask = folder.mask(image_id)
        mask[: 8 * k] = 0
        save_mask(tmp_path / f"{image_id}.png", mask)
    counts = np.stack(
        [matrix.update(folder.mask(i) if i == "a0" else np.zeros((32, 40), int), folder.mask(i)) for i in ids]
    )
    figure = galleries.best_and_worst(folder, ids, counts, tmp_path, rows=2)
    assert titles(figure) == ["image", "prediction", "true mask"]
    first, last = shown(figure)
    np.testing.assert_array_equal(first[0], np.asarray(folder.image("a0")))
    names = [text.get_text() for axis in figure.axes for text in axis.texts]
    background = [(folder.mask(i) == 0).sum() / (folder.mask(i) != 255).sum() for i in ids[1:]]
    least = min(b / (1 + folder.label(i).sum()) for b, i in zip(background, ids[1:]))
    assert names == ["100 %", f"{100 * least:.0f} %"]


def test_without_masks_there_is_no_best_and_no_worst(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    for image_id in folder.ids("val"):
        folder.mask_path(image_id).unlink()
    figure = galleries.best_and_worst(folder, folder.ids("val"), np.zeros((0, 4, 5), int), tmp_path, rows=2)
    assert "no image has a true mask" in figure.texts[0].get_text()
