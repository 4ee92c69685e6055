"""The choices that masks of training images decided, measured: views of the saliency detector, sides of the test's copies.

    python -m benchmarks.choices runs/evidence

Writes results/choices.json: mIoU in percent without the choice and with it, on evenly spaced training images, and the 95 %
interval of the difference over images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from safn import data, evaluation, files, inference, map_files, metrics, saliency, trained
from safn.backbones import ANY_SIZE
from safn_book import checks, environment, records, stages
from safn_book.run_names import CHAIN

RESULTS = Path(__file__).resolve().parent.parent / "results" / "choices.json"


def counts_of_views(folder: data.VOCFolder, ids: list[str], stage: records.Input, views: int, out: Path) -> np.ndarray:
    """Count the pixels of the pseudo labels of a run (its stage 05) with so many views of the saliency detector."""
    p, detector = stage.record["parameters"], saliency.U2NetP()
    for name in ("saliency", "masks"):
        (out / name).mkdir(parents=True)
    for image_id in tqdm(ids, f"{views} views", mininterval=2, file=sys.stdout):
        found = saliency.multi_view_saliency(detector, folder.image(image_id), views)
        map_files.save_saliency(out / "saliency" / f"{image_id}.png", found)
    maps = stage.folder.parent.parent / "04_localization_maps" / stage.record["run"] / "train"
    rules = {name: p[name] for name in ("gamma", "ignore_saliency", "ignore_confidence", "combine")}
    map_files.write_pseudo_labels(folder, ids, maps, out / "saliency", out / "masks", **rules)
    return evaluation.score_masks(folder, ids, out / "masks")[1]


def counts_of_sizes(
    folder: data.VOCFolder, ids: list[str], stage: records.Input, whole: bool, scales: tuple[float, ...], out: Path
) -> np.ndarray:
    """Count the pixels that a segmentation network (stage 06) predicts. ``whole``: input sizes follow the output stride."""
    network = inference.on_device(trained.load(stage.folder), "cpu")
    if not whole:
        network.grid = ANY_SIZE
    inference.predict(network, network.normalisation, folder.photos(ids), out, scales)
    return evaluation.score_masks(folder, ids, out)[1]


def compared(what: str, before: np.ndarray, after: np.ndarray, ignored: str = "wrong") -> dict[str, Any]:
    """One row of the file."""
    miou = [100 * float(metrics.mean_iou(of.sum(0), ignored)) for of in (before, after)]
    draws = 100 * metrics.bootstrap([before, after], ignored=ignored)
    low, high = np.percentile(draws[:, 1] - draws[:, 0], [2.5, 97.5])
    row = {"what": what, "without": miou[0], "with": miou[1], "points": miou[1] - miou[0], "from": low, "to": high}
    return {key: value if key == "what" else round(float(value), 2) for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("runs", help="runs/<profile>, finished")
    parser.add_argument("--run", default="attention_1-0.75-0.5_seed0")
    parser.add_argument("--images", type=int, default=120, help="so many training images")
    given = parser.parse_args()
    stage, folder, train, _ = stages.load_data(given.runs)
    ids = train[:: max(1, len(train) // given.images)][: given.images]
    masks, network, test = (stages.require(given.runs, stage, given.run) for stage in CHAIN[2:])
    rows = []
    with tempfile.TemporaryDirectory() as out:
        before, after = (counts_of_views(folder, ids, masks, n, Path(out) / str(n)) for n in (1, 6))
        rows += [compared(f"six views, {kind}", before, after, kind) for kind in metrics.CONVENTIONS]
        several = test.record["parameters"]["test_scales"]
        for name, scales in {"one scale": (1.0,), "several scales": tuple(several)}.items():
            before, after = (
                counts_of_sizes(folder, ids, network, w, scales, Path(out) / f"{name} {w}") for w in (False, True)
            )
            rows.append(compared(f"whole cells, {name}", before, after))
    about = {
        "data": checks.data_name(stage),
        "images": len(ids),
        "run": given.run,
        "backbone": network.record["parameters"]["backbone"],
    }
    about |= {"init": network.record["init"], "detector": network.record["detector"], **environment.environment()}
    files.write_json(RESULTS, {"rows": rows, **about})
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
