"""Masks of a folder of images by a trained run."""

from __future__ import annotations

import json
from pathlib import Path

from safn.backbones import BACKBONES
from safn.data import DataError
from safn.datasets.own_images import find_images, unreadable
from safn.files import load_tensors, write_json
from safn.inference import TEST_SCALES, on_device, predict
from safn_book.stages import RECORD, Input, load_deeplab


def predict_folder(
    run: Path | str,
    images: Path | str,
    out: Path | str,
    scales: tuple[float, ...] = TEST_SCALES,
    crf: bool = False,
    only: list[str] | None = None,
    accelerator: str = "auto",
    largest: int | None = None,
) -> Path:
    """Masks of a folder of images by a trained run: ``out/multi/<id>.png``, and with the CRF ``out/crf/<id>.png``.

    Masks that are there are kept, so a killed call goes on. ``out/network.json`` names the network they are of.

    Args:
        run: a complete folder of stage 06, such as ``runs/paper/06_train_segmentation/<run>``.
        only: ids of the images that count; ``None``: all.
        largest: long side in pixels to which larger photos are shrunk for the network (0: never); ``None``: the largest that
            it was trained on.

    Returns:
        the folder of the final masks.

    Raises:
        DataError: no trained run; every image that is missing or cannot be read; masks of another network in ``out``.
    """
    run, images, out = Path(run), Path(images), Path(out)
    if not (run / RECORD).is_file():
        raise DataError(f"{run} is no complete run: give a folder runs/<profile>/06_train_segmentation/<run>")
    stage = Input(run, json.loads((run / RECORD).read_text()))
    found, problems = find_images(images)
    if only is not None:
        problems = [f"{i}: no such image" for i in only if i not in found]
        found = {i: found[i] for i in only if i in found}
    problems += [f"{i}: {text}" for i, path in found.items() if (text := unreadable(path))]
    largest = max(stage.record["parameters"].get("resize", (0,))) if largest is None else largest
    network = {"run": run.name, "fingerprint": stage.record["fingerprint"], "scales": list(scales), "largest": largest}
    made = out / "network.json"
    if made.exists() and (before := json.loads(made.read_text())) != network:
        problems.append(f"{out} holds masks of {before}, these would be of {network}: give another folder")
    if problems:
        raise DataError("\n  - ".join([f"{images}: {len(problems)} problems, nothing was predicted:", *problems]))
    out.mkdir(parents=True, exist_ok=True)
    write_json(made, network)
    deeplab = on_device(load_deeplab(stage, outputs_of(run / "model.ckpt")), accelerator)
    normalisation = BACKBONES[stage.record["parameters"]["backbone"]].normalisation
    refined = out / "crf" if crf else None
    predict(deeplab, normalisation, found, out / "multi", scales, refined=refined, largest=largest)
    return out / ("crf" if crf else "multi")


def outputs_of(checkpoint: Path) -> int:
    """How many classes, background included, a segmentation network tells apart: its last tensor is their bias."""
    return len(list(load_tensors(checkpoint).values())[-1])
