from __future__ import annotations

import numpy as np
import pytest

from safn import evaluation
from safn.data import VOCFolder
from safn.map_files import load_maps, load_saliency, save_maps, save_saliency
from safn.metrics import CONVENTIONS, ConfusionMatrix, ignored_share
from safn.pseudo import pseudo_ground_truth
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


# --- pseudo labels


@pytest.fixture
def sources(tiny_voc, tmp_path) -> scores.Sources:
    """The training images of the tiny folder with maps and saliency maps of noise."""
    folder, rng = VOCFolder(tiny_voc), np.random.default_rng(0)
    sources = scores.Sources(folder, folder.ids("train_aug"), tmp_path / "maps", tmp_path / "saliency")
    sources.maps.mkdir()
    sources.saliency.mkdir()
    for image_id in sources.ids:
        labels = folder.label(image_id)
        save_maps(sources.maps / f"{image_id}.npz", rng.random((3, 8, 10)) * labels[:, None, None], labels)
        save_saliency(sources.saliency / f"{image_id}.png", rng.random((32, 40)))
    return sources


def matrix_of(sources: scores.Sources, ids: list[str], **rules) -> ConfusionMatrix:
    """The confusion matrix of pseudo labels, image by image."""
    matrix = ConfusionMatrix(4)
    for image_id in ids:
        maps = load_maps(sources.maps / f"{image_id}.npz", 3, (32, 40))
        saliency = load_saliency(sources.saliency / f"{image_id}.png", (32, 40))
        labels = sources.folder.label(image_id)
        matrix.update(pseudo_ground_truth(maps, saliency, labels, **rules), sources.folder.mask(image_id))
    return matrix


def test_the_sweep_scores_the_pseudo_labels_of_each_threshold(sources):
    sources.folder.mask_path("a0").unlink()
    rules = {"gamma": 0.2, "ignore_saliency": 0.4, "ignore_confidence": 0.9, "combine": "harmonic"}
    table = scores.threshold_sweep(sources, rules)
    assert table.groupby("threshold", sort=False)["value"].agg(list).to_dict() == {
        "gamma": [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5],
        "ignore_saliency": [0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 1],  # the one of the rules among them
        "ignore_confidence": [0.5, 0.6, 0.7, 0.8, 0.9, 1],
    }
    assert table["ignored (%)"].nunique() > 2
    for row in table.iloc[::3].to_dict("records"):
        matrix = matrix_of(sources, ["a1", "a2", "a3", "a4"], **{**rules, row["threshold"]: row["value"]})
        assert [row[c] for c in CONVENTIONS] == pytest.approx([100 * matrix.miou(c) for c in CONVENTIONS], abs=1e-3)
        assert row["ignored (%)"] == pytest.approx(100 * ignored_share(matrix.matrix), abs=1e-3)


def test_each_oracle_has_the_ground_truth_in_one_respect(sources):
    expected = ConfusionMatrix(4)
    for image_id in sources.ids:
        mask, labels = sources.folder.mask(image_id), sources.folder.label(image_id)
        right = np.stack([mask == c for c in (1, 2, 3)]).astype(float)
        save_maps(sources.maps / f"{image_id}.npz", 0.5 * labels[:, None, None] + 0.5 * right, labels)
        salient = (mask > 0) & (mask != 255)
        salient[:, 10:] = False  # the left part of the first object
        save_saliency(sources.saliency / f"{image_id}.png", 0.6 * salient)
        expected.update(np.where(salient, mask, 0), mask)
    found = scores.oracle_pseudo_labels(sources, 0.5, 0.2)
    assert found["ground-truth foreground"] == 1  # the classes of the maps are right
    assert found["ground-truth classes"] == pytest.approx(expected.miou()) and 0.4 < expected.miou() < 0.9
    assert found["pseudo labels"] == pytest.approx(expected.miou())


def test_the_foreground_oracle_takes_a_label_where_the_maps_are_empty(sources):
    single = [i for i in sources.ids if sources.folder.label(i).sum() == 1]
    for image_id in single:
        save_maps(sources.maps / f"{image_id}.npz", np.zeros((3, 8, 10)), sources.folder.label(image_id))
    assert any(sources.folder.label(i)[0] == 0 for i in single)  # where the first of all classes is wrong
    alone = scores.Sources(sources.folder, single, sources.maps, sources.saliency)
    assert scores.oracle_pseudo_labels(alone, 0.5, 0.2)["ground-truth foreground"] == 1


@pytest.mark.parametrize("combine", ["maps", "saliency"])
def test_the_pseudo_labels_of_a_control_are_its_own(sources, combine):
    found = scores.oracle_pseudo_labels(sources, 0.5, 0.2, combine)
    alone = matrix_of(sources, sources.ids, gamma=0.2, ignore_saliency=1, ignore_confidence=1, combine=combine)
    assert found["pseudo labels"] == alone.miou()


def test_at_most_so_many_evenly_spaced_images_are_read(sources):
    read = [labels.tolist() for *_, labels in sources.masked(3)]
    assert read == [sources.folder.label(i).tolist() for i in ("a0", "a2", "a4")]
