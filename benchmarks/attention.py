"""Does the scale attention collapse? One setting at a time away from the default on photographs, and the paper's settings on
the synthetic images.

    python -m benchmarks.attention runs/emoji                       the synthetic images of `make book`
    python -m benchmarks.attention runs/voc-subset --limit 200      photographs, so many of them

Writes one row a setting into results/attention.csv; a second call makes only the rows that are missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from safn import SAFN, data, evaluation, inference, loading, training
from safn.options import TrainingOptions
from safn_book import checks, environment, stages, studies

RESULTS = Path(__file__).resolve().parent.parent / "results" / "attention.csv"
DEFAULT = {
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "scales": (1, 0.75, 0.5),
    "aggregation": "attention",
    "attention_start": "zero",
    "attention_factor": 0.1,
    "optimizer": "adamw",
    "momentum": 0.9,
    "learning_rate": 2e-4,
    "new_layer_factor": 2,
    "weight_decay": 5e-4,
    "schedule": "poly",
    "power": 0.9,
    "epochs": 6,
    "iterations": 0,
    "batch_size": 8,
    "freeze": 3,
    "crop": 224,
    "precision": "32-true",
    "accelerator": "cpu",
    "workers": 0,
    "seed": 0,
}
DRAWN = {  # settings that are changed alone, on photographs
    "attention_factor": (0.3, 1),
    "attention_start": ("random",),
    "momentum": (0.0,),
    "epochs": (3, 12),
    "crop": (160, 320),
}
PAPER = {"optimizer": "sgd", "learning_rate": 0.005, "new_layer_factor": 10, "batch_size": 4, "attention_factor": 10}


def measure(folder: data.VOCFolder, train: list[str], val: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Train one network and measure its weights, its mAP and its maps; one row of the table."""
    crop = settings["crop"]
    settings = {**settings, "resize": (round(0.875 * crop), round(1.375 * crop)), "size": crop}
    training.seed_everything(settings["seed"])
    start = {name: settings[name] for name in ("weights", "attention_start", "freeze")}
    network = SAFN(settings["backbone"], len(folder.classes), settings["scales"], settings["aggregation"], **start)
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
    given = parser.parse_args()
    stage, folder, *lists = stages.load_data(given.runs)
    train, val = (ids[:: max(1, len(ids) // given.limit)][: given.limit] if given.limit else ids for ids in lists)
    name = checks.data_name(stage)
    if name.startswith("photographs"):
        changes = [{}, *({setting: value} for setting, values in DRAWN.items() for value in values)]
    else:
        changes = [PAPER | {"crop": 128, "epochs": 5}]  # as in the notebooks
    table = pd.read_csv(RESULTS, dtype={"seed": int}) if RESULTS.exists() else pd.DataFrame()
    for change in changes:
        key = {"data": name, "images": len(train), "change": _text(change)}
        done = len(table) and (table[list(key)] == pd.Series(key)).all(axis=1).any()
        if not done:
            row = pd.DataFrame([key | measure(folder, train, val, DEFAULT | change)])
            table = pd.concat([table, row], ignore_index=True)
            RESULTS.parent.mkdir(exist_ok=True)
            table.round(4).to_csv(RESULTS, index=False)
            print(row.T.to_string(header=False), flush=True)


if __name__ == "__main__":
    main()
