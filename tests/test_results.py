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
from safn_book import published, results, stages


def counts(diagonal: list[int], images: int = 6) -> np.ndarray:
    """The same counts for each image: class k right ``diagonal[k]`` times of 10, else called background."""
    one = np.zeros((3, 4), np.int64)
    for k, right in enumerate(diagonal):
        one[k, k] += right
        one[k, 0] += 10 - right
    return np.repeat(one[None], images, 0)


@pytest.fixture
def runs(tmp_path):
    for run, diagonal in (("attention_1-0.5_seed0", [10, 8, 8]), ("max_1-0.5_seed0", [10, 5, 5])):
        for stage, metrics in (
            ("03_train_safn", {"val_mAP": 0.5}),
            ("07_evaluate", {"val_miou_multi": diagonal[1] / 10}),
        ):
            work = stages.begin(tmp_path, stage, run, {"seed": 0, "runs": str(tmp_path)})
            if stage == "07_evaluate":
                save_counts(work.folder / "counts_multi.npz", counts(diagonal))
            work.finish(metrics, supervision="pseudo")
    return tmp_path


def test_collect_gives_one_row_a_run_with_the_metrics_of_its_stages(runs):
    table, ends = results.collect(runs, ["attention_1-0.5_seed0", "max_1-0.5_seed0"])
    assert list(table["aggregation"]) == ["attention", "max"] and list(table["scales"]) == ["1-0.5", "1-0.5"]
    assert list(table["val_miou_multi"]) == [0.8, 0.5] and list(table["val_mAP"]) == [0.5, 0.5]
    assert [end.folder.name for end in ends] == ["attention_1-0.5_seed0", "max_1-0.5_seed0"]


def miou(right: int) -> float:
    """By hand: background 10 / (10 + missed), objects right / 10."""
    return 100 * np.mean([10 / (10 + 2 * (10 - right)), right / 10, right / 10])


def of_seeds(runs, attention: list[int], maximum: list[int], images: int = 6):
    """Runs of some seeds, each right in so many of 10 pixels an object class in every image."""
    names = []
    for name, seeds in (("attention_1-0.5", attention), ("max_1-0.5", maximum)):
        for seed, right in enumerate(seeds):
            names.append(f"{name}_seed{seed}")
            work = stages.begin(runs, "07_evaluate", names[-1], {"seed": seed})
            save_counts(work.folder / "counts_multi.npz", counts([10, right, right], images))
            sizes = {"val_iou_multi small (< 10 %)": None, "val_iou_multi large (> 30 %)": right / 10}
            work.finish({"val_miou_multi": miou(right) / 100, **sizes}, supervision="pseudo")
            work = stages.begin(runs, "04_localization_maps", names[-1], {"seed": seed})
            save_counts(work.folder / "counts.npz", counts([10, right, right], 0))  # no masks: nothing to compare
            work.finish({})
            stages.begin(runs, "05_pseudo_ground_truth", names[-1], {"seed": seed}).finish({})
    return results.collect(runs, names)[0]


def test_differences_of_equal_images_have_no_spread_over_images(tmp_path):
    rows = results.differences(tmp_path, of_seeds(tmp_path, [8], [5]), "aggregation", draws=20)
    (row,) = rows.to_dict("records")
    assert row["measure"] == "segmentation, multiple scales" and row["difference"] == "attention - max"
    assert row["points"] == pytest.approx(row["images from"]) == pytest.approx(row["images to"])
    assert row["points"] == pytest.approx(miou(8) - miou(5))
    assert np.isinf(row["all from"]) and np.isinf(row["all to"])  # one seed says nothing of another
    assert row["what can be told"] == "nothing: fewer than three seeds"


