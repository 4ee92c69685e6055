from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from safn import SAFN, backbones, evaluation
from safn.data import VOCFolder
from safn.loading import PlainSet
from safn.map_files import pseudo_mask, save_maps, save_saliency
from safn.metrics import CONVENTIONS, ConfusionMatrix
from safn_book import studies


@pytest.fixture
def studied(tiny_voc, monkeypatch):
    """A network of two scales with a random attention, and the five training images of the tiny folder."""
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone(stride=4))
    torch.manual_seed(0)
    network = SAFN("tiny", 3, (1, 0.5), weights="none", attention_start="random").eval()
    folder = VOCFolder(tiny_voc)
    return network, folder, PlainSet(folder, folder.ids("train_aug"), backbones.IMAGENET)


def test_what_stands_in_the_place_of_the_weights():
    weights = torch.rand(1, 2, 3, 4).softmax(1)
    given = studies.replacements(weights, (1, 0.5), (0.7, 0.3), seed=1)
    assert list(given) == ["learned", "their mean", "shuffled pixels", "equal", "scale 1 alone", "scale 0.5 alone"]
    for values in given.values():
        assert values.shape == weights.shape and torch.allclose(values.sum(1), torch.ones(1, 3, 4))
    assert (given["learned"] == weights).all()
    assert given["their mean"][0, :, 2, 1].tolist() == pytest.approx([0.7, 0.3])
    assert given["equal"].unique().tolist() == [0.5]
    assert given["scale 0.5 alone"][0, :, 0, 0].tolist() == [0, 1]
    shuffled = given["shuffled pixels"]
    assert (shuffled != weights).any()
    pairs = lambda values: sorted(map(tuple, values[0].flatten(1).T.tolist()))  # noqa: E731
    assert pairs(shuffled) == pairs(weights)  # the pixels moved, each with the weights of all its scales


def test_the_maps_of_the_learned_weights_are_the_network_s_own(studied, tmp_path):
    network, folder, samples = studied
    _, sweeps = studies.study(network, samples, (0.5, 0.5))
    for sample in samples:
        label = sample["label"][None]
        with torch.inference_mode():
            save_maps(tmp_path / f"{sample['id']}.npz", network.maps(sample["image"][None], label)[0].numpy(), label[0])
    own = evaluation.sweep_maps(folder, samples.ids, tmp_path)
    np.testing.assert_allclose(sweeps["learned"].miou, own.miou, atol=0.01)  # the file has 8 bits
    assert sweeps["learned"].counts.shape == (5, 4, 5)
    np.testing.assert_array_equal(sweeps["their mean"].miou, sweeps["equal"].miou)  # for that is what was given


def test_one_scale_alone_is_a_network_of_that_scale(studied):
    network, _, samples = studied
    _, sweeps = studies.study(network, samples, (0.5, 0.5))
    single = SAFN("tiny", 3, (1, 0.5), "avg", weights="none").eval()
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("attention")}
    single.load_state_dict(state)
    counter = evaluation.SweepCounter(3)
    for sample in samples:
        with torch.inference_mode():
            features = single.scale_features(sample["image"][None])[:, 1]
            maps = studies.localization_maps(features, sample["label"][None])
        target = samples.folder.mask(sample["id"])
        counter.update(studies.enlarged(maps, sample["label"][None], target.shape), target)
    np.testing.assert_array_equal(sweeps["scale 0.5 alone"].miou, counter.result().miou)


