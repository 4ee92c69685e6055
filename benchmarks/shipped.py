"""What the networks of the package lose by weights of 8 bits: val mAP of SAFN and val mIoU of DeepLab, beside 32 bits.

    python -m benchmarks.shipped DATA FLOATS --crf

FLOATS holds the same networks in 32 bits as folders ``voc`` and ``voc-safn``, such as those of stages 06 and 03. Masks that
are in ``--work`` are kept, so that a killed call goes on. The numbers go to ``results/shipped.json``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import safn
from safn import evaluation, inference, trained
from safn.data import VOCFolder, content_fingerprint
from safn.files import write_json
from safn.loading import PlainSet, plain_loader
from safn.training import mean_average_precision
from safn_book.environment import environment
from safn_book.photographs import MAP_SIZE

RESULTS = Path(__file__).resolve().parent.parent / "results" / "shipped.json"


@torch.inference_mode()
def val_map(network: safn.SAFN, folder: VOCFolder, ids: list[str], size: int = MAP_SIZE) -> float:
    """Compute the mAP of a classifier, in 0..1, as stage 03 does."""
    scores, labels = [], []
    loader = plain_loader(PlainSet(folder, ids, network.normalisation, size), 0)
    for sample in tqdm(loader, "mAP", mininterval=5, file=sys.stdout):
        scores.append(network(sample["image"]))
        labels.append(sample["label"])
    return mean_average_precision(torch.cat(scores), torch.cat(labels))


def val_iou(network: Any, folder: VOCFolder, ids: list[str], masks: Path, crf: bool = False) -> dict[str, np.ndarray]:
    """Compute the IoU of each class of a segmentation network, float64 ``(n,)`` in 0..1, background first: at one scale
    (``single``), and with ``crf`` also at five scales (``multi``) and after the CRF (``crf``)."""
    photos = folder.photos(ids)
    inference.predict(network, network.normalisation, photos, masks / "single")
    if crf:
        scales = inference.TEST_SCALES
        inference.predict(network, network.normalisation, photos, masks / "multi", scales, refined=masks / "crf")
    protocols = ("single", "multi", "crf") if crf else ("single",)
    return {protocol: evaluation.score_masks(folder, ids, masks / protocol)[0].iou() for protocol in protocols}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipped", description=__doc__)
    parser.add_argument("data", help="folder in the VOC layout")
    parser.add_argument("floats", help="folder of the networks in 32 bits")
    parser.add_argument("--work", default="shipped_masks", help="folder of the masks")
    parser.add_argument("--crf", action="store_true", help="also score the multi-scale test and the CRF")
    given = parser.parse_args()
    folder, rows = VOCFolder(given.data), []
    ids = folder.ids("val")
    for bits, place in {8: trained.SHIPPED, 32: Path(given.floats)}.items():
        classifier, segmenter = safn.load(place / "voc-safn"), safn.load(place / "voc")
        iou = val_iou(segmenter, folder, ids, Path(given.work) / str(bits), given.crf)
        scores = {"val_mAP": val_map(classifier, folder, ids)}
        scores |= {f"val_miou_{protocol}": float(np.nanmean(values)) for protocol, values in iou.items()}
        classes = dict(zip(["background", *folder.classes], iou["single"].round(4)))
        rows.append({"bits": bits, **{k: round(v, 4) for k, v in scores.items()}, "iou_single": classes})
        print(rows[-1])
    about = {"data": f"photographs {content_fingerprint(folder, ids)}", "split": "val", "images": len(ids)}
    write_json(RESULTS, {"rows": rows, **about, **environment()})


if __name__ == "__main__":
    main()