def test_the_interval_over_seeds_is_that_of_student(tmp_path):
    rows = results.differences(tmp_path, of_seeds(tmp_path, [8, 9, 7], [5, 5, 5]), "aggregation", draws=20)
    (row,) = rows.to_dict("records")
    each = np.array([miou(8), miou(9), miou(7)]) - miou(5)
    half = 4.302653 * each.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom, from a printed table
    assert row["each seed"] == ", ".join(f"{gap:+.1f}" for gap in each)
    assert [row["all from"], row["all to"]] == pytest.approx([each.mean() - half, each.mean() + half])
    assert row["what can be told"] == "attention is better"
    swapped = of_seeds(tmp_path / "other", [5, 5, 5], [8, 9, 7])
    assert results.differences(tmp_path / "other", swapped, "aggregation", 20)["what can be told"][0] == "max is better"
    near = of_seeds(tmp_path / "near", [4, 6, 7], [5, 5, 5])
    assert results.differences(tmp_path / "near", near, "aggregation", 20)["what can be told"][0] == "nothing"


def test_runs_of_one_seed_are_compared(tmp_path):
    table = of_seeds(tmp_path, [8, 9, 7], [7, 4, 6])
    each = [miou(8) - miou(7), miou(9) - miou(4), miou(7) - miou(6)]
    (row,) = results.differences(tmp_path, table.iloc[[2, 0, 1, 4, 5, 3]], "aggregation", draws=20).to_dict("records")
    assert row["each seed"] == ", ".join(f"{each[seed]:+.1f}" for seed in (2, 0, 1))
    (row,) = results.differences(tmp_path, table.drop(index=4), "aggregation", draws=20).to_dict("records")
    assert row["each seed"] == f"{each[0]:+.1f}, {each[2]:+.1f}"  # seed 1 is on one side alone
    assert row["points"] == pytest.approx((each[0] + each[2]) / 2)
    (sizes,) = results.by_size(table.drop(index=4), "aggregation").values()
    assert sizes.loc["large (> 30 %)"].to_dict() == pytest.approx({"attention": 75, "max": 65})


def test_runs_that_differ_in_more_than_what_is_compared_are_refused(tmp_path):
    table = of_seeds(tmp_path, [8], [5])
    for run, aggregation, epochs in (("attention_1-0.5_seed0", "attention", 6), ("max_1-0.5_seed0", "max", 8)):
        given = {"aggregation": aggregation, "seed": 0, "epochs": epochs, "workers": epochs}
        stages.begin(tmp_path, "03_train_safn", run, given).finish({})
    with pytest.raises(DataError) as error:
        results.differences(tmp_path, table, "aggregation", draws=20)
    assert str(error.value).endswith("\n  - 03_train_safn/max_1-0.5_seed0: epochs 6 and 8")


def test_nothing_is_told_of_runs_of_unlike_machines(tmp_path):
    table = of_seeds(tmp_path, [8, 9, 7], [5, 5, 5])
    for run in table["run"]:
        stages.begin(tmp_path, "03_train_safn", run, {}).finish({})
    told = lambda: results.differences(tmp_path, table, "aggregation", draws=20)["what can be told"].to_list()  # noqa: E731
    assert told() == ["attention is better"]
    path = tmp_path / "03_train_safn" / "max_1-0.5_seed1" / stages.RECORD
    files.write_json(path, json.loads(path.read_text()) | {"machine": "another processor, 2 cores"})
    assert told() == ["nothing: trained on unlike machines"]


def test_a_run_without_segmentation_is_compared_by_its_maps_alone(tmp_path):
    of_seeds(tmp_path, [8, 9, 7], [5, 5, 5])
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "07_evaluate" / f"max_1-0.5_seed{seed}")
    names = [f"{kind}_1-0.5_seed{seed}" for kind in ("attention", "max") for seed in (0, 1, 2)]
    for run in names:
        folder = tmp_path / "04_localization_maps" / run
        save_counts(folder / "counts.npz", counts([10, 8, 8]))
        record = json.loads((folder / stages.RECORD).read_text())
        files.write_json(folder / stages.RECORD, record | {"metrics": {"map_miou": 0.8}})
    table, ends = results.collect(tmp_path, names, "leave")
    assert [end.folder.parent.name[:2] for end in ends] == ["07", "07", "07", "07", "05", "05"]
    assert table["val_miou_multi"].isna().to_list() == [False] * 4 + [True] * 2
    rows = results.differences(tmp_path, table, "aggregation", draws=20).set_index("measure")
    assert rows.loc["maps", "each seed"] == "+0.0, +0.0, +0.0"
    assert rows.loc["segmentation, multiple scales", "each seed"] == f"{miou(8) - miou(5):+.1f}"
    assert rows.loc["segmentation, multiple scales", "what can be told"] == "nothing: fewer than three seeds"
    sizes = results.by_size(table, "aggregation")["segmentation, multiple scales"]
    assert sizes.loc["large (> 30 %)"].to_dict() == pytest.approx({"attention": 80, "max": 50})  # of seed 0 both


