"""Results of several runs side by side: one row a run, means over seeds, paired differences with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from safn.data import DataError
from safn.evaluation import load_counts
from safn.metrics import bootstrap
from safn_book import archive
from safn_book.archive import Records
from safn_book.checks import unlike
from safn_book.records import RECORD, Input
from safn_book.run_names import AGGREGATIONS, CHAIN, COMPARING, DEFAULT, TRAINED, RunName, Stage, format_scales
from safn_book.stages import require
from safn_book.tables import MISSING

LEAST_SEEDS = 3  # fewer allow no verdict
PROTOCOLS = {"single": "single scale", "multi": "multi-scale", "crf": "multi-scale + CRF"}
COLUMNS = {
    "val_mAP": "mAP, validation images",
    "map_miou": "localization maps, training images",
    "pseudo_miou_drop": "pseudo labels, training images, ignored pixels excluded",
    "pseudo_miou_background": "ignored pixels counted as background",
    "pseudo_miou_wrong": "ignored pixels counted as errors",
    "ignored_share": "share of ignored pixels",
    **{f"val_miou_{key}": f"segmentation, validation images, {title}" for key, title in PROTOCOLS.items()},
}
OVERVIEW = {
    "val_mAP": "mAP",
    "map_miou": "localization maps",
    "pseudo_miou_background": "pseudo labels",
    "val_miou_single": "single scale",
    "val_miou_multi": "multi-scale",
}


class Verdict(StrEnum):
    """What the intervals allow one to say about the first of two configurations."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    TOO_FEW_SEEDS = "too_few_seeds"
    DIFFERENT_MACHINES = "different_machines"


@dataclass(frozen=True)
class Measure:
    """A mIoU by which configurations are compared.

    Attributes:
        stage: the stage that measures it.
        metric: its name among the metrics of that stage.
        ignored: how ignored pixels of a prediction count, see ``safn.metrics``.
        title: what is scored, in the plural. *Strict*: ignored pixels are errors.
        sizes: what the names of the measure by object size begin with; empty where it is not taken by size.
        counts_file: the confusion counts of each image, in the folder of the stage.
    """

    stage: Stage
    metric: str
    ignored: str
    title: str
    sizes: str = ""
    counts_file: str = "counts.npz"

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return self.title[0].upper() + self.title[1:]


MEASURES = {
    "maps": Measure(Stage.MAPS, "map_miou", "wrong", "localization maps", "map_iou "),
    "pseudo_background": Measure(Stage.PSEUDO_LABELS, "pseudo_miou_background", "background", "pseudo labels"),
    "pseudo_wrong": Measure(Stage.PSEUDO_LABELS, "pseudo_miou_wrong", "wrong", "pseudo labels (strict)", "pseudo_iou "),
}
for _key, _title in {
    "single": "single-scale segmentations",
    "multi": "multi-scale segmentations",
    "crf": "multi-scale segmentations with CRF",
}.items():
    MEASURES[f"segmentation_{_key}"] = Measure(
        Stage.EVALUATE, f"val_miou_{_key}", "wrong", _title, f"val_iou_{_key} ", f"counts_{_key}.npz"
    )
COMPARED = [key for key in MEASURES if key != "pseudo_wrong"]  # one convention for ignored pixels is enough


# --- one row a run ---------------------------------------------------------------------------------------------------


@dataclass
class Runs:
    """Runs of a folder that are compared.

    Attributes:
        folder: such as ``runs/emoji``.
        records: of all their stages.
        ends: the last stage of each run.
        table: their ``runs_table``.
    """

    folder: Path
    records: Records
    ends: list[Input]
    table: pd.DataFrame


def load(path: Path | str) -> Records:
    """Load the records of a file in ``results/`` by stage and run.

    Raises:
        DataError: the file holds something else.
    """
    return archive.read(Path(path))


