from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from safn import SAFN, backbones, evaluation
from safn.data import VOCFolder
from safn.loading import PlainSet
from safn.map_files import save_maps
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
    given = studies.replacement_weights(weights, (1, 0.5), (0.7, 0.3), seed=1)
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
    sweeps = studies.study_attention(network, samples, (0.5, 0.5)).sweeps
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
    sweeps = studies.study_attention(network, samples, (0.5, 0.5)).sweeps
    single = SAFN("tiny", 3, (1, 0.5), "avg", weights="none").eval()
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("attention")}
    single.load_state_dict(state)
    counter = evaluation.SweepCounter(3)
    for sample in samples:
        with torch.inference_mode():
            features = single.scale_features(sample["image"][None])[:, 1]
            maps = studies.localization_maps(features, sample["label"][None])
        target = samples.folder.mask(sample["id"])
        counter.update(studies.upsample_maps(maps, sample["label"][None], target.shape), target)
    np.testing.assert_array_equal(sweeps["scale 0.5 alone"].miou, counter.result().miou)


def test_each_object_has_its_share_of_the_image_and_the_weights_on_it(studied):
    network, folder, samples = studied
    objects = studies.study_attention(network, samples, (0.5, 0.5)).objects
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
    with pytest.raises(ValueError, match="it has no weights"):
        studies.study_attention(SAFN("tiny", 3, (1,), weights="none"), samples, (1,))


def study(objects: pd.DataFrame) -> studies.Study:
    return studies.Study(objects, {})


def test_the_correlation_is_that_of_the_ranks():
    share = np.linspace(0.01, 0.5, 40)
    rising = np.exp(20 * share)  # not a line, but rising
    noise = np.random.default_rng(0).random(40)
    weights = {"weight 1": rising, "weight 0.5": -rising, "weight 2": noise}
    objects = pd.DataFrame({"image": range(40), "share": share, **weights})
    table = studies.weight_size_correlation({"a": study(objects), "b": study(objects.iloc[::2])})
    assert table["run"].to_list() == ["a"] * 3 + ["b"] * 3
    rows = table[table["run"] == "a"].set_index("scale")
    assert rows.loc[["1", "0.5"], "correlation"].to_list() == [1, -1] and rows.loc["1", "from"] == 1
    assert rows.loc["2", "from"] < 0 < rows.loc["2", "to"]


def test_objects_of_one_image_stay_together_in_the_interval():
    rng = np.random.default_rng(0)
    objects = pd.DataFrame({"image": range(40), "share": rng.random(40), "weight 1": rng.random(40)})
    twice = pd.concat([objects] * 2)  # the same objects again

    def width(objects: pd.DataFrame) -> float:
        row = studies.weight_size_correlation({"a": study(objects)}).iloc[0]
        return row["to"] - row["from"]

    assert width(twice) == pytest.approx(width(objects), abs=0.02)
    assert width(twice.assign(image=range(80))) < 0.8 * width(objects)


def test_objects_of_similar_size_are_grouped_by_their_number():
    share = np.linspace(0.01, 0.8, 16)
    objects = pd.DataFrame({"share": share[::-1], "weight 1": 1 - share[::-1], "weight 0.5": share[::-1]})
    rows = studies.weights_by_size({"run": study(objects)}, groups=4)
    first, second = rows[rows["scale"] == "1"], rows[rows["scale"] == "0.5"]
    np.testing.assert_allclose(first["share"], np.median(share.reshape(4, 4), 1))
    np.testing.assert_allclose(first["median"], 1 - first["share"])
    np.testing.assert_allclose(second[["from", "to"]], np.percentile(share.reshape(4, 4), [25, 75], axis=1).T)


def test_few_images_and_objects_of_one_size_have_numbers():
    objects = pd.DataFrame({"image": range(3), "share": [0.1, 0.2, 0.3], "weight 1": [0.7, 0.8, 0.9]})
    (row,) = studies.weight_size_correlation({"run": study(objects)}).to_dict("records")
    assert row["from"] == row["to"] == 1  # draws of a single image have no correlation
    rows = studies.weights_by_size({"run": study(objects.assign(share=0.2))}, groups=3)
    assert rows["median"].tolist() == [0.7, 0.8, 0.9] and set(rows["share"]) == {0.2}


def test_runs_without_objects_have_empty_tables_with_the_same_columns():
    nothing = study(pd.DataFrame(columns=["image", "class", "share", "weight 1"]))
    for studied in ({}, {"run": nothing}):
        assert list(studies.weight_size_correlation(studied)) == ["run", "scale", "correlation", "from", "to"]
        assert studies.weights_by_size(studied).empty
    assert {"weights", "mIoU", "from", "to"} <= set(studies.replacement_scores({}))


def test_replacements_are_compared_with_the_learned_weights():
    """Two classes and background: the learned weights are right on each pixel, equal weights on every other one."""
    right, half = np.diag([4, 4, 4]), np.array([[4, 0, 0], [2, 2, 0], [2, 0, 2]])
    counts = {
        name: np.stack([np.pad(one, ((0, 0), (0, 1)))] * 5) for name, one in (("learned", right), ("equal", half))
    }
    sweeps = {
        name: evaluation.Sweep(np.array([0.1, miou]), counts[name])
        for name, miou in (("learned", 1.0), ("equal", (4 / 8 + 1 / 2 + 1 / 2) / 3))
    }
    table = studies.replacement_scores({"run": studies.Study(pd.DataFrame(), sweeps)}).set_index("weights")
    assert table["mIoU"].to_list() == [100, 50] and table["difference"].to_list() == [0, -50]
    assert table.loc["equal", ["from", "to"]].to_list() == [-50, -50]  # all images are alike
