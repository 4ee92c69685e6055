"""What the scale weights do: against the size of the objects, and with other weights in their place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

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
from safn_book.stages import need


def replacements(weights: Tensor, scales: Sequence[float], mean: Sequence[float], seed: int) -> dict[str, Tensor]:
    """The learned weights, and what can stand in their place in Eq. 2; each of the shape of ``weights``.

    Args:
        weights: of one image, ``(1, S, h, w)``, summing to 1 over S.
        mean: of each scale over the data set: what is lost with it is all that depends on image and place.
        seed: of the order of the shuffled pixels; what is lost with them is the place alone.
    """
    height, width = weights.shape[-2:]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(height * width))
    constant = torch.as_tensor(mean, dtype=weights.dtype, device=weights.device)
    alone = torch.eye(len(scales), dtype=weights.dtype, device=weights.device)
    everywhere = lambda values: values.view(1, -1, 1, 1).expand_as(weights)  # noqa: E731
    return {
        "learned": weights,
        "their mean": everywhere(constant),
        "shuffled pixels": weights.flatten(2)[..., order.to(weights.device)].view_as(weights),
        "equal": everywhere(torch.full_like(constant, 1 / len(scales))),
        **{f"scale {scale:g} alone": everywhere(one) for scale, one in zip(scales, alone)},
    }


FROM, TO = "95 % from", "to"  # of an interval
Study = tuple[pd.DataFrame, dict[str, Sweep]]


def study_runs(runs: Path | str, folder: VOCFolder, ids: list[str], names: list[str]) -> dict[str, Study]:
    """``study`` of the network of each run, at the image size of its maps and with the means over its validation images; a
    run without attention has none, and one that was restored without its network."""
    studies = {}
    for run in names:
        model, made = (need(runs, stage, run, restored=True) for stage in ("03_train_safn", "04_localization_maps"))
        if model.record.get("restored"):
            continue
        network = load(model.folder)
        if network.attention is not None and ids:
            on_device(network, made.record["parameters"]["accelerator"])
            mean = [model.record["metrics"][f"weight {scale:g}"] for scale in network.scales]
            samples = PlainSet(folder, ids, network.normalisation, made.record["parameters"]["size"])
            studies[run] = study(network, samples, mean)
    return studies


@torch.inference_mode()
def study(network: SAFN, samples: PlainSet, mean: Sequence[float]) -> Study:
    """Look at the attention of a trained network on the images of ``samples`` that have a true mask.

    Maps are those of ``SAFN.maps`` with the given labels, without the mirrored image.

    Args:
        mean: of each scale's weight, see ``replacements``.

    Returns:
        - one row an image and class: ``image``, ``class``, ``share`` of the image that the class covers (0..1), and for
          each scale ``weight <scale>``, the mean over the pixels of the class;
        - for each of ``replacements`` the scores of its maps.

    Raises:
        ValueError: the network has no attention.
    """
    if network.attention is None:
        raise ValueError("a network of one scale, or that takes the maximum or the average, has no weights to study")
    folder, device, rows, counters = samples.folder, next(network.parameters()).device, [], {}
    samples = PlainSet(folder, [i for i in samples.ids if folder.mask_path(i)], samples.normalisation, samples.size)
    for seed, sample in enumerate(tqdm(plain_loader(samples, 0), "scale weights", mininterval=2, file=sys.stdout)):
        target, labels = folder.mask(sample["id"][0]), sample["label"]
        features = network.scale_features(sample["image"].to(device)).float()
        weights = network.attention(features)
        for name, given in replacements(weights, network.scales, mean, seed).items():
            maps = localization_maps(aggregate(features, given), labels.to(device))
            counter = counters.setdefault(name, SweepCounter(len(folder.classes)))
            counter.update(enlarged(maps, labels, target.shape), target)
        large = F.interpolate(weights, target.shape, mode="bilinear", align_corners=False)[0].cpu().numpy()
        for c in np.flatnonzero(labels[0]):
            covered = target == c + 1
            if covered.any():
                row = {
                    "image": sample["id"][0],
                    "class": folder.classes[c],
                    "share": covered.sum() / (target != VOID).sum(),
                }
                rows.append(row | {f"weight {s:g}": w[covered].mean() for s, w in zip(network.scales, large)})
    columns = ["image", "class", "share", *(f"weight {s:g}" for s in network.scales)]
    return pd.DataFrame(rows, columns=columns), {name: counter.result() for name, counter in counters.items()}


def enlarged(maps: Tensor, labels: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Maps ``(1, N, h, w)`` at ``size``, float32 ``(N, H, W)``; only those of present classes are computed."""
    present, full = labels[0] > 0, np.zeros((maps.shape[1], *size), np.float32)
    if present.any():
        chosen = maps[:, present.to(maps.device)]
        full[present.numpy()] = F.interpolate(chosen, size, mode="bilinear", align_corners=False)[0].cpu().numpy()
    return full


