"""Every chart of numbers, in the notebooks and on the pages of the book; importing it sets matplotlib's style."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

SERIES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # Okabe and Ito's, safe for colour-blind
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.prop_cycle": plt.cycler(color=SERIES),
        "figure.constrained_layout.use": True,
        "savefig.facecolor": "white",
    }
)


def curves(log: pd.DataFrame, panels: dict[str, list[str]], x: str = "epoch") -> Figure:
    """One panel a key (its label of the vertical axis), one line a column of ``log``; missing columns are left out."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), squeeze=False)
    for axis, (label, columns) in zip(axes[0], panels.items()):
        for column in (c for c in columns if c in log):
            rows = log[log[column].notna()]
            axis.plot(rows[x], rows[column], marker="o", markersize=4, label=column.replace("_", " "))
        axis.set(xlabel=x, ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
    plt.close(figure)
    return figure


def bars(
    table: pd.DataFrame, ylabel: str, errors: pd.DataFrame | None = None, width: float = 8, rotate: float = 0
) -> Figure:
    """Grouped bars: one group a row of ``table``, one colour a column; ``errors`` of the same form as whiskers."""
    figure, axis = plt.subplots(figsize=(width, 3.2))
    table.plot.bar(ax=axis, yerr=errors, capsize=3, rot=rotate, width=0.8)
    axis.grid(axis="x", visible=False)
    axis.set(xlabel="", ylabel=ylabel)
    axis.legend(frameon=False, ncols=min(4, table.shape[1]), loc="lower center", bbox_to_anchor=(0.5, 1))
    plt.close(figure)
    return figure


def sweep(curves: dict[str, np.ndarray]) -> Figure:
    """mIoU in percent against the background threshold, one line a method; a dot marks the best."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    for name, values in curves.items():
        thresholds = np.linspace(0, 1, len(values))
        (line,) = axis.plot(thresholds, 100 * values, label=name)
        best = int(values.argmax())
        axis.plot(thresholds[best], 100 * values[best], "o", color=line.get_color())
        axis.annotate(f"{100 * values[best]:.1f} at {thresholds[best]:.2f}", (thresholds[best], 100 * values[best]),
                      xytext=(6, 4), textcoords="offset points", fontsize=8)  # fmt: skip
    axis.set(xlabel="background threshold", ylabel="mIoU (%)")
    axis.legend(frameon=False)
    plt.close(figure)
    return figure


def sensitivity(table: pd.DataFrame, given: dict[str, Any]) -> Figure:
    """mIoU in percent against each threshold of ``pseudo.sweep``, one line a 255 convention, and below it the ignored share;
    a dashed line marks the value ``given``."""
    names = list(dict.fromkeys(table["threshold"]))
    size = (3.4 * len(names), 4.4)
    figure, axes = plt.subplots(
        2, len(names), figsize=size, sharex="col", sharey="row", squeeze=False, height_ratios=(2, 1)
    )
    for (above, below), name in zip(axes.T, names):
        rows = table[table["threshold"] == name]
        for column in rows.columns[2:-1]:
            above.plot(rows["value"], rows[column], marker=".", label=f"255: {column}")
        below.plot(rows["value"], rows.iloc[:, -1], marker=".", color=SERIES[3])
        for axis in (above, below):
            axis.axvline(given[name], color="0.5", linestyle="--", linewidth=1)
        below.set_xlabel(name)
    axes[0, 0].set_ylabel("mIoU (%)")
    axes[1, 0].set_ylabel(table.columns[-1])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center")
    plt.close(figure)
    return figure


def weights_by_size(rows: pd.DataFrame) -> Figure:
    """Weight of each scale against the share of the image that a class covers, from ``scales.by_share``: a line of medians a
    run and scale, and its band from the first to the third quartile."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    colours = dict(zip(dict.fromkeys(rows["scale"]), SERIES))
    for (_, scale), group in rows.groupby(["run", "scale"], sort=False):
        x, label = 100 * group["share"], None if scale in axis.get_legend_handles_labels()[1] else scale
        axis.plot(x, group["median"], marker="o", markersize=4, color=colours[scale], label=label)
        axis.fill_between(x, group["from"], group["to"], color=colours[scale], alpha=0.1, linewidth=0)
    axis.set(
        xscale="log", xlabel="share of the image that the class covers (%)", ylabel="weight on the class", ylim=(0, 1)
    )
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.legend(frameon=False, title="scale")
    plt.close(figure)
    return figure


def growth(curves: list[dict[str, Any]]) -> Figure:
    """Seconds against size, one panel for each thing that grows, both axes logarithmic; the legend has the exponents."""
    panels = list(dict.fromkeys(curve["of"] for curve in curves))
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(8, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, of in zip(axes.flat, panels):
        for curve in (c for c in curves if c["of"] == of):
            label = f"{curve['what']}: {curve['exponent']:.2f}"
            axis.loglog(curve["sizes"], curve["seconds"], "o-", markersize=4, label=label)
        sizes = next(c["sizes"] for c in curves if c["of"] == of)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set(xlabel=of, ylabel="seconds")
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    plt.close(figure)
    return figure


def seeds(runs: pd.DataFrame, panels: dict[str, str]) -> Figure:
    """One panel a metric of ``recorded.runs_of`` (column -> title), one row a configuration, percent: a dot a run, a line for
    the mean over the seeds. The axes do not begin at 0."""
    names = list(dict.fromkeys(runs["configuration"]))
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 1 + 0.32 * len(names)), sharey=True, squeeze=False)
    for axis, (column, title) in zip(axes[0], panels.items()):
        for place, name in enumerate(reversed(names)):
            values = 100 * runs.loc[runs["configuration"] == name, column].dropna()
            axis.plot(values, [place] * len(values), "o", color=SERIES[0], markersize=5, alpha=0.6)
            if len(values):
                axis.plot([values.mean()] * 2, [place - 0.35, place + 0.35], color=SERIES[1], linewidth=2)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("%")
        axis.locator_params(axis="x", nbins=4)  # more would run into those of the next panel
    axes[0, 0].set_yticks(range(len(names)), names[::-1])
    plt.close(figure)
    return figure


