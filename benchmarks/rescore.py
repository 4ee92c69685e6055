"""Scores a finished run again, from the network, maps and masks that its stages left: does each number still follow?

    python -m benchmarks.rescore runs/evidence attention_1-0.75-0.5_seed0

The exit code is 1 where a number differs by more than ``--within``, or can no longer be computed.
"""

from __future__ import annotations

import argparse
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
from safn_book.records import RECORD, Input, fingerprint
from safn_book.run_names import CHAIN, RunName, Stage
from safn_book.stages import StageError, load_data

Scores = dict[str, float]


def rescore(runs: Path | str, run: str) -> pd.DataFrame:
    """Compute every number of a run that its artefacts can give again: of the classifier, the maps, the pseudo labels and
    the segmentation. A number may differ in its last digits where the machine or a version differs.

    Args:
        runs: ``runs/<profile>``.
        run: such as ``attention_1-0.75-0.5_seed0``.

    Returns:
        one row a number: ``stage``, ``metric``, ``recorded``, ``now`` and their difference ``by``; and one row a stage, the
        number of its fingerprints, ``files``, that differ from its record (0 or 1).

    Raises:
        DataError: no stage of that run is complete, with the names of the runs that there are; or a stage was restored
            without its files.
    """
    stages = _stages(Path(runs), run)
    _, folder, train, val = load_data(runs)
    rows = []
    for stage in tqdm(stages, "rescoring", file=sys.stdout):
        name, record = stage.folder.parent.name, stage.record
        changed = float(fingerprint(stage.folder) != record["fingerprint"])
        rows.append({"stage": name, "metric": "files", "recorded": 0.0, "now": changed, "by": changed})
        for metric, value in SCORED[name](stage, folder, train, val).items():
            recorded = record["metrics"].get(metric)
            recorded = float("nan") if recorded is None else recorded
            rows.append({"stage": name, "metric": metric, "recorded": recorded, "now": value, "by": value - recorded})
    return pd.DataFrame(rows, columns=["stage", "metric", "recorded", "now", "by"])


def differing(table: pd.DataFrame, within: float) -> pd.Series:
    """Find the rows of ``rescore`` whose number differs, or can no longer be computed, such as without masks."""
    lost = table["now"].isna() & table["recorded"].notna()
    return (table["by"].abs() > within) | lost


def _stages(runs: Path, run: str) -> list[Input]:
    """Find the complete stages of a run that can be scored, in their order."""
    known = sorted({path.parent.name for stage in SCORED for path in runs.glob(f"{stage}/*/{RECORD}")})
    if run not in known:
        raise DataError(f"{runs} has no complete stage of {run!r}; runs there: {', '.join(known) or 'none'}")
    name = RunName.parse(run)
    paths = [runs / stage / str(name.at(stage)) / RECORD for stage in CHAIN if stage in SCORED]
    stages = [Input(path.parent, json.loads(path.read_text())) for path in paths if path.exists()]
    if restored := [stage.name for stage in stages if stage.record.get("restored")]:
        raise DataError.from_problems(f"{run} was restored without its files: delete these and run it again", restored)
    return stages


@torch.inference_mode()
def score_classifier(stage: Input, folder: VOCFolder, _: list[str], val: list[str]) -> Scores:
    """Score stage 03: mAP of the validation images and the scale weights, by its network."""
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


def score_maps(stage: Input, folder: VOCFolder, train: list[str], val: list[str]) -> Scores:
    """Score stage 04: its maps against the masks of the training images, and as a segmentation of the validation images."""
    sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
    alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)
    return scores.map_scores(folder, train, sweep) | {"classifier_only_val_miou": alone.miou()}


def score_pseudo_labels(stage: Input, folder: VOCFolder, train: list[str], _: list[str]) -> Scores:
    """Score stage 05: its masks against those of the training images."""
    left_out = set(stage.record.get("left_out", ()))
    train = [i for i in train if i not in left_out]
    return scores.pseudo_label_scores(folder, train, evaluation.score_masks(folder, train, stage.folder)[1])


def score_evaluation(stage: Input, folder: VOCFolder, _: list[str], val: list[str]) -> Scores:
    """Score stage 07: its masks of each test protocol against those of the validation images."""
    counts = {q: evaluation.score_masks(folder, val, stage.folder / q)[1] for q in stage.record["per_class"]}
    return scores.evaluation_scores(counts)


SCORED: dict[str, Callable[[Input, VOCFolder, list[str], list[str]], Scores]] = {
    Stage.TRAIN_SAFN: score_classifier,
    Stage.MAPS: score_maps,
    Stage.PSEUDO_LABELS: score_pseudo_labels,
    Stage.EVALUATE: score_evaluation,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rescore", description=__doc__.splitlines()[0])
    parser.add_argument("runs", help="runs/<profile>")
    parser.add_argument("run", help="such as attention_1-0.75-0.5_seed0")
    parser.add_argument("--within", type=float, default=1e-4, help="the largest difference that counts as none")
    given = parser.parse_args(arguments)
    try:
        table = rescore(given.runs, given.run)
    except (DataError, StageError, ValueError) as error:
        print(f"python -m benchmarks.rescore: {error}", file=sys.stderr)
        return 1
    differs = differing(table, given.within)
    print(table.to_string(index=False, na_rep="", float_format="{:.4f}".format))
    print(f"{differs.sum()} of {len(table)} differ")
    return int(differs.any())


if __name__ == "__main__":
    sys.exit(main())
