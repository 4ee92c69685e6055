"""Is the scale attention alive? One setting at a time away from the default, on emoji scenes and on photographs.

    python -m benchmarks.attention runs/emoji                       the emoji scenes of `make book`
    python -m benchmarks.attention runs/voc-subset --limit 200      photographs, so many of them

Writes one row a setting into results/attention.csv; a second call makes only the rows that are missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from safn import SAFN, data, evaluation, inference, loading, training
from safn.options import TrainingOptions
from safn_book import checks, environment, stages, studies

RESULTS = Path(__file__).resolve().parent.parent / "results" / "attention.csv"
DEFAULT = {
    "backbone": "efficientnet_lite0", "weights": "imagenet", "scales": (1, 0.75, 0.5), "aggregation": "attention",
    "attention_start": "zero", "attention_factor": 0.1, "input_scaling": False, "optimizer": "adamw", "momentum": 0.9,
    "learning_rate": 2e-4, "new_layer_factor": 2, "weight_decay": 5e-4, "schedule": "poly", "power": 0.9, "epochs": 6,
    "iterations": 0, "batch_size": 8, "freeze": 3, "precision": "32-true", "accelerator": "cpu", "workers": 0, "seed": 0,
}  # fmt: skip
DRAWN = ("attention_factor", "attention_start", "momentum", "epochs", "crop")  # settings that are changed alone
CROPS = {"emoji": (128, 96, 192), "photographs": (224, 160, 320)}  # the default and the others, pixels
SGD = {"optimizer": "sgd", "learning_rate": 0.005, "new_layer_factor": 10, "batch_size": 4}


def changes(crops: Sequence[int]) -> list[dict[str, Any]]:
    """What differs from the default, row by row: those of one setting alone are drawn, the others are in the table."""
    alone = {"attention_factor": (0.3, 1), "attention_start": ("random",), "momentum": (0.0,), "epochs": (3, 12)}
    return [
        {},
        *({name: value} for name, values in (alone | {"crop": crops}).items() for value in values),
        {"attention_factor": 1, "attention_start": "random"},
        {"input_scaling": True},
        SGD,
        {**SGD, "attention_factor": 10},
        {**SGD, "momentum": 0.0},
        {"aggregation": "avg"},
        {"scales": (1,)},
    ]


def measure(folder: data.VOCFolder, train: list[str], val: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Train one network and measure its weights, its mAP and its maps; one row of the table."""
    crop = settings["crop"]
    settings = {**settings, "resize": (round(0.875 * crop), round(1.375 * crop)), "size": crop}
    training.seed_everything(settings["seed"])
    start = {name: settings[name] for name in ("weights", "attention_start", "freeze")}
    network = SAFN(settings["backbone"], len(folder.classes), settings["scales"], settings["aggregation"], **start)
    if settings["input_scaling"] and network.attention is not None:
        network.attention.register_forward_pre_hook(lambda _, given: (given[0] / given[0].std(),))
    started = time.time()
    with tempfile.TemporaryDirectory() as out:
        options = TrainingOptions.from_parameters(settings)
        log = training.train_classifier(network, options, folder, train, val, Path(out))
        samples = loading.PlainSet(folder, train, network.normalisation, crop)
        inference.on_device(network, "cpu")
        inference.write_maps(network, samples, Path(out) / "maps", flip=False)
        maps = evaluation.sweep_maps(folder, train, Path(out) / "maps").miou.max()
    samples.ids = val
    statistics = studies.attention_statistics(network, samples)
    row = {name: settings[name] for name in ("seed", "backbone", "weights", *DRAWN)}
    row |= {"val mAP (%)": 100 * log[-1]["val_mAP"], "map mIoU (%)": 100 * maps}
    for scale, values in statistics.iterrows():
        row |= {f"weight {scale}": values["mean"], f"spread {scale}": values["spread between pixels"]}
    where = {name: environment.environment()[name] for name in ("commit", "machine")}
    return {**row, "seconds": round(time.time() - started), **where}


def _text(change: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in change.items()) or "default"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("runs", help="runs/<profile>; its stage 00 names the data")
    parser.add_argument("--limit", type=int, default=0, help="so many training and validation images (0: all)")
    parser.add_argument("--only", nargs="*", help="the default and what changes nothing but these, such as momentum")
    given = parser.parse_args()
    stage, folder, *lists = stages.load_data(given.runs)
    train, val = (ids[:: max(1, len(ids) // given.limit)][: given.limit] if given.limit else ids for ids in lists)
    name = checks.data_name(stage)
    crop, *others = CROPS["photographs" if name.startswith("photographs") else "emoji"]
    table = pd.read_csv(RESULTS, dtype={"seed": int}) if RESULTS.exists() else pd.DataFrame()
    for change in changes(others):
        key = {"data": name, "images": len(train), "change": _text(change)}
        done = len(table) and (table[list(key)] == pd.Series(key)).all(axis=1).any()
        if not done and set(change) <= set(given.only or change):
            row = pd.DataFrame([key | measure(folder, train, val, {**DEFAULT, "crop": crop, **change})])
            table = pd.concat([table, row], ignore_index=True)
            RESULTS.parent.mkdir(exist_ok=True)
            table.round(4).to_csv(RESULTS, index=False)
            print(row.T.to_string(header=False), flush=True)


if __name__ == "__main__":
    main()
