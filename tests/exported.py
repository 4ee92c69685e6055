"""An exported file of three seeds, as ``python -m safn export`` writes it; not a test."""

from __future__ import annotations

import json
from pathlib import Path

RUN = "attention_1-0.5_seed0"
COMPUTER = {"device": "cpu", "versions": {"torch": "2"}}


def record(stage: str, run: str, metrics: dict, parameters: dict | None = None, **more) -> dict:
    head = {
        "stage": stage,
        "run": run,
        "metrics": metrics,
        "parameters": parameters or {},
        "commit": "abc",
        "seconds": 61.2,
    }
    return {**head, "fingerprint": "f00", "finished": "2026", "machine": "one", **COMPUTER, **more}


def write(folder: Path) -> None:
    """An exported file ``photos`` of three seeds, one of which has been evaluated, with a control; and files that are none."""
    trained = {"scales": [1.0, 0.5], "crop": 320, "learning_rate": 0.005, "attention_factor": 0.4, "backbone": "lite"}
    weights = {"weight 1": 0.9, "weight 0.5": 0.1, "weight spread 1": 0.05, "weight spread 0.5": 0.05}
    records = [record("00_data", "default", {"train_images": 9, "val_images": 4}, data="d1")]
    for seed, maps in enumerate((0.40, 0.42, 0.44)):
        run = f"attention_1-0.5_seed{seed}"
        records.append(record("03_train_safn", run, {"val_mAP": 0.8, **weights}, trained, init="imagenet"))
        sized = {"map_iou small (< 10 %)": maps - 0.2, "map_iou large (> 30 %)": maps + 0.2}
        listed = {"map_miou_train_list": maps + 0.1}
        records.append(record("04_localization_maps", run, {"map_miou": maps, **listed, **sized}))
    for run, miou in ((RUN, 0.5), (f"{RUN}+maps", None)):
        classes = {"multi": {"cat": 0.2, "dog": 0.3}, "crf": {"cat": 0.251, "dog": None}}
        records.append(record("07_evaluate", run, {"val_miou_crf": miou}, {}, detector="u2netp", per_class=classes))
    gap = {
        "measure": "maps",
        "difference": "a - b",
        "points": 0.26,
        "each seed": "+0.3",
        "all from": None,
        "all to": None,
    }
    gap |= {"images from": -0.04, "images to": 0.56, "what can be told": "nothing: fewer than three seeds"}
    behind = gap | {"difference": "a - 1-0.5", "points": -2.04, "what can be told": "1-0.5 is better"}
    behind |= {"all from": -3.0, "all to": -1.0}
    alone = behind | {"measure": "pseudo", "what can be told": "1-0.5 is better on these images"}
    alone |= {"images from": None, "images to": None}
    weight = {"run": RUN, "scale": "1", "share": 0.1, "from": 0.6, "median": 0.7, "to": 0.8}
    sizes = {"maps": {"attention": {"small": 20.04, "large": 50.0}}}
    records.append(record("08_aggregation", "default", {}, differences=[gap, behind, alone], by_size=sizes))
    records.append(
        record(
            "09_scales", "default", {"maps, learned": 0.41}, {"study_images": 5}, replaced=[], weights_by_size=[weight]
        )
    )
    (folder / "photos.json").write_text(json.dumps(records))
    (folder / "kills.json").write_text('{"kills": []}')
    (folder / "expected.json").write_text("[1]")
