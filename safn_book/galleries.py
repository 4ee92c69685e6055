"""Galleries: pictures, maps and masks of the same images side by side. Nobody chooses the examples: object sizes do."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from safn.data import VOCFolder
from safn.images import load_mask, palette
from safn.loading import PlainSet, plain_loader
from safn.map_files import load_maps, load_saliency
from safn.maps import localization_maps
from safn.metrics import VOID, mean_iou
from safn.network import SAFN
from safn_book.charts import axes_grid
from safn_book.scores import spaced

WIDTH = 8.0  # inches of a gallery
PICTURE = 2.0  # inches, the most that one picture takes of it
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
    """Draw one row an image and one column a title, with a colour bar from 0 to 1 and a legend of the classes.

    Titles stand above a row where they differ from those of the row before. ``names`` stand beside the rows. ``letters``
    sets (a), (b), ... before the titles, as in the figures of the paper."""
    if not rows:
        figure = plt.figure(figsize=(WIDTH, 0.5))
        figure.text(0.5, 0.5, "no image has a label: nothing to show", ha="center", va="center")
        plt.close(figure)
        return figure
    across = max(len(row) for row in rows)
    side = min(PICTURE, WIDTH / across)
    ratios = [_aspect(row) for row in rows]
    items = [item for row in rows for item in row.values()]
    bar = any(isinstance(item, Heat) for item in items)
    size = side * across + 0.8 * bar, side * sum(ratios) + 0.8
    figure, axes = axes_grid(len(rows), across, size, height_ratios=ratios)
    for axis in axes.flat:
        axis.set_axis_off()
    above: list[str] = []
    for row, line in zip(rows, axes):
        for letter, title, axis in zip("abcdefghijkl", row, line):
            _draw(axis, row[title])
            if list(row) != above:
                text = f"({letter}) {title}" if letters else title
                axis.set_title(textwrap.fill(text, int(12.5 * side)), fontsize=9)
        above = list(row)
    for name, axis in zip(names, axes[:, 0]):
        axis.text(-0.04, 0.5, name, rotation=90, ha="right", va="center", fontsize=9, transform=axis.transAxes)
    if bar:
        colours = figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes, shrink=min(1, 2 / sum(ratios)), aspect=25)
        colours.ax.tick_params(labelsize=8)
    _legend(figure, [item.ids for item in items if isinstance(item, Mask)], classes)
    return figure


def _aspect(row: Row) -> float:
    """Height of the picture of a row, in widths."""
    pictures = [item if isinstance(item, Image.Image) else item.picture for item in row.values()]
    picture = next(picture for picture in pictures if picture)
    return picture.height / picture.width


def _draw(axis: Axes, item: Image.Image | Heat | Mask) -> None:
    match item:
        case Heat(values, Image.Image() as picture):
            axis.imshow(heat(picture, values))
        case Heat(values):
            axis.imshow(values, cmap=HEAT, vmin=0, vmax=1)
        case Mask(ids, picture):
            axis.imshow(overlay(picture, ids), interpolation="nearest")
        case picture:
            axis.imshow(np.asarray(picture.convert("RGB")))


def heat(picture: Image.Image, values: np.ndarray) -> np.ndarray:
    """Lay a map ``(h, w)`` in 0..1 over a picture in grey; returns uint8 ``(H, W, 3)``."""
    map_image = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    tint = plt.get_cmap(HEAT)(np.asarray(map_image).clip(0, 1))[..., :3] * 255
    return (0.35 * _grey(picture) + 0.65 * tint).astype(np.uint8)


def overlay(picture: Image.Image, ids: np.ndarray) -> np.ndarray:
    """Lay class ids ``(H, W)`` over a picture in VOC's colours; returns uint8 ``(H, W, 3)``."""
    grey = _grey(picture)
    return np.where((ids > 0)[..., None], 0.3 * grey + 0.7 * COLOURS[ids], grey).astype(np.uint8)


