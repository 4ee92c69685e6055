"""Masks of a folder of images by a trained segmentation network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safn import trained
from safn.data import DataError
from safn.datasets.own_images import find_images, unreadable
from safn.files import write_json
from safn.inference import TEST_SCALES, on_device, predict

MADE_OF = "predictions.json"  # what the masks of a folder were made of


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

    Everything is checked before anything is written. Masks that are there are kept, so a killed call goes on.
    ``out/predictions.json`` says what they were made of.

    Args:
        network: folder of a trained ``DeepLab``, such as ``runs/paper/06_train_segmentation/<run>``.
        only: ids of the images that count, ``None``: all.
        largest: long side in pixels to which larger photographs are shrunk for the network (0: never). ``None``: the
            longest that it was trained on.

    Returns:
        The folder of the final masks.

    Raises:
        DataError: the network is missing or of another kind. An image is missing or cannot be read. ``out`` lies among
            the images, or holds masks of another network, other settings or other images.
    """
    network, images, out = Path(network), Path(images), Path(out)
    folder = trained.find(network)
    description = trained.read_description(folder)
    if description["kind"] != "DeepLab":
        raise DataError(f"{network} holds a {description['kind']}, which makes no masks: give a folder of stage 06")
    chosen, problems = choose_images(images, only)
    if _among(out, images) or images.resolve() in ((out / "multi").resolve(), (out / "crf").resolve()):
        problems.append(f"{out} lies among the images: give another folder for the masks")
    largest = description["longest_side"] if largest is None else largest
    made_of = {"network": trained.fingerprint(folder), "scales": list(scales), "largest": largest}
    made_of["images"] = {i: _content(path) for i, path in chosen.items()} if not problems else {}
    known, others = _compare(out, made_of)
    if problems := problems + others:
        raise DataError.from_problems(f"{images}: {len(problems)} problems, nothing was predicted:", problems)
    deeplab = on_device(trained.load(folder), accelerator)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MADE_OF, {**made_of, "images": known | made_of["images"]})
    refined = out / "crf" if crf else None
    predict(deeplab, deeplab.normalisation, chosen, out / "multi", scales, refined=refined, largest=largest)
    return refined or out / "multi"


def choose_images(images: Path, only: list[str] | None = None) -> tuple[dict[str, Path], list[str]]:
    """Return id -> file of the images of a folder, or of those in ``only``, and a line for each problem."""
    chosen, problems = find_images(images)
    if only is not None:
        problems = [f"{i}: no such image" for i in only if i not in chosen]
        problems += [] if only else ["the list of ids is empty"]
        chosen = {i: chosen[i] for i in only if i in chosen}
    problems += [f"{i}: {reason}" for i, path in chosen.items() if (reason := unreadable(path))]
    return chosen, problems


def _among(out: Path, images: Path) -> bool:
    return out.resolve().is_relative_to(images.resolve())


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _compare(out: Path, made_of: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the images whose masks ``out`` holds, and why these masks cannot lie beside those of ``made_of``."""
    path = out / MADE_OF
    if not path.exists():
        masks = [p for folder in ("multi", "crf") for p in (out / folder).glob("*.png")]
        return {}, [f"{out} holds masks of unknown origin: give another folder"] if masks else []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        known = before.pop("images")
    except (ValueError, KeyError, AttributeError) as error:
        return {}, [f"{path} is damaged ({error!r}): give another folder"]
    now = {key: value for key, value in made_of.items() if key != "images"}
    problems = []
    if before != now:
        problems.append(f"{out} holds masks of {before}, these would be of {now}: give another folder")
    others = [i for i, content in made_of["images"].items() if known.get(i, content) != content]
    if others:
        problems.append(f"{out} holds masks of other images with these ids: {', '.join(others)}: give another folder")
    return known, problems
