"""Results of several runs side by side: one row a run, means over seeds, paired differences with intervals."""

from __future__ import annotations

import itertools
import json
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
from safn_book.run_names import AGGREGATIONS, CHAIN, COMPARING, TRAINED, RunName, Stage, format_scales
from safn_book.stages import RECORD, Input, need
from safn_book.tables import MISSING, interval, phrase

PROTOCOLS = {"single": "single scale", "multi": "multi-scale", "crf": "multi-scale + CRF"}
LEAST_SEEDS = 3  # fewer allow no verdict


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
        key: its name in records.
        stage: the stage that measures it.
        metric: its name among the metrics of that stage.
        counts_file: the confusion counts of each image, in the folder of the stage.
        ignored: how ignored pixels of a prediction count, see ``safn.metrics``.
        title: its name on pages.
        sizes: what the names of the same measure by object size begin with; empty where it is not taken by size.
    """

    key: str
    stage: Stage
    metric: str
    counts_file: str
    ignored: str
    title: str
    sizes: str = ""


_PSEUDO = "pseudo labels, ignored pixels counted as"
_MEASURES = (
    Measure("maps", Stage.MAPS, "map_miou", "counts.npz", "wrong", "localization maps", "map_iou "),
    Measure(
        "pseudo_background",
        Stage.PSEUDO_LABELS,
        "pseudo_miou_background",
        "counts.npz",
        "background",
        f"{_PSEUDO} background",
    ),
    Measure(
        "pseudo_wrong",
        Stage.PSEUDO_LABELS,
        "pseudo_miou_wrong",
        "counts.npz",
        "wrong",
        f"{_PSEUDO} errors",
        "pseudo_iou ",
    ),
    *(
        Measure(
            f"segmentation_{key}",
            Stage.EVALUATE,
            f"val_miou_{key}",
            f"counts_{key}.npz",
            "wrong",
            f"segmentation, {title}",
            f"val_iou_{key} ",
        )
        for key, title in PROTOCOLS.items()
    ),
)
MEASURES = {measure.key: measure for measure in _MEASURES}
COMPARED = [measure for measure in _MEASURES if measure.key != "pseudo_wrong"]  # one convention is enough
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


# --- one row a run ---------------------------------------------------------------------------------------------------


def load(path: Path | str) -> Records:
    """Load the records of a file in ``results/`` by stage and run.

    Raises:
        DataError: the file holds something else.
    """
    return archive.read(Path(path))


def load_runs(
    runs: Path | str, experiments: list[str], missing_segmentation: str = "make"
) -> tuple[pd.DataFrame, list[Input]]:
    """Load the runs of an experiment into a table.

    Args:
        runs: the folder of a profile, such as ``runs/emoji``.
        experiments: names of runs.
        missing_segmentation: ``make`` trains it. ``leave`` keeps NaN where a run ends before.

    Returns:
        ``runs_table`` of the experiments in their order, and the last stage of each.
    """
    records: Records = {}
    ends = []
    for name in map(RunName.parse, experiments):
        complete = [stage for stage in CHAIN if (Path(runs) / stage / str(name) / RECORD).exists()]
        last = complete[-1] if missing_segmentation == "leave" and complete else Stage.EVALUATE
        ends.append(need(runs, last, str(name), restored=True))
        for stage in CHAIN:
            at = str(name.at(stage))
            if (Path(runs) / stage / at / RECORD).exists():
                records[stage, at] = need(runs, stage, at, restored=True).record
    return runs_table(records, experiments), ends


def runs_table(records: Records, runs: Iterable[str] | None = None) -> pd.DataFrame:
    """Make a table of runs.

    Args:
        records: by stage and run, such as those of ``load``.
        runs: names of runs; without them all that were trained, the main experiment first, controls and the fully
            supervised run last.

    Returns:
        one row a run. ``run``, ``configuration`` (the name without its seed), ``aggregation``, ``scales`` (text),
        ``seed``, ``control``, ``supervised``, ``network`` (of the segmentation, ``<backbone>-<head>``), and the metrics
        of all its stages, shares in 0..1. NaN: not measured.
    """
    if runs is None:
        names = sorted({RunName.parse(run) for stage, run in records if stage in CHAIN}, key=_display_order)
    else:
        names = [RunName.parse(run) for run in runs]
    rows = [_run_row(records, name) for name in names]
    return pd.DataFrame(rows, columns=None if rows else ["run", "configuration", "seed", *COLUMNS])


def _run_row(records: Records, name: RunName) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": str(name),
        "configuration": name.configuration,
        "aggregation": name.aggregation,
        "scales": format_scales(name.scales),
        "seed": name.seed,
        "control": name.control,
        "supervised": name.supervised,
        "network": name.network,
        **dict.fromkeys(COLUMNS, float("nan")),
    }
    for stage in CHAIN:
        record = records.get((stage, str(name.at(stage))))
        if record is None:
            continue
        row |= {metric: float("nan") if value is None else value for metric, value in record["metrics"].items()}
        if stage is Stage.TRAIN_SEGMENTATION:
            row["network"] = "{backbone}-{head}".format(**record["parameters"])
    return row


def _display_order(name: RunName) -> tuple[Any, ...]:
    if name.supervised:
        return True, 0, 0, str(name)
    return bool(name.control), -len(name.scales), AGGREGATIONS.index(name.aggregation), str(name)


def main_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of the main experiment, the first: every seed and every segmentation network, no control."""
    first = table.iloc[0]
    same = (table["aggregation"] == first["aggregation"]) & (table["scales"] == first["scales"])
    return table[same & (table["control"] == "")]


