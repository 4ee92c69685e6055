"""The page on what the attention does: means over the seeds, differences with intervals, and results by object size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from safn_book import archive, charts, drawings
from safn_book.pages import picture, table
from safn_book.recorded import FOLDER, Records, exported, measured_with, percent, runs_of
from safn_book.results import PROTOCOLS, by_size, over_seeds
from safn_book.workflow import CHAIN, COMPARING

# the tables of means: title -> metric -> column
MEANS = {
    "classifier (mAP, validation images), maps and pseudo ground truth (mIoU, training images)": {
        "val_mAP": "mAP",
        "map_miou": "maps",
        "pseudo_miou_drop": "pseudo, 255 dropped",
        "pseudo_miou_background": "255 as background",
        "pseudo_miou_wrong": "255 as wrong",
        "ignored_share": "share of 255",
    },
    "the same mIoU on those training images that are on the official train list": {
        "map_miou_train_list": "maps",
        "pseudo_miou_drop_train_list": "pseudo, 255 dropped",
        "pseudo_miou_background_train_list": "255 as background",
        "pseudo_miou_wrong_train_list": "255 as wrong",
        "ignored_share_train_list": "share of 255",
    },
    "segmentation (mIoU, validation images)": {f"val_miou_{key}": text for key, text in PROTOCOLS.items()},
}
LISTED = "_train_list"
# the tables by class: title -> stage and what its record has of each class
CLASSES = {
    "pseudo ground truth, precision / recall, training images": (CHAIN[2], ("precision", "recall")),
    "the same on the official train list": (CHAIN[2], ("precision, train list", "recall, train list")),
    "segmentation, IoU, validation images, multiple scales + CRF": (CHAIN[4], ("crf",)),
}
PANELS = {
    "map_miou": "maps, training images",
    "pseudo_miou_background": "pseudo ground truth,\n255 as background",
    "val_miou_multi": "segmentation, val,\nmulti-scale",
    "val_miou_crf": "segmentation, val,\nmulti-scale + CRF",
}


def sections(name: str, folder: Path = FOLDER) -> str:
    """The sections of one exported file in MyST: means over the seeds, differences with intervals, results by object size,
    and what the weights do."""
    records = exported(folder).get(name)
    if not records:
        return "Nothing is recorded yet.\n"
    text = "Each run (dots) and the mean over the seeds (lines), without the controls; the axes do not begin at 0"
    parts = [measured_with(records), ""]
    if _drawable(records):
        parts.append(picture(f"seeds-{name}", text))
    parts += [*_means(name, records), *_differences(name, records), *_sizes(name, records), *_weights(name, records)]
    parts += _classes(name, records)
    if _thresholds(records):
        text = "The thresholds of the pseudo ground truth, one at a time moved, on up to 150 training images; dashed: as set"
        parts.append(picture(f"thresholds-{name}", text))
    return "\n".join(parts)


def _means(name: str, records: Records) -> Iterator[str]:
    runs = _measured(records)
    for number, (title, columns) in enumerate(MEANS.items()):
        there = [column for column in columns if column in runs]
        whole = all(c.endswith(LISTED) and runs[c].equals(runs[c.removesuffix(LISTED)]) for c in there)
        if not whole and runs[there].notna().any(
            axis=None
        ):  # data without that list: the table would be the one before
            measured = runs.dropna(subset=there, how="all")
            means = over_seeds(measured, "configuration", there)
            rows = [[plainly(kind), *row] for kind, row in zip(means.index, means.to_numpy())]
            caption = f"{_seeds(measured, there)}, percent: {title}"
            yield table(caption, f"{name}-means-{number}", ["", *(columns[c] for c in there)], rows)


def _seeds(measured: pd.DataFrame, columns: list[str]) -> str:
    """Over how many seeds the means of a table are."""
    each = measured.groupby("configuration")[columns].count().stack()
    most, fewer = each.max(), set(each) - {0, each.max()}
    if most == 1:
        return "One seed"
    less = " (without ±: one seed)" if fewer == {1} else " (of some fewer; without ±: of one)" * bool(fewer)
    return f"Mean ± standard deviation over {most} seeds{less}"


def _measured(records: Records) -> pd.DataFrame:
    """``runs_of`` without the classifier and the maps of a control: they are those of its run."""
    runs = runs_of(records)
    shared = [c for c in runs if c == "val_mAP" or c.startswith("map_miou")]
    runs.loc[runs["run"].str.contains("+", regex=False), shared] = float("nan")
    return runs


def _differences(name: str, records: Records) -> Iterator[str]:
    if gaps := _gaps(records):
        yield _frame("What holds and what cannot be told", f"{name}-told", _told(gaps))
        kinds = charts.intervals(pd.DataFrame(gaps))
        text = "Differences in points of mIoU" + f", with 95 % intervals over {', or '.join(kinds)}" * bool(kinds)
        text += " alone, where a run did not keep the counts of its images" * ("seeds" in kinds)
        yield picture(f"differences-{name}", text)
        yield _frame(text, f"{name}-differences", _intervals(gaps))


def _sizes(name: str, records: Records) -> Iterator[str]:
    found, rows = _by_size(records), []
    for what, (means, spread) in found.items():
        cells = means.map("{:.1f}".format) + spread.map(lambda s: "" if pd.isna(s) else f" ± {s:.1f}")
        rows += [[what, c, *cells[c]] for c in cells]
    if found:
        text = "Foreground IoU (%) by the share of the image that the class covers: means ± standard deviation over the seeds that all have"
        yield table(text, f"{name}-sizes", ["", "", *cells.index], rows)
    if "maps" in found:
        text = "Maps by object size: means over the seeds, whiskers: their standard deviation"
        yield picture(f"sizes-{name}", text)


def _by_size(records: Records) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Measure -> means and deviations of ``results.by_size`` for each configuration."""
    runs = runs_of(records)
    runs = runs[runs["seed"].notna() & ~runs["run"].str.contains("[+@]")]  # neither controls nor the upper bound
    runs = runs.assign(configuration=runs["configuration"].map(plainly))
    means, spread = (by_size(runs, "configuration", of) for of in ("mean", "std"))
    return {what: (means[what], spread[what]) for what in means}


