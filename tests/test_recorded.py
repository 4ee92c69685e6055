"""Tables and pages of the recorded runs."""

from __future__ import annotations

import exported
import pytest
from exported import RUN

from safn_book import recorded


@pytest.fixture
def folder(tmp_path):
    exported.write(tmp_path)
    return tmp_path


def test_only_exported_files_are_read(folder, tmp_path):
    assert list(recorded.exported(folder)) == ["photos"]
    (tmp_path / "none").mkdir()
    assert recorded.overview(tmp_path / "none") == "No run is recorded yet.\n" and not recorded.weights(
        tmp_path / "none"
    )


def test_what_was_measured_explains_the_controls_that_there_are(folder):
    said = recorded.measured_with(recorded.exported(folder)["photos"])
    assert said.count("`+maps` learns") == 1 and "`+saliency`" not in said and "`masks`" not in said


def test_a_control_has_the_classifier_and_the_maps_of_its_run(folder):
    runs = recorded.runs_of(recorded.exported(folder)["photos"]).set_index("run")
    assert runs.loc[f"{RUN}+maps", ["val_mAP", "map_miou", "seed"]].to_list() == [0.8, 0.40, 0]
    assert runs["configuration"].to_list() == [
        "attention_1-0.5",
        "attention_1-0.5",
        "attention_1-0.5",
        "attention_1-0.5+maps",
    ]


def test_each_row_leads_to_the_record_of_its_run(folder, tmp_path):
    text = recorded.overview(folder)
    link = recorded.label("photos", RUN)
    assert f"| [{RUN}](#{link}) | 80.0 | 40.0 | - / - / - | - | - / - / 50.0 |" in text
    assert "9 training and 4 validation images (fingerprint `d1`)" in text and "saliency: u2netp" in text
    recorded.write_pages(tmp_path / "pages", folder)
    page = (tmp_path / "pages" / "photos.md").read_text()
    assert f"({link})=\n## {RUN}" in page and "commit `abc`, 61 s, fingerprint `f00`, 2026" in page
    assert "- By class (%), multi / crf: cat 20.0 / 25.1, dog 30.0 / -\n" in page
    assert "learning_rate 0.005" in page and "- Numbers: map_miou 0.4, " in page and "- Numbers: val_miou_crf -" in page


def test_learnt_weights_come_from_the_exported_runs(folder):
    row = f"| photos | `{RUN}` | 320 | 0.002, sgd | 0.900 / 0.100 | 0.050 / 0.050 |"
    assert row in recorded.weights(folder)


def test_the_main_experiment_comes_first_and_controls_and_the_upper_bound_last():
    runs = ["max_1-0.5_seed0", "attention_1-0.5_seed10", "attention_1-0.5_seed0", "attention_1_seed0", "masks_seed0"]
    records = {("07_evaluate", run): {"metrics": {}} for run in [f"{runs[1]}+maps", *runs]}
    assert recorded.runs_of(records)["run"].to_list() == [
        runs[2],
        runs[1],
        runs[0],
        runs[3],
        "masks_seed0",
        f"{runs[1]}+maps",
    ]


def test_a_run_from_a_fresh_clone_repeated_what_was_recorded():
    files = recorded.exported()
    again = {key: r for key, r in files["evidence-rerun"].items() if key[1] == "attention_1_seed0"}
    assert [stage for stage, _ in sorted(again)] == list(recorded.CHAIN[:3])
    for key, record in again.items():
        first = files["evidence"][key]
        assert record["metrics"] == first["metrics"] and record["fingerprint"] == first["fingerprint"]
        assert record["parameters"] == first["parameters"] and record["commit"] != first["commit"]