def machines(records: Records) -> pd.DataFrame:
    """List the machines that trained the networks of a file: processor, device, torch, and how many networks."""
    rows = [
        {"processor": record["machine"], "device": record["device"], "torch": record["versions"]["torch"]}
        for (stage, _), record in records.items()
        if stage in TRAINED
    ]
    frame = pd.DataFrame(rows, columns=["processor", "device", "torch"])
    return frame.value_counts(sort=False).rename("networks").reset_index()


# --- means over seeds ------------------------------------------------------------------------------------------------


def over_seeds(table: pd.DataFrame, columns: list[str], by: str = "configuration") -> pd.DataFrame:
    """Give percent over the seeds as text: ``mean ± standard deviation``, the one value where there is one seed, an en
    dash where there is none. One row a value of ``by``, in order of appearance."""

    def cell(values: pd.Series) -> str:
        values = 100 * values.dropna()
        if values.empty:
            return MISSING
        if len(values) == 1:
            return f"{values.mean():.1f}"
        return f"{values.mean():.1f} ± {values.std():.1f}"

    return table.groupby(by, sort=False)[columns].agg(cell)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Give ``over_seeds`` of the measures of Tables 4 and 6 and of what they follow from, one row a configuration.

    Each column uses only the seeds that every configuration has, so that its rows are comparable.
    """
    configurations = table["configuration"].unique()
    columns = {}
    for column, title in OVERVIEW.items():
        measured = _shared_seeds(table[table[column].notna()])
        columns[title] = over_seeds(measured, [column])[column]
    return pd.DataFrame(columns, configurations, dtype=object).fillna(MISSING).rename_axis("configuration")


def _shared_seeds(measured: pd.DataFrame, configurations: int | None = None) -> pd.DataFrame:
    """Keep the rows whose seed occurs for each configuration that was measured, or for so many of them."""
    wanted = configurations or measured["configuration"].nunique()
    shared = measured.groupby("seed")["configuration"].nunique() == wanted
    return measured[measured["seed"].map(shared).astype(bool)]


def by_size(table: pd.DataFrame, statistic: str = "mean") -> dict[str, pd.DataFrame]:
    """Give the foreground IoU in percent by object size.

    Args:
        statistic: ``mean`` or ``std`` over the seeds that every configuration has; of one seed the latter is NaN.

    Returns:
        key of a measure -> one row a size, one column a configuration. Measures that were not taken by size are left out.
    """
    sizes = {}
    for measure in (m for m in _MEASURES if m.sizes):
        columns = {c: c.removeprefix(measure.sizes) for c in table if c.startswith(measure.sizes)}
        measured = table.dropna(subset=list(columns), how="all") if columns else table.iloc[:0]
        measured = _shared_seeds(measured, table["configuration"].nunique())
        if len(measured):
            means = measured.groupby("configuration", sort=False)[list(columns)].agg(statistic)
            sizes[measure.key] = means.mul(100).rename(columns=columns).T.rename_axis(None, axis=1)
    return sizes


def by_class(table: pd.DataFrame, ends: list[Input], protocol: str) -> pd.DataFrame:
    """Give the IoU in percent of each class, means over the seeds.

    Args:
        table: rows of ``load_runs``.
        ends: evaluations, among them those of the rows.
        protocol: ``single``, ``multi`` or ``crf``.

    Returns:
        one row a class and a last one ``mean``, one column a segmentation network.
    """
    columns = {}
    for network, rows in table.groupby("network", sort=False):
        records = [end.record for end in ends if end.folder.name in set(rows["run"])]
        each = pd.DataFrame([record["per_class"][protocol] for record in records], dtype=float)
        each["mean"] = [record["metrics"][f"val_miou_{protocol}"] for record in records]
        columns[network] = each.astype(float).mean().mul(100)
    return pd.DataFrame(columns)


# --- differences -----------------------------------------------------------------------------------------------------


def differences(runs: Path | str, table: pd.DataFrame, by: str, draws: int = 1000) -> pd.DataFrame:
    """Subtract the mIoU of each later configuration from that of each earlier one, with 95 % intervals.

    A pair of runs shares its seed. The interval over images is a paired bootstrap of the mean over the seeds: it
    estimates how the result varies on other images. The interval over all adds the t interval of the seeds' differences
    in quadrature, ``sqrt(images^2 + seeds^2)``: it estimates how another training would vary as well. Where a run has no
    counts of its images, the latter is that of the seeds alone. The same seed trains another network on another type of
    processor, so there is no verdict across machines.

    Args:
        runs: the folder of a profile.
        table: of ``load_runs``.
        by: the setting in which the runs differ, ``aggregation`` (Table 4) or ``scales`` (Table 6).
        draws: resampled image sets.

    Returns:
        one row a measure and pair: ``measure``, ``first``, ``second``, ``points``, ``seeds`` (the difference of each),
        ``images_from``, ``images_to``, ``all_from``, ``all_to`` (NaN: none), ``verdict``. What was not measured is left
        out.

    Raises:
        DataError: the runs differ in other settings too, each of which is named.
    """
    _check_settings(runs, table["run"], by)
    rows = []
    for measure in COMPARED:
        measured = table[table[measure.metric].notna()]
        points = 100 * measured.set_index("run")[measure.metric]
        samples = _bootstrap_samples(runs, points.index, measure, draws)
        groups = {name: rows.set_index("seed")["run"] for name, rows in measured.groupby("configuration", sort=False)}
        for first, second in itertools.combinations(groups, 2):
            shared = [seed for seed in groups[first].index if seed in groups[second].index]
            pairs = [(groups[first][seed], groups[second][seed]) for seed in shared]
            if pairs:
                row = {"measure": measure.key, "first": first, "second": second}
                same_machines = all(_machines(runs, a, measure) == _machines(runs, b, measure) for a, b in pairs)
                rows.append(row | _difference(pairs, points, samples, same_machines))
    return pd.DataFrame(rows, columns=None if rows else ["measure", "first", "second", "points", "seeds", "verdict"])


def _difference(
    pairs: list[tuple[str, str]], points: pd.Series, samples: dict[str, np.ndarray], same_machines: bool
) -> dict[str, Any]:
    """Points, intervals and verdict of one pair of configurations."""
    seeds = np.array([points[a] - points[b] for a, b in pairs])
    images = None
    if all(run in samples for pair in pairs for run in pair):
        images = np.mean([samples[a] - samples[b] for a, b in pairs], 0)
    bounds = intervals(seeds, images)
    verdict = verdict_of(seeds, bounds) if same_machines else Verdict.DIFFERENT_MACHINES
    return {"points": seeds.mean(), "seeds": seeds.tolist(), **bounds, "verdict": verdict}


def _bootstrap_samples(runs: Path | str, names: Iterable[str], measure: Measure, draws: int) -> dict[str, np.ndarray]:
    """Run -> its mIoU in percent on each resampled image set; runs that kept no counts are left out."""
    counts = load_run_counts(runs, names, measure.stage, measure.counts_file)
    if not counts:
        return {}
    return dict(zip(counts, 100 * bootstrap(list(counts.values()), draws, ignored=measure.ignored).T))


def load_run_counts(runs: Path | str, names: Iterable[str], stage: Stage, file: str) -> dict[str, np.ndarray]:
    """Load the confusion counts of each image that a stage kept, for each run that has them."""
    counts = {}
    for run in names:
        at = str(RunName.parse(run).at(stage))
        if (Path(runs) / stage / at / file).exists():
            counts[run] = load_counts(need(runs, stage, at, restored=True).folder / file)
    return counts


def _machines(runs: Path | str, run: str, measure: Measure) -> list[tuple[str, str]]:
    """Device and processor that trained each network which a measure of a run rests on."""
    before = CHAIN[: CHAIN.index(measure.stage) + 1]
    name = RunName.parse(run)
    paths = [Path(runs) / stage / str(name.at(stage)) / RECORD for stage in TRAINED if stage in before]
    records = [json.loads(path.read_text()) for path in paths if path.exists()]
    return [(record["device"], record["machine"]) for record in records]


def _check_settings(runs: Path | str, names: Iterable[str], by: str) -> None:
    paths = [Path(runs) / stage / name / RECORD for name in names for stage in CHAIN]
    records = [json.loads(path.read_text()) for path in paths if path.exists()]
    if problems := unlike(((record["stage"], record) for record in records), [by]):
        head = f"these runs differ in more than {by}, so they cannot be compared; run each again with equal settings:"
        raise DataError("\n  - ".join([head, *problems]))


def intervals(seeds: np.ndarray, images: np.ndarray | None) -> dict[str, float]:
    """Compute the 95 % intervals of a mean difference.

    Args:
        seeds: the difference of each seed.
        images: the mean difference on each resampled image set, where there are counts.

    Returns:
        ``images_from``, ``images_to``, ``all_from``, ``all_to``; NaN where there are no counts or only one seed.
    """
    bounds = dict.fromkeys(("images_from", "images_to", "all_from", "all_to"), float("nan"))
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
    """Read the rows of ``differences`` that chapters 08 and 09 recorded, with a column ``chapter``; missing ends are NaN."""
    rows = [
        {"chapter": chapter, **row}
        for chapter in COMPARING
        for row in records.get((chapter, "default"), {}).get("differences", [])
    ]
    bounds = dict.fromkeys(("images_from", "images_to", "all_from", "all_to"), float)
    return pd.DataFrame(rows).astype(bounds) if rows else pd.DataFrame(columns=["chapter", "measure", *bounds])


def describe(row: Any) -> str:
    """Say in a sentence what a row of ``differences`` shows.

    Example:
        >>> row = {"measure": "maps", "first": "attention_1-0.5", "second": "max_1-0.5", "points": 1.2, "seeds": [1.2]}
        >>> describe({**row, "verdict": "too_few_seeds"})
        'Localization maps: SAFN with 2 scales scores 1.2 points higher than max pooling with 2 scales. One seed is too few for a conclusion.'
    """
    first, second = row["first"], row["second"]
    points, low, high = row["points"], row.get("all_from"), row.get("all_to")
    if points < 0:  # the higher one first
        first, second = second, first
        points, low, high = -points, *(None if end is None else -end for end in (high, low))
    digits = 1 if points >= 1 else 2
    title = MEASURES[row["measure"]].title
    head = (
        f"{title[0].upper()}{title[1:]}: {phrase(first)} scores {points:.{digits}f} points higher than {phrase(second)}"
    )
    within = f"{head} (95 % interval {interval(low, high, digits)})"
    match Verdict(row["verdict"]):
        case Verdict.DIFFERENT_MACHINES:
            return f"{head}. They were trained on different types of machine, so this allows no conclusion."
        case Verdict.TOO_FEW_SEEDS if len(row["seeds"]) == 1:
            return f"{head}. One seed is too few for a conclusion."
        case Verdict.TOO_FEW_SEEDS:
            return f"{head}. {len(row['seeds'])} seeds are too few for a conclusion."
        case Verdict.UNDECIDED:
            return f"{within}. The difference is not significant."
    if pd.isna(row["images_from"]):
        return f"{within}. The difference is significant over the seeds; other images were not considered."
    return f"{within}. The difference is significant."
