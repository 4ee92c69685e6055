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

from safn.backbones import BACKBONES
from safn.data import VOCFolder
from safn.inference import load_safn, on_device
from safn.loading import PlainSet, plain_loader
from safn.maps import localization_maps
from safn.metrics import VOID, bootstrap, iou_by_size
from safn.network import SAFN, aggregate
from safn.records import need
from safn.scoring import Sweep, SweepCounter


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
        network = load_safn(model, len(folder.classes))
        if network.attention is not None and ids:
            on_device(network, made.record["parameters"]["accelerator"])
            normalisation = BACKBONES[model.record["parameters"]["backbone"]].normalisation
            mean = [model.record["metrics"][f"weight {scale:g}"] for scale in network.scales]
            samples = PlainSet(folder, ids, normalisation, made.record["parameters"]["size"])
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