def load_runs(folder: Path | str, experiments: list[str], missing_segmentation: str = "make") -> Runs:
    """Load the runs of an experiment.

    Args:
        experiments: names of runs.
        missing_segmentation: ``make`` trains it. ``leave`` ends the run at its last stage, and the rest is NaN.
    """
    folder = Path(folder)
    records: Records = {}
    ends = []
    for run in map(RunName.parse, experiments):
        complete = [stage for stage in CHAIN if (folder / stage / str(run) / RECORD).exists()]
        last = complete[-1] if missing_segmentation == "leave" and complete else Stage.EVALUATE
        ends.append(require(folder, last, str(run), restored=True))
        for stage in CHAIN:
            name = str(run.at(stage))
            if (folder / stage / name / RECORD).exists():
                records[stage, name] = require(folder, stage, name, restored=True).record
    return Runs(folder, records, ends, runs_table(records, experiments))


def runs_table(records: Records, runs: Iterable[str] | None = None) -> pd.DataFrame:
    """Make a table of runs.

    Args:
        records: such as those of ``load``.
        runs: names of runs; without them all that were trained, the main experiment first, controls and the fully
            supervised run last.

    Returns:
        one row a run: ``run``, ``configuration`` (the name without its seed), ``aggregation``, ``scales`` (text), ``seed``,
        ``control``, ``supervised``, ``network`` (of the segmentation, ``<backbone>-<head>``), and the metrics of all its
        stages, shares in 0..1. NaN: not measured.
    """
    if runs is None:
        names = sorted({RunName.parse(run) for stage, run in records if stage in CHAIN}, key=_display_order)
    else:
        names = [RunName.parse(run) for run in runs]
    return pd.DataFrame([_run_row(records, name) for name in names])


def _run_row(records: Records, run: RunName) -> dict[str, Any]:
    row = {"run": str(run), "configuration": run.configuration, **vars(run), "scales": format_scales(run.scales)}
    row |= dict.fromkeys(COLUMNS, float("nan"))
    for stage in CHAIN:
        record = records.get((stage, str(run.at(stage))))
        if record:
            row |= {metric: float("nan") if value is None else value for metric, value in record["metrics"].items()}
            if stage is Stage.TRAIN_SEGMENTATION:
                row["network"] = "{backbone}-{head}".format(**record["parameters"])
    return row


def _display_order(run: RunName) -> tuple[Any, ...]:
    if run.supervised:
        return True, 0, 0, str(run)
    return bool(run.control), -len(run.scales), AGGREGATIONS.index(run.aggregation), str(run)


def main_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of the main experiment, the first: every seed and every segmentation network, no control."""
    first = table.iloc[0]
    same = (table["aggregation"] == first["aggregation"]) & (table["scales"] == first["scales"])
    return table[same & (table["control"] == "")]


def machines(records: Records) -> pd.DataFrame:
    """Count the networks that each machine trained: ``processor``, ``device``, ``torch``, ``networks``."""
    rows = [
        {"processor": record["machine"], "device": record["device"], "torch": record["versions"]["torch"]}
        for (stage, _), record in records.items()
        if stage in TRAINED
    ]
    return pd.DataFrame(rows).value_counts(sort=False).rename("networks").reset_index()


# --- means over seeds ------------------------------------------------------------------------------------------------


def over_seeds(table: pd.DataFrame, columns: Iterable[str], by: str = "configuration") -> pd.DataFrame:
    """Write percent over the seeds as ``mean ± standard deviation``: the one value where there is one seed, an en dash
    where there is none. One row a value of ``by``, in order of appearance."""

    def cell(values: pd.Series) -> str:
        values = 100 * values.dropna()
        if values.empty:
            return MISSING
        spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
        return f"{values.mean():.1f}{spread}"

    return table.groupby(by, sort=False)[list(columns)].agg(cell)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Give ``over_seeds`` of the measures of Tables 4 and 6 and of what they follow from, one row a configuration.

    Each column uses only the seeds that all its configurations have, so that its rows are comparable.
    """
    columns = {}
    for column, title in OVERVIEW.items():
        measured = table[table[column].notna()]
        columns[title] = over_seeds(_shared_seeds(measured, measured["configuration"].nunique()), [column])[column]
    frame = pd.DataFrame(columns, table["configuration"].unique(), dtype=object)
    return frame.fillna(MISSING).rename_axis("configuration")


