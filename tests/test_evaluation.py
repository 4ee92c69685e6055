from __future__ import annotations

import numpy as np
import pytest
import tiny

from safn import evaluation
from safn.data import VOCFolder
from safn.images import save_mask
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
    matrix = evaluation.score_maps_at(folder, ids, maps, sweep.threshold)
    assert np.abs(matrix.matrix - sweep.counts.sum(0)).sum() <= 4  # pixels a rounding away from the threshold


def test_images_without_a_mask_are_left_out(scored):
    folder, ids, maps = scored
    folder.mask_path("a1").unlink()
    rest = [i for i in ids if i != "a1"]
    assert (evaluation.sweep_maps(folder, ids, maps).miou == evaluation.sweep_maps(folder, rest, maps).miou).all()
    assert (
        evaluation.score_maps_at(folder, ids, maps, 0.3).matrix == plain_matrix(folder, rest, maps, 0.3).matrix
    ).all()


def test_zero_maps_are_background_at_every_threshold_above_0(scored):
    folder, ids, maps = scored
    for image_id in ids:
        save_maps(maps / f"{image_id}.npz", np.zeros((3, 4, 4)), folder.label(image_id))
    sweep = evaluation.sweep_maps(folder, ids, maps)
    background = sum((folder.mask(i) == 0).sum() for i in ids) / sum((folder.mask(i) != 255).sum() for i in ids)
    assert sweep.miou[1:] == pytest.approx(background / 4) and not sweep.counts[:, :, 1:].any()
    assert not evaluation.score_maps_at(folder, ids, maps, 0.0).matrix[:, 1:].any()


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
    assert np.isnan(evaluation.score_maps_at(folder, ids, maps, sweep.threshold).miou())
    matrix, counts = evaluation.score_masks(folder, ids, tmp_path)
    assert np.isnan(matrix.miou("drop")) and counts.shape == (0, 4, 5)
    assert all(np.isnan(v) for v in evaluation.score_saliency(folder, ids, tmp_path).values())
