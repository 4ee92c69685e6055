"""What the scale weights do, other weights in their place, and what holds the pseudo labels back."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from safn.data import VOCFolder
from safn.evaluation import Sweep, SweepCounter
from safn.inference import on_device
from safn.loading import PlainSet, plain_loader
from safn.map_files import load_maps, load_saliency
from safn.maps import localization_maps
from safn.metrics import CONVENTIONS, VOID, ConfusionMatrix, bootstrap, iou_by_size
from safn.network import SAFN, aggregate
from safn.pseudo import pseudo_ground_truth
from safn.trained import load
from safn_book.galleries import spaced
from safn_book.run_names import Stage
from safn_book.stages import require

LEARNED = "learned"


@dataclass
class Study:
    """What ``study_attention`` finds in one network.

    Attributes:
        objects: one row an image and class: ``image``, ``class``, ``share`` of the image that the class covers (0..1),
            and for each scale ``weight <scale>``, the mean over the pixels of the class.
        sweeps: scores of the maps with each of ``replacement_weights``.
    """

    objects: pd.DataFrame
    sweeps: dict[str, Sweep]


def replacement_weights(
    weights: Tensor, scales: Sequence[float], mean: Sequence[float], seed: int
) -> dict[str, Tensor]:
    """Make weights that can replace the learned ones in Eq. 2, each of their shape.

    Args:
        weights: of one image, ``(1, S, h, w)``, summing to 1 over S.
        scales: the S scales.
        mean: of the weight of each scale over the data set. It removes all that depends on image and place.
        seed: of the order of the shuffled pixels, which removes the place alone.
    """
    height, width = weights.shape[-2:]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(height * width)).to(weights.device)
    count = len(scales)
    replaced = {
        LEARNED: weights,
        "their mean": _everywhere(torch.tensor(mean), weights),
        "shuffled pixels": weights.flatten(2)[..., order].view_as(weights),
        "equal": _everywhere(torch.full((count,), 1 / count), weights),
    }
    for scale, one in zip(scales, torch.eye(count)):
        replaced[f"scale {scale:g} alone"] = _everywhere(one, weights)
    return replaced


def _everywhere(values: Tensor, weights: Tensor) -> Tensor:
    """One weight a scale, at each pixel of ``weights``."""
    return values.to(weights).view(1, -1, 1, 1).expand_as(weights)


def study_runs(runs: Path | str, folder: VOCFolder, ids: list[str], names: list[str]) -> dict[str, Study]:
    """Study the attention of runs, at the image size of their maps and with the means over the validation images.

    Returns:
        run -> study. Runs without attention have none, nor have those that were restored without their network.
    """
    studies = {}
    for run in names:
        model = require(runs, Stage.TRAIN_SAFN, run, restored=True)
        maps = require(runs, Stage.MAPS, run, restored=True)
        if model.record.get("restored") or not ids:
            continue
        network = cast(SAFN, load(model.folder))
        if network.attention is None:
            continue
        on_device(network, maps.record["parameters"]["accelerator"])
        mean = [model.record["metrics"][f"weight {scale:g}"] for scale in network.scales]
        studies[run] = study_attention(
            network, PlainSet(folder, ids, network.normalisation, maps.record["parameters"]["size"]), mean
        )
    return studies


@torch.inference_mode()
def study_attention(network: SAFN, samples: PlainSet, mean: Sequence[float]) -> Study:
    """Study the weights of a trained network on the images of ``samples`` that have a ground-truth mask.

    Maps are those of ``SAFN.maps`` with the given labels, without the mirrored image.

    Args:
        mean: of the weight of each scale, see ``replacement_weights``.

    Raises:
        ValueError: the network has no attention.
    """
    if network.attention is None:
        raise ValueError("the network has one scale, or max or average pooling: it has no weights to study")
    folder, device = samples.folder, next(network.parameters()).device
    masked = [i for i in samples.ids if folder.mask_path(i)]
    loader = plain_loader(PlainSet(folder, masked, samples.normalisation, samples.size), 0)
    rows: list[dict[str, Any]] = []
    counters: dict[str, SweepCounter] = {}
    for seed, sample in enumerate(tqdm(loader, "scale weights", mininterval=2, file=sys.stdout)):
        image_id, labels = sample["id"][0], sample["label"]
        target = folder.mask(image_id)
        features = network.scale_features(sample["image"].to(device)).float()
        weights = network.attention(features)
        for name, replaced in replacement_weights(weights, network.scales, mean, seed).items():
            maps = localization_maps(aggregate(features, replaced), labels.to(device))
            counter = counters.setdefault(name, SweepCounter(len(folder.classes)))
            counter.update(upsample_maps(maps, labels, target.shape), target)
        large = F.interpolate(weights, target.shape, mode="bilinear", align_corners=False)[0].cpu().numpy()
        for label in np.flatnonzero(labels[0]):
            covered = target == label + 1
            if covered.any():
                share = covered.sum() / (target != VOID).sum()
                means = {f"weight {scale:g}": weight[covered].mean() for scale, weight in zip(network.scales, large)}
                rows.append({"image": image_id, "class": folder.classes[label], "share": share, **means})
    columns = ["image", "class", "share", *(f"weight {scale:g}" for scale in network.scales)]
    sweeps = {name: counter.result() for name, counter in counters.items()}
    return Study(pd.DataFrame(rows, columns=columns), sweeps)


def upsample_maps(maps: Tensor, labels: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Bring maps ``(1, N, h, w)`` to ``size``, float32 ``(N, H, W)``; only those of present classes are computed."""
    present = labels[0] > 0
    full = np.zeros((maps.shape[1], *size), np.float32)
    if present.any():
        chosen = maps[:, present.to(maps.device)]
        full[present.numpy()] = F.interpolate(chosen, size, mode="bilinear", align_corners=False)[0].cpu().numpy()
    return full


