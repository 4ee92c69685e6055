"""The measurement under kills: what it compares, and that it kills, goes on and ends."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmarks import kills


def test_every_metric_that_differs_is_named_and_measured_times_are_not():
    same = {"metrics": {"miou": 0.5, "seconds_crf": 1}, "per_class": {"crf": {"cat": 0.25}}, "seconds": 7}
    other = {"metrics": {"miou": 0.5, "seconds_crf": 2}, "per_class": {"crf": {"cat": 0.25}}, "seconds": 8}
    wrong = {"metrics": {"miou": 0.5000001}, "per_class": {"crf": {"cat": 0.2}}}
    assert kills.differences({"07/a": same}, {"07/a": other}) == []
    assert kills.differences({"07/a": same, "08/b": same}, {"07/a": wrong}) == [
        "08/b: only in one run",
        "07/a: metrics miou is 0.5000001, undisturbed 0.5",
        "07/a: per_class crf is {'cat': 0.2}, undisturbed {'cat': 0.25}",
    ]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """In the place of `make book`: four stages of 0.15 s; what is finished is not done again."""
    code = """
import pathlib, sys, time
runs = pathlib.Path(sys.argv[1])
for k in range(4):
    record = runs / f"0{k}_stage" / "default" / "record.json"
    if not record.exists():
        partial = runs / f"0{k}_stage" / "default.partial"
        partial.mkdir(parents=True, exist_ok=True)
        time.sleep(0.15)
        (partial / "record.json").write_text('{"metrics": {"value": %d}}' % k)
        partial.rename(record.parent)
(runs / "book.built").touch()
"""

    def start(profile, runs, options):
        return subprocess.Popen([sys.executable, "-c", code, runs], start_new_session=True)

    monkeypatch.setattr(kills, "start", start)
    return tmp_path


def test_it_kills_so_often_and_every_run_comes_to_its_end(toy):
    found = kills.killed(toy, "toy", [], 5, 0.25, time.time() + 60)
    assert len(found) == 5 and all(kill["at work"] for kill in found)
    runs = sorted(toy.glob("killed-?"))
    assert len(runs) == found[-1]["run"] or len(runs) == found[-1]["run"] + 1
    for one in runs:
        assert (one / "book.built").exists() and len(kills.records(one)) == 4
    assert kills.killed(toy, "toy", [], 5, 0.25, time.time() + 60) == found  # done: nothing runs again


def test_its_time_may_end_and_the_same_command_goes_on(toy):
    with pytest.raises(SystemExit, match="0 kills so far: the same command goes on"):
        kills.killed(toy, "toy", [], 1, 0.1, time.time())
    assert len(kills.killed(toy, "toy", [], 1, 0.1, time.time() + 60)) == 1