def _classes(name: str, records: Records) -> Iterator[str]:
    kinds = dict.fromkeys(runs_of(records)["configuration"])
    for number, (what, (stage, measures)) in enumerate(CLASSES.items()):
        columns = {plainly(kind): _of_classes(records, stage, kind, list(measures)) for kind in kinds}
        shown = pd.DataFrame({kind: cells for kind, cells in columns.items() if len(cells)})
        if len(shown):
            rows = [[label, *cells] for label, cells in zip(shown.index, shown.to_numpy())]
            yield table(f"By class (%), means over the seeds: {what}", f"{name}-classes-{number}", ["", *shown], rows)


def _of_classes(records: Records, stage: str, kind: str, measures: list[str]) -> pd.Series:
    """One text a class: the means over the seeds of a configuration; empty where none has recorded the measures."""
    each = [r for (of, run), r in records.items() if of == stage and re.sub(r"_seed\d+", "", run) == kind]
    found = [r["per_class"] for r in each if set(measures) <= r.get("per_class", {}).keys()]
    if not found:
        return pd.Series(dtype=object)
    means = pd.concat([pd.DataFrame(of, dtype=float)[measures] for of in found]).groupby(level=0, sort=False).mean()
    return means.map(percent).agg(" / ".join, axis=1)


def _weights(name: str, records: Records) -> Iterator[str]:
    found = _chapter(records, "09_scales")
    images = _studied(records, found) if found else ""
    if found.get("weights_by_size"):
        text = f"The learned weights on objects by their size: medians and quartiles, one line a network; {images}"
        yield picture(f"weights-{name}", text)
    if found.get("correlations"):
        text = f"Rank correlation of a weight on an object with the share of the image that it covers; {images}"
        yield _frame(text, f"{name}-correlations", found["correlations"])
    if found.get("replaced"):
        text = f"mIoU (%) of the maps when other weights stand in the place of the learned ones, and IoU by object size; {images}"
        yield _frame(text, f"{name}-replaced", found["replaced"])


def _studied(records: Records, chapter: dict[str, Any]) -> str:
    """Of how many images the weights were studied."""
    train = int(records["00_data", "default"]["metrics"]["train_images"])
    limit = chapter["parameters"].get("study_images") or train
    return f"{limit} of {train:,} training images, evenly spaced" if limit < train else f"{train:,} training images"


def _chapter(records: Records, stage: str) -> dict[str, Any]:
    """What chapter 08 or 09 has recorded of all runs together; empty until it has."""
    return records.get((stage, "default"), {})


def _gaps(records: Records) -> list[dict[str, Any]]:
    """The rows of ``results.differences`` of both chapters, the difference in words."""
    rows = [row for stage in COMPARING for row in _chapter(records, stage).get("differences", [])]
    return [r | {"difference": " against ".join(plainly(name) for name in r["difference"].split(" - "))} for r in rows]


