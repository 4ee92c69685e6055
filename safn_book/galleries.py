"""Galleries of the notebooks: pictures, maps and masks of the same images side by side. Examples are never chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from safn.data import VOCFolder, load_mask, palette
from safn.loading import PlainSet, resize_long
from safn.map_files import load_maps
from safn.maps import localization_maps
from safn.metrics import VOID, mean_iou
from safn.network import SAFN
from safn.trained import load
from safn_book.records import Input
from safn_book.scores import spaced

WIDTH = 10.0  # inches of a gallery
PICTURE = 2.4  # inches, the most that one picture takes of it
HEAT = "inferno"
COLOURS = np.array(palette(), np.uint8).reshape(256, 3)  # of VOC, by class id


@dataclass(frozen=True)
class Heat:
    """A map, float ``(h, w)`` in 0..1, drawn in colours alone or over a picture in grey."""

    values: np.ndarray
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Mask:
    """Class ids, integers ``(H, W)`` with 255 for ignored pixels, drawn over a picture; background stays as it is."""

    ids: np.ndarray
    picture: Image.Image


Row = dict[str, Image.Image | Heat | Mask]


def gallery(rows: Sequence[Row], classes: Sequence[str], names: Sequence[str] = (), letters: bool = False) -> Figure:
    """Draw one row an image and one column a title.

    Args:
        rows: title -> picture, map or mask. All have the same titles, and a picture among them.
        classes: names of the foreground classes, for the legend of the masks.
        names: what stands beside the rows.
        letters: (a), (b), ... before the titles, as in the figures of the paper.

    Returns:
        a closed figure with a colour bar from 0 to 1 where it has maps, and a legend of the classes that occur. Without
        rows it says so.
    """
    if not rows:
        figure = plt.figure(figsize=(WIDTH, 0.5))
        figure.text(0.5, 0.5, "no image has a label: nothing to show", ha="center", va="center")
        plt.close(figure)
        return figure
    titles = list(rows[0])
    side = min(PICTURE, WIDTH / len(titles))
    ratios = [_aspect(row) for row in rows]
    items = [item for row in rows for item in row.values()]
    bar = any(isinstance(item, Heat) for item in items)
    size = side * len(titles) + 0.9 * bar, side * sum(ratios) + 0.9
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=size, squeeze=False, height_ratios=ratios, layout="constrained"
    )
    plt.close(figure)
    for row, line in zip(rows, axes):
        for item, axis in zip(row.values(), line):
            _draw(axis, item)
    for letter, title, axis in zip("abcdefghijkl", titles, axes[0]):
        text = f"({letter}) {title}" if letters else title
        axis.set_title(textwrap.fill(text, int(12 * side)), fontsize=9)
    for name, axis in zip(names, axes[:, 0]):
        axis.text(-0.04, 0.5, name, rotation=90, ha="right", va="center", fontsize=9, transform=axis.transAxes)
    if bar:
        colours = figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes, shrink=min(1, 2 / sum(ratios)), aspect=25)
        colours.ax.tick_params(labelsize=8)
    _legend(figure, [item.ids for item in items if isinstance(item, Mask)], classes)
    return figure


def _aspect(row: Row) -> float:
    """Height of the picture of a row, in widths."""
    picture = next(item for item in row.values() if isinstance(item, Image.Image))
    return picture.height / picture.width


def _draw(axis: Axes, item: Image.Image | Heat | Mask) -> None:
    axis.set_axis_off()
    if isinstance(item, Image.Image):
        axis.imshow(np.asarray(item.convert("RGB")))
    elif isinstance(item, Mask):
        axis.imshow(overlay(item.picture, item.ids), interpolation="nearest")
    elif item.picture is None:
        axis.imshow(item.values, cmap=HEAT, vmin=0, vmax=1)
    else:
        axis.imshow(heat(item.picture, item.values))


def heat(picture: Image.Image, values: np.ndarray) -> np.ndarray:
    """Lay a map ``(h, w)`` in 0..1 over a picture in grey; returns uint8 ``(H, W, 3)``."""
    map_image = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    tint = plt.get_cmap(HEAT)(np.asarray(map_image).clip(0, 1))[..., :3] * 255
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    return (0.35 * grey + 0.65 * tint).astype(np.uint8)


def overlay(picture: Image.Image, ids: np.ndarray) -> np.ndarray:
    """Lay class ids ``(H, W)`` over a picture in VOC's colours; returns uint8 ``(H, W, 3)``."""
    grey = np.repeat(np.asarray(picture.convert("L"), np.float32)[..., None], 3, 2)
    tinted = 0.3 * grey + 0.7 * COLOURS[ids]
    return np.where((ids > 0)[..., None], tinted, grey).astype(np.uint8)