def seeds_note(table: pd.DataFrame) -> str:
    """Say in a caption what the number of seeds allows."""
    seeds = table["seed"].nunique()
    if seeds < LEAST_SEEDS:
        return f"Seeds: {seeds}. An order of the rows needs at least {LEAST_SEEDS}."
    return f"Mean ± standard deviation over {seeds} seeds."


def _shared_seeds(measured: pd.DataFrame, configurations: int) -> pd.DataFrame:
    """Keep the rows whose seed occurs for so many configurations."""
    shared = measured.groupby("seed")["configuration"].nunique() == configurations
    return measured[measured["seed"].map(shared).astype(bool)]


def by_size(table: pd.DataFrame, statistic: str = "mean") -> dict[str, pd.DataFrame]:
    """Give the foreground IoU in percent by object size.

    Args:
        statistic: ``mean`` or ``std`` over the seeds that every configuration has; the latter is NaN for one seed.

    Returns:
        key of a measure -> one row a size, one column a configuration. Measures without sizes are left out.
    """
    sizes = {}
    for key, measure in MEASURES.items():
        columns = {c: c.removeprefix(measure.sizes) for c in table if measure.sizes and c.startswith(measure.sizes)}
        if not columns:
            continue
        measured = table.dropna(subset=list(columns), how="all")
        measured = _shared_seeds(measured, table["configuration"].nunique())
        if len(measured):
            means = measured.groupby("configuration", sort=False)[list(columns)].agg(statistic).mul(100)
            sizes[key] = means.rename(columns=columns).T.rename_axis(None, axis=1)
    return sizes


def by_class(records: Records, stage: str, measure: str) -> pd.DataFrame:
    """Average what a stage recorded for each class over the seeds.

    Returns:
        percent, one row a class and one column a configuration; configurations without the measure are left out.
    """
    found: dict[str, list[pd.Series]] = {}
    for (recorded_stage, run), record in records.items():
        if recorded_stage == stage and measure in record.get("per_class", {}):
            values = pd.Series(record["per_class"][measure], dtype=float)
            found.setdefault(RunName.parse(run).configuration, []).append(values)
    return pd.DataFrame({name: 100 * pd.concat(values, axis=1).mean(axis=1) for name, values in found.items()})


# --- differences -----------------------------------------------------------------------------------------------------

BOUNDS = ["images_from", "images_to", "all_from", "all_to"]
DIFFERENCES = ["measure", "first", "second", "points", "seeds", *BOUNDS, "verdict"]


def differences(runs: Runs, by: str, draws: int = 1000) -> pd.DataFrame:
    """Subtract the mIoU of each later configuration from that of each earlier one, with 95 % intervals.

    A pair of runs shares its seed. The interval over images is a paired bootstrap of the mean over the seeds: it
    estimates how the result varies on other images. The interval over all adds the t interval of the seeds' differences
    in quadrature, ``sqrt(images^2 + seeds^2)``: another training varies as well. Where a run has no counts of its
    images, it is that of the seeds alone. There is no verdict across types of machine, where a seed trains another
    network.

    Args:
        by: the setting in which the runs differ, ``aggregation`` (Table 4) or ``scales`` (Table 6).
        draws: resampled image sets.

    Returns:
        one row a measure and pair: ``measure``, ``first``, ``second``, ``points``, ``seeds`` (the difference of each),
        ``images_from``, ``images_to``, ``all_from``, ``all_to`` (NaN: none), ``verdict``. What was not measured is left
        out.

    Raises:
        DataError: the runs differ in other settings too, each of which is named.
    """
    _check_settings(runs, by)
    rows = []
    for key in COMPARED:
        measured = runs.table[runs.table[MEASURES[key].metric].notna()]
        points = 100 * measured.set_index("run")[MEASURES[key].metric]
        samples = _bootstrap_samples(runs, points.index, MEASURES[key], draws)
        groups = {name: rows.set_index("seed")["run"] for name, rows in measured.groupby("configuration", sort=False)}
        for first, second in itertools.combinations(groups, 2):
            shared = [seed for seed in groups[first].index if seed in groups[second].index]
            if not shared:
                continue
            pairs = [(groups[first][seed], groups[second][seed]) for seed in shared]
            seeds = np.array([points[a] - points[b] for a, b in pairs])
            images = None
            if all(run in samples for pair in pairs for run in pair):
                images = np.mean([samples[a] - samples[b] for a, b in pairs], 0)
            bounds = intervals(seeds, images)
            same_machines = all(_machines(runs, a, key) == _machines(runs, b, key) for a, b in pairs)
            verdict = verdict_of(seeds, bounds) if same_machines else Verdict.DIFFERENT_MACHINES
            row = {"measure": key, "first": first, "second": second, "points": seeds.mean(), "seeds": seeds.tolist()}
            rows.append({**row, **bounds, "verdict": verdict})
    return pd.DataFrame(rows, columns=DIFFERENCES)


