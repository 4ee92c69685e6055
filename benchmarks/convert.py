"""Turn a stage folder of an earlier version (``model.ckpt``, ``record.json``) into the folder of a trained network.

Run from the repository's root: python -m benchmarks.convert FOLDER OUT [CLASS ...]. Without classes: those of VOC 2012.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from safn.data import VOC_CLASSES
from safn.files import load_tensors
from safn.network import SAFN
from safn.segmentation import DeepLab
from safn.trained import save


def convert(folder: Path, out: Path, classes: Sequence[str] = VOC_CLASSES) -> None:
    """Build the network of a folder of stage 03 or 06 from its record and save it in ``out``."""
    p = json.loads((folder / "record.json").read_text())["parameters"]
    network: SAFN | DeepLab
    if "head" in p:
        kind = {name: p[name] for name in ("backbone", "head", "head_width", "head_dilation", "crop")}
        network = DeepLab(num_outputs=len(classes) + 1, weights="none", **kind)
    else:
        network = SAFN(p["backbone"], len(classes), p["scales"], p["aggregation"], weights="none")
    network.load_state_dict(load_tensors(folder / "model.ckpt"))
    network.initial_weights = p["weights"]
    save(network, out, classes, max(p["resize"]))


if __name__ == "__main__":
    folder, out, *names = sys.argv[1:]
    convert(Path(folder), Path(out), names or VOC_CLASSES)
