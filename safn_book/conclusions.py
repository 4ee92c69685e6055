"""Differences between configurations with their intervals, and what the intervals allow one to say."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy import stats

from safn.evaluation import load_counts
from safn.files import DataError
from safn.metrics import bootstrap
from safn_book.archive import Records
from safn_book.checks import unlike
from safn_book.results import LEAST_SEEDS, MEASURES, Measure, Runs, over_seeds, shared_seeds
from safn_book.run_names import CHAIN, COMPARING, DEFAULT, TRAINED, RunName
from safn_book.tables import MISSING, interval, number, phrase, with_short_names

BOUNDS = ["images_from", "images_to", "all_from", "all_to"]
DIFFERENCES = ["measure", "first", "second", "points", "seeds", *BOUNDS, "verdict"]
CONSTANT = "mean of the learned weights"
WEIGHTS = {"their mean": CONSTANT, "shuffled pixels": "learned weights, shuffled", "equal": "equal weights"}


class Verdict(StrEnum):
    """What the intervals allow one to say about the first of two configurations."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    TOO_FEW_SEEDS = "too_few_seeds"
    DIFFERENT_MACHINES = "different_machines"


SENTENCES = {
    Verdict.BETTER: "are significantly better than those of",
    Verdict.WORSE: "are significantly worse than those of",
    Verdict.UNDECIDED: "do not differ significantly from those of",
    Verdict.TOO_FEW_SEEDS: "have too few seeds to be compared with those of",
    Verdict.DIFFERENT_MACHINES: "come from another type of machine and cannot be compared with those of",
}


# --- differences -----------------------------------------------------------------------------------------------------


def differences(runs: Runs, by: str, draws: int = 1000) -> pd.DataFrame:
    """Subtract the mIoU of each later configuration from that of each earlier one, over pairs of runs of one seed.

    The interval over images is a paired bootstrap of the mean over the seeds, with ``draws`` resampled image sets. The
    interval over all adds the t interval of the seeds in quadrature, ``sqrt(images^2 + seeds^2)``. Where a run has no
    counts of its images, it is that of the seeds alone. NaN: no interval. There is no verdict across types of machine,
    where a seed trains another network.

    Raises:
        DataError: the runs differ in more than the setting ``by`` (``aggregation`` or ``scales``).
    """
    if problems := unlike(((stage, record) for (stage, _), record in runs.records.items()), [by]):
        head = f"these runs differ in more than {by}, so they cannot be compared; run each again with equal settings:"
        raise DataError("\n  - ".join([head, *problems]))
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


# --- tables and sentences --------------------------------------------------------------------------------------------


def listing(words: list[str]) -> str:
    """Join words as in a sentence: ``a, b and c``."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def conclusion(rows: pd.DataFrame, noun: str) -> str:
    """Say what rows of ``against`` of one measure allow one to say of a plural noun, such as ``maps``.

    Example:
        >>> rows = pd.DataFrame({"first": ["attention_1-0.5"], "second": ["max_1-0.5"], "verdict": ["better"]})
        >>> conclusion(rows, "maps")
        'The maps of SAFN with 2 scales are significantly better than those of max pooling with 2 scales.'
    """
    sentences: list[str] = []
    for verdict, text in SENTENCES.items():
        others = [phrase(name) for name in rows["second"][rows["verdict"] == verdict]]
        if others:
            subject = "They" if sentences else f"The {noun} of {phrase(rows['first'].iloc[0])}"
            sentences.append(f"{subject} {text} {listing(others)}.")
    return " ".join(sentences) or f"The {noun} were not compared."


def comparison(runs: pd.DataFrame, rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Set a configuration beside each alternative, as texts: the mean over the seeds that all have, and by how many
    points the first is ahead, with the interval over images and seeds (over images where one seed was trained).

    ``runs`` is a ``results.runs_table``, ``rows`` are of ``against``, and ``measure`` is a key of ``results.MEASURES``.
    """
    rows, metric = rows[rows["measure"] == measure].set_index("second"), MEASURES[measure].metric
    compared = runs[runs["configuration"].isin([*rows.index, *rows["first"]])].dropna(subset=metric)
    table = over_seeds(shared_seeds(compared), [metric]).rename(columns={metric: "mIoU"})
    table["mIoU"] = table["mIoU"].str.replace(" ", "\N{NO-BREAK SPACE}")
    over = "all" if rows["all_from"].notna().any() else "images"
    bounds = rows[[f"{over}_from", f"{over}_to"]].to_numpy()
    shown = pd.DataFrame(index=rows.index)
    shown["ahead by"] = [number(points, 2, sign=True) for points in rows["points"]]
    title = "images, seeds" if over == "all" else "images"
    shown[f"95 % interval ({title})"] = [interval(low, high, 2) for low, high in bounds]
    shown["each seed"] = [_signed(seeds, 1) for seeds in rows["seeds"]]
    return with_short_names(table.join(shown).fillna(MISSING).rename_axis(None))


def _signed(values: Iterable[float], digits: int = 2) -> str:
    return ", ".join(number(value, digits, sign=True) for value in values)


def replaced_table(replaced: pd.DataFrame) -> pd.DataFrame:
    """Summarise the rows of ``studies.replacement_scores``, one row a kind of weights: the mean change in points of
    mIoU, that in each network, and in how many networks it is significant."""
    rows = replaced[replaced["weights"] != "learned"]
    rows = rows.assign(worse=np.signbit(rows["to"]), better=rows["from"] > 0)  # with two decimals, -0.0 is below 0
    groups = rows.groupby("weights", sort=False)
    table = groups.agg({"difference": "mean", "worse": "sum", "better": "sum"})
    table.insert(1, "each network", groups["difference"].agg(_signed))
    return table.rename(columns={"difference": "change"}, index=WEIGHTS).rename_axis(None)


def weights_statement(table: pd.DataFrame, networks: int) -> str:
    """Say of a ``replaced_table`` whether one constant weight for each scale does as well as the learned weights."""
    row = table.loc[CONSTANT]
    head = "worse than" if row["worse"] else "as well as"
    return (
        f"A constant weight for each scale does {head} the learned weights. With it the maps change by "
        f"{number(row['change'], 2, sign=True)} points of mIoU, and become significantly worse in "
        f"{row['worse'] or 'none'} of {networks} networks."
    )


def size_statement(sizes: pd.DataFrame) -> str:
    """Say of a table of ``results.by_size`` which configuration has the highest IoU on objects of each size."""
    best = sizes.dropna(how="all").idxmax(axis=1)
    parts = [f"{phrase(name)} on {size} objects" for size, name in best.items()]
    return f"Highest IoU: {listing(parts)}." if parts else "No object was scored."


def correlation_statement(correlations: pd.DataFrame) -> str:
    """Say of ``studies.weight_size_correlation`` whether the largest scale's weight falls with the object's size."""
    if correlations.empty:
        return "No network with attention was studied."
    scale = max(correlations["scale"], key=float)
    rows = correlations[correlations["scale"] == scale]
    falls, rises = (rows["to"] < 0).sum(), (rows["from"] > 0).sum()
    return (
        f"The paper expects the weight of scale {scale} to fall with the size of the object. It falls significantly in "
        f"{falls or 'none'} of {len(rows)} networks, and rises significantly in {rises or 'none'}."
    )
