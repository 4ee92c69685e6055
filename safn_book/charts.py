"""Charts of numbers. Each function returns a closed figure, which a notebook shows once."""

import textwrap
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogLocator, MaxNLocator

from safn_book.results import MEASURES
from safn_book.tables import versus, with_short_names

# Okabe and Ito's colours, safe for colour-blind readers
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PAGE = 8.6  # inches that a page is wide
STYLE = {
    "figure.dpi": 110,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.prop_cycle": cycler(color=SERIES),
    "savefig.facecolor": "white",
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called US$ or $5$
}
WORLD = ("Noto Sans", "WenQuanYi", "Microsoft YaHei", "SimHei", "PingFang", "Hiragino", "Arial Unicode", "Unifont")
IGNORED = {"drop": "ignored pixels excluded", "background": "counted as background", "wrong": "counted as errors"}


def use_style() -> None:
    """Set the style of the book for the figures that this process draws. Letters that Matplotlib's own font lacks are
    taken from fonts of the machine."""
    plt.rcdefaults()  # a matplotlibrc of the user's own may ask for LaTeX, or a font without the letters
    fonts = [name for name in sorted(set(fontManager.get_font_names())) if name.startswith(WORLD)]
    plt.rcParams.update(cast(Any, STYLE | {"font.family": ["DejaVu Sans", *fonts]}))


def axes_grid(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, np.ndarray]:
    """Make a figure with axes ``(rows, columns)``. It is closed, so that a cell shows it only where it is returned."""
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    plt.close(figure)
    return figure, axes


def curves(log: pd.DataFrame, panels: dict[str, list[str]]) -> Figure:
    """Draw columns of a training log, one panel a key, which is its vertical label; missing columns are left out."""
    figure, axes = axes_grid(1, len(panels), (2.9 * len(panels), 2.6))
    for axis, (label, columns) in zip(axes[0], panels.items()):
        for column in columns:
            if column in log:
                rows = log[log[column].notna()]
                axis.plot(rows["epoch"], rows[column], marker="o", markersize=4, label=column.replace("_", " "))
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(axis.lines) > 1:
            axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1), handlelength=1, columnspacing=1)
    return figure


