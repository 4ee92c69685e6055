"""Differences between configurations with their intervals and verdicts."""

import itertools
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from safn.evaluation import load_counts
from safn.files import DataError
from safn.metrics import bootstrap
from safn_book.archive import Records
from safn_book.checks import deciding
from safn_book.results import LEAST_SEEDS, MEASURES, Measure, Runs
from safn_book.run_names import CHAIN, COMPARING, DEFAULT, TRAINED, RunName

BOUNDS = ["images_from", "images_to", "all_from", "all_to"]
DIFFERENCES = ["measure", "first", "second", "points", "seeds", *BOUNDS, "verdict"]


class Verdict(StrEnum):
    """What the intervals allow one to say about the first of two configurations."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    TOO_FEW_SEEDS = "too_few_seeds"
    DIFFERENT_MACHINES = "different_machines"


def differences(runs: Runs, by: str, draws: int = 1000) -> pd.DataFrame:
    """Subtract the mIoU of each later configuration from that of each earlier one, over pairs of runs of one seed.

    The interval over images is a paired bootstrap of the mean over the seeds, with ``draws`` resampled image sets. The
    interval over all adds the t interval of the seeds in quadrature, ``sqrt(images^2 + seeds^2)``. Where a run has no
    counts of its images, it is that of the seeds alone. NaN: no interval. There is no verdict across types of machine,
    where a seed trains another network.

    Raises:
        DataError: the runs differ in more than the setting ``by`` (``aggregation`` or ``scales``).
    """
    if problems := _conflicts(runs.records, by):
        head = f"these runs differ in more than {by}, so they cannot be compared; run each again with equal settings:"
        raise DataError.from_problems(head, problems)
    rows = []
    for key, measure in MEASURES.items():
        if key == "pseudo_wrong":
            continue  # one convention for ignored pixels is enough
        measured = runs.table[runs.table[measure.metric].notna()]
        points = 100 * measured.set_index("run")[measure.metric]
        samples = _bootstrap_samples(runs, points.index, measure, draws)
        groups = {name: rows.set_index("seed")["run"] for name, rows in measured.groupby("configuration", sort=False)}
        for first, second in itertools.combinations(groups, 2):
            pairs = [(run, groups[second][seed]) for seed, run in groups[first].items() if seed in groups[second]]
            if not pairs:
                continue
            seeds = np.array([points[a] - points[b] for a, b in pairs])
            images = None
            if all(run in samples for pair in pairs for run in pair):
                images = np.mean([samples[a] - samples[b] for a, b in pairs], 0)
            bounds = _intervals(seeds, images)
            same_machines = all(_machines(runs, a, measure) == _machines(runs, b, measure) for a, b in pairs)
            verdict = _verdict(seeds, bounds) if same_machines else Verdict.DIFFERENT_MACHINES
            row = {"measure": key, "first": first, "second": second, "points": seeds.mean(), "seeds": seeds.tolist()}
            rows.append({**row, **bounds, "verdict": verdict})
    return pd.DataFrame(rows, columns=DIFFERENCES)


def _conflicts(records: Records, varied: str) -> list[str]:
    """Where a record differs from the first one of its stage in a setting other than ``varied`` that decides what is measured."""
    first: dict[str, dict[str, Any]] = {}
    problems = []
    for (stage, run), record in records.items():
        given = {name: value for name, value in deciding(record).items() if name not in ("run", varied)}
        known = first.setdefault(stage, given)
        differ = [
            f"{name} {known[name]} and {value}" for name, value in given.items() if known.get(name, value) != value
        ]
        if differ:
            problems.append(f"{stage}/{run}: {', '.join(differ)}")
    return problems


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


def _machines(runs: Runs, run: str, measure: Measure) -> list[tuple[str, str]]:
    """Device and processor that trained each network which a measure of a run rests on."""
    rests_on = CHAIN[: CHAIN.index(measure.stage)]
    keys = [(stage, str(RunName.parse(run).at(stage))) for stage in TRAINED if stage in rests_on]
    records = [runs.records[key] for key in keys if key in runs.records]
    return [(record["device"], record["machine"]) for record in records]


def _intervals(seeds: np.ndarray, images: np.ndarray | None) -> dict[str, float]:
    """95 % intervals of a mean difference, of which each seed and each resampled image set has a value."""
    bounds = dict.fromkeys(BOUNDS, float("nan"))
    mean = low = high = seeds.mean()
    if images is not None:
        low, high = np.percentile(images, [2.5, 97.5])
        bounds |= {"images_from": low, "images_to": high}
    if len(seeds) > 1:
        half = stats.t.ppf(0.975, len(seeds) - 1) * seeds.std(ddof=1) / np.sqrt(len(seeds))
        bounds |= {"all_from": mean - np.hypot(mean - low, half), "all_to": mean + np.hypot(high - mean, half)}
    return bounds


def _verdict(seeds: np.ndarray, bounds: dict[str, float]) -> Verdict:
    if len(seeds) < LEAST_SEEDS:
        return Verdict.TOO_FEW_SEEDS
    if bounds["all_from"] <= 0 <= bounds["all_to"]:
        return Verdict.UNDECIDED
    return Verdict.BETTER if seeds.mean() > 0 else Verdict.WORSE


def differences_table(records: Records) -> pd.DataFrame:
    """Read the rows of ``differences`` that chapters 08 and 09 recorded."""
    rows = [row for chapter in COMPARING for row in records.get((chapter, DEFAULT), {}).get("differences", [])]
    return pd.DataFrame(rows, columns=DIFFERENCES).astype(dict.fromkeys(BOUNDS, float))


def against(rows: pd.DataFrame, first: str) -> pd.DataFrame:
    """Select the differences between one configuration and the others, with the signs turned where it stood second."""
    behind = rows[rows["second"] == first].copy()
    behind[["first", "second"]] = behind[["second", "first"]].to_numpy()
    behind["points"] *= -1
    behind["seeds"] = [[-points for points in seeds] for seeds in behind["seeds"]]
    for ends in (["images_from", "images_to"], ["all_from", "all_to"]):
        behind[ends] = -behind[ends[::-1]].to_numpy()
    behind["verdict"] = behind["verdict"].replace({"better": "worse", "worse": "better"})
    joined = pd.concat([rows[rows["first"] == first], behind])
    return joined.drop_duplicates(["measure", "second"], ignore_index=True)
