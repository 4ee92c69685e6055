from __future__ import annotations

import numpy as np
import pytest
import tiny

from safn import evaluation
from safn.data import VOCFolder, save_mask
from safn.map_files import load_maps, save_maps, save_saliency
from safn.maps import maps_prediction
from safn.metrics import ConfusionMatrix, class_iou


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


def plain_matrix(folder, ids, maps, threshold) -> ConfusionMatrix:
    matrix = ConfusionMatrix(4)
    for image_id in ids:
        target = folder.mask(image_id)
        matrix.update(maps_prediction(load_maps(maps / f"{image_id}.npz", 3, target.shape), threshold), target)
    return matrix


def test_the_sweep_is_that_of_scoring_at_each_threshold(scored):
    sweep = evaluation.sweep_maps(*scored)
    assert sweep.miou.shape == (256,)
    for level in (1, 40, 77, 128, 200, 255):
        # interpolated values lie between the 8-bit levels: half a level below, none is lost to rounding
        expected = plain_matrix(*scored, (level - 1e-4) / 255).miou()
        assert sweep.miou[level] == pytest.approx(expected, abs=1e-6), level
    assert len({round(float(v), 4) for v in sweep.miou}) > 50


def test_the_best_threshold_is_that_of_the_largest_miou_and_its_counts_fit(scored):
    folder, ids, maps = scored
    sweep = evaluation.sweep_maps(folder, ids, maps)
    assert sweep.miou[round(255 * sweep.threshold)] == sweep.miou.max() and 0.2 < sweep.threshold < 0.8
    assert sweep.counts.shape == (5, 4, 5)
    assert np.nanmean(class_iou(sweep.counts.sum(0))) == pytest.approx(sweep.miou.max())
    for image_id, counts in zip(ids, sweep.counts):
        alone = evaluation.sweep_maps(folder, [image_id], maps)
        assert counts.sum() == alone.counts.sum() == (folder.mask(image_id) != 255).sum()
    matrix = evaluation.at_threshold(folder, ids, maps, sweep.threshold)
    assert np.abs(matrix.matrix - sweep.counts.sum(0)).sum() <= 4  # pixels a rounding away from the threshold


def test_images_without_a_mask_are_left_out(scored):
    folder, ids, maps = scored
    folder.mask_path("a1").unlink()
    rest = [i for i in ids if i != "a1"]
    assert (evaluation.sweep_maps(folder, ids, maps).miou == evaluation.sweep_maps(folder, rest, maps).miou).all()
    assert (
        evaluation.at_threshold(folder, ids, maps, 0.3).matrix == plain_matrix(folder, rest, maps, 0.3).matrix
    ).all()


def test_zero_maps_are_background_at_every_threshold_above_0(scored):
    folder, ids, maps = scored
    for image_id in ids:
        save_maps(maps / f"{image_id}.npz", np.zeros((3, 4, 4)), folder.label(image_id))
    sweep = evaluation.sweep_maps(folder, ids, maps)
    background = sum((folder.mask(i) == 0).sum() for i in ids) / sum((folder.mask(i) != 255).sum() for i in ids)
    assert sweep.miou[1:] == pytest.approx(background / 4) and not sweep.counts[:, :, 1:].any()
    assert not evaluation.at_threshold(folder, ids, maps, 0.0).matrix[:, 1:].any()


def test_masks_are_scored_over_the_split_and_for_each_image(scored, tmp_path):
    folder, ids, _ = scored
    for k, image_id in enumerate(ids):
        mask = folder.mask(image_id)
        mask[:k] = 0
        save_mask(tmp_path / f"{image_id}.png", np.where(mask == 255, 3, mask))
    matrix, counts = evaluation.score_masks(folder, ids, tmp_path)
    assert (counts.sum(0) == matrix.matrix).all() and counts.shape == (5, 4, 5)
    assert (counts[0].sum(0)[:4] == np.diag(counts[0])).all()  # right wherever the target is not void
    evaluation.save_counts(tmp_path / "counts.npz", counts)
    read = evaluation.load_counts(tmp_path / "counts.npz")
    assert read.dtype == np.int64 and (read == counts).all()


def test_another_list_picks_its_images_out_of_the_counts(scored):
    folder, ids, maps = scored
    folder.mask_path("a1").unlink()
    counts = evaluation.sweep_maps(folder, ids, maps).counts
    assert (evaluation.listed(folder, ids, counts, "none such") == counts).all()
    (folder.base / "ImageSets" / "Segmentation" / "train.txt").write_text("a3\na1\na0\nelsewhere\n")
    assert (evaluation.listed(folder, ids, counts) == counts[[0, 2]]).all()  # a1 has no mask, so a3 is the third
    (folder.base / "ImageSets" / "Segmentation" / "train.txt").write_text("elsewhere\n")
    assert evaluation.listed(folder, ids, counts).shape == (0, 4, 5)