def test_each_object_has_its_share_of_the_image_and_the_weights_on_it(studied):
    network, folder, samples = studied
    objects, _ = studies.study(network, samples, (0.5, 0.5))
    assert objects["image"].tolist() == ["a0", "a1", "a2", "a3", "a3", "a4"]
    assert objects["class"].tolist()[3:5] == ["cat", "dog"]
    mask = folder.mask("a3")
    assert objects["share"].tolist()[3:5] == [(mask == c).sum() / (mask != 255).sum() for c in (1, 2)]
    assert (objects["weight 1"] + objects["weight 0.5"]).tolist() == pytest.approx([1] * 6)
    images = samples[0]["image"][None]
    with torch.inference_mode():
        network(images)
        large = torch.nn.functional.interpolate(network.scale_weights, (32, 40), mode="bilinear")[0, 0].numpy()
    assert objects["weight 1"][0] == pytest.approx(large[folder.mask("a0") == 1].mean(), abs=1e-6)


def test_a_network_that_weighs_nothing_is_refused(studied):
    _, _, samples = studied
    with pytest.raises(ValueError, match="no weights to study"):
        studies.study(SAFN("tiny", 3, (1,), weights="none"), samples, (1,))


def test_the_correlation_is_that_of_the_ranks():
    share = np.linspace(0.01, 0.5, 40)
    rising = np.exp(20 * share)  # not a line, but rising
    noise = np.random.default_rng(0).random(40)
    objects = pd.DataFrame(
        {"image": range(40), "share": share, "weight 1": rising, "weight 0.5": -rising, "weight 2": noise}
    )
    table = studies.correlations({"a": (objects, {}), "b": (objects.iloc[::2], {})}).set_index(["run", "scale"])
    assert table.loc["b"].shape == (3, 3)
    table = table.loc["a"]
    assert table["rank correlation with size"].tolist()[:2] == [1, -1]
    assert table.loc["weight 1", "95 % from"] == 1
    assert table.loc["weight 2", "95 % from"] < 0 < table.loc["weight 2", "to"]  # nothing can be told
    twice = pd.concat([objects] * 2)  # the same objects again in the same images tell nothing new
    width = lambda rows: studies.correlations({"a": (rows, {})})[["95 % from", "to"]].diff(axis=1).iloc[2, 1]  # noqa: E731
    assert width(twice) == pytest.approx(width(objects), abs=0.02)
    assert width(twice.assign(image=range(80))) < 0.8 * width(objects)


def test_objects_of_like_size_are_grouped_by_their_number():
    share = np.linspace(0.01, 0.8, 16)
    objects = pd.DataFrame({"share": share[::-1], "weight 1": 1 - share[::-1], "weight 0.5": share[::-1]})
    rows = studies.by_share({"run": (objects, {})}, groups=4)
    first, second = rows[rows["scale"] == "1"], rows[rows["scale"] == "0.5"]
    np.testing.assert_allclose(first["share"], np.median(share.reshape(4, 4), 1))
    np.testing.assert_allclose(first["median"], 1 - first["share"])
    np.testing.assert_allclose(second[["from", "to"]], np.percentile(share.reshape(4, 4), [25, 75], axis=1).T)
    assert studies.by_share({}).empty and set(rows["run"]) == {"run"}


def test_a_run_without_attention_has_no_study():
    assert studies.correlations({}).empty and studies.scores({}).empty


def test_few_images_and_objects_of_one_size_have_numbers_as_well():
    objects = pd.DataFrame({"image": range(3), "share": [0.1, 0.2, 0.3], "weight 1": [0.7, 0.8, 0.9]})
    (row,) = studies.correlations({"run": (objects, {})}).to_dict("records")
    assert row["95 % from"] == row["to"] == 1  # the draws of one image alone say nothing
    rows = studies.by_share({"run": (objects.assign(share=0.2), {})}, groups=3)
    assert rows["median"].tolist() == [0.7, 0.8, 0.9] and set(rows["share"]) == {0.2}


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


