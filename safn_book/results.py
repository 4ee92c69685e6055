"""Results of several runs side by side: one row a run, means over seeds, paired differences."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from safn.data import DataError
from safn.evaluation import load_counts
from safn.metrics import bootstrap
from safn_book import published
from safn_book.checks import unlike
from safn_book.stages import RECORD, Input, need, parse_run
from safn_book.workflow import CHAIN, TRAINED, base_run, place

PROTOCOLS = {"single": "single scale", "multi": "multiple scales", "crf": "multiple scales + CRF"}
COLUMNS = {
    "val_mAP": "mAP, validation images",
    "map_miou": "maps: mIoU, training images, best threshold",
    "pseudo_miou_drop": "pseudo ground truth: mIoU, training images, 255 dropped",
    "pseudo_miou_background": "255 as background",
    "pseudo_miou_wrong": "255 as wrong",
    "ignored_share": "share of 255",
    **{f"val_miou_{key}": f"segmentation: mIoU, validation images, {text}" for key, text in PROTOCOLS.items()},
}

OVERVIEW = {
    "val_mAP": "mAP",
    "map_miou": "maps",
    "pseudo_miou_background": "pseudo ground truth",
    "val_miou_single": "single scale",
    "val_miou_multi": "multiple scales",
}


def collect(runs: Path | str, experiments: list[str], segmentation: str = "make") -> tuple[pd.DataFrame, list[Input]]:
    """One row an experiment with the metrics of all its stages (shares in 0..1), and the last stage of each.

    Columns ``aggregation``, ``scales`` (text) and ``seed`` come from the name of the run, ``network`` from the
    segmentation, as ``<backbone>-<head>``. What could not be measured, for want of masks, is NaN.

    Args:
        segmentation: that is missing, ``make``, or ``leave``: then the run ends at its last complete stage, and what it lacks
            is NaN.
    """
    rows, ends = [], []
    for run in experiments:
        complete = [stage for stage in CHAIN if (Path(runs) / stage / run / RECORD).exists()]
        last = complete[-1] if segmentation == "leave" and complete else CHAIN[-1]
        end = need(runs, last, run, restored=True)
        parsed = parse_run(base_run(run))
        row = dict.fromkeys(COLUMNS, float("nan"))
        row |= {"run": run, **parsed, "supervision": end.record.get("supervision")}
        row["scales"] = "-".join(f"{s:g}" for s in parsed.get("scales", []))
        for stage in CHAIN:
            kept = (Path(runs) / stage / place(stage, run) / RECORD).exists()
            record = need(runs, stage, place(stage, run), restored=True).record if kept else {}
            row |= {k: float("nan") if v is None else v for k, v in record.get("metrics", {}).items()}
            if stage == TRAINED[-1] and record:
                row["network"] = network_of(record)
        rows.append(row)
        ends.append(end)
    return pd.DataFrame(rows), ends


def network_of(record: dict[str, Any]) -> str:
    """The segmentation network of a record of stage 06, such as ``vgg16-largefov``."""
    return f"{record['parameters']['backbone']}-{record['parameters']['head']}"


def of_main(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main experiment, the first: every seed and every segmentation network, without its controls."""
    first = table.iloc[0]
    same = (table["aggregation"] == first["aggregation"]) & (table["scales"] == first["scales"])
    return table[same & ~table["run"].str.contains("+", regex=False)]


def over_seeds(table: pd.DataFrame, by: str, columns: list[str]) -> pd.DataFrame:
    """Percent over the seeds of each value of ``by``, in order of appearance: ``mean ± standard deviation``, the one
    value where there is one, ``-`` where there is none."""

    def cell(values: pd.Series) -> str:
        values = 100 * values.dropna()
        spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
        return f"{values.mean():.1f}{spread}" if len(values) else "-"

    return table.groupby(by, sort=False)[columns].agg(cell)


