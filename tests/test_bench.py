"""The measurement of speed: its ratios and goals, and that what is fast computes the same as what is plain."""

from __future__ import annotations

import copy
import itertools
import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import __main__ as bench
from benchmarks import cases, choices, growth, profiles
from safn import backbones, dense_crf, inference
from safn.fast_layers import PhasedConv, PointwiseConv
from safn.images import load_image, load_mask


def test_the_ratio_is_the_other_s_time_to_ours_and_the_warm_up_does_not_count(monkeypatch):
    taken = itertools.chain([9, 9], [1, 2], [2, 8], [1, 3])  # ours, other; the first pair is the warm-up
    monkeypatch.setattr(cases, "seconds", lambda call: next(taken))
    found = cases.measure((None, None), 3)
    assert found == {"ours ms": 1000, "other ms": 3000, "value": 3, "quartile 1": 2.5, "quartile 3": 3.5}


@pytest.mark.parametrize(
    ("value", "most", "reached"), [(1.5, False, True), (1.4, False, False), (1.5, True, True), (1.6, True, False)]
)
def test_a_goal_is_a_least_or_a_largest_value(value, most, reached):
    assert cases.row("a", "b", 1.5, {"value": value}, most)["reached"] is reached


def test_side_by_side_is_compared_with_the_slower_and_with_one_after_the_other():
    taken = np.array([[1, 4, 5], [3, 2, 4], [2, 2, 2]])  # 5/4, 4/3, 1; 5/5, 5/4, 4/2
    slower, after = cases.overlap_rows(np.stack([taken, 2 * taken], -1))
    assert slower["value"] == 1.25 and not slower["reached"] and slower["sense"] == "at most"
    assert after["value"] == 1.25 and after["reached"] and after["sense"] == "at least"
    assert (slower["ours ms"], slower["other ms"], after["other ms"]) == (4000, 3000, 5000)
    assert (slower["network s"], slower["CRF s"]) == (2, 2)
    assert [slower[f"{what} processor s"] for what in ("network", "CRF", "both")] == [4, 4, 8]


def test_rows_that_are_not_measured_this_time_stay(tmp_path, monkeypatch):
    out = tmp_path / "bench.json"
    for name, given in {
        "a": ["--only", "a"],
        "b": ["--only", "b", "--second-run", "4", "0"],
        "none": ["--only"],
    }.items():
        measured = lambda _, what=name: [cases.row(what, "other", 1, {"value": 2})]  # noqa: E731
        monkeypatch.setattr(bench, "CASES", {name: measured})
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--out", str(out), *given])
        bench.main()
    found = json.loads(out.read_text())
    assert [r["what"] for r in found["rows"]] == ["a", "make book, second run, seconds", "b"]
    second = cases.row("make book, second run, seconds", "0 stages executed", 10, {"value": 4.0}, most=True)
    commit = found["rows"][1].pop("commit")
    assert found["rows"][1] == second and {r["commit"] for r in found["rows"][::2]} == {commit}
    assert found["rows"][0]["pairs"] == 5 and "load before" in found["rows"][0]
    assert {"machine", "versions", "threads"} <= set(found) and "commit" not in found
    out.write_text(json.dumps({**found, "machine": "another"}))
    bench.main()
    assert json.loads(out.read_text())["rows"] == []  # of another machine: not beside ours


def test_an_operation_is_called_by_its_kind():
    forward = [[8, 64, 4, 4], [64, 1, 5, 5], []]
    assert profiles._kind("aten::mkldnn_convolution", forward) == "depthwise convolutions, forward"
    backward = [[8, 64, 4, 4], [8, 32, 4, 4], [64, 32, 3, 3]]
    assert profiles._kind("aten::convolution_backward", backward) == "other convolutions, backward"
    assert profiles._kind("aten::hardtanh_backward", []) == "ReLU6"
    assert profiles._kind("aten::convolution", []) == "everything else"


