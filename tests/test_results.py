from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from safn import files
from safn.data import DataError
from safn.evaluation import save_counts
from safn.metrics import mean_iou
from safn_book import archive, conclusions, records, results, stages
from safn_book.conclusions import Verdict

ATTENTION, MAX = "attention_1-0.5", "max_1-0.5"


def counts(correct: int, images: int = 6) -> np.ndarray:
    """Confusion counts of equal images: of 10 pixels of each of two classes so many are right, the others background."""
    diagonal = [10, correct, correct]
    one = np.zeros((3, 4), np.int64)
    for k, right in enumerate(diagonal):
        one[k, k] += right
        one[k, 0] += 10 - right
    return np.repeat(one[None], images, 0)


def miou(correct: int) -> float:
    """The mIoU of ``counts`` in percent, by hand: background 10 / (10 + missed), classes correct / 10."""
    return 100 * (10 / (10 + 2 * (10 - correct)) + correct / 10 + correct / 10) / 3


def finish(folder, stage, run, metrics=None, parameters=None, **more):
    return stages.open_stage({"runs": folder, **(parameters or {"seed": 0})}, stage, run).finish(metrics or {}, **more)


def evaluate(folder, run, correct, images=6):
    """A run that was evaluated, but whose maps no mask could score."""
    finish(folder, "04_localization_maps", run)
    work = stages.open_stage({"runs": folder, **({"seed": 0})}, "07_evaluate", run)
    save_counts(work.folder / "counts_multi.npz", counts(correct, images))
    sizes = {"val_iou_multi small (< 10 %)": None, "val_iou_multi large (> 30 %)": correct / 10}
    work.finish({"val_miou_multi": miou(correct) / 100, **sizes})


def compared(folder, attention: list[int], pooled: list[int], images: int = 6) -> results.Runs:
    """Runs of both configurations, one a seed."""
    names = []
    for configuration, seeds in ((ATTENTION, attention), (MAX, pooled)):
        for seed, correct in enumerate(seeds):
            names.append(f"{configuration}_seed{seed}")
            evaluate(folder, names[-1], correct, images)
    return results.load_runs(folder, names)


def difference(runs: results.Runs, draws: int = 20) -> dict:
    (row,) = conclusions.differences(runs, "aggregation", draws).to_dict("records")
    return row


# --- one row a run


def test_a_run_has_the_metrics_of_its_stages(tmp_path):
    for run, value in ((f"{ATTENTION}_seed0", 0.8), (f"{MAX}_seed3", None)):
        finish(tmp_path, "03_train_safn", run, {"val_mAP": 0.5})
        finish(tmp_path, "07_evaluate", run, {"val_miou_multi": value})
    runs = results.load_runs(tmp_path, [f"{ATTENTION}_seed0", f"{MAX}_seed3"])
    shown = runs.table[["run", "configuration", "aggregation", "scales", "seed", "val_mAP"]]
    assert shown.to_numpy().tolist() == [
        [f"{ATTENTION}_seed0", ATTENTION, "attention", "1-0.5", 0, 0.5],
        [f"{MAX}_seed3", MAX, "max", "1-0.5", 3, 0.5],
    ]
    assert runs.table["val_miou_multi"][0] == 0.8 and np.isnan(runs.table["val_miou_multi"][1])
    assert [end.name for end in runs.ends] == [f"07_evaluate/{ATTENTION}_seed0", f"07_evaluate/{MAX}_seed3"]


@pytest.fixture
def networks(tmp_path) -> results.Runs:
    """Two seeds of one experiment on VGG16, a second network on the first, a control, and the fully supervised run."""
    main = [f"attention_1_seed{seed}" for seed in (0, 1)]
    finish(tmp_path, "05_pseudo_ground_truth", main[0], {"pseudo_miou_drop": 0.7})
    values = {main[0]: 0.6, main[1]: 0.4, f"{main[0]}@resnet101-aspp": 0.9, f"{main[0]}+maps": 0.1, "masks_seed0": 0.8}
    for run, value in values.items():
        vgg, resnet = {"backbone": "vgg16", "head": "largefov"}, {"backbone": "resnet101", "head": "aspp"}
        finish(tmp_path, "06_train_segmentation", run, {}, resnet if "@" in run else vgg)
        per_class = {"crf": {"background": 1, "aeroplane": value, "bicycle": None}}
        finish(tmp_path, "07_evaluate", run, {"val_miou_crf": value}, per_class=per_class)
    return results.load_runs(tmp_path, list(values))


def test_a_second_network_shares_the_pseudo_labels_of_its_run(networks):
    table = networks.table.set_index("run")
    row = table.loc["attention_1_seed0@resnet101-aspp"]
    assert (row["network"], row["pseudo_miou_drop"], row["seed"]) == ("resnet101-aspp", 0.7, 0)
    assert table["network"].value_counts().to_dict() == {"vgg16-largefov": 4, "resnet101-aspp": 1}
    assert table["supervised"].to_list() == [False] * 4 + [True]