def by_share(studies: dict[str, Study], groups: int = 8) -> pd.DataFrame:
    """Each scale's weight on objects of like size, in ``groups`` groups of as many objects each.

    Returns:
        one row a run, scale and group: the median ``share`` of the image (0..1) that the class covers, and of the weight
        the first quartile ``from``, the ``median``, and the third quartile ``to``.
    """
    rows = []
    for run, (objects, _) in ((run, of) for run, of in studies.items() if len(of[0])):
        group = pd.qcut(objects["share"].rank(method="first"), min(groups, len(objects)), labels=False)
        share = objects["share"].groupby(group).median()
        for column in (c for c in objects if c.startswith("weight ")):
            quartiles = (
                objects[column]
                .groupby(group)
                .quantile([0.25, 0.5, 0.75])
                .unstack()
                .set_axis(["from", "median", "to"], axis=1)
            )
            rows.append(quartiles.assign(run=run, scale=column.removeprefix("weight "), share=share))
    columns = ["run", "scale", "share", "from", "median", "to"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def correlations(studies: dict[str, Study], draws: int = 1000) -> pd.DataFrame:
    """Spearman's rank correlation of each scale's weight with the share of the image that the class covers.

    Returns:
        one row a run and scale: the correlation, and its 95 % interval over resampled images, whose objects stay together.
    """
    tables = {}
    for run, (objects, _) in ((run, of) for run, of in studies.items() if len(of[0])):
        columns, rng = [c for c in objects if c.startswith("weight ")], np.random.default_rng(0)
        of = lambda rows, columns=columns: rows[columns].rank().corrwith(rows["share"].rank())  # noqa: E731
        images = list(objects.groupby("image").indices.values())
        drawn = ([images[k] for k in rng.integers(len(images), size=len(images))] for _ in range(draws))
        samples = [of(objects.iloc[np.concatenate(rows)]) for rows in drawn]
        low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)  # a draw of one image has no correlation
        tables[run] = pd.DataFrame({"rank correlation with size": of(objects), FROM: low, TO: high}).round(3)
    return _rows(tables, "scale")


def scores(studies: dict[str, Study]) -> pd.DataFrame:
    """One row a run and replacement: mIoU of the maps in percent at the best threshold of each; what it has more than the
    learned weights, with the 95 % interval of a paired bootstrap over images; that threshold, and their foreground IoU by
    object size."""
    tables = {}
    for run, (_, sweeps) in studies.items():
        drawn = bootstrap([sweep.counts for sweep in sweeps.values()])
        low, high = np.percentile(100 * (drawn - drawn[:, :1]), [2.5, 97.5], axis=0)  # the learned ones are the first
        each = pd.DataFrame({k: {"mIoU": s.miou.max(), **iou_by_size(s.counts)} for k, s in sweeps.items()}).T.mul(100)
        more = {"more than learned": each["mIoU"] - each["mIoU"].iloc[0], FROM: low, TO: high}
        more["threshold"] = [sweep.threshold for sweep in sweeps.values()]
        tables[run] = each.assign(**more)[["mIoU", *more, *each.columns[1:]]].round(2)
    return _rows(tables, "weights")


