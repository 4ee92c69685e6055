"""Does the attention vary in the middle of a photograph, or only along its border?

    python -m benchmarks.attention_border NETWORK DATA --size 288

For each validation image: mean and standard deviation of the weight of each scale (Eq. 1), over all places of the map, and
without the outermost ones, 1 to 3 on each side. A row for each width is added to ``results/attention_border.csv``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import safn
from safn.data import VOCFolder, content_fingerprint
from safn.loading import PlainSet, plain_loader
from safn_book.environment import commit

RESULTS = Path(__file__).resolve().parent.parent / "results" / "attention_border.csv"
WIDTHS = (0, 1, 2, 3)  # places left out on each side


@torch.inference_mode()
def measure(network: safn.SAFN, samples: PlainSet) -> list[dict[str, float]]:
    """Return one row a width: ``left out``, and ``weight s`` and ``spread s`` of each scale, means over the images."""
    means: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
    spreads: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
    for sample in plain_loader(samples, 0):
        weights = network.attention(network.scale_features(sample["image"]).float())[0]
        for width in WIDTHS:
            inner = weights[:, width : weights.shape[1] - width, width : weights.shape[2] - width].flatten(1)
            means[width].append(inner.mean(1).numpy())
            spreads[width].append(inner.std(1).numpy())
    rows = []
    for width in WIDTHS:
        row: dict[str, float] = {"left out": width}
        for scale, mean, spread in zip(network.scales, np.mean(means[width], 0), np.mean(spreads[width], 0)):
            row |= {f"weight {scale:g}": round(float(mean), 4), f"spread {scale:g}": round(float(spread), 4)}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention_border", description=__doc__)
    parser.add_argument("network", help="folder of a SAFN with attention, or voc-safn")
    parser.add_argument("data", help="folder in the VOC layout")
    parser.add_argument("--size", type=int, default=288, help="long side of the images in pixels (0: as they are)")
    given = parser.parse_args()
    network, folder = safn.load(given.network), VOCFolder(given.data)
    ids = folder.ids("val")
    own = {
        "network": Path(given.network).name,
        "data": content_fingerprint(folder, folder.ids("train_aug") + ids),
        "images": len(ids),
        "size": given.size,
        "commit": commit(),
    }
    rows = pd.DataFrame(
        [own | row for row in measure(network, PlainSet(folder, ids, network.normalisation, given.size))]
    )
    if RESULTS.exists():
        rows = pd.concat([pd.read_csv(RESULTS), rows])
    rows.drop_duplicates(["network", "data", "size", "left out"], keep="last").to_csv(RESULTS, index=False)
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
