"""Metrics of a stage beside what recorded runs lead one to expect."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from safn_book import records
from safn_book.archive import RESULTS
from safn_book.records import Input
from safn_book.run_names import Stage, stage_and_run, without_seeds
from safn_book.tables import metric_name, metric_range, metric_value, show

PATH = RESULTS / "expected.json"  # `python -m benchmarks.expected` writes it
# Parameters that decide where, how fast or with which random numbers a stage runs, not what it measures.
FREE = {*records.FOLDERS, "seed", "workers", "threads", "accelerator", "crf_processes", "examples"}


def data_name(source: Input) -> str:
    """The data of stage 00: how the emoji scenes were made (their bytes depend on the version of Pillow), or the
    fingerprint of the photographs."""
    p = source.record["parameters"]
    if p["data_folder"]:
        return f"photographs {source.record['data']}"
    limit = f", {p['limit']} of each" if p["limit"] else ""
    return f"emoji: {p['train_images']} + {p['val_images']} of {p['image_size']} pixels, seed {p['seed']}{limit}"


def data_words(source: Input) -> str:
    """The data of stage 00 in the words of a caption."""
    kind = "photographs" if source.record["parameters"]["data_folder"] else "synthetic images"
    return "{}, {train_images:,} for training, {val_images:,} for validation".format(kind, **source.record["metrics"])


def compare(done: Input, source: Input) -> Styler:
    """Show each metric of a finished stage beside its range in recorded runs, in words.

    Ranges hold for the same data (of ``source``, stage 00), stage, configuration and parameters, those of all stages before
    as well. For others none is known, and the table has the values alone.
    """
    return _table(verdicts(done, source))


def compare_runs(runs: Path, names: Iterable[str], source: Input) -> Styler | None:
    """Show the mIoU of the multi-scale test of each of these runs that has one, as ``compare`` shows the metrics of one
    stage. Where no run has a segmentation, there is nothing to show."""
    found = {name: records.read(runs, Stage.EVALUATE, name) for name in names}
    tables = [verdicts(stage, source).assign(run=name) for name, stage in found.items() if stage]
    if not tables:
        return None
    rows = pd.concat(tables).query("metric == 'val_miou_multi'").reset_index(drop=True)
    return _table(rows.assign(metric=rows["metric"] + " " + rows["run"]))


def _table(rows: pd.DataFrame) -> Styler:
    official = rows["metric"].str.removesuffix("_train_list")  # equal to the others where the list has all images
    rows = rows[~rows.assign(metric=official).duplicated(["metric", "value"])].reset_index(drop=True)
    shown = pd.DataFrame({"metric": rows["metric"].map(metric_name)})
    shown["this run"] = [metric_value(*row) for row in zip(rows["metric"], rows["value"])]
    if rows["low"].isna().all():
        return show(shown, "This run. No run with these parameters and data was recorded.")
    shown["recorded runs"] = [metric_range(*row) for row in zip(rows["metric"], rows["low"], rows["high"])]
    shown["verdict"] = rows["verdict"]
    return show(shown, "This run, and the range of recorded runs with the same parameters and data.")


def verdicts(done: Input, source: Input) -> pd.DataFrame:
    """Compare as ``compare`` does, in numbers: one row a metric, with ``metric``, ``value``, ``low``, ``high`` (NaN where
    none is known) and ``verdict``."""
    entries = json.loads(PATH.read_text()) if PATH.exists() else []
    own = identity(done, data_name(source))
    ranges: dict[str, Any] = next((entry["ranges"] for entry in entries if own.items() <= entry.items()), {})
    recorded = pd.DataFrame.from_dict(ranges, "index", float, ["low", "high"])
    values = pd.Series(done.record["metrics"], dtype=float, name="value")
    rows = values.to_frame().join(recorded)
    inside = rows["value"].between(rows["low"], rows["high"])
    rows["verdict"] = "outside the range"
    rows.loc[inside, "verdict"] = "as expected"
    rows.loc[rows["low"].isna(), "verdict"] = "no range"
    return rows.rename_axis("metric").reset_index()


def identity(stage: Input, data: str) -> dict[str, Any]:
    """What stages share that have one range: all that decides their metrics, without seeds."""
    record = stage.record
    own = {"stage": record["stage"], "run": record["run"], "data": data, "parameters": deciding(record)}
    return json.loads(_seedless(own | {"before": _before(stage)}))


def _before(stage: Input) -> str:
    """A fingerprint of the parameters of all stages that a run rests on, stage 00 excepted, which ``data_name`` names."""
    rests_on = {}
    names = list(stage.record["inputs"])
    while names:
        name = names.pop()
        earlier = records.read(stage.folder.parents[1], *stage_and_run(name))
        if earlier and name not in rests_on and earlier.record["stage"] != Stage.DATA:
            rests_on[name] = deciding(earlier.record)
            names += earlier.record["inputs"]
    return hashlib.sha256(_seedless(rests_on).encode()).hexdigest()[:8]


def deciding(record: dict[str, Any]) -> dict[str, Any]:
    """Select the parameters of a record that decide what its stage measures."""
    return {name: value for name, value in record["parameters"].items() if name not in FREE}


def _seedless(value: dict[str, Any]) -> str:
    return without_seeds(json.dumps(value, sort_keys=True))
