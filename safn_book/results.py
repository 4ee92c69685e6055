"""Results of several runs side by side: one row a run, and means over the seeds."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safn_book.archive import Records
from safn_book.records import Input, read
from safn_book.run_names import AGGREGATIONS, CHAIN, RunName, Stage, format_scales
from safn_book.stages import require
from safn_book.tables import MISSING

LEAST_SEEDS = 3  # fewer allow no verdict
PROTOCOLS = {"single": "single scale", "multi": "multi-scale", "crf": "multi-scale + CRF"}
COLUMNS = (
    "val_mAP",
    "map_miou",
    "pseudo_miou_drop",
    "pseudo_miou_background",
    "pseudo_miou_wrong",
    "ignored_share",
    *(f"val_miou_{protocol}" for protocol in PROTOCOLS),
)
OVERVIEW = {
    "val_mAP": "mAP",
    "map_miou": "localization maps",
    "pseudo_miou_background": "pseudo labels",
    "val_miou_single": "single scale",
    "val_miou_multi": "multi-scale",
}


@dataclass(frozen=True)
class Measure:
    """A mIoU by which configurations are compared."""

    stage: Stage  #: that measures it
    metric: str  #: its name among the metrics of the stage
    title: str  #: what is scored, in the plural
    ignored: str = "wrong"  #: how ignored pixels of a prediction count, see ``safn.metrics``
    sizes: str = ""  #: the prefix of the metrics by object size; empty where there are none
    counts_file: str = "counts.npz"  #: the confusion counts of each image, in the folder of the stage

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return self.title[0].upper() + self.title[1:]


def _segmentation(protocol: str, title: str) -> Measure:
    sizes, file = f"val_iou_{protocol} ", f"counts_{protocol}.npz"
    return Measure(Stage.EVALUATE, f"val_miou_{protocol}", title, sizes=sizes, counts_file=file)


MEASURES = {
    "maps": Measure(Stage.MAPS, "map_miou", "localization maps", sizes="map_iou "),
    "pseudo_background": Measure(Stage.PSEUDO_LABELS, "pseudo_miou_background", "pseudo labels", "background"),
    "pseudo_wrong": Measure(
        Stage.PSEUDO_LABELS, "pseudo_miou_wrong", "pseudo labels (ignored pixels as errors)", sizes="pseudo_iou "
    ),
    "segmentation_single": _segmentation("single", "single-scale segmentations"),
    "segmentation_multi": _segmentation("multi", "multi-scale segmentations"),
    "segmentation_crf": _segmentation("crf", "multi-scale segmentations with CRF"),
}


@dataclass
class Runs:
    """Runs of one folder that are compared."""

    folder: Path  #: such as ``runs/emoji``
    records: Records  #: of all their stages
    ends: list[Input]  #: the last stage of each run
    table: pd.DataFrame  #: their ``runs_table``


def load_runs(folder: Path | str, experiments: list[str], missing_segmentation: str = "make") -> Runs:
    """Load runs. A missing segmentation is trained (``make``), or the run ends at its last stage (``leave``)."""
    found = {}
    ends = []
    for run in map(RunName.parse, experiments):
        complete = [stage for stage in CHAIN if read(folder, stage, run)]
        last = complete[-1] if missing_segmentation == "leave" and complete else Stage.EVALUATE
        ends.append(require(folder, last, run, restored=True))  # and with it all that it rests on
        for stage in CHAIN:
            if done := read(folder, stage, run.at(stage)):
                found[stage, str(run.at(stage))] = done.record
    return Runs(Path(folder), found, ends, runs_table(found, experiments))


def runs_table(records: Records, runs: Iterable[str] | None = None) -> pd.DataFrame:
    """Make a table with one row a run: what its name says, ``configuration`` (the name without the seed), ``network``
    (of the segmentation, ``<backbone>-<head>``), and the metrics of its stages: shares in 0..1, NaN where not measured.

    Without ``runs`` all that were trained: the main experiment first, controls and the fully supervised run last.
    """
    if runs is None:
        names = sorted({RunName.parse(run) for stage, run in records if stage in CHAIN}, key=_display_order)
    else:
        names = [RunName.parse(run) for run in runs]
    return pd.DataFrame([_run_row(records, name) for name in names])


def _run_row(records: Records, run: RunName) -> dict[str, Any]:
    row = {"run": str(run), "configuration": run.configuration, **vars(run), "scales": format_scales(run.scales)}
    row |= dict.fromkeys(COLUMNS, float("nan"))
    for stage in CHAIN:
        record = records.get((stage, str(run.at(stage))))
        if record:
            row |= {metric: float("nan") if value is None else value for metric, value in record["metrics"].items()}
            if stage is Stage.TRAIN_SEGMENTATION:
                row["network"] = "{backbone}-{head}".format(**record["parameters"])
    return row


def _display_order(run: RunName) -> tuple[Any, ...]:
    if run.supervised:
        return True, 0, 0, str(run)
    return bool(run.control), -len(run.scales), AGGREGATIONS.index(run.aggregation), str(run)


def main_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of the main experiment, the first: every seed and every segmentation network, no control."""
    first = table.iloc[0]
    same = (table["aggregation"] == first["aggregation"]) & (table["scales"] == first["scales"])
    return table[same & (table["control"] == "")]


