"""What the scale weights do, and what other weights in their place would do."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

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
from safn.maps import localization_maps
from safn.metrics import VOID, bootstrap, iou_by_size
from safn.network import SAFN, aggregate
from safn.trained import load
from safn_book.run_names import Stage
from safn_book.stages import require

LEARNED = "learned"


@dataclass
class Study:
    """What ``study_attention`` finds in one network."""

    #: one row an image and class: ``image``, ``class``, ``share`` of the image that the class covers (0..1), and for
    #: each scale ``weight <scale>``, the mean over the pixels of the class
    objects: pd.DataFrame
    sweeps: dict[str, Sweep]  #: scores of the maps with each of ``replacement_weights``


def replacement_weights(
    weights: Tensor, scales: Sequence[float], mean: Sequence[float], seed: int
) -> dict[str, Tensor]:
    """Make weights that can replace the learned ones ``(1, S, h, w)`` of an image in Eq. 2, each of their shape.

    The ``mean`` of each scale over the data set removes all that depends on image and place. Shuffling, in an order
    that ``seed`` draws, removes the place alone."""

    def everywhere(values: Tensor) -> Tensor:
        return values.to(weights).view(1, -1, 1, 1).expand_as(weights)

    order = torch.from_numpy(np.random.default_rng(seed).permutation(weights[0, 0].numel())).to(weights.device)
    count = len(scales)
    replaced = {
        LEARNED: weights,
        "their mean": everywhere(torch.tensor(mean)),
        "shuffled pixels": weights.flatten(2)[..., order].view_as(weights),
        "equal": everywhere(torch.full((count,), 1 / count)),
    }
    return replaced | {f"scale {scale:g} alone": everywhere(one) for scale, one in zip(scales, torch.eye(count))}


def study_runs(runs: Path | str, folder: VOCFolder, ids: list[str], names: list[str]) -> dict[str, Study]:
    """Study the attention of runs, at the image size of their maps and with the means over the validation images.

    Runs without attention have no study, nor have those that were restored without their network.
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
        parameters = maps.record["parameters"]
        on_device(network, parameters["accelerator"])
        mean = [model.record["metrics"][f"weight {scale:g}"] for scale in network.scales]
        studies[run] = study_attention(network, PlainSet(folder, ids, network.normalisation, parameters["size"]), mean)
    return studies


@torch.inference_mode()
def study_attention(network: SAFN, samples: PlainSet, mean: Sequence[float]) -> Study:
    """Study the weights of a network with attention on the images of ``samples`` that have a ground-truth mask.

    Maps are those of ``SAFN.maps`` with the given labels, without the mirrored image. ``mean`` is that of
    ``replacement_weights``.
    """
    if network.attention is None:
        raise ValueError("the network has one scale, or max or average pooling: it has no weights to study")
    folder, device = samples.folder, next(network.parameters()).device
    masked = PlainSet(folder, folder.with_mask(samples.ids), samples.normalisation, samples.size)
    names = [f"weight {scale:g}" for scale in network.scales]
    rows = []
    counters: dict[str, SweepCounter] = {}
    loader = plain_loader(masked, 0)
    for seed, sample in enumerate(tqdm(loader, "scale weights", mininterval=2, file=sys.stdout)):
        image_id, labels = sample["id"][0], sample["label"]
        target = folder.mask(image_id)
        features = network.scale_features(sample["image"].to(device)).float()
        weights = network.attention(features)
        for name, replaced in replacement_weights(weights, network.scales, mean, seed).items():
            maps = localization_maps(aggregate(features, replaced), labels.to(device))
            counter = counters.setdefault(name, SweepCounter(len(folder.classes)))
            counter.update(upsample_maps(maps, labels, target.shape), target)
        large = _upsample(weights, target.shape)
        for label in np.flatnonzero(labels[0]):
            covered = target == label + 1
            if covered.any():
                share = covered.sum() / (target != VOID).sum()
                means = {name: weight[covered].mean() for name, weight in zip(names, large)}
                rows.append({"image": image_id, "class": folder.classes[label], "share": share, **means})
    objects = pd.DataFrame(rows, columns=["image", "class", "share", *names])
    return Study(objects, {name: counter.result() for name, counter in counters.items()})


def _upsample(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)[0].cpu().numpy()


def upsample_maps(maps: Tensor, labels: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Bring maps ``(1, N, h, w)`` to ``size``, float32 ``(N, H, W)``; only those of present classes are computed."""
    present = labels[0] > 0
    full = np.zeros((maps.shape[1], *size), np.float32)
    if present.any():
        full[present.numpy()] = _upsample(maps[:, present.to(maps.device)], size)
    return full


def _objects(studies: dict[str, Study]) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """Run, objects and weight columns of each study that has objects."""
    for run, study in studies.items():
        if len(study.objects):
            yield run, study.objects, [c for c in study.objects if c.startswith("weight ")]


def weights_by_size(studies: dict[str, Study], groups: int = 8) -> pd.DataFrame:
    """Give each scale's weight on objects of similar size, in ``groups`` groups of equally many objects.

    One row a run, scale and group has the median ``share`` of the image that the class covers, and the quartiles of the
    weight: ``from``, ``median``, ``to``.
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
    """Give Spearman's rank correlation of each scale's weight with the share of the image that the class covers, with a
    95 % interval ``from`` ``to`` over resampled images, whose objects stay together: one row a run and scale."""
    rows = []
    for run, objects, columns in _objects(studies):
        images = list(objects.groupby("image").indices.values())
        rng = np.random.default_rng(0)
        samples = []
        for _ in range(draws):
            drawn = [images[k] for k in rng.integers(len(images), size=len(images))]
            samples.append(_rank_correlation(objects.iloc[np.concatenate(drawn)], columns))
        low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)  # a draw of one image has no correlation
        for column, value, start, end in zip(columns, _rank_correlation(objects, columns), low, high):
            scale = column.removeprefix("weight ")
            rows.append({"run": run, "scale": scale, "correlation": value, "from": start, "to": end})
    return pd.DataFrame(rows, columns=["run", "scale", "correlation", "from", "to"]).round(3)


def _rank_correlation(objects: pd.DataFrame, columns: list[str]) -> pd.Series:
    return objects[columns].rank().corrwith(objects["share"].rank())


def replacement_scores(studies: dict[str, Study]) -> pd.DataFrame:
    """Score the maps with each of ``replacement_weights``, one row a run and replacement.

    It has the ``mIoU`` in percent at the best ``threshold`` of each, the ``difference`` to the learned weights with the
    95 % interval ``from`` ``to`` of a paired bootstrap over images, and the foreground IoU in percent by object size.
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
    """Measure the weights of a network, one row a scale: their mean, and their standard deviation between the pixels of
    an image (mean over images) and between images. Empty for a network without attention."""
    if network.attention is None:
        return pd.DataFrame()
    means, spreads = [], []
    for sample in plain_loader(samples, 0):
        features = network.scale_features(sample["image"].to(next(network.parameters()).device)).float()
        weights = network.attention(features)[0].flatten(1).cpu()
        means.append(weights.mean(1).numpy())
        spreads.append(weights.std(1).numpy())
    table = pd.DataFrame(index=[f"{scale:g}" for scale in network.scales])
    table["mean"] = np.mean(means, 0)
    table["spread between pixels"] = np.mean(spreads, 0)
    table["spread between images"] = np.std(means, 0)
    return table
