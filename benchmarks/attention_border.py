"""Does the attention vary with what an image shows, or only with the distance to the border of the image?

    python -m benchmarks.attention_border NETWORK DATA --size 288

Over the validation images, for the weight of the first scale (Eq. 1): its mean, its standard deviation between the places
of a map, both also without the outermost places, and the share of its variance within images that the distance to the
border explains. That share is 1 where every image has the same weights at the same distance. A row is added to
``results/attention_border.csv``.
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
LEFT_OUT = (0, 1, 2, 3)  # places on each side


@torch.inference_mode()
def first_weights(network: safn.SAFN, samples: PlainSet) -> list[np.ndarray]:
    """Compute the weight of the first scale of each image, float32 ``(h, w)``."""
    features = (network.scale_features(sample["image"]).float() for sample in plain_loader(samples, 0))
    return [network.attention(found)[0, 0].numpy() for found in features]


def border_distance(h: int, w: int) -> np.ndarray:
    """Count the places between each place and the nearest border, int ``(h, w)``, 0 along the border.

    Example:
        >>> border_distance(3, 4).tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    rows, columns = np.arange(h), np.arange(w)
    return np.minimum.outer(np.minimum(rows, rows[::-1]), np.minimum(columns, columns[::-1]))


def explained_by_border(weights: list[np.ndarray]) -> float:
    """Compute the share in 0..1 of the variance within images that one value for each distance explains."""
    deviations = np.concatenate([(one - one.mean()).ravel() for one in weights])
    distances = np.concatenate([border_distance(*one.shape).ravel() for one in weights])
    profile = np.bincount(distances, deviations) / np.bincount(distances)
    return float(1 - ((deviations - profile[distances]) ** 2).sum() / (deviations**2).sum())


def measure(weights: list[np.ndarray]) -> dict[str, float]:
    """Return ``mean k`` and ``spread k`` with k places left out on each side, means over the images, and ``explained``."""
    row = {}
    for k in LEFT_OUT:
        inner = [one[k : one.shape[0] - k, k : one.shape[1] - k] for one in weights]
        row[f"mean {k}"] = np.mean([one.mean() for one in inner])
        row[f"spread {k}"] = np.mean([one.std() for one in inner])
    row["explained"] = explained_by_border(weights)
    return {name: round(float(value), 4) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention_border", description=__doc__)
    parser.add_argument("network", help="folder of a SAFN with attention, or voc-safn")
    parser.add_argument("data", help="folder in the VOC layout")
    parser.add_argument("--name", default="", help="of the row (default: that of the network's folder)")
    parser.add_argument("--size", type=int, default=288, help="long side of the images in pixels (0: as they are)")
    given = parser.parse_args()
    network, folder = safn.load(given.network), VOCFolder(given.data)
    ids = folder.ids("val")
    row = {
        "network": given.name or Path(given.network).name,
        "data": content_fingerprint(folder, folder.ids("train_aug") + ids),
        "images": len(ids),
        "size": given.size,
        "commit": commit(),
        **measure(first_weights(network, PlainSet(folder, ids, network.normalisation, given.size))),
    }
    rows = pd.DataFrame([row])
    if RESULTS.exists():
        rows = pd.concat([pd.read_csv(RESULTS), rows])
    rows.drop_duplicates(["network", "data", "size"], keep="last").to_csv(RESULTS, index=False)
    print(pd.Series(row).to_string())


if __name__ == "__main__":
    main()