def _grey(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L"), np.float32)[..., None]


def _legend(figure: Figure, masks: Sequence[np.ndarray], classes: Sequence[str]) -> None:
    present = sorted({int(k) for ids in masks for k in np.unique(ids)} - {0})
    if present:
        names = {**dict(enumerate(classes, 1)), VOID: "ignored"}
        patches = [Patch(color=COLOURS[k] / 255, label=names[k]) for k in present]
        columns = max(2, int(0.75 * figure.get_figwidth()))
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def examples(folder: VOCFolder, ids: Sequence[str], count: int) -> list[str]:
    """Take ``count`` images that have a label, from small objects to large ones: 5th to 95th percentile of the share of
    the image that its largest class covers. Without masks the sizes are unknown, and the images are evenly spaced."""
    labelled = [i for i in ids if folder.label(i).any()]
    masked = spaced(folder.with_mask(labelled), 400)
    if not masked:
        return spaced(labelled, count)
    shares = {i: (folder.mask(i) == largest_class(folder, i) + 1).mean() for i in masked}
    ordered = sorted(masked, key=lambda i: shares[i])
    places = np.linspace(0.05, 0.95, min(count, len(ordered))) * (len(ordered) - 1)
    return [ordered[round(k)] for k in places]


def by_object_size(folder: VOCFolder, ids: Sequence[str], count: int) -> list[str]:
    """Take ``examples`` of images with one class or, where there are none, of all."""
    return examples(folder, [i for i in ids if folder.label(i).sum() == 1] or ids, count)


def largest_class(folder: VOCFolder, image_id: str) -> int:
    """Find the label that covers most of the ground-truth mask; without a mask, the first label."""
    labels = folder.label(image_id) > 0
    if not folder.mask_path(image_id):
        return int(labels.argmax())
    pixels = np.bincount(folder.mask(image_id).ravel(), minlength=VOID + 1)[1 : len(labels) + 1]
    return int(np.where(labels, pixels, -1).argmax())


def image_gallery(
    folder: VOCFolder,
    ids: Sequence[str],
    *,
    maps: Mapping[str, Path | Mapping[str, np.ndarray]] | None = None,
    saliency: Path | None = None,
    masks: Mapping[str, Path] | None = None,
    scores: Mapping[str, float] | None = None,
    letters: bool = False,
) -> Figure:
    """Draw one row an image: the image, ``maps`` of its largest class by title, its map in the folder ``saliency``,
    ``masks`` of folders by title, and the ground truth where there is one. Its class and, where known, its score of
    ``image_miou`` stand beside it. Maps are those of a folder of stage 04, or ``(N, h, w)`` by image."""
    rows, names = [], []
    for image_id in ids:
        picture = folder.image(image_id)
        row: Row = {"image": picture}
        label = largest_class(folder, image_id)
        words = [folder.classes[label]] if folder.label(image_id).any() else []
        if scores and image_id in scores:
            words.append(f"{100 * scores[image_id]:.0f} %")
        for title, found in (maps or {}).items():
            if isinstance(found, Path):
                of_image = load_maps(found / f"{image_id}.npz", len(folder.classes))
            else:
                of_image = found[image_id]
            row[title] = Heat(of_image[label], picture)
        if saliency:
            row["saliency map"] = Heat(load_saliency(saliency / f"{image_id}.png"))
        for title, path in (masks or {}).items():
            row[title] = Mask(load_mask(path / f"{image_id}.png"), picture)
        if folder.mask_path(image_id):
            row["ground truth"] = Mask(folder.mask(image_id), picture)
        rows.append(row)
        names.append(", ".join(words))
    return gallery(rows, folder.classes, names, letters)


def image_miou(folder: VOCFolder, ids: Sequence[str], counts: np.ndarray) -> dict[str, float]:
    """Give the mIoU in 0..1 of each of the ``ids`` with a ground-truth mask, whose ``counts`` are given in that order.
    Ignored pixels count as background."""
    return dict(zip(folder.with_mask(list(ids)), mean_iou(counts, "background"), strict=True))


def best_and_worst(folder: VOCFolder, ids: Sequence[str], counts: np.ndarray, predictions: Path, rows: int) -> Figure:
    """Draw predictions of the best and of the worst tenth of the images, half of the ``rows`` each and evenly spaced,
    beside their mIoU. ``counts`` are of those ``ids`` that have a ground-truth mask."""
    miou = image_miou(folder, ids, counts)
    ordered = sorted(miou, key=lambda i: miou[i], reverse=True)
    tenth = max(1, len(ordered) // 10)
    shown = list(dict.fromkeys(spaced(ordered[:tenth], rows // 2) + spaced(ordered[-tenth:], rows - rows // 2)))
    return image_gallery(folder, shown, masks={"prediction": predictions}, scores=miou)


@torch.inference_mode()
def attention_gallery(network: SAFN, samples: PlainSet, rows: int) -> Figure:
    """Draw image, localization map of its first label (named beside the row), and the weight of each scale, from small
    objects to large ones."""
    folder, lines, names = samples.folder, [], []
    chosen = by_object_size(folder, samples.ids, rows)
    for sample in plain_loader(PlainSet(folder, chosen, samples.normalisation, samples.size), 0):
        picture, label = folder.image(sample["id"][0]), int(sample["label"].argmax())
        device = next(network.parameters()).device
        maps = network.maps(sample["image"].to(device), sample["label"].to(device))[0].cpu().numpy()
        line: Row = {"image": picture, "localization map": Heat(maps[label], picture)}
        if network.scale_weights is not None:
            for scale, weight in zip(network.scales, network.scale_weights[0].cpu().numpy()):
                line[f"weight of scale {scale:g}"] = Heat(weight)
        lines.append(line)
        names.append(folder.classes[label])
    return gallery(lines, folder.classes, names)


@torch.inference_mode()
def scale_maps(network: SAFN, samples: PlainSet) -> dict[str, dict[str, np.ndarray]]:
    """Make the maps ``(N, h, w)`` of each scale alone (Fig. 5), by title and image."""
    found: dict[str, dict[str, np.ndarray]] = {f"scale {scale:g}": {} for scale in network.scales}
    for sample in plain_loader(samples, 0):
        for maps, features in zip(found.values(), network.scale_features(sample["image"])[0], strict=True):
            maps[sample["id"][0]] = localization_maps(features[None], sample["label"])[0].numpy()
    return found
