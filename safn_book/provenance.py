"""Where numbers come from: the recorded experiments in ``results/``, and the runs of this copy of the book."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from safn.data import DataError
from safn_book import archive, results
from safn_book.archive import Records
from safn_book.run_names import TRAINED
from safn_book.stages import RECORD

FOLDER = Path(__file__).resolve().parent.parent / "results"


def experiments(folder: Path | str = FOLDER) -> dict[str, Records]:
    """Load every file of records in a folder, by its name without suffix. Files that hold something else are left out."""
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            records = archive.read(path)
        except DataError:
            continue
        if all("metrics" in record for record in records.values()):
            found[path.stem] = records
    return found


def summary(records: Records) -> dict[str, Any]:
    """Say in one row what an experiment was measured with.

    Returns:
        numbers of configurations, seeds and images, and texts: the last stage, backbone, saliency detector, segmentation
        network, machines, commits. Several values are joined by commas.
    """
    runs = results.runs_table(records)
    metrics = records["00_data", "default"]["metrics"]
    trained = [record for (stage, _), record in records.items() if stage in TRAINED]
    return {
        "configurations": runs["configuration"].nunique(),
        "seeds": runs["seed"].nunique(),
        "training images": int(metrics["train_images"]),
        "validation images": int(metrics["val_images"]),
        "backbone": _joined(record["parameters"]["backbone"] for record in trained),
        "saliency": _joined(record.get("detector") for record in records.values()),
        "segmentation": _joined(record["parameters"].get("head") for record in trained),
        "machine": _joined(record["machine"] for record in trained),
        "commits": _joined(record["commit"] for record in records.values()),
    }


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value})) or "–"


def settings(records: Records) -> pd.DataFrame:
    """List the settings of every stage: one row a setting, with the values that its runs had."""
    values: dict[tuple[str, str], list[Any]] = {}
    for (stage, _), record in records.items():
        for name, value in record["parameters"].items():
            if name not in ("run", "seed", "experiments"):
                values.setdefault((stage, name), []).append(value)
    rows = [
        {"stage": stage, "setting": name, "value": _joined(map(str, found))} for (stage, name), found in values.items()
    ]
    return pd.DataFrame(rows).sort_values("stage", kind="stable", ignore_index=True)


def load_folder(runs: Path | str, stages: Iterable[str] = ()) -> Records:
    """Load the records of a folder of runs.

    Args:
        runs: such as ``runs/emoji``.
        stages: ``<stage>/<run>`` of those that count; without them all.
    """
    paths = [Path(runs) / name / RECORD for name in stages] or sorted(Path(runs).glob(f"[0-9]*/*/{RECORD}"))
    records = [json.loads(path.read_text()) for path in paths if path.exists()]
    return {(record["stage"], record["run"]): record for record in records}


def costs(records: Records) -> pd.DataFrame:
    """List each run with its cost and its fingerprints: of what it wrote, of the data that it goes back to, and of the
    code that ran."""
    rows = [
        {
            "stage": stage,
            "run": run,
            "seconds": record.get("seconds"),
            "peak memory (MB)": record.get("peak_megabytes"),
            "result": record["fingerprint"][:8],
            "data": (data_fingerprint((stage, run), records) or "–")[:8],
            "code": str(record.get("code") or "–")[:8],
            "commit": record.get("commit") or "–",
        }
        for (stage, run), record in sorted(records.items())
    ]
    return pd.DataFrame(rows)


def data_fingerprint(key: tuple[str, str], records: Records) -> str | None:
    """Follow the inputs of a run to the fingerprint of its data; ``None`` where the way is not recorded."""
    record = records.get(key)
    if record is None:
        return None
    if key[0] == "00_data":
        return record["fingerprint"]
    for source, fingerprint in record.get("inputs", {}).items():
        stage, _, run = source.partition("/")
        found = fingerprint if stage == "00_data" else data_fingerprint((stage, run), records)
        if found:
            return found
    return None


def environments(records: Records) -> pd.DataFrame:
    """List the machines and versions that made the runs, one column each."""
    found = []
    for record in records.values():
        versions = {name: version for name, version in (record.get("versions") or {}).items() if version}
        kept = {name: record.get(name) for name in ("machine", "device", "python") if record.get(name)}
        if (environment := {**kept, **versions}) not in found:
            found.append(environment)
    return pd.DataFrame(found, index=[f"environment {k}" for k in range(1, len(found) + 1)]).T