def _legend(figure: Figure, masks: Sequence[np.ndarray], classes: Sequence[str]) -> None:
    present = sorted({int(k) for ids in masks for k in np.unique(ids)} - {0})
    if present:
        names = {**dict(enumerate(classes, 1)), VOID: "ignored"}
        patches = [Patch(color=COLOURS[k] / 255, label=names[k]) for k in present]
        figure.legend(handles=patches, loc="outside lower center", ncols=8, fontsize=8, frameon=False)


# --- which images ----------------------------------------------------------------------------------------------------


def examples(folder: VOCFolder, ids: Sequence[str], count: int) -> list[str]:
    """Take ``count`` evenly spaced images that have a label, and a ground-truth mask if any has one."""
    labelled = [i for i in ids if folder.label(i).any()]
    return spaced([i for i in labelled if folder.mask_path(i)] or labelled, count)


def largest_class(folder: VOCFolder, image_id: str) -> int:
    """Find the label that covers most of the ground-truth mask; without a mask, the first label."""
    labels = folder.label(image_id) > 0
    if not folder.mask_path(image_id):
        return int(labels.argmax())
    pixels = np.bincount(folder.mask(image_id).ravel(), minlength=VOID + 1)[1 : len(labels) + 1]
    return int(np.where(labels, pixels, -1).argmax())


def by_object_size(folder: VOCFolder, ids: Sequence[str], count: int) -> list[tuple[str, int]]:
    """Take ``count`` images with one label, with that label, from small objects to large ones (5th to 95th percentile of
    their share of the image). Without masks the sizes are unknown, and the images are evenly spaced."""
    single = {i: int(folder.label(i).argmax()) for i in ids if folder.label(i).sum() == 1}
    masked = [i for i in single if folder.mask_path(i)][:400]
    if not masked:
        return [(i, single[i]) for i in spaced(list(single), count)]
    shares = {i: float((folder.mask(i) == single[i] + 1).mean()) for i in masked}
    ordered = sorted(masked, key=lambda i: shares[i])
    places = np.linspace(0.05, 0.95, min(count, len(ordered))) * (len(ordered) - 1)
    return [(ordered[round(k)], single[ordered[round(k)]]) for k in places]


# --- the galleries of the stages -------------------------------------------------------------------------------------


def image_gallery(
    folder: VOCFolder,
    ids: Sequence[str],
    *,
    maps: dict[str, Path] | None = None,
    saliency: Path | None = None,
    masks: dict[str, Path] | None = None,
    names: Sequence[str] = (),
    letters: bool = False,
) -> Figure:
    """Draw one row an image: the image, maps of its largest class, saliency map, masks, ground truth where there is one.

    Args:
        maps: title -> folder of ``<id>.npz``. The class is named beside the row, unless there are ``names``.
        saliency: folder of ``<id>.png``.
        masks: title -> folder of ``<id>.png``.
        names, letters: of ``gallery``.
    """
    rows, labels = [], []
    for image_id in ids:
        picture = folder.image(image_id)
        row: Row = {"image": picture}
        if maps:
            label = largest_class(folder, image_id)
            labels.append(folder.classes[label])
            row |= {title: _map(path, image_id, folder, label, picture) for title, path in maps.items()}
        if saliency:
            row["saliency map"] = Heat(load_mask(saliency / f"{image_id}.png") / 255)
        for title, path in (masks or {}).items():
            row[title] = Mask(load_mask(path / f"{image_id}.png"), picture)
        rows.append(row | _ground_truth(folder, image_id, picture))
    return gallery(rows, folder.classes, names or labels, letters)


