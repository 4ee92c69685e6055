"""Reading and writing images, masks and text files: every error names the file."""

from __future__ import annotations

import codecs
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from safn.files import write_file


class DataError(ValueError):
    """Files are missing, damaged or do not fit. The message lists what, with ids and values."""

    @classmethod
    def from_problems(cls, head: str, problems: list[str]) -> DataError:
        """Return one error with a line for each problem."""
        return cls("\n  - ".join([head, *problems]))


def palette() -> list[int]:
    """Return the 256 x 3 colours of VOC's indexed masks, flat, as ``Image.putpalette`` takes them.

    Example:
        >>> palette()[3:6]  # aeroplane
        [128, 0, 0]
    """
    colours = np.zeros((256, 3), int)
    ids = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.ravel().tolist()


@contextmanager
def pillow_errors(what: str) -> Iterator[None]:
    """Turn what Pillow raises into an error that names the file, and silence its warnings.

    It warns of large photographs and of odd EXIF blocks in files that it reads well. A damaged file may raise anything.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise DataError(f"{what} cannot be read: {error}") from error


def load_image(path: Path) -> Image.Image:
    """Read an RGB image, upright (EXIF rotation applied), whatever the mode of the file.

    Raises:
        DataError: it cannot be read.
    """
    with pillow_errors(f"photo {path.stem}"), Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def load_mask(path: Path) -> np.ndarray:
    """Read the class ids of an indexed or 8-bit grey PNG, uint8 ``(H, W)``.

    Raises:
        DataError: the file cannot be read, or has another mode. ``convert`` would destroy the ids.
    """
    with pillow_errors(f"{path}: the mask"), Image.open(path) as image:
        mode, mask = image.mode, np.array(image)
    if mode not in ("P", "L"):
        raise DataError(f"{path}: a mask is an indexed (mode P) PNG, this one is of mode {mode}")
    return mask


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask ``(H, W)`` of ids in 0..255 as an indexed PNG with VOC's palette, atomically.

    Raises:
        ValueError: the mask has another shape, or other ids, which uint8 would change.
    """
    if mask.ndim != 2 or mask.min() < 0 or mask.max() > 255:
        found = f"shape {mask.shape}, ids {mask.min()} to {mask.max()}"
        raise ValueError(f"{path}: a mask of {found}; valid: shape (H, W), ids 0 to 255")
    image, buffer = Image.fromarray(mask.astype(np.uint8)), io.BytesIO()
    image.putpalette(palette())
    image.save(buffer, "png", optimize=False)
    write_file(path, buffer.getvalue())


def read_text(path: Path) -> str:
    """Read a text file in UTF-8 or, where it begins with a byte order mark, in UTF-16.

    Raises:
        DataError: it is missing, or in another encoding.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    content = path.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}; save it as text in UTF-8") from None
