"""The one reader and writer of images, masks and grey maps. Every error names the file."""

import io
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile

from safn.arguments import require_unit_interval
from safn.files import DataError, write_file

ORIENTATION = ExifTags.Base.Orientation
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation -> Image.Transpose that makes it upright
DARK = 16384  # values of 14 bits, which in a file of 16 are nearly black
COLOURED = 16  # largest difference of red, green and blue in a map that is still grey


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image. Whatever goes wrong with it, in the block as well, becomes a ``DataError`` that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large images and odd EXIF blocks
            with Image.open(path) as image:
                yield image
    except Exception as error:
        raise DataError(f"{path} cannot be read: {error or repr(error)}") from error


def load_image(path: Path) -> Image.Image:
    """Read a photograph of any mode, RGB and upright (EXIF orientation applied).

    Grey of 16 bits and floating-point values in 0..1 are scaled to 8 bits. Other ranges are refused.
    """
    with opened(path) as image:
        pixels = _eight_bits(image).convert("RGB")
        if image.mode.startswith("I") and 0 < (largest := np.asarray(image).max()) < DARK:
            raise ValueError(f"16 bits with no value above {largest}, nearly black; scale them, or save it in 8 bits")
        return _upright(image, pixels)


def load_mask(path: Path) -> np.ndarray:
    """Read the class ids of an indexed or 8-bit grey PNG, uint8 ``(H, W)``. ``convert`` would destroy them."""
    with opened(path) as image:
        kind, mode, tiles, mask = image.format, image.mode, image.tile, np.array(image)
        scaled = kind == "PNG" and str(tiles[0][3]) in ("L;2", "L;4")  # Pillow makes 85 or 17 of an id 1
    if kind != "PNG" or mode not in ("P", "L") or scaled:
        raise DataError(
            f"{path}: a mask is an indexed (mode P) PNG, this one is a {kind} of mode {mode}{' with few bits' * scaled}"
        )
    return mask


def load_grey(path: Path) -> Image.Image:
    """Read a grey map of any mode, mode L and upright. Colours and transparent parts have no meaning: refused."""
    with opened(path) as image:
        grey = _eight_bits(image)
        if grey.mode not in ("1", "L"):
            values = np.asarray(grey.convert("RGBA")).astype(int)
            if np.ptp(values[..., :3], axis=2).max() > COLOURED or values[..., 3].min() < 255:
                raise ValueError("it has colours or transparent parts; wanted: grey")
        return _upright(image, grey.convert("L"))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits and floating-point values in 0..1 to 8 bits. Other modes have no more."""
    if image.mode == "F":
        values = np.asarray(image)
        require_unit_interval("a floating-point image", values)
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # which Pillow scales to 16 bits
        raise ValueError("whole numbers of 32 bits have no known range; save it in 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image


def _upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """Turn ``pixels`` as the EXIF of ``image`` says. Its other entries, which may be damaged, are not looked at."""
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    return pixels if turn is None else pixels.transpose(Image.Transpose(turn))


def image_head(path: Path) -> tuple[tuple[int, int], int]:
    """Read width and height of the upright image, and its EXIF orientation, from the head of the file alone."""
    with opened(path) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
        return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size, orientation


def unreadable(paths: Iterable[Path]) -> list[str]:
    """Decode images; say why each that cannot be read cannot, and print a note of each that is damaged."""
    problems = []
    for path in paths:
        try:
            load_image(path)
            if damage := decoder_warning(path):
                print(f"note: {damage}")
        except DataError as error:
            problems.append(str(error))
    return problems


def decoder_warning(path: Path) -> str:
    """Say what libjpeg finds damaged in a JPEG that can be read, or return an empty text.

    Pillow drops these warnings, torchvision lets libjpeg print them.
    """
    with tempfile.TemporaryFile() as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision 0.29 announces that torchcodec will read JPEGs in its place
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            from torchvision.io import decode_jpeg

            decode_jpeg(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8))
        except (ImportError, RuntimeError, ValueError):
            pass  # a later torchvision, no JPEG, or one of a kind that only Pillow reads
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    return f"{path.name} can be read, but is damaged ({words}): look at it" if words else ""


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


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask ``(H, W)`` of ids in 0..255 as an indexed PNG with VOC's palette.

    Raises:
        ValueError: the mask has another shape, or other ids.
    """
    if mask.ndim != 2 or mask.min() < 0 or mask.max() > 255:
        found = f"shape {mask.shape}, ids {mask.min()} to {mask.max()}"
        raise ValueError(f"{path}: a mask of {found}; valid: shape (H, W), ids 0 to 255")
    image, buffer = Image.fromarray(mask.astype(np.uint8)), io.BytesIO()
    image.putpalette(palette())
    image.save(buffer, "png", optimize=False)
    write_file(path, buffer.getvalue())
