"""Writes the ranges that the notebooks compare their metrics with, from finished runs.

    python -m benchmarks.expected runs/emoji runs/emoji-seed1

Runs that differ in the seed alone share a range. Ranges of other data stay in results/expected.json as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from safn.files import write_json
from safn_book import checks, records
from safn_book.run_names import Stage

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


def record_ranges(runs: Iterable[Path | str], path: Path = checks.PATH) -> int:
    """Write the ranges of all complete stages below ``runs/<profile>`` folders. Returns how many were written."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for folder in runs:
        source = records.read(folder, Stage.DATA)
        for stage in records.read_all(folder) if source else []:
            identity = json.dumps(checks.identity(stage, checks.data_name(source)))
            groups.setdefault(identity, []).append(stage.record["metrics"])
    entries = []
    for identity, metrics in groups.items():
        entries.append({**json.loads(identity), "recorded": len(metrics), "ranges": _ranges(metrics)})
    before = json.loads(path.read_text()) if path.exists() else []
    measured = {entry["data"] for entry in entries}
    write_json(path, [entry for entry in before if entry["data"] not in measured] + entries)
    return len(entries)


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
    margin = next((margin for begin, margin in MARGINS.items() if name.startswith(begin)), MARGIN)
    if name == "loss":
        margin = LOSS_MARGIN * mean
    if len(values) > 2:
        margin = max(margin, 3 * float(np.std(values, ddof=1)))
    return round(mean - margin, 4), round(mean + margin, 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expected", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="runs/<profile>, finished")
    print(record_ranges(parser.parse_args().runs), "ranges")