def test_without_counts_the_interval_is_of_the_seeds_alone(tmp_path):
    table = of_seeds(tmp_path, [8, 9, 7], [5, 5, 5])
    (whole,) = results.differences(tmp_path, table, "aggregation", draws=20).to_dict("records")
    (tmp_path / "07_evaluate" / "max_1-0.5_seed1" / "counts_multi.npz").unlink()
    (row,) = results.differences(tmp_path, table, "aggregation", draws=20).to_dict("records")
    assert np.isnan([row["images from"], row["images to"]]).all()
    assert row["all from"] == pytest.approx(whole["all from"])  # images that are alike change nothing
    assert row["points"] == whole["points"] and row["what can be told"] == "attention is better on these images"


def test_other_images_widen_the_interval(tmp_path):
    table = of_seeds(tmp_path, [8, 8, 8], [5, 5, 5], images=4)
    path = tmp_path / "07_evaluate" / "attention_1-0.5_seed0" / "counts_multi.npz"
    mixed = np.concatenate([counts([10, 8, 8], 2), counts([10, 2, 2], 2)])
    save_counts(path, mixed)
    table.loc[0, "val_miou_multi"] = mean_iou(mixed.sum(0))
    (row,) = results.differences(tmp_path, table, "aggregation", draws=200).to_dict("records")
    assert row["images from"] < row["points"] < row["images to"]
    assert row["all from"] < row["images from"] and row["all to"] > row["images to"]


def test_sizes_are_means_over_the_seeds(tmp_path):
    table = of_seeds(tmp_path, [8, 6], [5, 5])
    sizes = results.by_size(table, "aggregation")
    assert list(sizes) == ["segmentation, multiple scales"]  # the maps have no masks to be scored against
    large = sizes["segmentation, multiple scales"].loc["large (> 30 %)"]
    assert large.to_dict() == pytest.approx({"attention": 70, "max": 50})
    assert sizes["segmentation, multiple scales"].loc["small (< 10 %)"].isna().all()


def test_over_seeds_gives_mean_and_standard_deviation():
    table = pd.DataFrame({"aggregation": ["max", "max", "max", "avg"], "v": [0.1, 0.2, 0.3, 0.5], "seed": [0, 1, 2, 0]})
    shown = results.over_seeds(table, "aggregation", ["v"])
    assert shown.loc["max", "v"] == "20.0 ± 10.0" and shown.loc["avg", "v"] == "50.0"
    assert "no order" in results.seeds_sentence(table.iloc[3:]) and "3 seeds" in results.seeds_sentence(table.iloc[:3])


def test_each_column_of_the_overview_is_of_the_seeds_that_its_rows_share():
    table = pd.DataFrame({"aggregation": ["max", "max", "avg"], "seed": [0, 1, 0], "val_mAP": [0.5, 0.7, 0.4]})
    table = table.assign(**{c: float("nan") for c in results.OVERVIEW if c != "val_mAP"})
    ours = results.overview(table.assign(map_miou=[0.1, 0.3, None]), "aggregation")
    assert ours["mAP"].to_list() == ["50.0", "40.0"]  # not 60.0 ± 14.1, which the other seed has made
    assert ours["maps"].to_list() == ["20.0 ± 14.1", "-"] and set(ours["single scale"]) == {"-"}


def finished(runs, stage, run, metrics, parameters=None, **more):
    return stages.begin(runs, stage, run, parameters or {"seed": 0}).finish(metrics, supervision="pseudo", **more)