def _rows(tables: dict[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """The tables below one another, their run and their index as columns."""
    return pd.concat(tables, names=["run", name]).reset_index() if tables else pd.DataFrame(columns=["run", name])


@torch.inference_mode()
def attention_statistics(network: SAFN, samples: PlainSet) -> pd.DataFrame:
    """For each scale: mean weight, its standard deviation between the pixels of an image (mean over images), and
    between the means of the images. Empty where nothing is weighed."""
    if network.attention is None:
        return pd.DataFrame()
    means, spreads = [], []
    for sample in plain_loader(samples, 0):
        network(sample["image"].to(next(network.parameters()).device))
        weights = network.scale_weights[0].flatten(1).cpu()
        means.append(weights.mean(1).numpy())
        spreads.append(weights.std(1).numpy())
    columns = {
        "mean": np.mean(means, 0),
        "spread between pixels": np.mean(spreads, 0),
        "spread between images": np.std(means, 0),
    }
    return pd.DataFrame(columns, index=[f"{s:g}" for s in network.scales])


SWEPT = {
    "gamma": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    "ignore_saliency": (0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1),
    "ignore_confidence": (0.5, 0.6, 0.7, 0.8, 0.9, 1),
}


def sweep(
    folder: VOCFolder, ids: list[str], maps: Path, saliency: Path, rules: dict[str, float | str], limit: int = 150
) -> pd.DataFrame:
    """mIoU (in percent) of the three 255 conventions and the ignored share when one threshold of ``rules`` at a time takes
    the values of ``SWEPT``, on up to ``limit`` of the images with a mask, evenly spaced.

    Returns:
        one row a value: threshold, value, drop, background, wrong, ignored (%).
    """
    ids = _masked(folder, ids, limit)
    grid = [(name, value) for name, values in SWEPT.items() for value in sorted({*values, rules[name]})]
    matrices = [ConfusionMatrix(len(folder.classes) + 1) for _ in grid]
    for image_id in ids:
        target = folder.mask(image_id)
        values = load_maps(maps / f"{image_id}.npz", len(folder.classes), target.shape)
        shown, labels = load_saliency(saliency / f"{image_id}.png", target.shape), folder.label(image_id)
        for (name, value), matrix in zip(grid, matrices):
            matrix.update(pseudo_ground_truth(values, shown, labels, **{**rules, name: value}), target)
    rows = [
        {"threshold": name, "value": value, **{c: 100 * m.miou(c) for c in CONVENTIONS}}
        | {"ignored (%)": 100 * m.ignored_share()}
        for (name, value), m in zip(grid, matrices)
    ]
    return pd.DataFrame(rows).round(3)


def limits(
    folder: VOCFolder,
    ids: list[str],
    maps: Path,
    saliency: Path,
    threshold: float,
    gamma: float,
    combine: str = "harmonic",
    limit: int = 150,
) -> dict[str, float]:
    """Which of the two holds the pseudo ground truth back? mIoU (0..1) with nothing ignored, on up to ``limit`` of the images
    with a mask: as it is, and with the answer of the true masks in the place of either.

    Args:
        threshold: of the saliency's foreground, such as the best one that stage 01 has found.
    """
    names = ("as it is", "true foreground, classes of the maps",
             "foreground of the saliency, true classes")  # fmt: skip
    matrices = {name: ConfusionMatrix(len(folder.classes) + 1) for name in names}
    for image_id in _masked(folder, ids, limit):
        target, labels = folder.mask(image_id), folder.label(image_id)
        values = load_maps(maps / f"{image_id}.npz", len(folder.classes), target.shape)
        shown = load_saliency(saliency / f"{image_id}.png", target.shape)
        true, present = (target > 0) & (target != VOID), np.flatnonzero(labels)
        of_maps = present[values[present].argmax(0)] + 1 if len(present) else np.zeros_like(target)
        made = (
            pseudo_ground_truth(values, shown, labels, gamma, ignore_saliency=1, ignore_confidence=1, combine=combine),
            np.where(true, of_maps, 0),
            np.where(shown >= threshold, np.where(true, target, of_maps), 0),
        )
        for name, prediction in zip(names, made, strict=True):
            matrices[name].update(prediction, target)
    return {name: matrix.miou() for name, matrix in matrices.items()}


def _masked(folder: VOCFolder, ids: list[str], limit: int) -> list[str]:
    """Up to ``limit`` of the ids that have a mask, evenly spaced."""
    ids = [i for i in ids if folder.mask_path(i) is not None]
    return [ids[int(k)] for k in np.linspace(0, len(ids) - 1, min(limit, len(ids)))]
