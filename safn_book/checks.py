"""Reference ranges for the metrics of each stage, from recorded runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safn.files import write_json
from safn_book import records
from safn_book.records import Input
from safn_book.run_names import Stage, stage_and_run, without_seeds

PATH = Path(__file__).resolve().parent.parent / "results" / "expected.json"
# Parameters that decide where, how fast or with which random numbers a stage runs, not what it measures.
FREE = {
    *records.OF_THIS_MACHINE,
    "seed",
    "workers",
    "threads",
    "accelerator",
    "crf_processes",
    "examples",
}
# Half the width of a range around the recorded mean: a share in 0..1, unless its name begins with one of these.
MARGIN = 0.03
MARGINS = {
    "map_threshold": 0.15,
    "saliency_threshold": 0.1,
    "weight": 0.15,
    "map_iou": 0.06,
    "pseudo_iou": 0.06,
    "val_iou": 0.06,
}
LOSS_MARGIN = 0.2  # of the mean itself
UNPREDICTABLE = ("seconds", "empty_maps")


def data_name(source: Input) -> str:
    """The data of stage 00: how the emoji scenes were made (their bytes depend on the version of Pillow), or the
    fingerprint of the photographs."""
    p = source.record["parameters"]
    if p["data_folder"]:
        return f"photographs {source.record['data']}"
    limit = f", {p['limit']} of each" if p["limit"] else ""
    return f"emoji: {p['train_images']} + {p['val_images']} of {p['image_size']} pixels, seed {p['seed']}{limit}"


def compare(done: Input, source: Input) -> pd.DataFrame:
    """Each metric of a finished stage beside the range that recorded runs lead one to expect.

    Ranges hold for the same data, stage, configuration and parameters, those of all stages before as well. For others none is
    known.

    Args:
        done: the stage.
        source: stage 00.

    Returns:
        one row a metric: metric, value, low, high, verdict.
    """
    entries = json.loads(PATH.read_text()) if PATH.exists() else []
    identity = _identity(done, data_name(source))
    known = [entry["ranges"] for entry in entries if {k: entry.get(k) for k in identity} == identity]
    ranges = known[0] if known else {}
    rows = []
    for name, value in done.record["metrics"].items():
        low, high = ranges.get(name, (None, None))
        if low is None:
            verdict = "no range recorded" if ranges else "no range recorded for these parameters and data"
        elif value is not None and low <= value <= high:
            verdict = "as expected"
        else:
            verdict = f"{done.record['stage']} departs here"
        rows.append({"metric": name, "value": value, "low": low, "high": high, "verdict": verdict})
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "verdict"])


def record_ranges(runs: Iterable[Path | str], path: Path = PATH) -> int:
    """Write the ranges of all complete stages below ``runs/<profile>`` folders into ``path``, beside those of other
    data that it holds. Runs that differ in the seed alone share one. Returns how many were written."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for folder in runs:
        source = records.read(folder, Stage.DATA)
        if not source:
            continue
        data = data_name(source)
        for stage in records.read_all(folder):
            identity = json.dumps(_identity(stage, data))
            groups.setdefault(identity, []).append(stage.record["metrics"])
    entries = []
    for identity, metrics in groups.items():
        entries.append({**json.loads(identity), "recorded": len(metrics), "ranges": _ranges(metrics)})
    before = json.loads(path.read_text()) if path.exists() else []
    measured = {entry["data"] for entry in entries}
    write_json(path, [entry for entry in before if entry["data"] not in measured] + entries)
    return len(entries)


def unlike(
    grouped: Iterable[tuple[Any, dict[str, Any]]], varied: Iterable[str] = ("aggregation", "scales")
) -> list[str]:
    """Where the records of one group differ in a setting that decides what is measured, other than ``varied``: a line for each
    record that differs from the first, with both values."""
    first: dict[Any, dict[str, Any]] = {}
    problems = []
    for group, record in grouped:
        given = {name: value for name, value in _deciding(record).items() if name not in {"run", *varied}}
        known = first.setdefault(group, given)
        differ = [f"{k} {known[k]} and {v}" for k, v in given.items() if k in known and known[k] != v]
        if differ:
            problems.append(f"{record['stage']}/{record['run']}: {', '.join(differ)}")
    return problems


# --- what two runs must share to be measured against each other --------------------------------------------------------


def _identity(stage: Input, data: str) -> dict[str, Any]:
    record = stage.record
    identity = {"stage": record["stage"], "run": record["run"], "data": data, "parameters": _deciding(record)}
    return json.loads(_seedless({**identity, "before": _before(stage)}))


def _before(stage: Input) -> str:
    """A fingerprint of the parameters of all stages that a run rests on, stage 00 excepted, which ``data_name`` names."""
    rests_on: dict[str, dict[str, Any]] = {}
    names = list(stage.record["inputs"])
    while names:
        name = names.pop()
        earlier = records.read(stage.folder.parents[1], *stage_and_run(name))
        if earlier and name not in rests_on and earlier.record["stage"] != Stage.DATA:
            rests_on[name] = _deciding(earlier.record)
            names += earlier.record["inputs"]
    return hashlib.sha256(_seedless(rests_on).encode()).hexdigest()[:8]


def _deciding(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record["parameters"].items() if name not in FREE}


def _seedless(value: dict[str, Any]) -> str:
    return without_seeds(json.dumps(value, sort_keys=True))


def _ranges(metrics: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """The range of each metric over runs that differ in the seed alone."""
    values: dict[str, list[float]] = {}
    for name, value in (item for one in metrics for item in one.items()):
        if value is not None and not name.startswith(UNPREDICTABLE):
            values.setdefault(name, []).append(value)
    return {name: _range(name, found) for name, found in values.items()}


def _range(name: str, values: list[float]) -> tuple[float, float]:
    """Counts must be equal; a loss may differ by a fifth; a share by its margin, or three standard deviations."""
    if all(isinstance(value, int) for value in values):
        return min(values), max(values)
    mean = float(np.mean(values))
    margin = LOSS_MARGIN * mean if name == "loss" else _margin(name)
    if len(values) > 2:
        margin = max(margin, 3 * float(np.std(values, ddof=1)))
    return round(mean - margin, 4), round(mean + margin, 4)


def _margin(name: str) -> float:
    return next((margin for begin, margin in MARGINS.items() if name.startswith(begin)), MARGIN)
