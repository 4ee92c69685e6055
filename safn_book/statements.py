"""What recorded runs and the chapters that compare runs say: sentences and tables that the intervals allow."""

from typing import Any

import numpy as np
import pandas as pd

from safn_book import archive, charts, display
from safn_book.conclusions import Verdict, against
from safn_book.results import LEAST_SEEDS, MEASURES, by_size, mean_and_deviation, over_seeds, seeds_note, shared_seeds
from safn_book.run_names import DEFAULT, RunName, Stage
from safn_book.tables import MISSING, interval, number, short_name, versus, with_short_names

MAIN = "attention_1-0.75-0.5"
CONSTANT = "mean of the learned weights"
SIZED = ("maps", "pseudo_wrong", "segmentation_multi")  # measures by object size that a chapter shows
WEIGHTS = {"their mean": CONSTANT, "shuffled pixels": "learned weights, shuffled", "equal": "equal weights"}
SENTENCES = {
    Verdict.BETTER: "are significantly better than those of",
    Verdict.WORSE: "are significantly worse than those of",
    Verdict.UNDECIDED: "do not differ significantly from those of",
    Verdict.TOO_FEW_SEEDS: "come from too few seeds to be compared with those of",
    Verdict.DIFFERENT_MACHINES: "come from another type of machine than those of",
}


def recorded(stage: Stage, *place: str, configuration: str = MAIN, file: str = "evidence") -> str:
    """Write a share that runs on photographs recorded, in percent: its mean over the seeds, plus or minus their deviation.

    Args:
        stage, place: whose record has it, and the names that lead to it there.
        configuration: a run name without its seed. A stage with one run for all of them has its own value.
        file: of ``results``: the runs of ``evidence`` have three seeds, those of ``voc-subset`` one.

    Raises:
        ValueError: no run has recorded it.

    Example:
        >>> recorded(Stage.TRAIN_SAFN, "metrics", "val_mAP"), recorded(Stage.SALIENCY, "metrics", "saliency_iou")
        ('84.7 ± 0.4', '61.8')
    """
    found: list[float] = []
    for (recorded_stage, run), value in archive.read(archive.RESULTS / f"{file}.json").items():
        if recorded_stage is stage and (run == DEFAULT or RunName.parse(run).configuration == configuration):
            for name in place:
                value = value.get(name, {})
            found += [value] if isinstance(value, float) else []
    if not found:
        raise ValueError(f"no run {configuration} of results/{file}.json has recorded {' > '.join((stage, *place))}")
    return mean_and_deviation(pd.Series(found))