def bars(table: pd.DataFrame, ylabel: str) -> Figure:
    """Draw grouped bars: one group a row of ``table``, one colour a column."""
    figure, ((axis,),) = axes_grid(1, 1, (11, 3.2))
    table.plot.bar(ax=axis, rot=60, width=0.8)
    axis.grid(axis="x", visible=False)
    axis.set(xlabel="", ylabel=ylabel)
    axis.legend(ncols=table.shape[1], loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def by_size(sizes: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Draw tables of ``results.by_size`` as bars, one panel a measure: their means, and deviations as whiskers."""
    figure, axes = axes_grid(1, len(sizes), (PAGE, 2.8), sharey=True)
    for axis, (measure, tables) in zip(axes[0], sizes.items()):
        means, spread = (with_short_names(table) for table in tables)
        means.plot.bar(ax=axis, yerr=spread, capsize=2, rot=0, width=0.8, legend=False)
        axis.set_xticks(axis.get_xticks(), [name.replace(" (", "\n(") for name in means.index])
        axis.grid(axis="x", visible=False)
        axis.set_title(textwrap.fill(MEASURES[measure].heading, 28), fontsize=9)
    axes[0, 0].set_ylabel("foreground IoU (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=3, loc="outside upper center")
    return figure


def sweep(name: str, miou: np.ndarray) -> Figure:
    """Draw mIoU (0..1, at evenly spaced thresholds in 0..1) against the background threshold; a dot marks the best."""
    figure, ((axis,),) = axes_grid(1, 1, (6, 3.2))
    thresholds, percent = np.linspace(0, 1, len(miou)), 100 * miou
    best = int(miou.argmax())
    axis.plot(thresholds, percent, label=name, marker="o", markevery=[best])
    text = f"{percent[best]:.1f} at {thresholds[best]:.2f}"
    axis.annotate(text, (thresholds[best], percent[best]), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axis.set(xlabel="background threshold", ylabel="mIoU (%)")
    axis.legend()
    return figure


def sensitivity(table: pd.DataFrame, settings: dict[str, Any]) -> Figure:
    """Draw mIoU in percent against each threshold of ``scores.threshold_sweep``, one line a convention for ignored
    pixels, and below it their share. A dashed line marks the value in ``settings``."""
    names = list(table["threshold"].unique())
    size = (PAGE * len(names) / 3, 4.2)
    figure, axes = axes_grid(2, len(names), size, sharex="col", sharey="row", height_ratios=(2, 1))
    for (above, below), name in zip(axes.T, names):
        rows = table[table["threshold"] == name]
        for column, label in IGNORED.items():
            line = ":" if column == "wrong" else "-"  # it often lies on the line before it
            above.plot(rows["value"], rows[column], line, marker=".", label=label)
        below.plot(rows["value"], rows["ignored (%)"], marker=".", color=SERIES[3])
        for axis in (above, below):
            axis.axvline(settings[name], color="0.5", linestyle="--", linewidth=1)
        below.set_xlabel(name)
    axes[0, 0].set_ylabel("mIoU (%)")
    axes[1, 0].set_ylabel("ignored (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=3, loc="outside upper center")
    return figure


def weights_by_size(rows: pd.DataFrame) -> Figure:
    """Draw ``studies.weights_by_size`` against the share of the image that a class covers: for each run and scale a
    line of medians and a band of its quartiles."""
    figure, ((axis,),) = axes_grid(1, 1, (6, 3.2))
    colours = dict(zip(rows["scale"].unique(), SERIES))
    for (_, scale), group in rows.groupby(["run", "scale"], sort=False):
        x = 100 * group["share"]
        axis.plot(x, group["median"], marker="o", markersize=4, color=colours[scale])
        axis.fill_between(x, group["from"], group["to"], color=colours[scale], alpha=0.1, linewidth=0)
    axis.set(xscale="log", xlabel="share of the image that the class covers (%)", ylabel="mean weight on the class")
    axis.set_ylim(0, 1)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.legend(axis.lines[: len(colours)], list(colours), title="scale")  # the lines of the first run
    return figure


def replaced(rows: pd.DataFrame, names: dict[str, str]) -> Figure:
    """Draw how other weights change the mIoU of the maps: one row a kind of weights, named in ``names``, and in it for
    each network of ``studies.replacement_scores`` a dot with its interval over images."""
    rows = rows[rows["weights"] != "learned"]
    kinds = list(rows["weights"].unique())[::-1]  # the first at the top
    networks = list(rows["run"].unique())
    figure, ((axis,),) = axes_grid(1, 1, (6.5, 0.8 + 0.32 * len(kinds)))
    axis.axvline(0, color="0.5", linestyle="--", linewidth=1)
    above = (len(networks) - 1) / 2 - rows["run"].map(networks.index)  # a network has its own height within a row
    places = rows["weights"].map(kinds.index) + 0.18 * above
    axis.hlines(places, rows["from"], rows["to"], color=SERIES[0], linewidth=1.2)
    axis.plot(rows["difference"], places, "o", color=SERIES[1], markersize=4)
    axis.set_yticks(range(len(kinds)), [names.get(kind, kind) for kind in kinds])
    axis.set_ylim(-0.5, len(kinds) - 0.5)
    axis.set_xlabel("change of the mIoU of the maps (points)")
    return figure


def differences(rows: pd.DataFrame) -> Figure:
    """Draw one panel a measure of ``conclusions.differences`` and one row a pair of configurations: a dot for the
    points of mIoU, a thick line for the interval over images, a thin one for that over images and seeds. Where a run
    has no counts of its images, the thin line is of the seeds alone and has another colour."""
    pairs = list(dict.fromkeys(zip(rows["first"], rows["second"])))[::-1]  # the first at the top
    measures = list(rows["measure"].unique())
    figure, axes = axes_grid(1, len(measures), (PAGE, 1.4 + 0.3 * len(pairs)), sharex=True, sharey=True)
    handles = {}
    for axis, measure in zip(axes[0], measures):
        axis.axvline(0, color="0.5", linestyle="--", linewidth=1)
        for row in rows[rows["measure"] == measure].to_dict("records"):
            place = pairs.index((row["first"], row["second"]))
            counted = pd.notna(row["images_from"])
            if counted:
                line = axis.hlines(place, row["images_from"], row["images_to"], color=SERIES[0], linewidth=4)
                handles["95 %, images"] = line
            if pd.notna(row["all_from"]):
                label, colour = ("95 %, images and seeds", SERIES[0]) if counted else ("95 %, seeds", SERIES[2])
                handles[label] = axis.hlines(place, row["all_from"], row["all_to"], color=colour, linewidth=1.2)
            axis.plot(row["points"], place, "o", color=SERIES[1], markersize=5)
        axis.set_title(textwrap.fill(MEASURES[measure].title, 14, break_on_hyphens=False), fontsize=8)
        axis.set_xlabel("points of mIoU")
    names = [" − ".join(versus(*pair)) for pair in pairs]
    axes[0, 0].set_yticks(range(len(pairs)), names, fontsize=8)
    axes[0, 0].set_ylim(-0.5, len(pairs) - 0.5)
    figure.legend(handles.values(), handles, ncols=3, loc="outside upper center")
    return figure
