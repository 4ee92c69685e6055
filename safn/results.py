"""Results of several runs side by side: one row a run, means over seeds, paired differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safn import published
from safn.metrics import bootstrap, iou_by_size
from safn.plan import CHAIN, base_run
from safn.records import RECORD, Input, need, parse_run, write_json
from safn.scoring import load_counts

TRAINED = "06_train_segmentation"
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


def collect(runs: Path | str, experiments: list[str]) -> tuple[pd.DataFrame, list[Input]]:
    """One row an experiment with the metrics of all its stages (shares in 0..1), and the stages themselves.

    Columns ``aggregation``, ``scales`` (text) and ``seed`` come from the name of the run, ``network`` from the
    segmentation, as ``<backbone>-<head>``. What could not be measured, for want of masks, is NaN.
    """
    rows, ends = [], []
    for run in experiments:
        end = need(runs, "07_evaluate", run)
        parsed = parse_run(base_run(run))
        row = {"run": run, **parsed, "supervision": end.record["supervision"]}
        row["scales"] = "-".join(f"{s:g}" for s in parsed.get("scales", []))
        for stage in CHAIN:
            names = [n for n in (run, run.split("@")[0], base_run(run)) if (Path(runs) / stage / n / RECORD).exists()]
            record = need(runs, stage, names[0]).record if names else {}
            row |= {k: float("nan") if v is None else v for k, v in record.get("metrics", {}).items()}
            if stage == TRAINED and record:
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
    """Percent over the seeds of each value of ``by``, in order of appearance: ``mean ± standard deviation``, or the
    one value where there is one seed."""

    def cell(values: pd.Series) -> str:
        values = 100 * values
        return f"{values.iloc[0]:.1f}" if len(values) == 1 else f"{values.mean():.1f} ± {values.std():.1f}"

    return table.groupby(by, sort=False)[columns].agg(cell)


def seeds_sentence(table: pd.DataFrame) -> str:
    """What the number of seeds allows one to claim."""
    seeds = table["seed"].nunique()
    if seeds >= 3:
        return f"{seeds} seeds: mean ± standard deviation."
    return f"{seeds} seed{'s' * (seeds > 1)}: no order of the methods is claimed; that takes three seeds or more."


def differences(ends: list[Input], protocol: str, draws: int = 1000) -> pd.DataFrame:
    """mIoU of the first run minus that of each other, in points, with the 95 % interval of a paired bootstrap over
    the validation images. It says what other images would change, not what another seed would."""
    counts = [load_counts(end.folder / f"counts_{protocol}.npz") for end in ends]
    samples = 100 * bootstrap(counts, draws)
    rows = {}
    for k, end in enumerate(ends[1:], 1):
        gap = samples[:, 0] - samples[:, k]
        low, high = np.percentile(gap, [2.5, 97.5])
        rows[f"{ends[0].folder.name} minus {end.folder.name}"] = {
            "points": round(float(gap.mean()), 1),
            "95 % from": round(float(low), 1),
            "to": round(float(high), 1),
        }
    return pd.DataFrame(rows).T


def by_size(ends: list[Input], protocol: str) -> pd.DataFrame:
    """Foreground IoU in percent, one row an object size, one column a run."""
    return pd.DataFrame(
        {e.folder.name: iou_by_size(load_counts(e.folder / f"counts_{protocol}.npz")) for e in ends}
    ).mul(100).round(1)  # fmt: skip


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


def export(runs: Path | str, path: Path) -> None:
    """Write the records of all stages of ``runs`` without folders of this machine: small enough to commit."""
    records = [json.loads(p.read_text()) for p in sorted(Path(runs).glob("[0-9][0-9]_*/*/record.json"))]
    for record in records:
        record.pop("root", None)
        for name in ("runs", "data_folder", "saliency_folder"):
            record["parameters"].pop(name, None)
    write_json(path, records)


def recorded(path: Path) -> pd.DataFrame:
    """One row a run of an exported file, percent: every number with what it was measured on and with."""
    records = json.loads(path.read_text())
    at = {(r["stage"], r["run"]): r for r in records}
    rows = {}
    for run in [r["run"] for r in records if r["stage"] == CHAIN[-1]]:
        names = (run, run.split("@")[0], base_run(run))
        found = [next((at[stage, n] for n in names if (stage, n) in at), None) for stage in CHAIN]
        metrics = {k: v for record in found if record for k, v in record["metrics"].items()}
        training = at[CHAIN[3], run]["parameters"]
        rows[f"`{run}`"] = {
            **{title: f"{100 * metrics[name]:.1f}" for name, title in COLUMNS.items() if name in metrics},
            "segmentation": f"{training['backbone']}, {training['head']}",
            "init": found[-1]["init"],
            "detector": found[-1]["detector"] or "none",
            "supervision": "image labels" if found[-1]["supervision"] == "pseudo" else "true masks",
            "minutes": f"{sum(r['seconds'] for r in found if r) / 60:.0f}",
        }
    return pd.DataFrame(rows)
