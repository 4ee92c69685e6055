"""The page on what the attention does."""

from __future__ import annotations

import json

import exported
import pytest

from safn_book import evidence, recorded


@pytest.fixture
def folder(tmp_path):
    exported.write(tmp_path)
    return tmp_path


def test_the_evidence_has_means_differences_and_sizes(folder):
    text = evidence.sections("photos", folder)
    assert "| attention, 1 / 0.5 | 80.0 ± 0.0 | 42.0 ± 2.0 |" in text
    assert "over 3 seeds, percent: classifier" in text  # the control has no classifier of its own
    assert "One seed, percent: segmentation" in text  # the others have not been evaluated
    assert "| attention, 1 / 0.5 | 52.0 ± 2.0 |" in text and "official train list" in text
    assert "| attention, 1 / 0.5 | 50.0 |" in text and "| attention, 1 / 0.5+maps | - |" not in text
    assert "| measure | holds | holds over seeds, images not resampled | fewer than three seeds |" in text
    assert "| maps | 1 / 0.5 better than a by 2.0 | - | a against b (+0.26) |" in text
    assert "| pseudo | - | 1 / 0.5 better than a by 2.0 | - |" in text
    assert "intervals over images, or images and seeds, or seeds alone, where a run did not keep the counts" in text
    assert "| maps | a against b | +0.26 | +0.3 | -0.04 to +0.56 | - | - |" in text
    assert "| maps | a against 1 / 0.5 | -2.0 | +0.3 | -0.04 to +0.56 | -3.0 to -1.0 | - |" in text
    assert "| pseudo | a against 1 / 0.5 | -2.0 | +0.3 | - | - | -3.0 to -1.0 |" in text
    assert "|  |  | small (< 10 %) | large (> 30 %) |" in text
    assert "| maps | attention, 1 / 0.5 | 22.0 ± 2.0 | 62.0 ± 2.0 |" in text
    assert "medians and quartiles, one line a network; 5 of 9 training images, evenly spaced" in text
    assert "Rank correlation" not in text
    assert evidence.sections("none", folder) == "Nothing is recorded yet.\n"


def test_differences_without_counts_are_of_the_seeds(folder):
    path = folder / "photos.json"
    records = json.loads(path.read_text())
    for gap in (gap for r in records for gap in r.get("differences", [])):
        gap |= {"images from": None, "images to": None}
    path.write_text(json.dumps(records))
    text = evidence.sections("photos", folder)
    assert "intervals over seeds alone, where a run did not keep the counts of its images" in text
    assert "| measure | difference | points | each seed | seeds |" in text and "images and seeds" not in text
    for gap in (gap for r in records for gap in r.get("differences", [])):
        gap |= {"all from": None, "all to": None}
    path.write_text(json.dumps(records))
    assert "| measure | difference | points | each seed |\n" in evidence.sections("photos", folder)


def test_a_row_of_fewer_seeds_is_told(folder):
    path = folder / "photos.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([r for r in records if (r["stage"], r["run"][-1]) != ("03_train_safn", "2")]))
    other = exported.record(
        "03_train_safn", "max_1-0.5_seed0", {"val_mAP": 0.7}, {"scales": [1, 0.5], "backbone": "lite"}
    )
    text = evidence.sections("photos", folder)
    assert "over 3 seeds (of some fewer; without ±: of one), percent: classifier" in text  # mAP of two, maps of three
    path.write_text(json.dumps([*records, other]))
    assert "over 3 seeds (without ±: one seed), percent: classifier" in evidence.sections("photos", folder)


def test_of_no_run_there_is_no_picture(folder):
    path = folder / "photos.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    evidence.draw(path)
    assert evidence.pictures(folder) == {} and "{figure}" not in evidence.sections("photos", folder)
    assert not (folder / "photos.svg").exists()


def test_classes_are_means_over_the_seeds_in_columns_of_configurations(folder):
    path = folder / "photos.json"
    records = json.loads(path.read_text())
    of = {"attention_1-0.5_seed0": 0.5, "attention_1-0.5_seed1": 0.7, "max_1-0.5_seed0": None}
    for run, share in of.items():
        measured = {"precision": {"cat": share, "dog": 1}, "recall": {"cat": 0.25, "dog": share}}
        records.append(exported.record("05_pseudo_ground_truth", run, {}) | {"per_class": measured})
    path.write_text(json.dumps(records))
    text = evidence.sections("photos", folder)
    assert "|  | attention, 1 / 0.5 | max, 1 / 0.5 |" in text
    assert "| cat | 60.0 / 25.0 | - / 25.0 |" in text and "| dog | 100.0 / 60.0 | 100.0 / - |" in text


def test_data_without_the_official_list_have_no_table_of_it(folder):
    path = folder / "photos.json"
    assert "official train list" in evidence.sections("photos", folder)
    records = json.loads(path.read_text())
    for metrics in (r["metrics"] for r in records if "map_miou" in r["metrics"]):
        metrics["map_miou_train_list"] = metrics["map_miou"]  # as where all images are scored
    path.write_text(json.dumps(records))
    assert "official train list" not in evidence.sections("photos", folder)


def test_the_figure_of_an_exported_file_stands_beside_it_the_same_each_time(folder):
    evidence.draw(folder / "photos.json")
    drawn = (folder / "photos.svg").read_bytes()
    evidence.draw(folder / "photos.json")
    assert (folder / "photos.svg").read_bytes() == drawn and drawn.startswith(b"<?xml")
    assert set(evidence.pictures(folder)) == {"seeds-photos", "weights-photos", "differences-photos", "sizes-photos"}
    assert all(f"generated/{name}.svg" in evidence.sections("photos", folder) for name in evidence.pictures(folder))
    maps = evidence.of_seeds(recorded.exported(folder)["photos"]).axes[0]
    assert [len(line.get_xdata()) for line in maps.lines] == [3, 2]  # three dots and their mean; no control
