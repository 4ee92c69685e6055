"""Scores a recorded run once more, from the network, maps and masks that its stages left: does each number still follow?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from safn import evaluation, inference, trained
from safn.data import DataError, VOCFolder
from safn.loading import PlainSet, plain_loader
from safn.training import mean_average_precision
from safn_book import scores, studies
from safn_book.stages import RECORD, Input, fingerprint, of_stage
from safn_book.workflow import place

Scores = dict[str, float]


def rescore(runs: Path | str, run: str) -> pd.DataFrame:
    """Every number of a run that its artefacts can give again: of the classifier, the maps, the pseudo ground truth and the
    segmentation. A number may differ in its last digits where the machine or a version differs.

    Args:
        runs: ``runs/<profile>``.
        run: such as ``attention_1-0.75-0.5_seed0``.

    Returns:
        one row a number: stage, metric, recorded, now, and the difference; and one row a stage, ``files``: whether they
        are still those of its record, in words.

    Raises:
        DataError: no stage of that run is complete, with the names of the runs that there are; or a stage was restored
            without its files.
    """
    stages = _stages(Path(runs), run)
    _, folder, train, val = of_stage(runs)
    rows = []
    for stage in tqdm(stages, "rescoring", file=sys.stdout):
        name, record = stage.folder.parent.name, stage.record
        changed = fingerprint(stage.folder) != record["fingerprint"]
        rows.append({"stage": name, "metric": "files", "now": "changed since the record" if changed else "as recorded"})
        for metric, value in SCORED[name](stage, folder, train, val).items():
            recorded = record["metrics"].get(metric)
            recorded = float("nan") if recorded is None else recorded
            rows.append({"stage": name, "metric": metric, "recorded": recorded, "now": value, "by": value - recorded})
    return pd.DataFrame(rows, columns=["stage", "metric", "recorded", "now", "by"])


def _stages(runs: Path, run: str) -> list[Input]:
    """The complete stages of a run that can be scored, in their order."""
    paths = [runs / stage / place(stage, run) / RECORD for stage in SCORED]
    paths = [path for path in paths if path.exists()]
    known = sorted({path.parent.name for stage in SCORED for path in runs.glob(f"{stage}/*/{RECORD}")})
    if run not in known:
        raise DataError(f"{runs} has no complete stage of {run!r}; runs there: {', '.join(known) or 'none'}")
    stages = [Input(path.parent, json.loads(path.read_text())) for path in paths]
    if restored := [stage.name for stage in stages if stage.record.get("restored")]:
        raise DataError(
            "\n  - ".join([f"{run} was restored without its files: delete these and run it again", *restored])
        )
    return stages


@torch.inference_mode()
def of_classifier(stage: Input, folder: VOCFolder, _: list[str], val: list[str]) -> Scores:
    """Stage 03: mAP of the validation images and the scale weights, by its network."""
    p = stage.record["parameters"]
    network = inference.on_device(trained.load(stage.folder), p["accelerator"])
    samples = PlainSet(folder, val, network.normalisation, p["size"])
    device, outputs, labels = next(network.parameters()).device, [], []
    for batch in plain_loader(samples, 0, batch_size=4):  # as in training
        outputs.append(network(batch["image"].to(device)).sigmoid().cpu())
        labels.append(batch["label"])
    found = {"val_mAP": mean_average_precision(torch.cat(outputs), torch.cat(labels))}
    for scale, row in studies.attention_statistics(network, samples).iterrows():
        found |= {f"weight {scale}": row["mean"], f"weight spread {scale}": row["spread between pixels"]}
    return found


def of_maps(stage: Input, folder: VOCFolder, train: list[str], val: list[str]) -> Scores:
    """Stage 04: its maps against the masks of the training images, and as a segmentation of the validation images."""
    sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
    alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)
    return scores.map_scores(folder, train, sweep) | {"classifier_only_val_miou": alone.miou()}


def of_pseudo(stage: Input, folder: VOCFolder, train: list[str], _: list[str]) -> Scores:
    """Stage 05: its masks against those of the training images."""
    left_out = set(stage.record.get("left_out", ()))
    train = [i for i in train if i not in left_out]
    return scores.pseudo_label_scores(folder, train, evaluation.score_masks(folder, train, stage.folder)[1])


def of_evaluation(stage: Input, folder: VOCFolder, _: list[str], val: list[str]) -> Scores:
    """Stage 07: its masks of each test protocol against those of the validation images."""
    counts = {q: evaluation.score_masks(folder, val, stage.folder / q)[1] for q in stage.record["per_class"]}
    return scores.evaluation_scores(counts)


SCORED: dict[str, Callable[[Input, VOCFolder, list[str], list[str]], Scores]] = {
    "03_train_safn": of_classifier,
    "04_localization_maps": of_maps,
    "05_pseudo_ground_truth": of_pseudo,
    "07_evaluate": of_evaluation,
}