def _check_settings(runs: Runs, by: str) -> None:
    if problems := unlike(((stage, record) for (stage, _), record in runs.records.items()), [by]):
        head = f"these runs differ in more than {by}, so they cannot be compared; run each again with equal settings:"
        raise DataError("\n  - ".join([head, *problems]))


def _bootstrap_samples(runs: Runs, names: Iterable[str], measure: Measure, draws: int) -> dict[str, np.ndarray]:
    """Run -> its mIoU in percent on each resampled image set; runs that kept no counts are left out."""
    counts = {}
    for run in names:
        path = runs.folder / measure.stage / str(RunName.parse(run).at(measure.stage)) / measure.counts_file
        if path.exists():
            counts[run] = load_counts(path)
    if not counts:
        return {}
    return dict(zip(counts, 100 * bootstrap(list(counts.values()), draws, ignored=measure.ignored).T))


def _machines(runs: Runs, run: str, measure: str) -> list[tuple[str, str]]:
    """Device and processor that trained each network which a measure of a run rests on."""
    rests_on = CHAIN[: CHAIN.index(MEASURES[measure].stage)]
    keys = [(stage, str(RunName.parse(run).at(stage))) for stage in TRAINED if stage in rests_on]
    records = [runs.records[key] for key in keys if key in runs.records]
    return [(record["device"], record["machine"]) for record in records]


def intervals(seeds: np.ndarray, images: np.ndarray | None) -> dict[str, float]:
    """Compute the 95 % intervals of a mean difference.

    Args:
        seeds: the difference of each seed.
        images: the mean difference on each resampled image set, where there are counts.

    Returns:
        ``images_from``, ``images_to``, ``all_from``, ``all_to``; NaN without counts, or with one seed.
    """
    bounds = dict.fromkeys(BOUNDS, float("nan"))
    mean = low = high = seeds.mean()
    if images is not None:
        low, high = np.percentile(images, [2.5, 97.5])
        bounds |= {"images_from": low, "images_to": high}
    if len(seeds) > 1:
        half = stats.t.ppf(0.975, len(seeds) - 1) * seeds.std(ddof=1) / np.sqrt(len(seeds))
        bounds |= {"all_from": mean - np.hypot(mean - low, half), "all_to": mean + np.hypot(high - mean, half)}
    return bounds


def verdict_of(seeds: np.ndarray, bounds: dict[str, float]) -> Verdict:
    """Judge a difference by its interval over images and seeds."""
    if len(seeds) < LEAST_SEEDS:
        return Verdict.TOO_FEW_SEEDS
    if bounds["all_from"] <= 0 <= bounds["all_to"]:
        return Verdict.UNDECIDED
    return Verdict.BETTER if seeds.mean() > 0 else Verdict.WORSE


def differences_table(records: Records) -> pd.DataFrame:
    """Read the rows of ``differences`` that chapters 08 and 09 recorded, with a column ``chapter``."""
    rows = []
    for chapter in COMPARING:
        recorded = records.get((chapter, DEFAULT), {}).get("differences", [])
        rows += [{"chapter": chapter, **row} for row in recorded]
    return pd.DataFrame(rows, columns=["chapter", *DIFFERENCES]).astype(dict.fromkeys(BOUNDS, float))
