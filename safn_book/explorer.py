"""The data of the explorer (``book/explorer.md``): bytes in a script, for ``book/_static/explorer.js``."""

import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from safn.datasets.free_photographs import FreePhotograph, free_photographs
from safn.files import write_file
from safn.images import palette
from safn.loading import resize_long
from safn_book import photographs
from safn_book.galleries import HEAT
from safn_book.reports import EXPLORER_DATA, digest, package

CLASSES = 3  # of a photograph: its labels and those with the next highest scores


def write(path: Path, *ids: str) -> None:
    """Write the script that defines ``EXPLORER``, for the free photographs with these ids (none: all).

    It takes half a minute. A script of the same networks, photographs and code is kept.

    Raises:
        FileNotFoundError: the saliency detector is not installed.
    """
    origin = digest("", [*package(), Path(photographs.__file__), Path(__file__)])
    head = f"// Written by safn_book.explorer, arrays in base64. Made of {origin[:16]}\n".encode()
    if path.exists() and path.read_bytes().startswith(head):
        return
    free = free_photographs()
    colours = plt.get_cmap(HEAT)(np.arange(256))[:, :3] * 255
    data = {
        "heat": encoded(colours.round().astype(np.uint8)),
        "palette": encoded(np.array(palette(), np.uint8)),
        "names": ["background", *photographs.load(photographs.CLASSIFIER).classes],  # by class id
        "photographs": [entry(free[image_id]) for image_id in ids or free],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, head + f"const EXPLORER = {json.dumps(data)};\n".encode())


def encoded(array: np.ndarray) -> str:
    """Encode an array in base64: its values in C order, little-endian.

    Example:
        >>> encoded(np.array([[1, 2], [3, 255]], np.uint8))
        'AQID/w=='
    """
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def entry(photograph: FreePhotograph) -> dict[str, Any]:
    """Describe a photograph for the script. Its picture and masks are as large as the image that the maps are made of."""
    steps = photographs.Steps(photograph.path, photograph.labels, photograph.mask, refine=False)
    labelled = np.flatnonzero(steps.labels).tolist()
    others = [int(c) for c in steps.scores.argsort()[::-1] if c not in labelled]
    chosen = (labelled + others)[:CLASSES]
    features = steps.features[0, :, chosen].numpy()  # (S, K, h, w)
    picture = resize_long(steps.picture, photographs.MAP_SIZE)  # what the network saw
    truth = steps.ground_truth
    classes = [steps.classes[c] for c in chosen]
    return {
        "id": photograph.path.stem,
        "title": photograph.shows[0].upper() + photograph.shows[1:],
        "credit": f"Photograph: {photograph.author}, {photograph.licence}",
        "classes": classes,
        "ids": [c + 1 for c in chosen],  # as in masks, where 0 is the background
        "choices": label_choices(classes, len(labelled)),
        "scales": list(steps.scales),
        "h": features.shape[2],
        "w": features.shape[3],
        "H": picture.height,
        "W": picture.width,
        "photo": _jpeg(picture),
        "features": encoded(features),
        "weights": encoded(steps.scale_weights),
        "saliency": encoded(_shrunk(np.rint(steps.saliency * 255), picture, Image.Resampling.BILINEAR)),
        "segmentation": encoded(_shrunk(steps.segmentation, picture, Image.Resampling.NEAREST)),
        "truth": None if truth is None else encoded(_shrunk(truth, picture, Image.Resampling.NEAREST)),
    }


def label_choices(classes: list[str], labelled: int) -> list[str]:
    """List all sets of labels, comma-separated: first the true ones, which are the first ``labelled`` classes.

    Example:
        >>> label_choices(["dog", "cat"], 1)
        ['dog', '', 'cat', 'dog,cat']
    """
    sizes = range(len(classes) + 1)
    sets = [",".join(chosen) for size in sizes for chosen in itertools.combinations(classes, size)]
    return sorted(sets, key=lambda chosen: chosen != ",".join(classes[:labelled]))


def _shrunk(values: np.ndarray, picture: Image.Image, how: Image.Resampling) -> np.ndarray:
    """Resize values ``(H, W)`` of 0 to 255 to the size of a picture, uint8."""
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize(picture.size, how))


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


if __name__ == "__main__":
    write(EXPLORER_DATA)
