"""Sentences and tables that follow from recorded numbers: no stronger than the intervals, and new with new records."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from safn_book.archive import Records
from safn_book.results import MEASURES, Verdict, over_seeds
from safn_book.run_names import RunName
from safn_book.tables import MISSING, interval, number, phrase, with_short_names

CONSTANT = "mean of the learned weights"


def listing(words: Iterable[str], last: str = "and") -> str:
    """Join words as in a sentence.

    Example:
        >>> listing(["a", "b", "c"]), listing(["a"])
        ('a, b and c', 'a')
    """
    *before, end = words
    return f"{', '.join(before)} {last} {end}" if before else end


def against(rows: pd.DataFrame, first: str) -> pd.DataFrame:
    """Select the differences between one configuration and the others, each as ``first`` minus the other.

    Args:
        rows: of ``results.differences_table``.
        first: a configuration.

    Returns:
        a row for each measure and other configuration, with the signs turned where ``first`` stood second.
    """
    ahead, behind = rows[rows["first"] == first], rows[rows["second"] == first].copy()
    behind[["first", "second"]] = behind[["second", "first"]].to_numpy()
    behind["points"] = -behind["points"]
    behind["seeds"] = [[-points for points in seeds] for seeds in behind["seeds"]]
    for ends in ("images", "all"):
        behind[[f"{ends}_from", f"{ends}_to"]] = -behind[[f"{ends}_to", f"{ends}_from"]].to_numpy()
    turned = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    behind["verdict"] = [turned.get(Verdict(verdict), verdict) for verdict in behind["verdict"]]
    joined = pd.concat([ahead, behind])
    return joined.drop_duplicates(["measure", "second"], ignore_index=True)


def conclusion(rows: pd.DataFrame, noun: str) -> str:
    """Say what the differences between one configuration and the others allow one to say.

    Args:
        rows: of ``against``, of one measure.
        noun: what is compared, in the plural, such as ``maps``.

    Example:
        >>> rows = pd.DataFrame({"first": ["attention_1-0.5"] * 2, "second": ["max_1-0.5", "attention_1"]})
        >>> print(*conclusion(rows.assign(verdict=["better", "undecided"]), "maps").split(". "), sep="\\n")
        The maps of SAFN with 2 scales are significantly better than those of max pooling with 2 scales
        They do not differ significantly from those of the baseline with 1 scale.
    """
    if rows.empty:
        return f"The {noun} were not compared."
    phrases = {
        Verdict.BETTER: "are significantly better than those of {}",
        Verdict.WORSE: "are significantly worse than those of {}",
        Verdict.UNDECIDED: "do not differ significantly from those of {}",
        Verdict.TOO_FEW_SEEDS: "have too few seeds to be compared with those of {}",
        Verdict.DIFFERENT_MACHINES: "come from another type of machine than those of {}, so they are not compared",
    }
    sentences = []
    for verdict, text in phrases.items():
        others = [phrase(name) for name in rows["second"][rows["verdict"] == verdict]]
        if others:
            subject = "They" if sentences else f"The {noun} of {phrase(rows['first'].iloc[0])}"
            last = "or" if verdict is Verdict.UNDECIDED else "and"
            sentences.append(f"{subject} {text.format(listing(others, last))}.")
    return " ".join(sentences)


def answer(rows: pd.DataFrame) -> str:
    """Say how many alternatives one configuration beats: the short answer to "is it worth it?".

    Args:
        rows: of ``against``, of all measures.
    """
    better = rows[rows["verdict"] == Verdict.BETTER]
    nouns = {"maps": "maps", "pseudo_background": "pseudo labels", "segmentation_crf": "segmentations"}
    compared = {measure: noun for measure, noun in nouns.items() if measure in set(rows["measure"])}
    counts = [f"{sum(better['measure'] == key) or 'none'} in the {noun}" for key, noun in compared.items()]
    if not counts:
        return "Nothing was compared."
    head = "In part" if len(better) else "Not measurably"
    alternatives = rows["second"].nunique()
    return f"{head}. Of {alternatives} alternatives, scale attention is significantly better than {listing(counts)}."


def comparison(runs: pd.DataFrame, rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Set a configuration beside each alternative.

    Args:
        runs: of ``results.runs_table``.
        rows: of ``against``.
        measure: a key of ``results.MEASURES``.

    Returns:
        one row a configuration, as texts: the mean over the seeds that all have, by how many points the first is ahead,
        the 95 % interval of that over images and seeds (over images alone where one seed was trained), and the points of
        each seed.
    """
    rows = rows[rows["measure"] == measure].set_index("second")
    metric = MEASURES[measure].metric
    compared = runs[runs["configuration"].isin([*rows.index, *rows["first"]])].dropna(subset=metric)
    shared = compared.groupby("seed")["configuration"].transform("nunique") == compared["configuration"].nunique()
    means = over_seeds(compared[shared], [metric])[metric]
    table = pd.DataFrame({"mIoU": means.str.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")})
    table["ahead by"] = [number(points, 2, sign=True) for points in rows["points"].reindex(table.index)]
    whole = rows["all_from"].notna().any()
    name, ends = ("images, seeds", "all") if whole else ("images", "images")
    bounds = rows[[f"{ends}_from", f"{ends}_to"]].reindex(table.index).to_numpy()
    table[f"95 % interval ({name})"] = [interval(low, high, 2) for low, high in bounds]
    each = rows["seeds"].reindex(table.index)
    table["each seed"] = [_signed(seeds, 1) if isinstance(seeds, list) else MISSING for seeds in each]
    return with_short_names(table.rename_axis(None))


def saliency_statement(runs: pd.DataFrame, main: str) -> str:
    """Say what the pseudo labels lose when their foreground comes from the saliency or from the maps alone.

    Args:
        runs: of ``results.runs_table``, with the two controls of the configuration ``main``.
    """
    scores = runs.set_index(["configuration", "seed"])["pseudo_miou_background"].mul(100)
    changes = {}
    for control in ("saliency", "maps"):
        name = f"{main}+{control}"
        if name not in scores:
            return "The controls of the saliency were not run."
        changes[control] = (scores[name] - scores[main].reindex(scores[name].index)).mean()
    head = "The saliency does" if changes["saliency"] > changes["maps"] else "The localization maps do"
    return (
        f"{head} most of the work. With the foreground of the saliency alone, the pseudo labels change by "
        f"{number(changes['saliency'], sign=True)} points of mIoU. With that of the maps alone, they change by "
        f"{number(changes['maps'], sign=True)} points."
    )


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
    names = {"their mean": CONSTANT, "shuffled pixels": "learned weights, shuffled", "equal": "equal weights"}
    return table.rename(columns={"difference": "change"}, index=names).rename_axis(None)


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
    means = {name: 100 * pd.concat(values, axis=1).mean(axis=1) for name, values in found.items()}
    return pd.DataFrame(means)
