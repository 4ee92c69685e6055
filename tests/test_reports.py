"""Report notebooks show the numbers of ``results/``, say what they allow, and run again only where something has changed."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safn_book import build, reports
from safn_book.tables import versus

RESULTS = reports.ROOT / "results"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of one run, with the executed reports."""
    runs = tmp_path_factory.mktemp("reports") / "tiny"
    record = {"stage": "00_data", "run": "default", "fingerprint": "ffffffffff", "inputs": {}, "seconds": 120}
    (runs / "00_data" / "default").mkdir(parents=True)
    (runs / "00_data" / "default" / "record.json").write_text(json.dumps(record))
    executed = reports.execute(runs, [("00_data", "default")])
    assert [line for path in executed.values() for line in build.notebook_problems(path)] == []
    return runs


def glued(runs: Path, page: str) -> dict[str, str]:
    """The texts that an executed notebook glues, by name."""
    notebook = json.loads((runs / "executed" / "reports" / f"{page}.ipynb").read_text())
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    found = {}
    for output in outputs:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name:
            found[name] = "".join(next(v for k, v in output["data"].items() if k.endswith("text/plain"))).strip("'")
    return found


def records_of(name: str) -> dict[tuple[str, str], dict]:
    return {(r["stage"], r["run"]): r for r in json.loads((RESULTS / f"{name}.json").read_text())}


@pytest.mark.parametrize("page, name", [("12_what_we_learned", "evidence"), ("emoji_results", "evidence-emoji")])
def test_conclusions_follow_from_the_intervals(runs, page, name):
    records, texts, main = records_of(name), glued(runs, page), "attention_1-0.75-0.5"
    rows = [row for stage in ("08_aggregation", "09_scales") for row in records[stage, "default"]["differences"]]
    kinds = {"are significantly better": set(), "are significantly worse": set(), "do not differ significantly": set()}
    for row in (row for row in rows if row["measure"] == "maps" and main in (row["first"], row["second"])):
        sign = 1 if row["first"] == main else -1
        low, high = sorted((sign * row["all_from"], sign * row["all_to"]))
        other = row["second"] if sign == 1 else row["first"]
        maps = [
            [records["04_localization_maps", f"{c}_seed{s}"]["metrics"]["map_miou"] for s in range(3)]
            for c in (main, other)
        ]
        assert sign * row["points"] == pytest.approx(100 * np.subtract(*maps).mean())
        kind = (
            "do not differ"
            if low <= 0 <= high
            else "are significantly better"
            if low > 0
            else "are significantly worse"
        )
        next(names for words, names in kinds.items() if words.startswith(kind)).add(versus(main, other)[1])
    for part in texts["maps"].split(", and "):
        (words,) = [words for words in kinds if words in part]
        named = re.split(", | and ", part.partition("those of ")[2].rstrip("."))
        assert set(named) == kinds.pop(words)
    assert not any(kinds.values())


@pytest.mark.parametrize("page, name", [("12_what_we_learned", "evidence"), ("emoji_results", "evidence-emoji")])
def test_weights_and_saliency_are_said_with_the_recorded_numbers(runs, page, name):
    records, texts = records_of(name), glued(runs, page)
    changes = [r["difference"] for r in records["09_scales", "default"]["replaced"] if r["weights"] == "their mean"]
    assert f"by {np.mean(changes):.2f} points".replace("-", "−") in texts["weights"]
    scores = {
        control: records["05_pseudo_ground_truth", f"attention_1-0.75-0.5_seed0{control}"]["metrics"][
            "pseudo_miou_background"
        ]
        for control in ("", "+saliency", "+maps")
    }
    for control in ("+saliency", "+maps"):
        assert f"{100 * (scores[control] - scores['']):.1f} points".replace("-", "−") in texts["saliency"]