def _objects(studies: dict[str, Study]) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """Run, objects and weight columns of each study that has objects."""
    for run, study in studies.items():
        if len(study.objects):
            yield run, study.objects, [c for c in study.objects if c.startswith("weight ")]


def weights_by_size(studies: dict[str, Study], groups: int = 8) -> pd.DataFrame:
    """Give each scale's weight on objects of similar size, in ``groups`` groups of equally many objects.

    Returns:
        one row a run, scale and group: the median ``share`` of the image (0..1) that the class covers, and the quartiles
        of the weight: ``from``, ``median``, ``to``.
    """
    tables = [pd.DataFrame(columns=["run", "scale", "share", "from", "median", "to"])]
    for run, objects, columns in _objects(studies):
        group = pd.qcut(objects["share"].rank(method="first"), min(groups, len(objects)), labels=False)
        share = objects["share"].groupby(group).median()
        for column in columns:
            quartiles = objects[column].groupby(group).quantile([0.25, 0.5, 0.75]).unstack()
            quartiles.columns = ["from", "median", "to"]
            scale = column.removeprefix("weight ")
            tables.append(quartiles.assign(run=run, scale=scale, share=share)[list(tables[0])])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def weight_size_correlation(studies: dict[str, Study], draws: int = 1000) -> pd.DataFrame:
    """Give Spearman's rank correlation of each scale's weight with the share of the image that the class covers.

    Returns:
        one row a run and scale: ``correlation``, and its 95 % interval ``from`` ``to`` over resampled images, whose
        objects stay together.
    """
    rows: list[dict[str, Any]] = []
    for run, objects, columns in _objects(studies):
        images = list(objects.groupby("image").indices.values())
        rng = np.random.default_rng(0)
        samples = []
        for _ in range(draws):
            drawn = [images[k] for k in rng.integers(len(images), size=len(images))]
            samples.append(_rank_correlation(objects.iloc[np.concatenate(drawn)], columns))
        low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)  # a draw of one image has no correlation
        measured = zip(columns, _rank_correlation(objects, columns), low, high)
        rows += [
            {"run": run, "scale": column.removeprefix("weight "), "correlation": value, "from": start, "to": end}
            for column, value, start, end in measured
        ]
    return pd.DataFrame(rows, columns=["run", "scale", "correlation", "from", "to"]).round(3)


def _rank_correlation(objects: pd.DataFrame, columns: list[str]) -> pd.Series:
    return objects[columns].rank().corrwith(objects["share"].rank())


def replacement_scores(studies: dict[str, Study]) -> pd.DataFrame:
    """Score the maps with each of ``replacement_weights``.

    Returns:
        one row a run and replacement: ``mIoU`` in percent at the best threshold of each, ``difference`` to the learned
        weights with the 95 % interval ``from`` ``to`` of a paired bootstrap over images, that ``threshold``, and the
        foreground IoU in percent by object size.
    """
    tables = {}
    for run, study in studies.items():
        sweeps = study.sweeps
        drawn = bootstrap([sweep.counts for sweep in sweeps.values()])
        low, high = np.percentile(100 * (drawn - drawn[:, :1]), [2.5, 97.5], axis=0)  # the learned ones are the first
        miou = pd.Series({name: 100 * sweep.miou.max() for name, sweep in sweeps.items()})
        table = pd.DataFrame({"mIoU": miou, "difference": miou - miou[LEARNED], "from": low, "to": high})
        table["threshold"] = [sweep.threshold for sweep in sweeps.values()]
        sizes = pd.DataFrame({name: iou_by_size(sweep.counts) for name, sweep in sweeps.items()}).T
        tables[run] = table.join(100 * sizes).round(2)
    if not tables:
        return pd.DataFrame(columns=["run", "weights", "mIoU", "difference", "from", "to"])
    return pd.concat(tables, names=["run", "weights"]).reset_index()