def test_numbers_of_pseudo_ground_truth_are_of_all_images_and_of_the_list(scored):
    folder, *_ = scored
    counts = np.zeros((2, 4, 5), int)  # of two images with background and class 1, the first on the list
    counts[0, 0], counts[0, 1] = [70, 0, 0, 0, 10], [0, 15, 0, 0, 5]
    counts[1, 0], counts[1, 1] = [60, 0, 0, 0, 0], [30, 10, 0, 0, 0]
    (folder.base / "ImageSets" / "Segmentation" / "train.txt").write_text("a0\n")
    found = evaluation.numbers_of_pseudo(folder, ["a0", "a1"], counts)
    assert found["pseudo_miou_drop"] == pytest.approx((130 / 160 + 25 / 55) / 2)
    assert found["pseudo_miou_wrong"] == pytest.approx((130 / 170 + 25 / 60) / 2)
    assert found["pseudo_miou_drop_train_list"] == 1
    assert found["pseudo_miou_background_train_list"] == pytest.approx((80 / 85 + 15 / 20) / 2)
    assert found["ignored_share"] == 15 / 200 and found["ignored_share_train_list"] == 15 / 100
    assert found["pseudo_iou medium (10-30 %)"] == 15 / 20 and found["pseudo_iou large (> 30 %)"] == 10 / 40
    classes = evaluation.classes_of_pseudo(folder, ["a0", "a1"], counts)
    assert classes["recall"]["cat"] == 25 / 60 and classes["recall, train list"]["cat"] == 15 / 20
    assert classes["precision"]["background"] == 130 / 160 and classes["precision, train list"]["background"] == 1
    assert list(classes["precision"]) == ["background", "cat", "dog", "car"]


@pytest.mark.parametrize(
    "mask, text",
    [(np.zeros((40, 32)), r"a2: .*\(40, 32\)"), (np.full((32, 40), 21), r"a2: prediction holds ids \[21\]")],
)
def test_a_wrong_prediction_is_named_with_its_image(scored, tmp_path, mask, text):
    folder, *_ = scored
    save_mask(tmp_path / "a2.png", mask)
    with pytest.raises(ValueError, match=text):
        evaluation.score_masks(folder, ["a2"], tmp_path)


def test_saliency_is_compared_with_all_classes_together(scored, tmp_path):
    folder, ids, _ = scored
    hit = union = 0
    for image_id in ids:
        target = folder.mask(image_id)
        save_saliency(tmp_path / f"{image_id}.png", np.where(target > 0, 0.8, 0.2) * (np.arange(32) > 9)[:, None])
        there = target == 255
        hit += ((target > 0) & ~there)[10:].sum()
        union += ((target > 0) & ~there).sum()
    score = evaluation.score_saliency(folder, ids, tmp_path)
    assert score["saliency_iou"] == pytest.approx(hit / union)
    assert 0.2 < score["saliency_threshold"] <= 0.8
    each = []
    for image_id in ids:
        target = folder.mask(image_id)
        error = np.where(target > 0, 0.2, 0.2)
        error[:10] = target[:10] > 0
        each.append(error[target != 255].mean())
    assert score["saliency_mae"] == pytest.approx(np.mean(each), abs=1e-6)


def test_a_kill_while_counts_are_written_leaves_the_older_ones(tmp_path):
    counts = np.arange(24).reshape(2, 3, 4)
    evaluation.save_counts(tmp_path / "a.npz", counts)
    tiny.killed_while_writing(lambda: evaluation.save_counts(tmp_path / "a.npz", counts * 0))
    assert (evaluation.load_counts(tmp_path / "a.npz") == counts).all()


def test_without_masks_every_score_is_unknown_and_nothing_fails(scored, tmp_path):
    folder, ids, maps = scored
    for image_id in ids:
        save_mask(tmp_path / f"{image_id}.png", np.zeros((32, 40)))
        save_saliency(tmp_path / f"{image_id}.png", np.zeros((32, 40)))
        folder.mask_path(image_id).unlink()
    sweep = evaluation.sweep_maps(folder, ids, maps)
    assert np.isnan(sweep.miou).all() and sweep.counts.shape == (0, 4, 5) and sweep.threshold == 0.3
    assert np.isnan(evaluation.at_threshold(folder, ids, maps, sweep.threshold).miou())
    matrix, counts = evaluation.score_masks(folder, ids, tmp_path)
    assert np.isnan(matrix.miou("drop")) and counts.shape == (0, 4, 5)
    assert all(np.isnan(v) for v in evaluation.score_saliency(folder, ids, tmp_path).values())
