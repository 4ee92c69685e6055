"""Draw Figures B1 to B3 of the book (the paper's Figures 1 to 3) as SVG files beside this script.

Run it after a change: ``python book/figures/draw.py``. The pictures in the figures are computed: a drawn scene goes
through the functions of ``safn``. Only its class features are made up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from scene import AEROPLANE, BOAT, Scene

from safn.data import VOC_CLASSES
from safn.images import palette
from safn.pseudo import harmonic_mean, pseudo_ground_truth

INK, LINE, CARD = "#1f2933", "#52606d", "#ffffff"
BLUE, GREEN, ORANGE, VIOLET = "#3b6ea5", "#2a8c82", "#c8642b", "#7653a8"
HEAT = "magma"


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A white card of ``width`` x ``height`` inches with axes in inches: legible on light and dark pages."""
    figure = Figure((width, height), facecolor="none", layout="none")  # whatever style plots have
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    edge = 0.03
    card = FancyBboxPatch(
        (edge, edge),
        width - 2 * edge,
        height - 2 * edge,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=CARD,
        edgecolor="#c5ced8",
        linewidth=1,
    )
    axes.add_patch(card)
    return figure, axes


def _text(axes: Axes, x: float, y: float, text: str, size: float = 9.5, **options) -> None:
    options = {"ha": "center", "va": "center", "color": INK, "linespacing": 1.25, **options}
    axes.text(x, y, text, fontsize=size, **options)