@torch.inference_mode()
def attention_statistics(network: SAFN, samples: PlainSet) -> pd.DataFrame:
    """Measure the scale weights of a network.

    Returns:
        one row a scale: ``mean``, ``spread between pixels`` (the standard deviation within an image, mean over images)
        and ``spread between images`` (that of the means of the images). Empty for a network without attention.
    """
    if network.attention is None:
        return pd.DataFrame()
    means, spreads = [], []
    for sample in plain_loader(samples, 0):
        features = network.scale_features(sample["image"].to(next(network.parameters()).device)).float()
        weights = network.attention(features)[0].flatten(1).cpu()
        means.append(weights.mean(1).numpy())
        spreads.append(weights.std(1).numpy())
    columns = {
        "mean": np.mean(means, 0),
        "spread between pixels": np.mean(spreads, 0),
        "spread between images": np.std(means, 0),
    }
    return pd.DataFrame(columns, index=[f"{scale:g}" for scale in network.scales])


# --- pseudo labels ---------------------------------------------------------------------------------------------------

THRESHOLDS = {
    "gamma": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    "ignore_saliency": (0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1),
    "ignore_confidence": (0.5, 0.6, 0.7, 0.8, 0.9, 1),
}


@dataclass(frozen=True)
class Sources:
    """What pseudo labels are made of: a data folder, some of its images, and folders of their maps and saliency maps."""

    folder: VOCFolder
    ids: Sequence[str]
    maps: Path
    saliency: Path

    def masked(self, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Give ground truth ``(H, W)``, maps ``(N, H, W)``, saliency ``(H, W)`` and labels ``(N,)`` of up to ``limit``
        evenly spaced images with a mask."""
        for image_id in spaced([i for i in self.ids if self.folder.mask_path(i)], limit):
            target = self.folder.mask(image_id)
            maps = load_maps(self.maps / f"{image_id}.npz", len(self.folder.classes), target.shape)
            saliency = load_saliency(self.saliency / f"{image_id}.png", target.shape)
            yield target, maps, saliency, self.folder.label(image_id)


def threshold_sweep(sources: Sources, rules: dict[str, Any], limit: int = 150) -> pd.DataFrame:
    """Score pseudo labels while one threshold of ``rules`` at a time takes the values of ``THRESHOLDS``.

    Args:
        rules: arguments of ``pseudo_ground_truth``.
        limit: so many images at most.

    Returns:
        one row a value: ``threshold``, ``value``, mIoU in percent of the three conventions for ignored pixels (``drop``,
        ``background``, ``wrong``), ``ignored (%)``.
    """
    grid = [(name, value) for name, values in THRESHOLDS.items() for value in sorted({*values, rules[name]})]
    matrices = [ConfusionMatrix(len(sources.folder.classes) + 1) for _ in grid]
    for target, maps, saliency, labels in sources.masked(limit):
        for (name, value), matrix in zip(grid, matrices):
            matrix.update(pseudo_ground_truth(maps, saliency, labels, **{**rules, name: value}), target)
    rows = []
    for (name, value), matrix in zip(grid, matrices):
        miou = {convention: 100 * matrix.miou(convention) for convention in CONVENTIONS}
        ignored = 100 * matrix.ignored_share()
        rows.append({"threshold": name, "value": value, **miou, "ignored (%)": ignored})
    return pd.DataFrame(rows).round(3)


def oracle_pseudo_labels(
    sources: Sources, saliency_threshold: float, gamma: float, combine: str = "harmonic", limit: int = 150
) -> dict[str, float]:
    """Find what holds the pseudo labels back: replace one of their two inputs by the ground truth.

    Args:
        saliency_threshold: of the saliency's foreground, such as the best one that stage 01 has found.
        gamma, combine: of ``pseudo_ground_truth``. No pixel is ignored.
        limit: so many images at most.

    Returns:
        mIoU in 0..1: ``pseudo labels`` as they are, with ``ground-truth foreground`` (classes of the maps), and with
        ``ground-truth classes`` (foreground of the saliency map).
    """
    names = ("pseudo labels", "ground-truth foreground", "ground-truth classes")
    matrices = {name: ConfusionMatrix(len(sources.folder.classes) + 1) for name in names}
    for target, maps, saliency, labels in sources.masked(limit):
        foreground = (target > 0) & (target != VOID)
        classes = np.zeros_like(target)
        present = np.flatnonzero(labels)
        if len(present):
            classes = present[maps[present].argmax(0)] + 1
        predictions = (
            pseudo_ground_truth(maps, saliency, labels, gamma, ignore_saliency=1, ignore_confidence=1, combine=combine),
            np.where(foreground, classes, 0),
            np.where(saliency >= saliency_threshold, np.where(foreground, target, classes), 0),
        )
        for matrix, prediction in zip(matrices.values(), predictions, strict=True):
            matrix.update(prediction, target)
    return {name: matrix.miou() for name, matrix in matrices.items()}
