"""Masks of your own photographs, of one or of a folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from safn import trained
from safn.arguments import require_scales
from safn.datasets.own_images import find_images
from safn.files import DataError, locked, write_json
from safn.images import load_image, unreadable
from safn.inference import TEST_SCALES, multi_scale_maximum, on_device, predict, resize_mask
from safn.loading import shrink_to

MADE_OF = "predictions.json"  # what the masks of a folder were made of


def segment(network: Any, photograph: Path | str, scales: tuple[float, ...] = TEST_SCALES) -> np.ndarray:
    """Segment a photograph by a ``DeepLab`` that ``load`` has returned, as ``safn predict`` does (Sec. IV-A).

    Args:
        photograph: an image file, of H x W pixels.
        scales: of the photograph, from which the largest probability is taken.

    Returns:
        uint8 ``(H, W)``: 0 background, c + 1 for ``network.classes[c]``.

    Raises:
        ValueError: the network is not such a ``DeepLab``.
        DataError: the photograph cannot be read.

    Example:
        >>> import safn
        >>> network, cat = safn.load("voc"), safn.free_photographs()["cat"].path
        >>> mask = segment(network, cat, scales=(1,))
        >>> mask.shape, [network.classes[c - 1] for c in np.unique(mask) if c]
        ((375, 500), ['cat'])
    """
    if getattr(network, "description", {}).get("kind") != "DeepLab":
        raise ValueError(f"network is a {type(network).__name__}; valid: a DeepLab of load, such as load('voc')")
    picture = load_image(Path(photograph))
    image = network.normalisation(shrink_to(picture, network.description["longest_side"]))[None]
    device = next(network.parameters()).device
    probabilities = multi_scale_maximum(network, image.to(device), scales)
    return resize_mask(probabilities.numpy().argmax(0), picture.size)


def predict_folder(
    network: Path | str,
    images: Path | str,
    out: Path | str,
    scales: tuple[float, ...] = TEST_SCALES,
    crf: bool = False,
    only: list[str] | None = None,
    accelerator: str = "auto",
    largest: int | None = None,
) -> Path:
    """Write a mask for each image of a folder: ``out/multi/<id>.png``, and after the CRF ``out/crf/<id>.png``.

    Everything is checked before anything is written. Masks that are there are kept. Returns the folder of the final masks.

    Args:
        network: folder of a trained ``DeepLab``, or ``voc``.
        only: ids of the images that count, ``None``: all.
        largest: see ``predict``. ``None``: the longest side of the images that it was trained on.

    Raises:
        ValueError: ``scales`` are not different numbers above 0, at most 2.
        DataError: listing what is missing or unreadable, and why masks cannot be written to ``out``.
    """
    require_scales(scales)
    images, out, deeplab = Path(images), Path(out), trained.load(network)
    if (kind := type(deeplab).__name__) != "DeepLab":
        raise DataError(f"{network} holds a {kind}, which makes no masks: give voc, or a folder of stage 06")
    chosen, problems = find_images(images)
    if only is not None:
        problems = [f"{i}: no such image" for i in only if i not in chosen] if only else ["the list of ids is empty"]
        chosen = {i: chosen[i] for i in only if i in chosen}
    problems += unreadable(chosen.values())
    inside = out.resolve().is_relative_to(images.resolve())
    if inside or images.resolve() in (out.resolve() / "multi", out.resolve() / "crf"):
        problems.append(f"{out} lies among the images: give another folder for the masks")
    largest = deeplab.description["longest_side"] if largest is None else largest
    if largest < 0:
        problems.append(f"largest is {largest}; valid: a long side in pixels, or 0 for photographs as they are")
    settings = {"network": trained.fingerprint(trained.find(network)), "scales": list(scales), "largest": largest}
    contents = {} if problems else {i: hashlib.sha256(path.read_bytes()).hexdigest() for i, path in chosen.items()}
    known, others = _earlier_masks(out, settings, contents)
    if problems := problems + others:
        raise DataError.from_problems(f"{images}: {len(problems)} problems, nothing was predicted:", problems)
    out.mkdir(parents=True, exist_ok=True)
    refined = out / "crf" if crf else None
    deeplab = on_device(deeplab, accelerator)
    with locked(out):
        write_json(out / MADE_OF, {"settings": settings, "images": {**known, **contents}})
        predict(deeplab, deeplab.normalisation, chosen, out / "multi", scales, refined=refined, largest=largest)
    return refined or out / "multi"


def _earlier_masks(out: Path, settings: dict[str, Any], contents: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the contents of the images whose masks ``out`` holds, and why new masks cannot lie beside them."""
    path = out / MADE_OF
    if not path.exists():
        masks = [*out.glob("multi/*.png"), *out.glob("crf/*.png")]
        return {}, [f"{out} holds masks of unknown origin: give another folder"] if masks else []
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        before, known = earlier["settings"], earlier["images"]
    except (ValueError, KeyError, TypeError) as error:
        return {}, [f"{path} is damaged ({error!r}): give another folder"]
    problems = []
    if before != settings:
        problems.append(f"{out} holds masks of {before}, these would be of {settings}: give another folder")
    if others := [i for i, content in contents.items() if known.get(i, content) != content]:
        problems.append(f"{out} holds masks of other images with these ids: {', '.join(others)}: give another folder")
    return known, problems
