from __future__ import annotations

import json

import pytest

from benchmarks.migrate_results import compare, migrate

RUNS = ["attention_1-0.5_seed0", "max_1-0.5_seed0"]


@pytest.fixture
def old():
    row = {"measure": "maps", "difference": "attention - max", "points": 12.5, "each seed": "+12.5"}
    row |= {"images from": 10.0, "images to": 15.0, "all from": None, "all to": None}
    row["what can be told"] = "nothing: fewer than three seeds"
    chapter = {"stage": "08_aggregation", "run": "default", "parameters": {"experiments": RUNS}, "differences": [row]}
    chapter["by_size"] = {"maps": {"attention": {"small": 20.5}, "max": {"small": None}}}
    metrics = {RUNS[0]: 0.5, RUNS[1]: 0.375}
    stages = [{"stage": "04_localization_maps", "run": run, "metrics": {"map_miou": metrics[run]}} for run in RUNS]
    return [*stages, chapter]


def test_rows_get_the_names_of_this_version(old):
    chapter = migrate(old)[-1]
    assert chapter["differences"] == [
        {
            "measure": "maps",
            "first": "attention_1-0.5",
            "second": "max_1-0.5",
            "points": 12.5,
            "seeds": [12.5],
            "images_from": 10.0,
            "images_to": 15.0,
            "all_from": None,
            "all_to": None,
            "verdict": "too_few_seeds",
        }
    ]
    assert chapter["by_size"] == {"maps": {"attention_1-0.5": {"small": 20.5}, "max_1-0.5": {"small": None}}}
    assert migrate(migrate(old)[:2] + [{**chapter, "by_size": {}}])[-1]["differences"] == chapter["differences"]


def test_the_comparison_finds_each_number_that_changed(old):
    new = migrate(old)
    assert dict(compare(old, new)[0]) == {"equal": 9, "printed": 1, "different": 0, "missing": 0, "added": 0}
    spoilt = json.loads(json.dumps(new))
    row = spoilt[-1]["differences"][0]
    row["images_to"], row["seeds"], row["extra"] = 15.000001, [12.6], 1
    del row["all_to"]
    counts, lines = compare(old, spoilt)
    assert dict(counts) == {"equal": 7, "printed": 0, "different": 2, "missing": 1, "added": 1} and len(lines) == 4


def test_seeds_that_the_metrics_do_not_give_are_refused(old):
    old[-1]["differences"][0]["each seed"] = "+12.6"
    with pytest.raises(ValueError, match="the metrics give"):
        migrate(old)
