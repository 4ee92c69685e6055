"""Records are found, summed up and followed back to their data."""

from __future__ import annotations

import json

from safn_book import provenance


def record(stage, run, **values):
    return {
        "stage": stage,
        "run": run,
        "fingerprint": f"{stage[:2]}aaaaaaaa",
        "inputs": {},
        "seconds": 30,
        "peak_megabytes": 1234,
        "metrics": {},
        "parameters": {},
        "machine": "one",
        "device": "cpu",
        "commit": "abc",
        **values,
    }


def write(folder, *records):
    for values in records:
        path = folder / values["stage"] / values["run"] / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))


def test_only_files_of_records_are_experiments(tmp_path):
    (tmp_path / "photos.json").write_text(json.dumps([record("00_data", "default")]))
    (tmp_path / "bench.json").write_text('{"rows": []}')
    (tmp_path / "expected.json").write_text('[{"stage": "03_train_safn", "run": "default", "ranges": {}}]')
    assert list(provenance.experiments(tmp_path)) == ["photos"]


def test_a_summary_lists_what_an_experiment_was_measured_with():
    records = [record("00_data", "default", metrics={"train_images": 9.0, "val_images": 4.0})]
    for seed in (0, 1):
        parameters = {"backbone": "vgg16", "seed": seed}
        records.append(
            record("03_train_safn", f"max_1-0.5_seed{seed}", parameters=parameters, machine=f"machine {seed}")
        )
    found = provenance.summary({(r["stage"], r["run"]): r for r in records})
    assert (found["configurations"], found["seeds"], found["training images"]) == (1, 2, 9)
    assert (found["backbone"], found["saliency"], found["machine"]) == ("vgg16", "–", "machine 0, machine 1")


def test_settings_are_listed_once_with_all_their_values():
    records = [
        record("03_train_safn", f"max_1_seed{s}", parameters={"crop": 256, "epochs": 3 + s, "seed": s}) for s in (0, 1)
    ]
    table = provenance.settings({(r["stage"], r["run"]): r for r in records})
    assert dict(zip(table["setting"], table["value"])) == {"crop": "256", "epochs": "3, 4"}


def test_each_run_is_traced_to_its_data_and_environments_are_told_apart(tmp_path):
    write(
        tmp_path,
        record("00_data", "default", versions={"torch": "2.9", "timm": None}),
        record("03_train_safn", "a", versions={"torch": "2.9"}, inputs={"00_data/default": "dddddddddd"}),
        record("04_localization_maps", "a", device="gpu", inputs={"03_train_safn/a": "03aaaaaaaa"}),
    )
    records = provenance.load_folder(tmp_path)
    costs = provenance.costs(records)
    assert list(costs["data"]) == ["00aaaaaa", "dddddddd", "dddddddd"] and costs["seconds"].sum() == 90
    environments = provenance.environments(records)
    assert environments.shape[1] == 2 and list(environments.loc["device"]) == ["cpu", "gpu"]
    assert environments.loc["torch", "environment 1"] == "2.9" and "timm" not in environments.index


def test_runs_that_do_not_belong_to_the_book_are_left_out(tmp_path):
    write(tmp_path, record("03_train_safn", "a"), record("03_train_safn", "old"))
    assert list(provenance.load_folder(tmp_path, ["03_train_safn/a"])) == [("03_train_safn", "a")]
    assert len(provenance.load_folder(tmp_path)) == 2 and provenance.load_folder(tmp_path / "none") == {}
