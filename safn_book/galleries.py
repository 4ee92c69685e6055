"""Every gallery of the notebooks: photos, maps and masks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from safn.data import VOCFolder, load_mask, palette
from safn.loading import PlainSet, resize_long
from safn.map_files import load_maps
from safn.maps import localization_maps
from safn.metrics import mean_iou
from safn.network import SAFN
from safn.trained import load
from safn_book import charts  # noqa: F401  for its style
from safn_book.stages import Input


def colours(mask: np.ndarray) -> np.ndarray:
    """uint8 ``(H, W)`` class ids -> RGB in VOC's colours."""
    return np.array(palette(), np.uint8).reshape(256, 3)[mask]


def heat(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """``values`` ``(h, w)`` in 0..1 laid over an RGB image, uint8 ``(H, W, 3)``."""
    scaled = np.asarray(Image.fromarray(values.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR))
    tint = plt.get_cmap("inferno")(scaled.clip(0, 1))[..., :3] * 255
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    return (0.35 * grey + 0.65 * tint).astype(np.uint8)


def gallery(
    rows: list[dict[str, np.ndarray]], classes: list[str], width: float = 9, names: Sequence[str] = ()
) -> Figure:
    """A row of pictures an entry: title -> RGB ``(H, W, 3)`` or class ids ``(H, W)``; a legend names the classes
    that occur (255: ignored); ``names`` stand beside the rows. Without a picture it says so: data may have no masks."""
    rows = [row for row in rows if row]
    if not rows:
        figure = plt.figure(figsize=(width, 0.5))
        figure.text(0.5, 0.5, "no image has a true mask, or none a label: nothing to show", ha="center", va="center")
        plt.close(figure)
        return figure
    titles = list(rows[0])
    side = width / len(titles)
    heights = [max(v.shape[0] / v.shape[1] for v in row.values()) for row in rows]
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(width, side * sum(heights) + 0.9),
        squeeze=False,
        height_ratios=heights,
    )
    seen: set[int] = set()
    for row, line in zip(rows, axes):
        for title, axis in zip(titles, line):
            picture = row[title]
            if picture.ndim == 2:
                seen |= set(np.unique(picture).tolist())
                picture = colours(picture)
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
    for title, axis in zip(titles, axes[0]):
        axis.set_title(title, fontsize=9)
    for name, axis in zip(names, axes[:, 0]):
        axis.text(-0.04, 0.5, name, rotation=90, ha="right", va="center", fontsize=9, transform=axis.transAxes)
    if seen - {0}:
        names = {**{k + 1: name for k, name in enumerate(classes)}, 255: "ignored"}
        table = np.array(palette()).reshape(256, 3) / 255
        patches = [Patch(color=table[k], label=names[k]) for k in sorted(seen - {0})]
        figure.legend(handles=patches, loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    plt.close(figure)
    return figure


def grey(values: np.ndarray) -> np.ndarray:
    """uint8 ``(H, W)`` -> RGB."""
    return np.repeat(values[..., None], 3, 2)


def spaced(ids: list[str], count: int) -> list[str]:
    """``count`` ids, evenly spaced over the list: examples are not chosen."""
    return [ids[int(k)] for k in np.linspace(0, len(ids) - 1, min(count, len(ids)))]


def to_show(folder: VOCFolder, ids: list[str], count: int) -> list[str]:
    """``count`` of the images with a true mask, or where there are no masks of all, evenly spaced."""
    return spaced([i for i in ids if folder.mask_path(i)] or ids, count)


def true_mask(folder: VOCFolder, image_id: str, title: str = "true mask") -> dict[str, np.ndarray]:
    """The column of a gallery with the true mask; no column where there is none."""
    return {title: folder.mask(image_id)} if folder.mask_path(image_id) else {}


def map_gallery(folder: VOCFolder, ids: list[str], maps: dict[str, Path], rows: int) -> Figure:
    """Photo, the map of its largest class (named beside the row) by each method, true mask."""
    lines, names = [], []
    for image_id in to_show(folder, [i for i in ids if folder.label(i).any()], rows):
        photo, shown = folder.image(image_id), true_mask(folder, image_id)
        c = largest_class(shown.get("true mask", np.zeros(1)), folder.label(image_id))
        values = {name: load_maps(path / f"{image_id}.npz", len(folder.classes))[c] for name, path in maps.items()}
        overlays = {name: heat(photo, value) for name, value in values.items()}
        lines.append({"image": np.asarray(photo), **overlays, **shown})
        names.append(folder.classes[c])
    return gallery(lines, folder.classes, 2.4 * len(lines[0]) if lines else 7, names)


def largest_class(mask: np.ndarray, labels: np.ndarray) -> int:
    """Index of the labelled class that covers most of a mask."""
    covered = [(mask == c + 1).sum() if labels[c] else -1 for c in range(len(labels))]
    return int(np.argmax(covered))


@torch.inference_mode()
def attention_gallery(network: SAFN, samples: PlainSet, rows: int) -> Figure:
    """Photo, localization map of one class (named beside the row), and the weight of each scale (0 black, 1 yellow)."""
    lines, names = [], []
    for image_id in spaced([i for i in samples.ids if samples.folder.label(i).any()], rows):
        photo = resize_long(samples.folder.image(image_id), samples.size)
        labels = samples.folder.label(image_id)
        images = samples.normalisation(photo)[None].to(next(network.parameters()).device)
        c = int(np.flatnonzero(labels)[0])
        values = network.maps(images, torch.from_numpy(labels)[None].to(images.device))[0, c].cpu().numpy()
        line = {"image": np.asarray(photo), "localization map": heat(photo, values)}
        if network.scale_weights is not None:
            for scale, weight in zip(network.scales, network.scale_weights[0].cpu().numpy()):
                line[f"weight of scale {scale:g}"] = heat(photo, weight)
        lines.append(line)
        names.append(samples.folder.classes[c])
    return gallery(lines, samples.folder.classes, 2.2 * len(lines[0]) if lines else 7, names)


def mask_gallery(folder: VOCFolder, ids: list[str], masks: dict[str, Path], rows: int) -> Figure:
    """Photo, the masks of each folder, true mask."""
    lines = []
    for image_id in to_show(folder, ids, rows):
        made = {name: load_mask(path / f"{image_id}.png") for name, path in masks.items()}
        lines.append({"image": np.asarray(folder.image(image_id)), **made, **true_mask(folder, image_id)})
    return gallery(lines, folder.classes, 2.4 * len(lines[0]))


def best_and_worst(folder: VOCFolder, ids: list[str], counts: np.ndarray, predictions: Path, rows: int) -> Figure:
    """Photo, prediction and true mask of images from the tenth with the highest and from the tenth with the lowest mIoU
    of their own (named beside the row), evenly spaced in each; half of the ``rows`` are of each.

    ``counts``: ``(images, n, n + 1)`` of those of ``ids`` that have a true mask, in their order.
    """
    own = dict(zip((i for i in ids if folder.mask_path(i)), mean_iou(counts), strict=True))
    ordered = sorted(own, key=own.get, reverse=True)
    tenth = max(1, len(ordered) // 10)
    chosen = dict.fromkeys(spaced(ordered[:tenth], rows // 2) + spaced(ordered[-tenth:], rows - rows // 2))
    lines = [
        {
            "image": np.asarray(folder.image(i)),
            "prediction": load_mask(predictions / f"{i}.png"),
            **true_mask(folder, i),
        }
        for i in (chosen if own else ())
    ]
    return gallery(lines, folder.classes, 7, [f"{100 * own[i]:.0f} %" for i in chosen])


def pseudo_gallery(folder: VOCFolder, ids: list[str], maps: Path, saliency: Path, masks: Path, rows: int) -> Figure:
    """Photo, localization map of its largest class, saliency, pseudo ground truth, true mask (Fig. 3)."""
    lines, names = [], []
    for image_id in to_show(folder, [i for i in ids if folder.label(i).any()], rows):
        photo, true = folder.image(image_id), true_mask(folder, image_id)
        c = largest_class(true.get("true mask", np.zeros(1)), folder.label(image_id))
        line = {
            "image": np.asarray(photo),
            "localization map": heat(photo, load_maps(maps / f"{image_id}.npz", len(folder.classes))[c]),
            "saliency map": grey(load_mask(saliency / f"{image_id}.png")),
            "pseudo ground truth": load_mask(masks / f"{image_id}.png"),
            **true,
        }
        lines.append(line)
        names.append(folder.classes[c])
    return gallery(lines, folder.classes, 11, names)


def figure4(folder: VOCFolder, ids: list[str], predictions: Path, rows: int, second: Path | None = None) -> Figure:
    """Photo, true mask, prediction, and that of a ``second`` network, in the paper's order of columns."""
    ours = {"(c) ours": predictions, **({"(d) ours, second network": second} if second else {})}
    lines = [
        {
            "(a) image": np.asarray(folder.image(i)),
            **true_mask(folder, i, "(b) true mask"),
            **{title: load_mask(path / f"{i}.png") for title, path in ours.items()},
        }
        for i in to_show(folder, ids, rows)
    ]
    return gallery(lines, folder.classes, 7 + 2.3 * (second is not None))


@torch.inference_mode()
def figure5(
    folder: VOCFolder, ids: list[str], model: Input, made: Input, aggregated: dict[str, Path], rows: int
) -> Figure:
    """Photo, map at each scale alone, aggregated maps, true mask; objects from small to large.

    Args:
        model: stage 03 of the network whose scales are shown alone.
        made: stage 04 of it, which says the image size.
        aggregated: ``max``, ``avg``, ``attention`` -> folder of maps; missing ones are left out.
    """
    network = load(model.folder)
    names = {"max": "maximum", "avg": "average", "attention": "SAFN"}
    lines = []
    for image_id, c in by_object_size(folder, ids, rows):
        photo = folder.image(image_id)
        images = network.normalisation(resize_long(photo, made.record["parameters"]["size"]))[None]
        labels = torch.from_numpy(folder.label(image_id))[None]
        line = {"image": np.asarray(photo)}
        for scale, features in zip(network.scales, network.scale_features(images)[0], strict=True):
            line[f"scale {scale:g}"] = heat(photo, localization_maps(features[None], labels)[0, c].numpy())
        for kind, path in aggregated.items():
            line[names[kind]] = heat(photo, load_maps(path / f"{image_id}.npz", len(folder.classes))[c])
        lines.append({**line, **true_mask(folder, image_id)})
    order = [
        "image",
        *(k for k in (lines or [{}])[0] if k.startswith("scale")),
        "maximum",
        "average",
        "SAFN",
        "true mask",
    ]
    lines = [{k: line[k] for k in order if k in line} for line in lines]
    lettered = [{f"({'abcdefghijkl'[k]}) {t}": v for k, (t, v) in enumerate(line.items())} for line in lines]
    return gallery(lettered, folder.classes, 1.45 * len((lettered or [order])[0]))


def by_object_size(folder: VOCFolder, ids: list[str], count: int) -> list[tuple[str, int]]:
    """``count`` images with one class, from small to large (5th to 95th percentile of its share), with that class;
    without masks nobody knows the sizes, and the images are evenly spaced."""
    single = [i for i in ids if folder.mask_path(i) and folder.label(i).sum() == 1][:400]
    if not single:
        return [
            (i, int(folder.label(i).argmax())) for i in spaced([i for i in ids if folder.label(i).sum() == 1], count)
        ]
    shares = {i: float((folder.mask(i) == folder.label(i).argmax() + 1).mean()) for i in single}
    ordered = sorted(single, key=shares.get)
    picked = [ordered[round(k)] for k in np.linspace(0.05, 0.95, min(count, len(ordered))) * (len(ordered) - 1)]
    return [(i, int(folder.label(i).argmax())) for i in picked]
