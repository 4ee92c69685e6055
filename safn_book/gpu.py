"""What a GPU measured (``results/gpu.json``), as tables of the page on speed."""

from __future__ import annotations

from typing import Any

import pandas as pd

MEASURE = "bash benchmarks/gpu_check.sh OUT"
PUBLISHED = {"training": "training", "extraction": "extraction of maps", "memory": "memory"}
WAYS = {"16-mixed": "16-mixed", "bf16-mixed": "bf16-mixed", "plain": "float32 without TF32"}
HOURS = {
    "classifier": "classifier, 15 epochs",
    "maps": "localization maps",
    "segmentation": "segmentation network, 6,000 steps",
    "test": "test at one scale and at five",
    "one SAFN": "one SAFN, classifier to mIoU",
    "whole profile": "the whole profile",
}
Card = dict[str, Any]


def conditions(card: Card) -> str:
    """Name the card and the versions, or the command that measures.

    Example:
        >>> conditions({})
        'Not measured yet: bash benchmarks/gpu_check.sh OUT'
    """
    if not card:
        return f"Not measured yet: {MEASURE}"
    return f"{card['card']}, driver {card['driver']}, torch {card['torch']}, cuDNN {card['cudnn']}, commit {card['commit']}"


def not_measured(card: Card) -> pd.DataFrame:
    """List the rows that are missing, each with the command that measures it."""
    rows = {name: row["command"] for name, row in card.get("rows", {}).items() if "not measured" in row}
    if card.get("tests", {}).get("not run"):
        rows[f"{len(card['tests']['not run'])} tests"] = card["tests"]["command"]
    return pd.DataFrame({"not measured yet": list(rows), "command": list(rows.values())})


def table_5(card: Card, batch: int = 4) -> pd.DataFrame:
    """Compare the cost of the aggregations with the paper's Table 5, as ratios to average pooling.

    Returns:
        one row for each aggregation and quantity; texts in the columns ``paper``, ``float32`` and ``bf16``, the last
        two with the quartiles of the turns. Empty where no such row was measured.
    """
    found = {way: measured(card, f"table 5, batch {batch}, {way}") for way in ("float32", "bf16")}
    if not any(found.values()):
        return pd.DataFrame()
    table = []
    for aggregation, title in {"attention": "attention", "max": "maximum"}.items():
        for quantity, name in PUBLISHED.items():
            row = {"aggregation": title, "ratio to average pooling": name}
            for way, of in found.items():
                if of:
                    row["paper"] = f"{of[aggregation]['published ratios'][quantity]:.3f}"
                    row[way] = ratio(of, aggregation, quantity)
            table.append(row)
    return pd.DataFrame(table)


def ratio(row: Card, aggregation: str, quantity: str) -> str:
    """Median and quartiles; of the memory that a training step allocates, one number."""
    if quantity == "memory":
        own, average = (row[name]["training"]["allocated MB"] for name in (aggregation, "avg"))
        return f"{own / average:.3f}"
    found = row[aggregation][f"{quantity} ratio"]
    low, high = found["quartiles"]
    return f"{found['median']:.3f} ({low:.3f} to {high:.3f})"


def steps(card: Card) -> pd.DataFrame:
    """List milliseconds a training step of each network of the paper's profile, in each way of training."""
    rows = {}
    for name, row in card.get("rows", {}).items():
        if name.startswith("step: ") and "not measured" not in row:
            times = {f"{title} (ms)": row[way]["ms a step"]["median"] for way, title in WAYS.items()}
            gain = row["16-mixed"]["times as fast as plain"]["median"]
            found = {"batch": row["batch"], "crop": row["crop"], **times, "16-mixed, times as fast": gain}
            rows[name.removeprefix("step: ")] = found
    return pd.DataFrame.from_dict(rows, orient="index")


def ways(card: Card) -> pd.DataFrame:
    """List what each change of the training step gains (the classifier with attention, 3 scales, batch 4)."""
    row = measured(card, "faster")
    rows = {}
    for name, way in row.get("ways", {}).items():
        rows[name] = {
            "ms an image": way["ms an image"]["median"],
            "times as fast": way["times as fast as plain"]["median"],
            "TFLOP/s": way["TFLOP/s"],
            "share of the bf16 peak (%)": 100 * way["share of the bf16 peak"],
            "memory (GB)": way["allocated MB"] / 1000,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def hours(card: Card) -> pd.DataFrame:
    """List GPU hours of the paper's profile, as texts: of the steps alone, and in the loop, loading included."""
    columns = {}
    for way, title in WAYS.items():
        for kind, of in card.get("hours", {}).items():
            if way in of:
                columns[f"{title}, {kind}"] = pd.Series(of[way]).map("{:.2f}".format)
    return pd.DataFrame(columns).reindex(list(HOURS)).rename(index=HOURS) if columns else pd.DataFrame()


def or_command(table: pd.DataFrame) -> pd.DataFrame:
    """The table, or the command that fills it."""
    return table if len(table) else pd.DataFrame({"not measured yet": [MEASURE]})


def measured(card: Card, name: str) -> Card:
    """A row of the card, empty where it was not measured."""
    row = card.get("rows", {}).get(name, {})
    return {} if "not measured" in row else row