@pytest.fixture
def two_networks(tmp_path):
    """Two seeds of one experiment on VGG16, a second network on the first, a control, and the upper bound."""
    runs = [f"attention_1_seed{s}" for s in (0, 1)]
    finished(tmp_path, "05_pseudo_ground_truth", runs[0], {"pseudo_miou_drop": 0.7})
    names = {runs[0]: 0.6, runs[1]: 0.4, f"{runs[0]}@resnet101-aspp": 0.9, f"{runs[0]}+maps": 0.1, "masks_seed0": 0.8}
    for run, miou in names.items():
        resnet = {"backbone": "resnet101", "head": "aspp"}
        network = resnet if "@" in run else {"backbone": "vgg16", "head": "largefov"}
        finished(tmp_path, "06_train_segmentation", run, {"loss": 1}, network)
        each = {"crf": {"background": 1, "aeroplane": miou, "bicycle": None}}
        finished(tmp_path, "07_evaluate", run, {"val_miou_crf": miou, "val_miou_single": None}, per_class=each)
    return results.collect(tmp_path, list(names))


def test_our_rows_stand_beside_those_of_the_paper(two_networks):
    table = two_networks[0].assign(scales="1", val_miou_multi=0.5)
    ours = results.overview(table.iloc[:2], "scales")
    assert ours.loc["1"].to_dict() == {
        "mAP": "-", "maps": "-", "pseudo ground truth": "-", "single scale": "-", "multiple scales": "50.0 ± 0.0",
    }  # fmt: skip
    beside = results.beside_published(ours, 6)
    assert beside.loc["1", ("this run", "multiple scales")] == "50.0 ± 0.0" and len(beside) == 1
    assert (
        beside.loc["1", ("published, VOC 2012 val", "multiple scales")]
        == published.table(6).set_index("scales")["multiple scales"]["1"]
    )


def test_a_second_network_shares_the_pseudo_ground_truth_of_its_run(two_networks):
    table = two_networks[0].set_index("run")
    assert table.loc["attention_1_seed0@resnet101-aspp", ["network", "pseudo_miou_drop", "seed"]].to_list() == [
        "resnet101-aspp", 0.7, 0,
    ]  # fmt: skip
    assert table["network"].value_counts().to_dict() == {"vgg16-largefov": 4, "resnet101-aspp": 1}
    assert table["val_miou_single"].isna().all() and table["val_miou_single"].dtype == float  # no masks: not None


def test_the_rows_of_tables_1_and_2_are_those_of_their_network(two_networks):
    ours = results.of_main(two_networks[0])
    assert list(ours["run"]) == ["attention_1_seed0", "attention_1_seed1", "attention_1_seed0@resnet101-aspp"]
    first = results.own_row(ours, "vgg16-largefov", "crf", 10582)
    assert first[["method", "training", "val"]].to_numpy().tolist() == [["SAFN (this run)", "10,582", "50.0 ± 14.1"]]
    assert results.own_row(ours, "resnet101-aspp", "crf", 5)["val"].to_list() == ["90.0"]
    assert results.own_row(ours, "efficientnet_lite0-aspp", "crf", 5).empty


def test_the_columns_of_table_3_stand_beside_those_of_their_network(two_networks):
    table, ends = two_networks
    columns = results.by_class(results.of_main(table), ends, "crf")
    assert columns.loc["aeroplane"].to_dict() == {"VGG16-val (this run)": 50, "ResNet-val (this run)": 90}
    assert columns.loc["mean"].to_list() == [50, 90] and columns.loc["bicycle"].isna().all()
    beside = results.beside_table3(columns)
    assert [name.replace("published", "p") for name in beside] == [
        "VGG16-val (this run)", "VGG16-val (p)", "VGG16-test (p)", "ResNet-val (this run)", "ResNet-val (p)",
        "ResNet-test (p)",
    ]  # fmt: skip
    assert beside.loc["aeroplane"].to_list() == [50, 83.7, 76.6, 90, 84.5, 84.0]
    other = columns.rename(columns={"VGG16-val (this run)": "efficientnet_lite0-largefov (this run)"})
    assert results.beside_table3(other).columns[0] == "efficientnet_lite0-largefov (this run)"