def over_seeds(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Write percent as ``mean ± standard deviation`` over the seeds, one row a configuration. One seed has its value
    alone, and none has an en dash."""
    return table.groupby("configuration", sort=False)[list(columns)].agg(mean_and_deviation)


def mean_and_deviation(values: pd.Series) -> str:
    """Write shares in percent as ``over_seeds`` does."""
    values = 100 * values.dropna()
    if values.empty:
        return MISSING
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Give ``over_seeds`` of the measures of Tables 4 and 6 and of what they follow from. Each column uses only the
    seeds that all its configurations have, so that its rows are comparable."""
    columns = {}
    for column, title in OVERVIEW.items():
        measured = table[table[column].notna()]
        columns[title] = over_seeds(shared_seeds(measured), [column])[column]
    frame = pd.DataFrame(columns, table["configuration"].unique(), dtype=object)
    return frame.fillna(MISSING).rename_axis("configuration")


def seeds_note(table: pd.DataFrame) -> str:
    """Say in a caption what the number of seeds allows."""
    seeds = table["seed"].nunique()
    if seeds < LEAST_SEEDS:
        return f"{seeds} seed{'s' * (seeds > 1)}: too few to rank the rows."
    return f"Mean ± standard deviation over {seeds} seeds."


def shared_seeds(measured: pd.DataFrame, configurations: int | None = None) -> pd.DataFrame:
    """Keep the rows whose seed occurs for so many configurations, without a number for all of the table."""
    wanted = measured["configuration"].nunique() if configurations is None else configurations
    return measured[measured.groupby("seed")["configuration"].transform("nunique") == wanted]


def by_size(table: pd.DataFrame, statistic: str = "mean") -> dict[str, pd.DataFrame]:
    """Give the foreground IoU in percent by object size, one row a size and one column a configuration, by measure.

    ``mean`` or ``std`` (NaN for one seed) is taken over the seeds that every configuration has.
    """
    sizes = {}
    for key, measure in MEASURES.items():
        columns = {c: c.removeprefix(measure.sizes) for c in table if measure.sizes and c.startswith(measure.sizes)}
        if not columns:
            continue
        measured = shared_seeds(table.dropna(subset=list(columns), how="all"), table["configuration"].nunique())
        if len(measured):
            means = measured.groupby("configuration", sort=False)[list(columns)].agg(statistic).mul(100)
            sizes[key] = means.rename(columns=columns).T.rename_axis(None, axis=1)
    return sizes


def by_class(records: Records, stage: str, measure: str) -> pd.DataFrame:
    """Average over the seeds what a stage recorded: percent, one row a class and one column a configuration."""
    found: dict[str, list[pd.Series]] = {}
    for (recorded_stage, run), record in records.items():
        if recorded_stage == stage and measure in record.get("per_class", {}):
            values = pd.Series(record["per_class"][measure], dtype=float)
            found.setdefault(RunName.parse(run).configuration, []).append(values)
    return pd.DataFrame({name: 100 * pd.concat(values, axis=1).mean(axis=1) for name, values in found.items()})
