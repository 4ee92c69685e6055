"""The dense CRF of many images, in processes of its own: pydensecrf holds the interpreter's lock."""

import multiprocessing
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image

from safn.arguments import processors
from safn.crf import dense_crf
from safn.files import DataError
from safn.images import load_image, save_mask
from safn.loading import shrink_to


class CRFWorkers:
    """Refine masks in processes while the network goes on, into ``folder/<id>.png``; arguments as of ``predict``."""

    def __init__(self, folder: Path, processes: int = 0, pool: Executor | None = None, largest: int = 0) -> None:
        self.folder, self.largest, self.processes = folder, largest, processors(processes)
        self.pending: deque[tuple[str, Future]] = deque()
        self.shared = pool is not None
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.pool = pool or ProcessPoolExecutor(self.processes, spawn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            while self.pending and kind is None:
                self._write_oldest()
        finally:
            if not self.shared:
                self.pool.shutdown()

    def submit(self, image_id: str, path: Path, probabilities: np.ndarray) -> None:
        """Queue an image. Waits where many are queued, which bounds the memory."""
        half = torch.from_numpy(probabilities).half().numpy()  # NumPy's own conversion is slow on tiny values
        try:
            self.pending.append((image_id, self.pool.submit(crf_mask, path, half, self.largest)))
        except BrokenExecutor:  # a process has died: name its image
            while self.pending:
                self._write_oldest()
            raise
        if len(self.pending) > 2 * self.processes:
            self._write_oldest()

    def _write_oldest(self) -> None:
        image_id, future = self.pending.popleft()
        try:
            save_mask(self.folder / f"{image_id}.png", future.result())
        except Exception as error:
            raise DataError(f"CRF of image {image_id} failed: {error!r}") from error


def crf_mask(path: Path, probabilities: np.ndarray, largest: int = 0) -> np.ndarray:
    """Refine the probabilities ``(K, h, w)`` of a photograph on one thread; returns ids ``(H, W)`` at its size."""
    torch.set_num_threads(1)
    photo = load_image(path)
    refined = dense_crf(np.asarray(shrink_to(photo, largest)), probabilities.astype(np.float32))
    return resize_mask(refined.argmax(0), photo.size)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask of ids ``(h, w)`` to this width and height, by nearest neighbour, uint8."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