def test_the_main_experiment_has_all_seeds_and_networks_and_no_control(networks):
    names = ["attention_1_seed0", "attention_1_seed1", "attention_1_seed0@resnet101-aspp"]
    assert results.main_runs(networks.table)["run"].to_list() == names


def test_classes_are_averaged_over_the_seeds(networks):
    table = results.by_class(networks.records, "07_evaluate", "crf")
    shown = table.loc["aeroplane", ["attention_1", "attention_1@resnet101-aspp", "attention_1+maps", "masks"]]
    assert shown.to_list() == pytest.approx([50, 90, 10, 80]) and table.loc["bicycle"].isna().all()
    assert results.by_class(networks.records, "07_evaluate", "single").empty


def test_all_runs_of_a_file_are_listed_with_the_main_experiment_first(networks, tmp_path):
    files.write_json(tmp_path / "exported.json", list(reversed(networks.records.values())))
    records = archive.read(tmp_path / "exported.json")
    assert results.runs_table(records)["run"].to_list() == [
        "attention_1_seed0",
        "attention_1_seed0@resnet101-aspp",
        "attention_1_seed1",
        "attention_1_seed0+maps",
        "masks_seed0",
    ]


# --- means over seeds


def test_mean_and_standard_deviation_over_seeds():
    table = pd.DataFrame({"configuration": ["max"] * 3 + ["avg", "none"], "v": [0.1, 0.2, 0.3, 0.5, None]})
    assert results.over_seeds(table, ["v"])["v"].to_dict() == {"max": "20.0 ± 10.0", "avg": "50.0", "none": "–"}


def test_each_column_of_the_overview_has_the_seeds_that_its_rows_share():
    table = pd.DataFrame({"configuration": ["max", "max", "avg"], "seed": [0, 1, 0], "val_mAP": [0.5, 0.7, 0.4]})
    table = table.assign(**{c: float("nan") for c in results.OVERVIEW if c != "val_mAP"})
    ours = results.overview(table.assign(map_miou=[0.1, 0.3, None]))
    assert ours["mAP"].to_list() == ["50.0", "40.0"]  # not 60.0 ± 14.1 with the seed that avg lacks
    assert ours["localization maps"].to_list() == ["20.0 ± 14.1", "–"] and set(ours["single scale"]) == {"–"}


def test_sizes_are_means_over_the_seeds_that_all_have(tmp_path):
    table = compared(tmp_path, [8, 6, 7], [5, 5, 4]).table
    ((key, sizes),) = results.by_size(table.drop(index=5)).items()
    assert key == "segmentation_multi"  # the maps were not scored
    assert sizes.loc["large (> 30 %)"].to_dict() == pytest.approx({ATTENTION: 70, MAX: 50})
    assert sizes.loc["small (< 10 %)"].isna().all()
    deviations = results.by_size(table.drop(index=5), "std")[key].loc["large (> 30 %)"]
    assert deviations.to_list() == pytest.approx([np.sqrt(200), 0])


# --- differences


def test_one_seed_has_an_interval_over_images_only(tmp_path):
    row = difference(compared(tmp_path, [8], [5]))
    assert (row["measure"], row["first"], row["second"]) == ("segmentation_multi", ATTENTION, MAX)
    points = miou(8) - miou(5)
    assert [row["points"], *row["seeds"], row["images_from"], row["images_to"]] == pytest.approx([points] * 4)
    assert np.isnan([row["all_from"], row["all_to"]]).all() and row["verdict"] == Verdict.TOO_FEW_SEEDS


@pytest.mark.parametrize(
    ("attention", "pooled", "verdict"),
    [
        ([8, 9, 7], [5, 5, 5], Verdict.BETTER),
        ([5, 5, 5], [8, 9, 7], Verdict.WORSE),
        ([4, 6, 7], [5, 5, 5], Verdict.UNDECIDED),
        ([8, 9], [5, 5], Verdict.TOO_FEW_SEEDS),
    ],
)
def test_the_verdict_follows_from_the_t_interval_of_the_seeds(tmp_path, attention, pooled, verdict):
    row = difference(compared(tmp_path, attention, pooled))
    seeds = np.array([miou(a) - miou(b) for a, b in zip(attention, pooled)])
    quantile = {2: 12.706205, 3: 4.302653}[len(seeds)]  # of Student's t, from a printed table
    half = quantile * seeds.std(ddof=1) / np.sqrt(len(seeds))
    assert row["seeds"] == pytest.approx(seeds) and row["verdict"] == verdict
    assert [row["all_from"], row["all_to"]] == pytest.approx([seeds.mean() - half, seeds.mean() + half])