def _title(axes: Axes, x: float, y: float, text: str) -> None:
    """The heading of a column."""
    _text(axes, x, y, text, 10, fontweight="bold", va="baseline")


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 9.5
) -> None:
    """A labelled box centred on (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="none"))
    _text(axes, x, y, text, size, color="white")


def _arrow(axes: Axes, *points: tuple[float, float], colour: str = LINE) -> None:
    """An arrow along straight pieces through ``points``."""
    x, y = zip(*points[:-1], strict=True)
    axes.plot(x, y, color=colour, linewidth=1.2, solid_capstyle="round", solid_joinstyle="round")
    style = {"arrowstyle": "-|>,head_length=4,head_width=2.2", "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(points[-2], points[-1], color=colour, linewidth=1.2, **style))


def _picture(axes: Axes, x: float, y: float, width: float, image: np.ndarray, edge: str = INK, **options) -> float:
    """``image`` centred on (x, y), ``width`` wide; returns its height."""
    height = width * image.shape[0] / image.shape[1]
    extent = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
    limits = axes.axis()
    axes.imshow(image, extent=extent, aspect="auto", zorder=3, **{"interpolation": "bilinear", **options})
    axes.axis(limits)
    frame = Rectangle((extent[0], extent[2]), width, height, fill=False, edgecolor=edge, linewidth=0.9, zorder=4)
    axes.add_patch(frame)
    return height


def _stack(axes: Axes, x: float, y: float, width: float, image: np.ndarray, colour: str, sheets: int = 3) -> None:
    """``image`` as the first of several sheets behind one another: feature maps of many channels."""
    height = width * image.shape[0] / image.shape[1]
    for k in range(sheets, 0, -1):
        corner = (x - width / 2 + 0.055 * k, y - height / 2 + 0.055 * k)
        axes.add_patch(Rectangle(corner, width, height, facecolor="white", edgecolor=colour, linewidth=0.9, zorder=2))
    _picture(axes, x, y, width, image, colour, cmap=HEAT, vmin=0)


def _symbol(axes: Axes, x: float, y: float, text: str, colour: str = ORANGE) -> None:
    axes.plot(
        [x],
        [y],
        "o",
        markersize=15,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=1.4,
        zorder=5,
    )
    _text(axes, x, y - 0.005, text, 14, color=colour, zorder=6)


def architecture(scales: tuple[float, ...] = (1, 0.75, 0.5), classes: int = 20) -> Figure:
    """Fig. 1: image pyramid, shared network, scale attention (Eq. 1), weighted sum (Eq. 2), scores and loss (Eq. 3).

    Raises:
        ValueError: fewer than two scales, which leave nothing to attend to.
    """
    count = len(scales)
    if count < 2:
        raise ValueError(f"scales={scales!r}: the attention weighs two or more scales")
    scene = Scene()
    rows = [(2.85 if count == 2 else 2.5) + 1.02 * (count - 1 - k) for k in range(count)]
    middle, top = (rows[0] + rows[-1]) / 2, rows[0] + 0.75
    figure, axes = _sheet(8.4, top + 0.3)
    feature = np.maximum(scene.features[[BOAT, AEROPLANE]].max(0), 0)
    for x, title in (
        (0.8, "image"),
        (2.1, "network"),
        (3.28, "features"),
        (4.52, "at one size"),
        (7.6, "MSF"),
    ):
        _title(axes, x, top, title)

    for k, (scale, y) in enumerate(zip(scales, rows, strict=True), 1):
        relative = scale / max(scales)
        _picture(axes, 0.8, y, 1.06 * relative, scene.photo)
        _text(axes, 0.8, y - 0.4 * relative - 0.12, f"$I^{k}$: scale {scale:g}")
        network = [(1.7, y + 0.36), (2.5, y + 0.18), (2.5, y - 0.18), (1.7, y - 0.36)]
        axes.add_patch(Polygon(network, facecolor=BLUE, edgecolor="none"))
        _text(axes, 2.08, y, "backbone\n+ head", 9, color="white")
        response = scene.response(relative)
        _stack(axes, 3.2, y, 0.62 * relative, response, GREEN)
        _text(axes, 3.2, y - 0.24 * relative - 0.13, f"$F^{k}$", 10)
        _stack(axes, 4.42, y, 0.62, response, GREEN)
        _arrow(axes, (0.8 + 0.53 * relative + 0.06, y), (1.66, y))
        _arrow(axes, (2.54, y), (3.2 - 0.31 * relative - 0.05, y))
        _arrow(axes, (3.2 + 0.31 * relative + 0.22, y), (4.05, y))
        _arrow(axes, (4.95, y), (5.69, y))
        axes.plot([5.15], [y], "o", markersize=4.5, color=ORANGE, zorder=5)
        _symbol(axes, 5.82, y, r"$\circ$")
        _arrow(axes, (5.82, y - 0.4), (5.82, y - 0.14), colour=ORANGE)
        _text(axes, 5.82, y - 0.51, f"$W^{k}$", 10, color=ORANGE)
        bend = [(6.5, y), (6.5, middle + np.sign(y - middle) * 0.13)] if y != middle else [(6.37, y)]
        _arrow(axes, (5.95, y), *bend)
    _text(axes, 2.1, (rows[0] + rows[1]) / 2, "same weights", 9, color=BLUE)
    _symbol(axes, 6.5, middle, r"$\Sigma$")
    _text(axes, 6.88, middle + 0.13, "Eq. 2", color=LINE)
    _arrow(axes, (6.63, middle), (7.18, middle))
    _stack(axes, 7.54, middle, 0.66, feature, GREEN)
    _text(axes, 7.57, middle - 0.39, f"$N$ = {classes} maps")
    _arrow(axes, (7.57, middle - 0.5), (7.57, 2.52))
    _box(axes, 7.57, 2.36, 1.2, 0.3, "global average", VIOLET)
    _arrow(axes, (7.57, 2.2), (7.57, 1.98))
    _box(axes, 7.57, 1.82, 1.2, 0.3, "loss, Eq. 3", VIOLET)
    _arrow(axes, (6.78, 1.82), (6.94, 1.82))
    _text(axes, 6.42, 1.82, "labels $y$")

    corner, size = (0.2, 0.2), (8.0, 1.22)
    style = "round,pad=0,rounding_size=0.1"
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, facecolor="#fbf1ea", edgecolor="#ecc9b1"))
    _text(axes, 1.4, 1.24, "scale attention", 10, ha="left", color=ORANGE, fontweight="bold")
    _arrow(axes, (5.15, rows[0]), (5.15, 1.6), (0.72, 1.6), (0.72, 1.14), colour=ORANGE)
    _stack(axes, 0.7, 0.8, 0.56, feature, GREEN, sheets=5)
    _text(axes, 0.78, 0.42, f"{count} x {classes} channels".replace("x", "$\\times$"))
    _arrow(axes, (1.34, 0.8), (1.62, 0.8))
    _box(axes, 2.18, 0.8, 1.04, 0.46, "3$\\times$3 conv\n512, ReLU", ORANGE)
    _arrow(axes, (2.76, 0.8), (3.04, 0.8))
    _box(axes, 3.54, 0.8, 0.92, 0.46, f"1$\\times$1 conv\n{count}", ORANGE)
    _arrow(axes, (4.06, 0.8), (4.34, 0.8))
    _box(axes, 4.9, 0.8, 1.04, 0.46, "softmax\nover scales", ORANGE)
    _text(axes, 4.9, 0.42, "Eq. 1", color=LINE)
    _arrow(axes, (5.48, 0.8), (5.74, 0.8))
    width = 2.28 / count
    for k, weight in enumerate(scene.weights(tuple(scales)), 1):
        x = 5.8 + width * (k - 0.5)
        _picture(axes, x, 0.8, width - 0.1, weight, ORANGE, cmap="Oranges", vmin=0, vmax=1)
        _text(axes, x, 0.8 - 0.375 * (width - 0.1) - 0.12, f"$W^{k}$", 10, color=ORANGE)
    return figure


def map_generation(classes: int = 20) -> Figure:
    """Fig. 2: from the class features of a forward pass to the localization maps of the image's labels (Eq. 4)."""
    scene = Scene()
    figure, axes = _sheet(8.4, 3.55)
    middle = 1.75
    for x, title in ((0.86, "image"), (3.5, "MSF"), (5.14, "labelled classes"), (7.35, "localization maps")):
        _title(axes, x, 3.2, title)
    _picture(axes, 0.86, middle, 1.2, scene.photo)
    _arrow(axes, (1.52, middle), (1.78, middle))
    _box(axes, 2.2, middle, 0.76, 0.52, "SAFN", BLUE, 11)
    _arrow(axes, (2.62, middle), (2.9, middle))
    shown = [0, 1, 2, BOAT, len(VOC_CLASSES) - 1]
    names = ["aeroplane", "bicycle", "bird", "boat", "tvmonitor"]
    places = [2.84, 2.34, 1.84, 1.34, 0.72]
    for channel, name, y in zip(shown, names, places, strict=True):
        feature = np.maximum(scene.features[channel], 0)
        _picture(axes, 3.26, y, 0.58, feature, GREEN, cmap=HEAT, vmin=0, vmax=0.8)
        present = scene.labels[channel] > 0
        _text(axes, 3.62, y, name, ha="left", color=INK if present else "#8793a0")
    _text(axes, 3.26, 1.05, "$\\cdots$", 11)
    _text(axes, 3.5, 0.32, f"$N$ = {classes} maps, one a class")
    for channel, name, y in ((AEROPLANE, "aeroplane", 2.5), (BOAT, "boat", 1.1)):
        start = places[names.index(name)]
        feature = np.maximum(scene.features[channel], 0)
        _arrow(axes, (4.34, start), (4.66, y), colour=GREEN)
        _picture(axes, 5.14, y, 0.86, feature, GREEN, cmap=HEAT, vmin=0, vmax=0.8)
        _text(axes, 5.14, y - 0.44, name)
        _arrow(axes, (5.64, y), (6.72, y))
        _picture(axes, 7.35, y, 1.16, _overlay(scene.photo, scene.maps[channel]))
        _text(axes, 7.35, y - 0.54, f"$M_\\mathrm{{{name}}}$", 10)
    _text(axes, 6.16, middle + 0.27, "Eq. 4", color=LINE)
    _text(axes, 6.16, middle - 0.02, "ReLU, divided\nby its maximum", 9)
    return figure