@pytest.mark.parametrize("page, name", [("12_what_we_learned", "evidence"), ("emoji_results", "evidence-emoji")])
def test_files_to_download_hold_the_recorded_numbers(runs, page, name):
    records, text = records_of(name), (runs / "executed" / "reports" / f"{page}.ipynb").read_text()
    files = dict(re.findall(r'download=\\"([\w.]+)\\" href=\\"data:text/csv;base64,([\w+/=]+)', text))
    tables = {name: pd.read_csv(io.BytesIO(base64.b64decode(data))) for name, data in files.items()}
    table = tables["runs.csv"].set_index("run")
    maps = {run: r["metrics"]["map_miou"] for (stage, run), r in records.items() if stage == "04_localization_maps"}
    for run, value in maps.items():
        assert table.loc[run, "map_miou"] == pytest.approx(value)
    assert len(tables["replaced_weights.csv"]) == len(records["09_scales", "default"]["replaced"])
    assert {"by_class.csv", "by_object_size.csv", "differences.csv", "thresholds.csv"} <= set(tables)


def test_attention_speed_and_records_show_recorded_numbers(runs):
    rows = pd.read_csv(RESULTS / "attention.csv").set_index(["images", "change"])
    texts = glued(runs, "13_attention")
    assert float(texts["epochs_12_weight"]) == rows.loc[(200, "epochs = 12"), "weight 1"]
    assert float(texts["crop_320_spread"]) == rows.loc[(200, "crop = 320"), "spread 1"]
    assert float(texts["sgd_factor_10_spread"]) == rows.loc[240, "spread 1"].item()
    hours = json.loads((RESULTS / "gpu.json").read_text())["hours"]["in the loop of training"]["16-mixed"]
    assert glued(runs, "14_speed")["profile_16-mixed_loop"] == f"{hours['whole profile']:.0f}"
    texts = glued(runs, "15_records")
    best = records_of("voc-subset")["07_evaluate", "attention_1-0.75-0.5_seed0"]["metrics"]["val_miou_crf"]
    assert float(texts["best"]) == pytest.approx(100 * best)
    gain = {row["what"]: row["points"] for row in json.loads((RESULTS / "choices.json").read_text())["rows"]}
    assert float(texts["six_views_drop_points"]) == gain["six views, drop"]
    assert "the profile tiny" in texts["this_copy"]
    assert re.findall(r"\d+", texts["this_copy"]) == ["1", "2"]  # runs, and minutes of all of them


def test_report_tables_hold_no_raw_values(runs):
    without = set()
    for page in reports.REPORTS:
        notebook = json.loads((runs / "executed" / "reports" / f"{Path(page).name}.ipynb").read_text())
        tables = [
            str(o["data"]["text/html"])
            for c in notebook["cells"]
            for o in c.get("outputs", [])
            if "text/html" in o.get("data", {})
        ]
        cells = re.findall(r"<td[^>]*>(.*?)</td>", "".join(tables).replace("\\n", ""))
        assert not [cell for cell in cells if re.fullmatch(r"\s*(nan|-?inf|None|np\..*)\s*", cell)]
        without |= set() if cells else {page}
    assert without <= {"notebooks/16_safn_in_25_lines", "notebooks/17_try_your_photograph"}  # these show pictures


def test_reports_run_again_only_where_they_or_what_they_read_have_changed(runs, monkeypatch):
    report = {"notebooks/14_speed": reports.REPORTS["notebooks/14_speed"]}
    monkeypatch.setattr(reports, "REPORTS", report)
    (executed,) = reports.execute(runs).values()
    made = executed.stat().st_mtime_ns
    reports.execute(runs)
    assert executed.stat().st_mtime_ns == made
    monkeypatch.setattr(reports, "REPORTS", {"notebooks/14_speed": ("14_speed", {"gpu": "none.json"})})
    reports.execute(runs)
    assert executed.stat().st_mtime_ns > made


def test_a_report_runs_again_if_a_network_of_the_package_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "ROOT", tmp_path)
    weights = tmp_path / "safn" / "weights" / "voc-safn" / "network.safetensors"
    weights.parent.mkdir(parents=True)
    notebook = tmp_path / "16.ipynb"
    states = set()
    for content in (b"old", b"new"):
        weights.write_bytes(content)
        states.add(reports._state(notebook, {}))
    assert len(states) == 2
    weights.with_suffix(".pyc").write_bytes(b"compiled")
    assert reports._state(notebook, {}) in states
