"""What a GPU measured (``results/gpu.json``), as tables of the page on speed."""

from typing import Any

import pandas as pd

AGGREGATIONS = {"attention": "attention", "max": "maximum"}
QUANTITIES = {"training": "training", "extraction": "extraction of maps", "memory": "memory"}
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
    """Name the card and the versions."""
    return "{card}, driver {driver}, torch {torch}, cuDNN {cudnn}, commit {commit}".format(**card)


def not_measured(card: Card) -> pd.DataFrame:
    """List the rows that are missing, each with the command that measures it."""
    rows = {name: row["command"] for name, row in card["rows"].items() if "not measured" in row}
    if card["tests"]["not run"]:
        rows[f"{len(card['tests']['not run'])} tests"] = card["tests"]["command"]
    return pd.DataFrame({"not measured yet": list(rows), "command": list(rows.values())})


def table_5(card: Card) -> pd.DataFrame:
    """Compare the cost of the aggregations with the paper's Table 5, as ratios to average pooling (batch 4).

    Returns:
        one row for each aggregation and quantity; texts in the columns ``paper``, ``float32`` and ``bf16``, the last
        two with the quartiles of the turns.
    """
    rows = measured(card)
    table = []
    for aggregation, title in AGGREGATIONS.items():
        for quantity, name in QUANTITIES.items():
            row = {"aggregation": title, "ratio to average pooling": name}
            for way in ("float32", "bf16"):
                if turns := rows.get(f"table 5, batch 4, {way}"):
                    row["paper"] = f"{turns[aggregation]['published ratios'][quantity]:.3f}"
                    row[way] = _ratio(turns, aggregation, quantity)
            table.append(row)
    return pd.DataFrame(table)


def _ratio(turns: Card, aggregation: str, quantity: str) -> str:
    """Median and quartiles; of the memory that a training step allocates, one number."""
    if quantity == "memory":
        own, average = (turns[name]["training"]["allocated MB"] for name in (aggregation, "avg"))
        return f"{own / average:.3f}"
    ratio = turns[aggregation][f"{quantity} ratio"]
    low, high = ratio["quartiles"]
    return f"{ratio['median']:.3f} ({low:.3f} to {high:.3f})"


def steps(card: Card) -> pd.DataFrame:
    """List milliseconds a training step of each network of the paper's profile, in each way of training."""
    rows = {}
    for name, row in measured(card).items():
        if name.startswith("step: "):
            times = {f"{title} (ms)": row[way]["ms a step"]["median"] for way, title in WAYS.items()}
            gain = row["16-mixed"]["times as fast as plain"]["median"]
            found = {"batch": row["batch"], "crop": row["crop"], **times, "16-mixed, times as fast": gain}
            rows[name.removeprefix("step: ")] = found
    return pd.DataFrame.from_dict(rows, orient="index")


def ways(card: Card) -> pd.DataFrame:
    """List what each change of the training step gains (the classifier with attention, 3 scales, batch 4)."""
    rows = {}
    for name, way in measured(card).get("faster", {}).get("ways", {}).items():
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
        for kind, measurements in card["hours"].items():
            if way in measurements:
                columns[f"{title}, {kind}"] = pd.Series(measurements[way]).map("{:.2f}".format)
    return pd.DataFrame(columns).reindex(list(HOURS)).rename(index=HOURS)


def measured(card: Card) -> dict[str, Card]:
    """Return the rows of the card that were measured, by name."""
    return {name: row for name, row in card["rows"].items() if "not measured" not in row}