def listing(words: list[str]) -> str:
    """Join words as in a sentence: ``a, b and c``."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def conclusion(rows: pd.DataFrame, noun: str) -> str:
    """Say what rows of ``against`` of one measure allow one to say of a plural noun, such as ``maps``.

    Example:
        >>> rows = pd.DataFrame({"first": ["attention_1-0.5"], "second": ["max_1-0.5"], "verdict": ["better"]})
        >>> conclusion(rows, "maps")
        'The maps of SAFN are significantly better than those of max pooling.'
    """
    parts = []
    for verdict, text in SENTENCES.items():
        pairs = rows.loc[rows["verdict"] == verdict, ["first", "second"]].to_numpy()
        if len(pairs):
            parts.append(f"{text} {listing([versus(*pair)[1] for pair in pairs])}")
    if not parts:
        return f"The {noun} were not compared."
    names = {versus(*pair)[0] for pair in rows[["first", "second"]].to_numpy()}
    first = names.pop() if len(names) == 1 else short_name(rows["first"].iloc[0]).split(",")[0]
    return f"The {noun} of {first} {', and '.join(parts)}."


def answer(rows: pd.DataFrame) -> str:
    """Say in two sentences whether scale attention is worth it, from the verdicts on maps in rows of ``against``."""
    verdicts: dict[str, list[str]] = {"pooling": [], "fewer scales": []}
    for row in rows[rows["measure"] == "maps"].to_dict("records"):
        attention = RunName.parse(row["second"], seedless=True).aggregation == "attention"
        verdicts["fewer scales" if attention else "pooling"].append(row["verdict"])
    return " ".join(f"Compared with {rival}: {_worth(found)}." for rival, found in verdicts.items())


def _worth(verdicts: list[str]) -> str:
    if Verdict.WORSE in verdicts:
        return "no, some of its maps are significantly worse"
    if Verdict.BETTER not in verdicts:
        return "not measurably, its maps are not significantly better"
    if set(verdicts) == {Verdict.BETTER}:
        return "yes, its maps are significantly better"
    return "in part, not all of the differences are significant"


def tally(rows: pd.DataFrame) -> str:
    """Count the verdicts of rows of ``against`` of one measure."""
    if (rows["verdict"] == Verdict.TOO_FEW_SEEDS).all():
        return f"Open. It needs {LEAST_SEEDS} seeds."
    better, worse = ((rows["verdict"] == verdict).sum() for verdict in (Verdict.BETTER, Verdict.WORSE))
    return f"Significant gains: {better} of {len(rows)}. Significant losses: {worse} of {len(rows)}."


def findings(rows: pd.DataFrame) -> str:
    """Say what rows of ``against`` allow one to say, a point a measure, or that there are too few seeds."""
    if rows.empty:
        return "Nothing was compared: the runs have no ground-truth masks, or there is one run alone."
    if (rows["verdict"] == Verdict.TOO_FEW_SEEDS).all():
        seeds = int(rows["seeds"].str.len().max())
        return (
            f"**These runs cannot decide it.** Each configuration has {seeds} seed{'s' * (seeds > 1)}, and a verdict needs "
            f"{LEAST_SEEDS}. The intervals below are over images. They ignore that another seed trains another network."
        )
    points, undecidable = [], []
    for measure, group in rows.groupby("measure", sort=False):
        title = MEASURES[measure].title
        if (group["verdict"] == Verdict.TOO_FEW_SEEDS).all():
            undecidable.append(title)
        else:
            points.append(f"- {conclusion(group, title)}")
    if undecidable:
        points.append(f"- Too few seeds for a verdict: {listing(undecidable)}.")
    return "\n".join(points)


def report(rows: pd.DataFrame, data: str) -> list[Any]:
    """What chapters 8 and 9 show of ``differences``: what they allow one to say of the first configuration, and a figure
    whose caption names the ``data``."""
    said = display.text(findings(against(rows, rows["first"].iloc[0]) if len(rows) else rows))
    if rows.empty:
        return [said]
    caption = f"Differences in points of mIoU, {data}. A dot right of 0: the first of the two is better."
    alt = "One panel a measure, one row a pair of configurations: a dot for the difference, lines for its intervals."
    return [said, display.figure(charts.differences(rows), caption, alt)]


def size_report(table: pd.DataFrame, data: str) -> list[Any]:
    """What chapters 8 and 9 show of foreground IoU by object size, of a ``results.runs_table``: sentences and bars."""
    means, spread = (by_size(table, statistic) for statistic in ("mean", "std"))
    shown = [measure for measure in SIZED if measure in means]
    if not shown:
        return [display.text("No run has ground-truth masks, so the sizes of objects are unknown.")]
    points = [f"- {MEASURES[measure].heading}: {size_statement(means[measure])}" for measure in shown]
    caption = f"Foreground IoU (%) by the share of the image that a class covers, {data}. {seeds_note(table)}"
    alt = "Groups of bars for small, medium and large objects, one bar a configuration."
    figure = charts.by_size({measure: (means[measure], spread[measure]) for measure in shown})
    text = "\n".join(["Highest foreground IoU:\n", *points])
    return [display.text(text), display.figure(figure, caption, alt)]


def comparison(runs: pd.DataFrame, rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Set a configuration beside each alternative, as texts: the mean over the seeds that all have, and by how many
    points the first is ahead, with the interval over images and seeds (over images where one seed was trained).

    ``runs`` is a ``results.runs_table``, ``rows`` are of ``against``, and ``measure`` is a key of ``results.MEASURES``.
    """
    rows, metric = rows[rows["measure"] == measure].set_index("second"), MEASURES[measure].metric
    compared = runs[runs["configuration"].isin([*rows.index, *rows["first"]])].dropna(subset=metric)
    table = over_seeds(shared_seeds(compared), [metric]).rename(columns={metric: "mIoU (%)"})
    over = "all" if rows["all_from"].notna().any() else "images"
    bounds = rows[[f"{over}_from", f"{over}_to"]].to_numpy()
    shown = pd.DataFrame(index=rows.index)
    shown["SAFN ahead by"] = [number(points, 2, sign=True) for points in rows["points"]]
    title = "images and seeds" if over == "all" else "images"
    shown[f"95 % interval ({title})"] = [interval(low, high, 2) for low, high in bounds]
    return with_short_names(table.join(shown).fillna(MISSING).rename_axis(None))