def test_the_exponent_of_a_power_is_found():
    sizes = [1, 2, 4, 8]
    assert growth.exponent(sizes, [0.3 * n**1.5 for n in sizes]) == pytest.approx(1.5)


@pytest.mark.parametrize(("backbone", "phases"), [("efficientnet_lite0", True), ("vgg16", False)])
def test_the_plain_network_has_the_same_weights_and_no_phases(backbone, phases):
    ours, plain = cases.safn(backbone).eval(), cases.safn(backbone, plain=True).eval()
    assert any(isinstance(m, PhasedConv) for m in ours.modules()) == phases
    assert not any(isinstance(m, (PhasedConv, PointwiseConv)) for m in plain.modules())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), plain(images), rtol=1e-4, atol=1e-5)


def test_training_in_bf16_follows_the_losses_of_float32():
    torch.manual_seed(0)
    network = cases.safn("efficientnet_lite0")
    scores = {}
    for bf16 in (False, True):
        trained, given = copy.deepcopy(network), []
        call = cases.step(trained, 2, 64, channels_last=True, bf16=bf16)
        handle = trained.register_forward_hook(lambda _, __, scores, kept=given: kept.append(scores.float().detach()))
        for _ in range(4):
            call()
        handle.remove()
        scores[bf16] = torch.stack(given)
    assert scores[True].isfinite().all()
    torch.testing.assert_close(scores[True], scores[False], rtol=0.05, atol=0.02)


def test_the_crf_of_the_classes_that_can_win_equals_that_of_all():
    pytest.importorskip("pydensecrf.densecrf")
    image, scores = cases.photo()[:60, :80].copy(), cases.probabilities(60, 80)
    few, all_classes = (dense_crf(image, scores, floor=floor).argmax(0) for floor in (1e-4, 0))
    assert (few == all_classes).mean() >= 0.999 and set(np.unique(few)) <= {0, 1, 2}


class Bright(nn.Module):
    """Logits of three classes, the channels of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        return self.weight * images


def test_network_and_crf_side_by_side_give_the_masks_of_one_after_the_other(tmp_path):
    pytest.importorskip("pydensecrf.densecrf")
    paths, network = cases.photos(tmp_path, 2), Bright()
    inference.predict(network, backbones.HALF, paths, tmp_path / "masks", refined=tmp_path / "refined", processes=1)
    for image_id, path in paths.items():
        photo = load_image(path)
        scores = inference.multi_scale_maximum(network, backbones.HALF(photo)[None], (1.0,)).numpy()
        refined = load_mask(tmp_path / "refined" / f"{image_id}.png")
        assert (refined == dense_crf(np.asarray(photo), scores, floor=0).argmax(0)).mean() >= 0.999
        assert (refined != scores.argmax(0)).any()
        np.testing.assert_array_equal(load_mask(tmp_path / "masks" / f"{image_id}.png"), scores.argmax(0))


def test_the_confusion_matrix_is_that_of_torchmetrics():
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, 21, (2, 60, 80), np.uint8)
    target[:5] = 255
    theirs = cases.MulticlassConfusionMatrix(21, ignore_index=255)
    theirs.update(torch.from_numpy(prediction).long(), torch.from_numpy(target).long())
    ours = cases.ConfusionMatrix()
    ours.update(prediction, target)
    np.testing.assert_array_equal(ours.matrix[:21, :21], theirs.compute().numpy())


def test_maps_of_a_batch_are_those_of_its_images():
    network = cases.safn("efficientnet_lite0").eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together = network.features(images)
        alone = torch.cat([network.features(image) for image in images.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_choice_is_measured_on_the_same_images_with_and_without_it():
    right, half = np.array([[4, 0, 0], [0, 4, 0]]), np.array([[4, 0, 0], [2, 2, 0]])
    row = choices.compared("six views", np.stack([half] * 3), np.stack([right] * 3))
    without = round(100 * (4 / 6 + 2 / 4) / 2, 2)
    assert row["without"] == without and row["with"] == 100
    assert row["points"] == row["from"] == row["to"] == pytest.approx(100 - without)