def test_the_sweep_scores_what_its_thresholds_make(made_of):
    folder, ids, *sources = made_of
    folder.mask_path("a0").unlink()
    given = {"gamma": 0.2, "ignore_saliency": 0.4, "ignore_confidence": 0.9, "combine": "harmonic"}
    table = studies.sweep(folder, ids, *sources, given)
    assert table.groupby("threshold", sort=False)["value"].agg(list).to_dict() == {
        "gamma": [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5],
        "ignore_saliency": [0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 1],  # the given one among them
        "ignore_confidence": [0.5, 0.6, 0.7, 0.8, 0.9, 1],
    }
    assert table["ignored (%)"].nunique() > 2
    for _, row in table.iterrows():
        matrix = ConfusionMatrix(4)
        for image_id in ids[1:]:
            rules = {**given, row["threshold"]: row["value"]}
            matrix.update(pseudo_mask(folder, image_id, *sources, **rules), folder.mask(image_id))
        assert [row[c] for c in CONVENTIONS] == pytest.approx([100 * matrix.miou(c) for c in CONVENTIONS], abs=1e-3)
        assert row["ignored (%)"] == pytest.approx(100 * matrix.ignored_share(), abs=1e-3)


def test_each_limit_knows_the_truth_in_one_respect(tiny_voc, tmp_path):
    folder, ids = VOCFolder(tiny_voc), ["a0", "a1", "a2", "a3"]
    (tmp_path / "maps").mkdir()
    (tmp_path / "saliency").mkdir()
    for image_id in ids:
        mask, labels = folder.mask(image_id), folder.label(image_id)
        true = np.stack([mask == c for c in (1, 2, 3)]).astype(float)
        save_maps(
            tmp_path / "maps" / f"{image_id}.npz", 0.5 * labels[:, None, None] + 0.5 * true, labels
        )  # right classes
        left = (mask > 0) & (mask != 255)
        left[:, 10:] = False  # salient is the left of the first object only
        save_saliency(tmp_path / "saliency" / f"{image_id}.png", 0.6 * left)
    found = studies.limits(folder, ids, tmp_path / "maps", tmp_path / "saliency", 0.5, 0.2)
    assert found["true foreground, classes of the maps"] == 1
    matrix = ConfusionMatrix(4)
    for image_id in ids:
        mask = folder.mask(image_id)
        mask[:, 10:] = 0
        matrix.update(mask % 255, folder.mask(image_id))
    known = found["foreground of the saliency, true classes"]
    assert known == pytest.approx(matrix.miou()) and 0.4 < known < 0.9
    assert found["as it is"] == pytest.approx(known)  # the classes are right and the maps are above gamma everywhere


def test_limits_of_an_empty_map_take_a_class_that_is_there_and_those_of_a_control_are_its_own(tiny_voc, tmp_path):
    folder, ids = VOCFolder(tiny_voc), ["a0", "a1", "a2", "a3"]
    for name in ("maps", "saliency"):
        (tmp_path / name).mkdir()
    for image_id in ids:
        mask, labels = folder.mask(image_id), folder.label(image_id)
        shown = (mask > 0) & (mask != 255)
        maps = np.stack([mask == c for c in (1, 2, 3)]).astype(float)
        maps[:, :, :4] = 0  # no class reaches the left of the image
        save_maps(tmp_path / "maps" / f"{image_id}.npz", maps * (labels.sum() > 1), labels)
        save_saliency(tmp_path / "saliency" / f"{image_id}.png", shown.astype(float))
    single = [i for i in ids if folder.label(i).sum() == 1]
    assert any(folder.label(i)[0] == 0 for i in single)  # where the first of all classes is wrong
    sources = (tmp_path / "maps", tmp_path / "saliency")
    assert studies.limits(folder, single, *sources, 0.5, 0.2)["true foreground, classes of the maps"] == 1
    for combine in ("maps", "saliency"):
        matrix = ConfusionMatrix(4)
        for image_id in ids:
            alone = {"gamma": 0.2, "ignore_saliency": 1, "ignore_confidence": 1, "combine": combine}
            matrix.update(pseudo_mask(folder, image_id, *sources, **alone), folder.mask(image_id))
        assert studies.limits(folder, ids, *sources, 0.5, 0.2, combine)["as it is"] == matrix.miou()