def _told(gaps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a measure: in words which orders hold, or hold for other seeds but were not asked for other images, which
    differences cannot be told, and which were not repeated often enough to ask."""
    seeds_alone, few = "holds over seeds, images not resampled", "fewer than three seeds"
    rows = []
    for measure in dict.fromkeys(gap["measure"] for gap in gaps):
        said: dict[str, list[str]] = {"holds": [], seeds_alone: [], "cannot be told": [], few: []}
        for gap in (g for g in gaps if g["measure"] == measure):
            better, other = gap["difference"].split(" against ")[:: 1 if gap["points"] > 0 else -1]
            told = gap["what can be told"]
            if told.startswith("nothing"):
                said[few if few in told else "cannot be told"].append(
                    f"{gap['difference']} ({_shown(gap['points'], '+')})"
                )
            else:
                kind = seeds_alone if told.endswith("on these images") else "holds"
                said[kind].append(f"{better} better than {other} by {_shown(abs(gap['points']))}")
        rows.append({"measure": measure, **{kind: "; ".join(words) for kind, words in said.items()}})
    used = [kind for kind in rows[0] if any(row[kind] for row in rows)]
    return [{kind: row[kind] or "-" for kind in used} for row in rows]


def _intervals(gaps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of ``_gaps`` with each interval in one cell."""
    rows = [
        {
            "measure": g["measure"],
            "difference": g["difference"],
            "points": _shown(g["points"], "+"),
            "each seed": g["each seed"],
        }
        for g in gaps
    ]
    for over, bounds in charts.intervals(pd.DataFrame(gaps)).items():
        for row, low, high in zip(rows, bounds["from"], bounds["to"]):
            row[over] = "-" if pd.isna(low) else f"{_shown(low, '+')} to {_shown(high, '+')}"
    return rows


def plainly(configuration: str) -> str:
    """``attention_1-0.75-0.5`` as ``attention, 1 / 0.75 / 0.5``."""
    return configuration.replace("_", ", ").replace("-", " / ")


def pictures(folder: Path = FOLDER) -> dict[str, Figure]:
    """Name -> figure of each that ``sections`` shows."""
    drawn = {}
    for name, records in exported(folder).items():
        if _drawable(records):
            drawn[f"seeds-{name}"] = of_seeds(records)
        if gaps := _gaps(records):
            drawn[f"differences-{name}"] = charts.differences(pd.DataFrame(gaps))
        if "maps" in (sizes := _by_size(records)):
            drawn[f"sizes-{name}"] = charts.bars(sizes["maps"][0], "maps\nforeground IoU (%)", sizes["maps"][1])
        if record := _thresholds(records):
            drawn[f"thresholds-{name}"] = charts.sensitivity(pd.DataFrame(record["thresholds"]), record["parameters"])
        if rows := _chapter(records, "09_scales").get("weights_by_size"):
            drawn[f"weights-{name}"] = charts.weights_by_size(pd.DataFrame(rows))
    return drawn


def _drawable(records: Records) -> bool:
    """Whether there is a number for ``of_seeds``."""
    return any(column in runs_of(records) for column in PANELS)


def of_seeds(records: Records) -> Figure:
    """Every run and the means over the seeds, from the maps to the segmentation; controls, far below, would stretch the axes."""
    runs = runs_of(records)
    runs = runs[~runs["run"].str.contains("+", regex=False)]
    shown = runs.assign(configuration=runs["configuration"].map(plainly))
    return charts.seeds(shown, {column: title for column, title in PANELS.items() if column in runs})


def draw(path: Path) -> None:
    """Write the differences of an exported file beside it, as SVG; until there are any, every run, and of no run nothing."""
    records = archive.read(path)
    if gaps := _gaps(records):
        drawings.write_svg(path.with_suffix(".svg"), charts.differences(pd.DataFrame(gaps)))
    elif _drawable(records):
        drawings.write_svg(path.with_suffix(".svg"), of_seeds(records))


def _thresholds(records: Records) -> dict[str, Any] | None:
    """The record of stage 05 whose thresholds were moved: the first run's."""
    return next((r for (stage, _), r in sorted(records.items()) if stage == CHAIN[2] and r.get("thresholds")), None)


def _frame(caption: str, name: str, rows: list[dict[str, Any]]) -> str:
    """Rows of a record as a table."""

    def show(value: Any) -> str:
        return "-" if value is None else _shown(value) if isinstance(value, float) else str(value)

    return table(caption, name, list(rows[0]), [[show(value) for value in row.values()] for row in rows])


def _shown(value: float, sign: str = "") -> str:
    """One digit after the point, below 1 two: a bound of 0.05 is not 0."""
    return f"{value:{sign}.{1 if abs(value) >= 1 else 2}f}"