def _map(path: Path, image_id: str, folder: VOCFolder, label: int, picture: Image.Image) -> Heat:
    return Heat(load_maps(path / f"{image_id}.npz", len(folder.classes))[label], picture)


def _ground_truth(folder: VOCFolder, image_id: str, picture: Image.Image) -> Row:
    return {"ground truth": Mask(folder.mask(image_id), picture)} if folder.mask_path(image_id) else {}


def best_and_worst(folder: VOCFolder, ids: Sequence[str], counts: np.ndarray, predictions: Path, rows: int) -> Figure:
    """Draw predictions of the tenth of the images with the highest mIoU and of that with the lowest, half of the ``rows``
    each and evenly spaced. The mIoU of the image stands beside the row.

    Args:
        counts: ``(images, n, n + 1)`` of those ``ids`` that have a ground-truth mask, in their order.
    """
    masked = [i for i in ids if folder.mask_path(i)]
    miou = dict(zip(masked, mean_iou(counts), strict=True))
    ordered = sorted(masked, key=lambda i: miou[i], reverse=True)
    tenth = max(1, len(ordered) // 10)
    shown = list(dict.fromkeys(spaced(ordered[:tenth], rows // 2) + spaced(ordered[-tenth:], rows - rows // 2)))
    names = [f"{100 * miou[i]:.0f} %" for i in shown]
    return image_gallery(folder, shown, masks={"prediction": predictions}, names=names)


@torch.inference_mode()
def attention_gallery(network: SAFN, samples: PlainSet, rows: int) -> Figure:
    """Draw image, localization map of its first label (named beside the row), and the weight of each scale."""
    folder, lines, names = samples.folder, [], []
    for image_id in examples(folder, samples.ids, rows):
        picture = resize_long(folder.image(image_id), samples.size)
        labels = torch.from_numpy(folder.label(image_id))[None]
        images = samples.normalisation(picture)[None].to(next(network.parameters()).device)
        label = int(labels[0].argmax())
        maps = network.maps(images, labels.to(images.device))[0].cpu().numpy()
        line: Row = {"image": picture, "localization map": Heat(maps[label], picture)}
        if network.scale_weights is not None:
            for scale, weight in zip(network.scales, network.scale_weights[0].cpu().numpy()):
                line[f"weight of scale {scale:g}"] = Heat(weight)
        lines.append(line)
        names.append(folder.classes[label])
    return gallery(lines, folder.classes, names)


@torch.inference_mode()
def figure5(
    folder: VOCFolder, ids: Sequence[str], model: Input, maps: Input, pooled: dict[str, Path], rows: int
) -> Figure:
    """Draw image, the map at each scale alone, the maps of each aggregation, ground truth; small objects first (Fig. 5).

    Args:
        model: stage 03 of the network whose scales are shown alone.
        maps: stage 04 of it, which has the image size.
        pooled: title -> folder of maps.
    """
    network = cast(SAFN, load(model.folder))
    lines = []
    for image_id, label in by_object_size(folder, ids, rows):
        picture = folder.image(image_id)
        images = network.normalisation(resize_long(picture, maps.record["parameters"]["size"]))[None]
        labels = torch.from_numpy(folder.label(image_id))[None]
        line: Row = {"image": picture}
        for scale, features in zip(network.scales, network.scale_features(images)[0], strict=True):
            values = localization_maps(features[None], labels)[0, label].numpy()
            line[f"scale {scale:g}"] = Heat(values, picture)
        line |= {title: _map(path, image_id, folder, label, picture) for title, path in pooled.items()}
        lines.append(line | _ground_truth(folder, image_id, picture))
    return gallery(lines, folder.classes, letters=True)