def pseudo_generation(gamma: float = 0.2) -> Figure:
    """Fig. 3: localization maps and saliency, their harmonic mean (Eq. 5), threshold and argmax (Algorithm 1)."""
    scene = Scene()
    figure, axes = _sheet(8.4, 3.95)
    upper, lower = 2.56, 0.76
    middle = (upper + lower) / 2
    for x, title in ((0.8, "image"), (3.2, "maps"), (5.12, "confidence"), (7.4, "pseudo ground truth")):
        _title(axes, x, 3.6, title)
    _picture(axes, 0.8, middle, 1.14, scene.photo)
    for y in (upper, lower):
        _arrow(axes, (1.43, middle), (1.56, middle), (1.56, y), (1.72, y))
    _box(axes, 2.14, upper, 0.78, 0.52, "SAFN", BLUE, 10.5)
    _box(axes, 2.14, lower, 0.78, 0.52, "saliency\ndetector", VIOLET)
    _box(axes, 4.16, upper, 0.78, 1.72, "harmonic\nmean\n\nEq. 5", ORANGE)
    _box(axes, 6.14, upper, 0.86, 1.72, f"argmax,\nthreshold\n$\\gamma$ = {gamma:g}\n\nAlg. 1", ORANGE)
    confidence = harmonic_mean(scene.maps, scene.saliency)
    for channel, name, y in ((AEROPLANE, "aeroplane", upper + 0.52), (BOAT, "boat", upper - 0.46)):
        _arrow(axes, (2.58, upper), (2.74, upper), (2.74, y), (2.78, y))
        _picture(axes, 3.2, y, 0.8, scene.maps[channel], GREEN, cmap=HEAT, vmin=0, vmax=1)
        _text(axes, 3.2, y - 0.42, f"$M_\\mathrm{{{name}}}$", 10)
        _arrow(axes, (3.63, y), (3.74, y))
        _arrow(axes, (4.58, y), (4.69, y))
        _picture(axes, 5.12, y, 0.8, confidence[channel], ORANGE, cmap=HEAT, vmin=0, vmax=1)
        _text(axes, 5.12, y - 0.42, f"$H_\\mathrm{{{name}}}$", 10)
        _arrow(axes, (5.55, y), (5.68, y))
    _arrow(axes, (2.56, lower), (2.78, lower))
    _picture(axes, 3.2, lower, 0.8, scene.saliency, VIOLET, cmap="gray", vmin=0, vmax=1)
    _text(axes, 3.2, lower - 0.42, "$S$", 10)
    _arrow(axes, (3.63, lower), (4.16, lower), (4.16, upper - 0.9), colour=VIOLET)
    _arrow(axes, (4.16, lower), (6.14, lower), (6.14, upper - 0.9), colour=VIOLET)
    _text(axes, 5.18, lower - 0.14, "what stands out, but has no label", 9, color=VIOLET)
    mask = pseudo_ground_truth(scene.maps, scene.saliency, scene.labels, gamma)
    _arrow(axes, (6.6, upper), (6.78, upper))
    colours = np.array(palette()).reshape(256, 3) / 255
    _picture(axes, 7.44, upper, 1.24, colours[mask], interpolation="nearest")
    for k, (name, value) in enumerate(
        {"background": 0, "aeroplane": AEROPLANE + 1, "boat": BOAT + 1, "ignored": 255}.items()
    ):
        y = 1.78 - 0.27 * k
        axes.add_patch(Rectangle((6.86, y - 0.08), 0.22, 0.16, facecolor=colours[value], edgecolor=INK, linewidth=0.7))
        _text(axes, 7.17, y, name, ha="left")
    return figure


def _overlay(photo: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map laid over the photo in grey, RGB in 0..1."""
    grey = np.repeat(photo.mean(2, keepdims=True), 3, 2)
    share = 0.25 + 0.6 * values[..., None]
    return (1 - share) * grey + share * matplotlib.colormaps[HEAT](values)[..., :3]


def save(folder: Path) -> None:
    """Write the three figures into ``folder``, the same bytes each time: no date, no random names."""
    figures = {
        "architecture": architecture(),
        "map_generation": map_generation(),
        "pseudo_generation": pseudo_generation(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "safn"}):
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, transparent=True)


if __name__ == "__main__":
    save(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
