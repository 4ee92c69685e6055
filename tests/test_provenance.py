"""Records are found and summed up."""

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


def test_only_files_of_records_are_experiments(tmp_path):
    (tmp_path / "photos.json").write_text(json.dumps([record("00_data", "default")]))
    (tmp_path / "bench.json").write_text('{"rows": []}')
    (tmp_path / "expected.json").write_text('[{"stage": "03_train_safn", "run": "default", "ranges": {}}]')
    assert list(provenance.experiments(tmp_path)) == ["photos"]


def test_values_of_records_and_of_their_parameters_are_listed_once():
    records = [record("03_train_safn", f"max_1_seed{s}", parameters={"crop": 256, "epochs": 3 + s}) for s in (0, 1)]
    assert [provenance.values(records, name) for name in ("crop", "epochs", "machine", "none")] == [
        "256",
        "3, 4",
        "one",
        "–",
    ]