def overview(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """``over_seeds`` of the numbers of Tables 4 and 6, and of what they follow from; a column is of the seeds that all of its
    rows have, for the mean of other seeds would be another one."""
    columns = {}
    for column, title in OVERVIEW.items():
        measured = table[table[column].notna()]
        columns[title] = over_seeds(_of_shared_seeds(measured, by, measured[by].nunique()), by, [column])[column]
    return pd.DataFrame(columns, table[by].unique(), dtype=object).fillna("-").rename_axis(by)


def _of_shared_seeds(measured: pd.DataFrame, by: str, values: int) -> pd.DataFrame:
    """The rows of those seeds that each of so many ``values`` of ``by`` has."""
    shared = measured.groupby("seed")[by].nunique() == values
    return measured[measured["seed"].map(shared).astype(bool)]


def beside_published(ours: pd.DataFrame, number: int) -> pd.DataFrame:
    """The segmentations of ``overview`` and the published ones of Table 4 or 6, in the order of ``ours``."""
    columns = ["single scale", "multiple scales"]
    theirs = published.table(number).set_index(ours.index.name)[columns]
    return pd.concat({"this run": ours[columns], "published, VOC 2012 val": theirs}, axis=1).reindex(ours.index)


def seeds_sentence(table: pd.DataFrame) -> str:
    """What the number of seeds allows one to claim."""
    seeds = table["seed"].nunique()
    if seeds >= 3:
        return f"{seeds} seeds: mean ± standard deviation."
    return f"{seeds} seed{'s' * (seeds > 1)}: no order of the methods is claimed; that takes three seeds or more."


# what is compared over the seeds: its metric, the stage that keeps the counts of each image, their file, the 255 convention
COMPARED = {
    "maps": ("map_miou", CHAIN[1], "counts.npz", "wrong"),
    "pseudo ground truth, 255 as background": ("pseudo_miou_background", CHAIN[2], "counts.npz", "background"),
    **{
        f"segmentation, {text}": (f"val_miou_{key}", CHAIN[4], f"counts_{key}.npz", "wrong")
        for key, text in PROTOCOLS.items()
    },
}
SIZED = {
    "maps": "map_iou ",
    "pseudo ground truth, 255 as wrong": "pseudo_iou ",
    **{f"segmentation, {text}": f"val_iou_{key} " for key, text in PROTOCOLS.items()},
}


def differences(runs: Path | str, table: pd.DataFrame, by: str, draws: int = 1000) -> pd.DataFrame:
    """mIoU of each value of ``by`` minus that of each later one, in points, with 95 % intervals.

    Over images: a paired bootstrap of the mean over the seeds; it says what other images would change, and is NaN where a
    run has not kept its counts. Over images and seeds: with the t interval of the seeds' differences added in quadrature,
    ``sqrt(images^2 + seeds^2)``; it says what another training would change as well, and with three seeds it is wide;
    without counts it is of the seeds alone. A pair of runs shares its seed. Where it does not share the machine, nothing can
    be told: the same seed makes another network on another kind of processor.

    Args:
        table: of ``collect``.
        by: ``aggregation`` (Table 4) or ``scales`` (Table 6).

    Returns:
        one row a measure and pair: measure, difference, points, each seed, the two intervals, and in words what can be
        told. What was not measured, for want of masks, of the CRF or of a segmentation, is left out.

    Raises:
        DataError: the runs differ in other settings too, each of which is named.
    """
    _check_alike(runs, table["run"], by)
    rows = []
    for measure, (metric, stage, file, ignored) in COMPARED.items():
        measured = table[table[metric].notna()]
        points = 100 * measured.set_index("run")[metric]
        counts = counts_of(runs, points.index, stage, file)
        samples = dict(zip(counts, 100 * bootstrap(list(counts.values()), draws, ignored=ignored).T)) if counts else {}
        groups = {name: of.set_index("seed")["run"] for name, of in measured.groupby(by, sort=False)}
        for first, second in itertools.combinations(groups, 2):
            pairs = [(groups[first][s], groups[second][s]) for s in groups[first].index if s in groups[second].index]
            if not pairs:
                continue
            each = np.array([points[a] - points[b] for a, b in pairs])
            counted = all(run in samples for pair in pairs for run in pair)
            gaps = np.mean([samples[a] - samples[b] for a, b in pairs], 0) if counted else None
            row = {"measure": measure, "difference": f"{first} - {second}", "points": each.mean()}
            row["each seed"] = ", ".join(f"{gap:+.1f}" for gap in each)
            bounds = _intervals(each, gaps)
            alike = all(_machines(runs, a, stage) == _machines(runs, b, stage) for a, b in pairs)
            told = _verdict(each, bounds, first, second) if alike else "nothing: trained on unlike machines"
            rows.append(row | bounds | {"what can be told": told})
    return pd.DataFrame(rows)


def _machines(runs: Path | str, run: str, stage: str) -> list[tuple[str, str]]:
    """Device and processor that trained each network which a stage of a run rests on."""
    paths = [Path(runs) / trained / place(trained, run) / RECORD for trained in TRAINED if trained <= stage]
    kept = [json.loads(path.read_text()) for path in paths if path.exists()]
    return [(record["device"], record["machine"]) for record in kept]


def _check_alike(runs: Path | str, names: Iterable[str], by: str) -> None:
    paths = [Path(runs) / stage / name / RECORD for name in names for stage in CHAIN]
    kept = [json.loads(path.read_text()) for path in paths if path.exists()]
    if problems := unlike(((record["stage"], record) for record in kept), [by]):
        told = f"these runs differ in more than {by}, so their numbers say nothing of it; run each again with equal settings:"
        raise DataError("\n  - ".join([told, *problems]))


def counts_of(runs: Path | str, names: Iterable[str], stage: str, file: str) -> dict[str, np.ndarray]:
    """The counts of each image that a stage has kept for each run; runs that have none are left out."""
    kept = {run: name for run in names if (Path(runs) / stage / (name := place(stage, run)) / file).exists()}
    return {run: load_counts(need(runs, stage, name, restored=True).folder / file) for run, name in kept.items()}


def _intervals(each: np.ndarray, gaps: np.ndarray | None) -> dict[str, float]:
    """The bounds of the 95 % intervals of a difference: of the seeds ``each``, of the resampled images ``gaps``."""
    mean = each.mean()
    low, high = (mean, mean) if gaps is None else np.percentile(gaps, [2.5, 97.5])
    seeds = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.inf
    bounds = (
        dict.fromkeys(("images from", "images to"), np.nan) if gaps is None else {"images from": low, "images to": high}
    )
    return bounds | {"all from": mean - np.hypot(mean - low, seeds), "all to": mean + np.hypot(high - mean, seeds)}


def _verdict(each: np.ndarray, bounds: dict[str, float], first: str, second: str) -> str:
    if len(each) < 3:
        return "nothing: fewer than three seeds"
    if bounds["all from"] <= 0 <= bounds["all to"]:
        return "nothing"
    alone = " on these images" * bool(np.isnan(bounds["images from"]))
    return f"{first if each.mean() > 0 else second} is better{alone}"


def by_size(table: pd.DataFrame, by: str, of: str = "mean") -> dict[str, pd.DataFrame]:
    """Foreground IoU in percent by object size, ``mean`` or ``std`` over the seeds that every value of ``by`` has: for each
    measure that was taken by size, one row a size and one column a value; the deviation of one seed is NaN."""
    sizes = {}
    for measure, prefix in SIZED.items():
        columns = {c: c.removeprefix(prefix) for c in table if c.startswith(prefix)}
        if not columns:
            continue
        measured = table.dropna(subset=list(columns), how="all")
        measured = _of_shared_seeds(measured, by, table[by].nunique())
        if len(measured):
            found = measured.groupby(by, sort=False)[list(columns)].agg(of).mul(100)
            sizes[measure] = found.rename(columns=columns).T.rename_axis(None, axis=1)
    return sizes


def own_row(ours: pd.DataFrame, network: str, protocol: str, images: int) -> pd.DataFrame:
    """The row of this run below the published table of its segmentation ``network``; no row where it has none."""
    rows = ours[ours["network"] == network]
    if rows.empty:
        return pd.DataFrame()
    value = over_seeds(rows, "network", [f"val_miou_{protocol}"]).iloc[0, 0]
    said = {"supervision": "labels only", "training": f"{images:,}", "val": value, "test": "not submitted"}
    return pd.DataFrame([{"method": "SAFN (this run)", "venue": "", **said}])


def by_class(ours: pd.DataFrame, ends: list[Input], protocol: str) -> pd.DataFrame:
    """IoU in percent, mean over the seeds: one row a class and last ``mean``, one column a segmentation network, named
    as in Table 3 where the paper has it."""
    published_as, columns = {network: name for name, network in published.NETWORKS.items()}, {}
    for network, rows in ours.groupby("network", sort=False):
        found = [end.record for end in ends if end.folder.name in set(rows["run"])]
        each = pd.DataFrame([record["per_class"][protocol] for record in found], dtype=float)
        each["mean"] = [record["metrics"][f"val_miou_{protocol}"] for record in found]
        name = f"{published_as[network]}-val" if network in published_as else network
        columns[f"{name} (this run)"] = each.astype(float).mean().mul(100).round(1)
    return pd.DataFrame(columns)


def beside_table3(columns: pd.DataFrame) -> pd.DataFrame:
    """``columns`` of ``by_class`` and those of Table 3, each network's side by side."""
    joined = columns.join(published.table(3).add_suffix(" (published)"))
    order = {name: k for k, name in enumerate(published.NETWORKS)}
    return joined[sorted(joined, key=lambda column: order.get(column.split("-")[0], -1))]
