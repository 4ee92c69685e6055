from __future__ import annotations

import numpy as np
import pytest

from safn import evaluation
from safn.data import VOCFolder
from safn.map_files import save_maps
from safn_book import scores


@pytest.fixture
def scored(tiny_voc, tmp_path):
    """The tiny folder, its training ids and maps that know a little of the true masks, at half size."""
    folder, rng = VOCFolder(tiny_voc), np.random.default_rng(0)
    maps = tmp_path / "maps"
    maps.mkdir()
    for image_id in folder.ids("train_aug"):
        true = folder.mask(image_id)[::2, ::2]
        values = np.stack([0.5 * rng.random(true.shape) + 0.4 * (true == c) for c in (1, 2, 3)])
        save_maps(maps / f"{image_id}.npz", values, folder.label(image_id))
    return folder, folder.ids("train_aug"), maps


def test_another_list_picks_its_images_out_of_the_counts(scored):
    folder, ids, maps = scored
    folder.mask_path("a1").unlink()
    counts = evaluation.sweep_maps(folder, ids, maps).counts
    assert (scores.counts_of_list(folder, ids, counts, "none such") == counts).all()
    (folder.base / "ImageSets" / "Segmentation" / "train.txt").write_text("a3\na1\na0\nelsewhere\n")
    assert (scores.counts_of_list(folder, ids, counts) == counts[[0, 2]]).all()  # a1 has no mask, so a3 is the third
    (folder.base / "ImageSets" / "Segmentation" / "train.txt").write_text("elsewhere\n")
    assert scores.counts_of_list(folder, ids, counts).shape == (0, 4, 5)


def test_numbers_of_pseudo_ground_truth_are_of_all_images_and_of_the_list(scored):
    folder, *_ = scored
    counts = np.zeros((2, 4, 5), int)  # of two images with background and class 1, the first on the list
    counts[0, 0], counts[0, 1] = [70, 0, 0, 0, 10], [0, 15, 0, 0, 5]
    counts[1, 0], counts[1, 1] = [60, 0, 0, 0, 0], [30, 10, 0, 0, 0]
    (folder.base / "ImageSets" / "Segmentation" / "train.txt").write_text("a0\n")
    found = scores.pseudo_label_scores(folder, ["a0", "a1"], counts)
    assert found["pseudo_miou_drop"] == pytest.approx((130 / 160 + 25 / 55) / 2)
    assert found["pseudo_miou_wrong"] == pytest.approx((130 / 170 + 25 / 60) / 2)
    assert found["pseudo_miou_drop_train_list"] == 1
    assert found["pseudo_miou_background_train_list"] == pytest.approx((80 / 85 + 15 / 20) / 2)
    assert found["ignored_share"] == 15 / 200 and found["ignored_share_train_list"] == 15 / 100
    assert found["pseudo_iou medium (10-30 %)"] == 15 / 20 and found["pseudo_iou large (> 30 %)"] == 10 / 40
    classes = scores.pseudo_label_class_scores(folder, ["a0", "a1"], counts)
    assert classes["recall"]["cat"] == 25 / 60 and classes["recall, train list"]["cat"] == 15 / 20
    assert classes["precision"]["background"] == 130 / 160 and classes["precision, train list"]["background"] == 1
    assert list(classes["precision"]) == ["background", "cat", "dog", "car"]