def replaced_table(replaced: pd.DataFrame) -> pd.DataFrame:
    """Summarise the rows of ``studies.replacement_scores``, one row a kind of weights: the mean change in points of
    mIoU, and in how many networks the maps are significantly worse and better."""
    rows = replaced[replaced["weights"] != "learned"]
    rows = rows.assign(worse=np.signbit(rows["to"]), better=rows["from"] > 0)  # with two decimals, -0.0 is below 0
    table = rows.groupby("weights", sort=False).agg({"difference": "mean", "worse": "sum", "better": "sum"})
    return table.rename(columns={"difference": "change"}, index=WEIGHTS).rename_axis(None)


def weights_statement(table: pd.DataFrame, networks: int) -> str:
    """Say of a ``replaced_table`` whether one constant weight for each scale does as well as the learned weights."""
    row = table.loc[CONSTANT]
    worse = int(row["worse"])
    if networks == 1:
        significant = "a significant loss" if worse else "no significant loss"
    else:
        significant = f"a significant loss in {worse or 'none'} of {networks} networks"
    return (
        f"A constant weight for each scale does {'worse than' if worse else 'as well as'} the learned weights. The maps change "
        f"by {number(row['change'], 2, sign=True)} points of mIoU, {significant}."
    )


def size_statement(sizes: pd.DataFrame) -> str:
    """Name of a table of ``results.by_size`` the configuration with the highest IoU on objects of each size."""
    best = sizes.dropna(how="all").idxmax(axis=1)
    parts = []
    for name in best.unique():
        names = {versus(name, other)[0] for other in sizes if other != name}
        words = listing([size.split(" (")[0] for size in best.index[best == name]])
        what = short_name(name).replace(", ", " with ", 1).replace("baseline", "the baseline")
        if len(names) == 1:
            what = names.pop()
        parts.append(f"{what} on {words} objects")
    return f"{listing(parts)}." if parts else "no object was scored."


def correlation_statement(correlations: pd.DataFrame) -> str:
    """Say of ``studies.weight_size_correlation`` whether the largest scale's weight falls with the object's size."""
    if correlations.empty:
        return "No network with attention was studied."
    scale = max(correlations["scale"], key=float)
    rows = correlations[correlations["scale"] == scale]
    falls, rises = (rows["to"] < 0).sum(), (rows["from"] > 0).sum()
    if len(rows) > 1:
        found = f"falls significantly in {falls or 'none'} of {len(rows)} networks, and rises in {rises or 'none'}"
    elif falls or rises:
        found = f"{'falls' if falls else 'rises'} significantly"
    else:
        found = "neither falls nor rises significantly"
    return (
        f"The paper expects the weight of scale {scale} to fall with the size of the object. It {found}. The rank correlation "
        f"of weight and size is {number(rows['correlation'].mean(), 2, sign=True)}."
    )
