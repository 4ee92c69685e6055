from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from safn import records, results
from safn.scoring import save_counts


def counts(diagonal: list[int], images: int = 6) -> np.ndarray:
    """The same counts for each image: class k right ``diagonal[k]`` times of 10, else called background."""
    one = np.zeros((3, 4), np.int64)
    for k, right in enumerate(diagonal):
        one[k, k] += right
        one[k, 0] += 10 - right
    return np.stack([one] * images)


@pytest.fixture
def runs(tmp_path):
    for run, diagonal in (("attention_1-0.5_seed0", [10, 8, 8]), ("max_1-0.5_seed0", [10, 5, 5])):
        for stage, metrics in (
            ("03_train_safn", {"val_mAP": 0.5}),
            ("07_evaluate", {"val_miou_multi": diagonal[1] / 10}),
        ):
            work = records.begin(tmp_path, stage, run, {"seed": 0, "runs": str(tmp_path)})
            if stage == "07_evaluate":
                save_counts(work.folder / "counts_multi.npz", counts(diagonal))
            work.finish(metrics, supervision="pseudo")
    return tmp_path


def test_collect_gives_one_row_a_run_with_the_metrics_of_its_stages(runs):
    table, ends = results.collect(runs, ["attention_1-0.5_seed0", "max_1-0.5_seed0"])
    assert list(table["aggregation"]) == ["attention", "max"] and list(table["scales"]) == ["1-0.5", "1-0.5"]
    assert list(table["val_miou_multi"]) == [0.8, 0.5] and list(table["val_mAP"]) == [0.5, 0.5]
    assert [end.folder.name for end in ends] == ["attention_1-0.5_seed0", "max_1-0.5_seed0"]


def test_differences_of_equal_images_have_no_spread(runs):
    _, ends = results.collect(runs, ["attention_1-0.5_seed0", "max_1-0.5_seed0"])
    row = results.differences(ends, "multi", draws=20).iloc[0]
    # IoU by hand: background 10 / (10 + missed), objects right / 10
    first, second = (np.mean([10 / (10 + 2 * (10 - k)), k / 10, k / 10]) for k in (8, 5))
    assert row["points"] == row["95 % from"] == row["to"] == pytest.approx(100 * (first - second), abs=0.051)


def test_over_seeds_gives_mean_and_standard_deviation():
    table = pd.DataFrame({"aggregation": ["max", "max", "max", "avg"], "v": [0.1, 0.2, 0.3, 0.5], "seed": [0, 1, 2, 0]})
    shown = results.over_seeds(table, "aggregation", ["v"])
    assert shown.loc["max", "v"] == "20.0 ± 10.0" and shown.loc["avg", "v"] == "50.0"
    assert "no order" in results.seeds_sentence(table.iloc[3:]) and "3 seeds" in results.seeds_sentence(table.iloc[:3])


def test_an_export_names_no_folder_of_the_machine(runs, tmp_path):
    path = tmp_path / "out.json"
    results.export(runs, path)
    assert str(runs) not in path.read_text()
    assert len(json.loads(path.read_text())) == 4
