from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from benchmarks import gpu_cost, gpu_steps
from benchmarks.gpu_steps import Case, Step, Way
from safn import training
from safn_book import published

ROOT = Path(__file__).resolve().parent.parent


def test_hours_by_hand():
    step = dict.fromkeys(gpu_cost.TRAININGS, 0.1) | {"resnet101-aspp": 0.2}
    tests = [f"test, {n} scales, {network}" for n in (1, 5) for network in ("vgg16-largefov", "resnet101-aspp")]
    photo = dict.fromkeys(["validation", *(f"maps, {n} scales" for n in (1, 2, 3)), *tests], 0.01)
    found = gpu_cost.hours(step, photo)
    classifier = 15 * (2645 * 0.1 + 1449 * 0.01)  # 10,582 images in batches of 4, the last one dropped
    maps, segmentation, test = 12031 * 0.01, 6000 * 0.1, 1449 * 0.02
    one = classifier + maps + segmentation + test
    whole = 16 * classifier + 15 * maps + 21 * (segmentation + test) + 3 * 600  # three ResNet-101 take twice as long
    expected = {"classifier": 1.162, "maps": 0.033, "segmentation": 0.167, "test": 0.008}
    assert found == {**expected, "one SAFN": round(one / 3600, 3), "whole profile": round(whole / 3600, 3)}
    assert found["whole profile"] == pytest.approx(23.270, abs=0.001)


def test_the_rows_are_of_the_papers_profile():
    profile = yaml.safe_load((ROOT / "profiles" / "paper.yaml").read_text())
    classifier, segmentation = profile["stages"]["03_train_safn"], profile["stages"]["06_train_segmentation"]
    sizes, paper = gpu_cost.Sizes("cuda"), gpu_cost.PAPER
    assert (classifier["epochs"], classifier["batch_size"]) == (paper["epochs"], paper["batch"])
    assert (segmentation["iterations"], segmentation["batch_size"]) == (
        paper["iterations"],
        paper["segmentation batch"],
    )
    assert sizes.case("attention").crop == classifier["crop"] and sizes.case("largefov").crop == segmentation["crop"]
    assert len(profile["seeds"]) == gpu_cost.SEEDS and classifier["precision"] in gpu_cost.WAYS
    experiments = {e.split("_")[0] + f", {len(e.split('-'))} scale" for e in profile["experiments"]}
    assert experiments == {name.removesuffix("s") for name in gpu_cost.TRAININGS if "scale" in name}
    assert len(profile["controls"]) + profile["upper_bound"] == 3 and len(profile["segmentations"]) == 1


def test_table_5_is_the_papers():
    table = published.table(5).set_index("aggregation")
    columns = ["training ms/img", "OLM extraction ms/img", "GPU MB"]
    assert {name: tuple(row) for name, row in table[columns].iterrows()} == gpu_cost.PUBLISHED


def test_calls_take_turns_and_the_warm_up_does_not_count():
    order = []
    calls = {name: lambda n=name: order.append(n) for name in "ab"}
    found = gpu_steps.in_turns(calls, "cpu", 0)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" and found.shape == (3, 2) and (found >= 0).all().all()


def test_a_step_has_the_loss_of_the_training_and_changes_the_weights():
    step = Step(Case("aspp", 65, 2, "efficientnet_lite0"), Way(), "cpu")
    before = step.network.head.branches[0].weight.clone()
    module = training.Segmenter(step.network, tiny.options())
    module.log = lambda *_, **__: None
    expected = module.training_step({"id": ["a", "b"], "image": step.images, "mask": step.target}, 0).item()
    assert step().item() == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(step.network.head.branches[0].weight, before)


def test_operations_by_hand(monkeypatch):
    """A 1x1 convolution 3 -> 5 on 4x4 pixels: forward and the gradient of its weight, 2 x 3 x 5 x 16 each."""
    monkeypatch.setattr(Case, "build", lambda self, device: torch.nn.Conv2d(3, 5, 1, device=device))
    assert gpu_steps.operations(Case("plain", 4, 9)) == 2 * (2 * 3 * 5 * 16)


def test_the_busy_time_is_the_union_of_what_overlaps():
    assert gpu_cost.covered([(0, 4), (1, 2), (3, 6), (10, 11)]) == 7


def test_a_row_that_takes_too_long_says_so_and_one_that_fails_too(monkeypatch):
    def broken(sizes):
        raise RuntimeError("no")

    rows = {"slow": (0.2, lambda sizes: time.sleep(5)), "broken": (5, broken)}
    monkeypatch.setattr(gpu_cost, "ROWS", rows)
    sizes = gpu_cost.Sizes("cpu")
    assert gpu_cost.measure("slow", sizes, 9)["not measured"] == "TimeoutError: not finished within 0 s"
    assert gpu_cost.measure("broken", sizes, 9)["not measured"] == "RuntimeError: no"


def test_measured_rows_are_kept_and_missing_ones_are_made(monkeypatch, tmp_path):
    made = []
    names = ("one", "two")
    monkeypatch.setattr(gpu_cost, "ROWS", {n: (9, lambda s, n=n: made.append(n) or {"value": n}) for n in names})
    out = tmp_path / "cost.json"
    command = ["gpu_cost", "--out", str(out), "--device", "cpu", "--small"]
    for only in (["one"], ["one", "two"]):
        monkeypatch.setattr(sys, "argv", [*command, "--only", *only])
        gpu_cost.main()
    rows = json.loads(out.read_text())["rows"]
    assert made == ["one", "two"] and [row["value"] for row in rows.values()] == ["one", "two"]