def test_only_runs_of_the_same_seed_are_compared(tmp_path):
    runs = compared(tmp_path, [8, 9, 7], [7, 4, 6])
    seeds = [miou(8) - miou(7), miou(9) - miou(4), miou(7) - miou(6)]
    runs.table = runs.table.iloc[[2, 0, 1, 4, 5, 3]]
    assert difference(runs)["seeds"] == pytest.approx([seeds[2], seeds[0], seeds[1]])
    runs.table = runs.table.drop(index=4)  # seed 1 of one configuration
    row = difference(runs)
    assert row["seeds"] == pytest.approx([seeds[2], seeds[0]])
    assert row["points"] == pytest.approx((seeds[0] + seeds[2]) / 2)


def test_images_that_differ_widen_the_interval(tmp_path):
    runs = compared(tmp_path, [8, 8, 8], [5, 5, 5], images=4)
    mixed = np.concatenate([counts(8, 2), counts(2, 2)])
    save_counts(tmp_path / "07_evaluate" / f"{ATTENTION}_seed0" / "counts_multi.npz", mixed)
    runs.table.loc[0, "val_miou_multi"] = mean_iou(mixed.sum(0))
    row = difference(runs, draws=200)
    assert row["all_from"] < row["images_from"] < row["points"] < row["images_to"] < row["all_to"]


def test_without_counts_the_interval_is_that_of_the_seeds(tmp_path):
    runs = compared(tmp_path, [8, 9, 7], [5, 5, 5])
    whole = difference(runs)
    (tmp_path / "07_evaluate" / f"{MAX}_seed1" / "counts_multi.npz").unlink()
    row = difference(runs)
    assert np.isnan([row["images_from"], row["images_to"]]).all()
    assert row["all_from"] == pytest.approx(whole["all_from"])  # equal images add nothing
    assert (row["points"], row["verdict"]) == (whole["points"], Verdict.BETTER)


def test_no_verdict_across_machine_types(tmp_path):
    names = compared(tmp_path, [8, 9, 7], [5, 5, 5]).table["run"].to_list()
    for run in names:
        finish(tmp_path, "03_train_safn", run)
    assert difference(results.load_runs(tmp_path, names))["verdict"] == Verdict.BETTER
    path = tmp_path / "03_train_safn" / f"{MAX}_seed1" / records.RECORD
    files.write_json(path, json.loads(path.read_text()) | {"machine": "another processor, 2 cores"})
    assert difference(results.load_runs(tmp_path, names))["verdict"] == Verdict.DIFFERENT_MACHINES


def test_runs_that_differ_in_another_setting_are_refused(tmp_path):
    names = compared(tmp_path, [8], [5]).table["run"].to_list()
    for run, aggregation, epochs in zip(names, ("attention", "max"), (6, 8)):
        settings = {"aggregation": aggregation, "seed": 0, "epochs": epochs, "workers": epochs}
        finish(tmp_path, "03_train_safn", run, {}, settings)
    with pytest.raises(DataError, match=f"03_train_safn/{MAX}_seed0: epochs 6 and 8"):
        conclusions.differences(results.load_runs(tmp_path, names), "aggregation")


def test_a_run_without_segmentation_is_compared_by_its_maps(tmp_path):
    compared(tmp_path, [8, 9, 7], [5, 5, 5])
    names = [f"{configuration}_seed{seed}" for configuration in (ATTENTION, MAX) for seed in (0, 1, 2)]
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "07_evaluate" / f"{MAX}_seed{seed}")
    for run in names:
        path = tmp_path / "04_localization_maps" / run / records.RECORD
        files.write_json(path, json.loads(path.read_text()) | {"metrics": {"map_miou": 0.8}})
    runs = results.load_runs(tmp_path, names, "leave")
    assert [end.folder.parent.name[:2] for end in runs.ends] == ["07"] * 4 + ["04"] * 2
    rows = conclusions.differences(runs, "aggregation", 20).set_index("measure")
    assert rows.loc["maps", "seeds"] == [0, 0, 0] and rows.loc["maps", "verdict"] == Verdict.UNDECIDED
    assert rows.loc["segmentation_multi", "seeds"] == pytest.approx([miou(8) - miou(5)])
    sizes = results.by_size(runs.table)["segmentation_multi"]
    assert sizes.loc["large (> 30 %)"].to_dict() == pytest.approx({ATTENTION: 80, MAX: 50})  # of seed 0


def test_differences_survive_a_record(tmp_path):
    rows = conclusions.differences(compared(tmp_path, [8], [5]), "aggregation", 20)
    done = finish(tmp_path, "08_aggregation", "default", differences=rows.to_dict("records"))
    read = conclusions.differences_table({("08_aggregation", "default"): done.record})
    pd.testing.assert_frame_equal(read, rows, check_dtype=False)
    assert conclusions.differences_table({}).empty
