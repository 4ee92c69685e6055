from __future__ import annotations

import json
import re

import pytest

from benchmarks.expected import record_ranges
from safn_book import checks, stages
from safn_book.run_names import RunName

DEFAULTS = {"data_folder": "", "train_images": 20, "val_images": 20, "image_size": 64, "limit": 0, "seed": 0}


def made(runs, mean_precision: float, seed: int = 0, epochs: int = 2):
    """Stage 00 and stage 03 of a run with one metric of each kind."""
    source = stages.open_stage({"runs": str(runs), **DEFAULTS}, "00_data", "default").finish(
        {"train_images": 20}, data="f00"
    )
    name = str(RunName("attention", (1, 0.5), seed))
    work = stages.open_stage({"runs": str(runs), "seed": seed, "epochs": epochs}, "03_train_safn", name)
    metrics = {"val_mAP": mean_precision, "loss": 0.2, "weight 1": 0.5, "seconds_single": 3.0}
    return source, work.finish(metrics)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "PATH", tmp_path / "expected.json")
    return tmp_path / "expected.json"


def verdicts(done, source) -> dict[str, str]:
    table = checks.verdicts(done, source)
    return dict(zip(table["metric"], table["verdict"]))


def test_ranges_hold_for_the_same_parameters_whatever_the_seed_and_the_folder(tmp_path, path):
    source, _ = made(tmp_path / "a", 0.7)
    assert record_ranges([tmp_path / "a"], path) == 2
    inside = made(tmp_path / "b", 0.71, seed=4)
    assert verdicts(*inside[::-1]) == {
        "val_mAP": "as expected",
        "loss": "as expected",
        "weight 1": "as expected",
        "seconds_single": "no range",
    }
    outside = made(tmp_path / "c", 0.66)
    assert verdicts(*outside[::-1])["val_mAP"] == "outside the range"
    other = made(tmp_path / "d", 0.66, epochs=9)
    assert set(verdicts(*other[::-1]).values()) == {"no range"}
    assert verdicts(source, source) == {"train_images": "as expected"}


def test_the_range_widens_with_the_spread_between_seeds(tmp_path, path):
    for seed, value in enumerate((0.6, 0.7, 0.8)):
        made(tmp_path / str(seed), value, seed)
    record_ranges([tmp_path / str(seed) for seed in range(3)], path)
    entry = next(e for e in json.loads(path.read_text()) if e["stage"] == "03_train_safn")
    # the standard deviation of 0.6, 0.7, 0.8 is 0.1; the loss never differs: a fifth; a mean weight: 0.15
    assert entry["recorded"] == 3
    assert entry["ranges"] == {"val_mAP": [0.4, 1.0], "loss": [0.16, 0.24], "weight 1": [0.35, 0.65]}


def test_ranges_are_of_the_settings_of_the_stages_before_too(tmp_path, path):
    def maps(runs, miou, **given):
        source, network = made(runs, 0.7, **given)
        work = stages.open_stage(
            {"runs": str(runs), "size": 9}, "04_localization_maps", network.record["run"], [source, network]
        )
        return work.finish({"map_miou": miou, "seen": 1} if miou > 0.4 else {"map_miou": miou}), source

    maps(tmp_path / "a", 0.4)
    maps(tmp_path / "a", 0.41, seed=1)
    record_ranges([tmp_path / "a"], path)
    assert verdicts(*maps(tmp_path / "b", 0.44, seed=2))["map_miou"] == "outside the range"
    assert verdicts(*maps(tmp_path / "c", 0.43, seed=5)) == {"map_miou": "as expected", "seen": "as expected"}
    unknown = set(verdicts(*maps(tmp_path / "d", 0.44, epochs=9)).values())
    assert unknown == {"no range"}


def test_ranges_of_other_data_stay(tmp_path, path):
    path.write_text(json.dumps([{"data": "photographs", "stage": "03_train_safn"}]))
    made(tmp_path / "a", 0.7)
    record_ranges([tmp_path / "a"], path)
    record_ranges([tmp_path / "a"], path)
    assert [e["data"] for e in json.loads(path.read_text())].count("photographs") == 1
    assert len(json.loads(path.read_text())) == 3


def test_photographs_are_known_by_their_fingerprint(tmp_path):
    work = stages.open_stage({**DEFAULTS, "runs": str(tmp_path), "data_folder": "photos"}, "00_data", "default")
    assert checks.data_name(work.finish({}, data="f00")) == "photographs f00"


def test_without_a_file_nothing_is_expected(tmp_path, path):
    source, done = made(tmp_path, 0.7)
    assert set(verdicts(done, source).values()) == {"no range"}


def cells(styled) -> list[list[str]]:
    """The texts of a shown table, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", styled.to_html(), re.S)
    return [found for row in rows if (found := re.findall(r"<td[^>]*>(.*?)</td>", row))]


def test_a_check_is_shown_in_words_and_percent_without_impossible_values(tmp_path, path):
    source, _ = made(tmp_path / "a", 0.99)
    record_ranges([tmp_path / "a"], path)
    _, done = made(tmp_path / "b", 0.7)
    assert cells(checks.compare(done, source)) == [
        ["mAP", "70.0\xa0%", "96.0\xa0% to 100.0\xa0%", "outside the range"],
        ["loss of the last epoch", "0.200", "0.160 to 0.240", "as expected"],
        ["weight of scale 1", "0.50", "0.35 to 0.65", "as expected"],
        ["time of the test, single", "3.0 s", "–", "no range"],
    ]


def test_a_check_shows_scores_of_the_official_list_only_where_they_differ(tmp_path, path):
    source, _ = made(tmp_path, 0.7)
    work = stages.open_stage({"runs": str(tmp_path)}, "04_localization_maps", "attention_1_seed0", [source])
    scores = {"map_miou": 0.4, "map_miou_train_list": 0.4, "ignored_share": 0.1, "ignored_share_train_list": 0.2}
    shown = checks.compare(work.finish(scores), source)
    assert [row[0] for row in cells(shown)] == [
        "localization maps, mIoU",
        "ignored pixels",
        "ignored pixels, official train list",
    ]
    assert "row_heading" not in shown.to_html()  # no numbers before the rows


def test_without_a_recorded_run_a_check_shows_the_values_alone(tmp_path, path):
    source, done = made(tmp_path, 0.7)
    assert [len(row) for row in cells(checks.compare(done, source))] == [2, 2, 2, 2]


def test_one_score_of_several_runs_is_checked_for_each(tmp_path, path):
    source, _ = made(tmp_path, 0.7)
    runs = {"attention_1-0.5_seed0": 0.5, "max_1-0.5_seed0": 0.48}
    for run, score in runs.items():
        work = stages.open_stage({**DEFAULTS, "runs": str(tmp_path), "run": run}, "07_evaluate", run, [source])
        work.finish({"val_miou_multi": score, "val_miou_single": 0.1})
    record_ranges([tmp_path], path)
    shown = cells(checks.compare_runs(tmp_path, [*runs, "masks_seed0"], source))  # the last has not run
    assert [row[1] for row in shown] == ["50.0\xa0%", "48.0\xa0%"]
    assert [row[3] for row in shown] == ["as expected"] * 2 and "SAFN" in shown[0][0] and "max" in shown[1][0]
    assert checks.compare_runs(tmp_path, ["masks_seed0"], source) is None