def differences(rows: pd.DataFrame) -> Figure:
    """One panel a measure of ``results.differences``, one row a pair: a dot for the points of mIoU, a line for each of its
    ``intervals``, that over images thick."""
    measures, pairs = list(dict.fromkeys(rows["measure"])), list(dict.fromkeys(rows["difference"]))
    figure, axes = plt.subplots(
        1, len(measures), figsize=(10, 1.4 + 0.3 * len(pairs)), sharex=True, sharey=True, squeeze=False
    )
    places = np.arange(len(pairs))[::-1]
    for axis, measure in zip(axes[0], measures):
        shown = rows["measure"] == measure
        axis.axvline(0, color="0.5", linestyle="--", linewidth=1)
        for over, bounds in intervals(rows).items():
            ends = bounds[shown].set_index(rows["difference"][shown]).reindex(pairs)
            colour, width = (SERIES[2], 1.2) if over == "seeds" else (SERIES[0], 4 if over == "images" else 1.2)
            axis.hlines(places, ends["from"], ends["to"], color=colour, linewidth=width, label=f"95 %, {over}")
        axis.plot(
            rows[shown].set_index("difference")["points"].reindex(pairs), places, "o", color=SERIES[1], markersize=5
        )
        axis.set_title(textwrap.fill(measure, 20), fontsize=9)
        axis.set_xlabel("points of mIoU")
    axes[0, 0].set_yticks(places, pairs, fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center")
    plt.close(figure)
    return figure


def intervals(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The 95 % intervals of ``results.differences`` by what they are over, ``from`` and ``to`` of each row, NaN where it has
    none; what no row has is left out. Over the seeds alone is that of a row whose runs kept no counts of their images."""
    found, counted = {}, rows["images from"].notna()
    for over, of, there in (
        ("images", "images", counted),
        ("images and seeds", "all", counted),
        ("seeds", "all", ~counted),
    ):
        bounds = pd.DataFrame({end: rows[f"{of} {end}"].astype(float).where(there) for end in ("from", "to")})
        bounds = bounds.where(np.isfinite(bounds))  # one seed has no end
        if bounds.notna().any(axis=None):
            found[over] = bounds
    return found


# settings of benchmarks.attention of which one alone is changed -> label of its axis
SWEPT = {
    "attention_factor": "attention's rate\n/ backbone's",
    "attention_start": "attention's start",
    "momentum": "momentum\n(first beta of AdamW)",
    "epochs": "epochs",
    "crop": "crop (pixels)",
}


def swept(rows: pd.DataFrame) -> Figure:
    """Weight of scale 1, mAP and maps of ``benchmarks.attention``: one column a setting of ``SWEPT``, one line a data set.

    A ring marks the default; whiskers are the spread of the weight between the pixels of an image.
    """
    measures = {"weight 1": "weight of scale 1", "val mAP (%)": "val mAP (%)", "map mIoU (%)": "mIoU of the maps (%)"}
    figure, axes = plt.subplots(len(measures), len(SWEPT), figsize=(10, 6.3), sharex="col", sharey="row")
    for column, (setting, label) in zip(axes.T, SWEPT.items()):
        alone = rows[rows["change"].str.fullmatch(f"default|{setting} = [^,]*")].sort_values(setting)
        places = {value: place for place, value in enumerate(alone[setting].unique())}
        for data, shown in alone.groupby("data", sort=False):
            x, base = shown[setting].map(places), shown["change"] == "default"
            for axis, measure in zip(column, measures):
                spread = shown["spread 1"] if measure == "weight 1" else None
                colour = SERIES[list(rows["data"].unique()).index(data)]  # the same in each column
                axis.errorbar(x, shown[measure], spread, marker="o", capsize=3, color=colour, label=data)
                axis.plot(x[base], shown[measure][base], "o", color="white", markersize=3, zorder=3)
        ticks = [value if isinstance(value, str) else f"{value:g}" for value in places]
        column[-1].set_xticks(list(places.values()), ticks, fontsize=8)
        column[-1].set_xlabel(label, fontsize=9)
    for axis, label in zip(axes[:, 0], measures.values()):
        axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside upper center")
    plt.close(figure)
    return figure


def percent(values: dict[str, Any], digits: int = 1) -> pd.DataFrame:
    """A column of percentages from shares in 0..1."""
    return pd.DataFrame({"%": {name: round(100 * value, digits) for name, value in values.items()}})
