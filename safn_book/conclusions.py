"""What recorded differences allow one to say about a configuration: no stronger than the intervals, new with new records."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from safn_book.results import MEASURES, Verdict, over_seeds
from safn_book.tables import MISSING, interval, number, phrase, with_short_names

CONSTANT = "mean of the learned weights"
WEIGHTS = {"their mean": CONSTANT, "shuffled pixels": "learned weights, shuffled", "equal": "equal weights"}
SENTENCES = {
    Verdict.BETTER: "are significantly better than those of",
    Verdict.WORSE: "are significantly worse than those of",
    Verdict.UNDECIDED: "do not differ significantly from those of",
    Verdict.TOO_FEW_SEEDS: "have too few seeds to be compared with those of",
    Verdict.DIFFERENT_MACHINES: "come from another type of machine and cannot be compared with those of",
}


def listing(words: list[str]) -> str:
    """Join words as in a sentence.

    Example:
        >>> listing(["a", "b", "c"]), listing(["a"])
        ('a, b and c', 'a')
    """
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def against(rows: pd.DataFrame, first: str) -> pd.DataFrame:
    """Select the differences between one configuration and the others.

    Args:
        rows: of ``results.differences_table``.
        first: a configuration.

    Returns:
        a row for each measure and other configuration, with the signs turned where ``first`` stood second.
    """
    behind = rows[rows["second"] == first].copy()
    behind[["first", "second"]] = behind[["second", "first"]].to_numpy()
    behind["points"] *= -1
    behind["seeds"] = [[-points for points in seeds] for seeds in behind["seeds"]]
    for ends in (["images_from", "images_to"], ["all_from", "all_to"]):
        behind[ends] = -behind[ends[::-1]].to_numpy()
    behind["verdict"] = behind["verdict"].replace({"better": "worse", "worse": "better"})
    joined = pd.concat([rows[rows["first"] == first], behind])
    return joined.drop_duplicates(["measure", "second"], ignore_index=True)


def conclusion(rows: pd.DataFrame, noun: str) -> str:
    """Say what the differences between one configuration and the others allow one to say.

    Args:
        rows: of ``against``, of one measure.
        noun: what is compared, in the plural, such as ``maps``.

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
    """Set a configuration beside each alternative.

    Args:
        runs: of ``results.runs_table``.
        rows: of ``against``.
        measure: a key of ``results.MEASURES``.

    Returns:
        one row a configuration, as texts: the mean over the seeds that all have, by how many points the first is ahead,
        the 95 % interval over images and seeds (over images where one seed was trained), and the points of each seed.
    """
    rows, metric = rows[rows["measure"] == measure].set_index("second"), MEASURES[measure].metric
    compared = runs[runs["configuration"].isin([*rows.index, *rows["first"]])].dropna(subset=metric)
    shared = compared.groupby("seed")["configuration"].transform("nunique") == compared["configuration"].nunique()
    table = over_seeds(compared[shared], [metric]).rename(columns={metric: "mIoU"})
    table["mIoU"] = table["mIoU"].str.replace(" ", "\N{NO-BREAK SPACE}")
    whole = rows["all_from"].notna().any()
    ends = ["all_from", "all_to"] if whole else ["images_from", "images_to"]
    shown = pd.DataFrame({
        "ahead by": [number(points, 2, sign=True) for points in rows["points"]],
        f"95 % interval ({'images, seeds' if whole else 'images'})": [interval(low, high, 2) for low, high in rows[ends].to_numpy()],
        "each seed": [_signed(seeds, 1) for seeds in rows["seeds"]],
    }, rows.index)  # fmt: skip
    return with_short_names(table.join(shown).fillna(MISSING).rename_axis(None))


def replaced_table(replaced: pd.DataFrame) -> pd.DataFrame:
    """Summarise what the maps lose when other weights stand in for the learned ones.

    Args:
        replaced: the recorded rows of chapter 09, one a network and kind of weights.

    Returns:
        one row a kind of weights: mean change in points of mIoU, the change in each network, and the number of networks
        that are ``worse`` or ``better`` by more than the 95 % interval over images.
    """
    rows = replaced[replaced["weights"] != "learned"]
    rows = rows.assign(worse=np.signbit(rows["to"]), better=rows["from"] > 0)  # with two decimals, -0.0 is below 0
    groups = rows.groupby("weights", sort=False)
    table = groups.agg({"difference": "mean", "worse": "sum", "better": "sum"})
    table.insert(1, "each network", groups["difference"].agg(_signed))
    return table.rename(columns={"difference": "change"}, index=WEIGHTS).rename_axis(None)


def _signed(values: Iterable[float], digits: int = 2) -> str:
    return ", ".join(number(value, digits, sign=True) for value in values)


def weights_statement(table: pd.DataFrame, networks: int) -> str:
    """Say whether one constant weight for each scale does as well as the learned weights.

    Args:
        table: of ``replaced_table``.
        networks: how many networks it summarises.
    """
    row = table.loc[CONSTANT]
    head = "worse than" if row["worse"] else "as well as"
    return (
        f"A constant weight for each scale does {head} the learned weights. With it the maps change by "
        f"{number(row['change'], 2, sign=True)} points of mIoU, and become significantly worse in "
        f"{row['worse'] or 'none'} of {networks} networks."
    )


def size_statement(sizes: pd.DataFrame) -> str:
    """Say which configuration has the highest IoU on objects of each size.

    Args:
        sizes: a table of ``results.by_size``.
    """
    best = sizes.dropna(how="all").idxmax(axis=1)
    parts = [f"{phrase(name)} on {size} objects" for size, name in best.items()]
    return f"Highest IoU: {listing(parts)}." if parts else "No object was scored."


def correlation_statement(correlations: pd.DataFrame) -> str:
    """Say whether the weight of the largest scale falls with the size of the object, as the paper expects.

    Args:
        correlations: of ``studies.weight_size_correlation``.
    """
    if correlations.empty:
        return "No network with attention was studied."
    scale = max(correlations["scale"], key=float)
    rows = correlations[correlations["scale"] == scale]
    falls, rises = (rows["to"] < 0).sum(), (rows["from"] > 0).sum()
    return (
        f"The paper expects the weight of scale {scale} to fall with the size of the object. It falls significantly in "
        f"{falls or 'none'} of {len(rows)} networks, and rises significantly in {rises or 'none'}."
    )
