"""What recorded runs lead one to expect of each stage, and which stage departs from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safn.files import write_json
from safn_book.stages import RECORD, Input

PATH = Path(__file__).resolve().parent.parent / "results" / "expected.json"
# parameters that change where, how fast or with which random numbers a stage runs, not what it measures
FREE = {
    "runs", "data_folder", "saliency_folder", "seed", "workers", "threads", "accelerator", "crf_processes", "examples",
}  # fmt: skip
# half the width of a range around the recorded mean: a share in 0..1, unless its name begins with one of these
MARGIN = 0.03
MARGINS = {
    "map_threshold": 0.15,
    "saliency_threshold": 0.1,
    "weight": 0.15,
    "map_iou": 0.06,
    "pseudo_iou": 0.06,
    "val_iou": 0.06,
}
UNPREDICTABLE = ("seconds", "empty_maps")


def data_name(source: Input) -> str:
    """The data of stage 00: how the emoji scenes were made (their bytes depend on the version of Pillow), or the
    fingerprint of the photographs."""
    p = source.record["parameters"]
    if p["data_folder"]:
        return f"photographs {source.record['data']}"
    limit = f", {p['limit']} of each" if p["limit"] else ""
    return f"emoji: {p['train_images']} + {p['val_images']} of {p['image_size']} pixels, seed {p['seed']}{limit}"


def _identity(record: dict[str, Any], data: str, runs: Path) -> dict[str, Any]:
    """What two runs of a stage must share to be measured against each other."""
    identity = {"stage": record["stage"], "run": record["run"], "data": data, "parameters": _given(record)}
    return json.loads(_seedless({**identity, "before": _before(record, runs)}))


def _before(record: dict[str, Any], runs: Path) -> str:
    """A fingerprint of the parameters of all stages that a run rests on, stage 00 excepted, which ``data_name`` names."""
    rests_on: dict[str, dict[str, Any]] = {}
    names = list(record["inputs"])
    while names:
        name = names.pop()
        path = runs / name / RECORD
        if name in rests_on or name.startswith("00_data") or not path.exists():
            continue
        earlier = json.loads(path.read_text())
        rests_on[name] = _given(earlier)
        names += earlier["inputs"]
    return hashlib.sha256(_seedless(rests_on).encode()).hexdigest()[:8]


def _given(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record["parameters"].items() if k not in FREE}


def _seedless(value: dict[str, Any]) -> str:
    return re.sub(r"_seed\d+", "", json.dumps(value, sort_keys=True))


def unlike(
    grouped: Iterable[tuple[Any, dict[str, Any]]], varied: Iterable[str] = ("aggregation", "scales")
) -> list[str]:
    """Where the records of one group differ in a setting that decides what is measured, other than ``varied``: a line for each
    record that differs from the first, with both values."""
    first: dict[Any, dict[str, Any]] = {}
    problems = []
    for group, record in grouped:
        given = {k: v for k, v in record["parameters"].items() if k not in FREE | {"run", *varied}}
        known = first.setdefault(group, given)
        differ = [f"{k} {known[k]} and {v}" for k, v in given.items() if k in known and known[k] != v]
        problems += [f"{record['stage']}/{record['run']}: {', '.join(differ)}"] if differ else []
    return problems


def compare(done: Input, source: Input) -> pd.DataFrame:
    """Each metric of a finished stage beside the range that recorded runs lead one to expect.

    Ranges hold for the same data, run and parameters, those of all stages before as well; for others none is known.

    Args:
        done: the stage.
        source: stage 00.

    Returns:
        one row a metric: metric, value, low, high, verdict.
    """
    entries = json.loads(PATH.read_text()) if PATH.exists() else []
    identity = _identity(done.record, data_name(source), done.folder.parents[1])
    ranges = next((e["ranges"] for e in entries if {k: e.get(k) for k in identity} == identity), {})
    rows = []
    for name, value in done.record["metrics"].items():
        low, high = ranges.get(name, (None, None))
        if low is None:
            verdict = "no range recorded" if ranges else "no range recorded for these parameters and data"
        else:
            inside = value is not None and low <= value <= high
            verdict = "as expected" if inside else f"{done.record['stage']} departs here"
        rows.append({"metric": name, "value": value, "low": low, "high": high, "verdict": verdict})
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "verdict"])


def record_ranges(runs: Iterable[Path | str], path: Path = PATH) -> int:
    """Write the ranges of all complete stages below ``runs/<profile>`` folders into ``path``, beside those of other
    data that it holds; runs that differ in the seed alone share one. Returns how many were written."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for folder in map(Path, runs):
        source = json.loads((folder / "00_data" / "default" / RECORD).read_text())
        data = data_name(Input(folder / "00_data" / "default", source))
        for record in sorted(folder.glob(f"[0-9][0-9]_*/*/{RECORD}")):
            stage = json.loads(record.read_text())
            groups.setdefault(_seedless(_identity(stage, data, folder)), []).append(stage["metrics"])
    entries = []
    for identity, metrics in groups.items():
        values: dict[str, list[float]] = {}
        for name, value in (item for of in metrics for item in of.items()):
            if value is not None and not name.startswith(UNPREDICTABLE):
                values.setdefault(name, []).append(value)
        ranges = {name: _range(name, found) for name, found in values.items()}
        entries.append({**json.loads(identity), "recorded": len(metrics), "ranges": ranges})
    before = json.loads(path.read_text()) if path.exists() else []
    made = {entry["data"] for entry in entries}
    write_json(path, [entry for entry in before if entry["data"] not in made] + entries)
    return len(entries)


def _range(name: str, values: list[float]) -> tuple[float, float]:
    """Counts must be equal; a loss may differ by a fifth; a share by its margin, or three standard deviations."""
    mean = float(np.mean(values))
    if all(isinstance(value, int) for value in values):
        return min(values), max(values)
    margin = 0.2 * mean if name == "loss" else next((m for n, m in MARGINS.items() if name.startswith(n)), MARGIN)
    margin = max(margin, 3 * float(np.std(values, ddof=1)) if len(values) > 2 else 0)
    return round(mean - margin, 4), round(mean + margin, 4)
