"""The dense CRF of many images, in processes of its own."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from safn.crf import dense_crf
from safn.data import DataError, load_image, save_mask
from safn.loading import shrink_to


class CRFWorkers:
    """Processes that refine masks while the network goes on, since pydensecrf holds the interpreter's lock.

    ``folder`` is ``None`` where there is no CRF. Leaving the block waits for all masks.
    """

    def __init__(
        self, folder: Path | None, processes: int = 0, pool: concurrent.futures.Executor | None = None, largest: int = 0
    ) -> None:
        self.folder, self.largest = folder, largest
        self.processes = processes or os.cpu_count() or 1
        self.pending: dict[concurrent.futures.Future, str] = {}
        self.own = None
        if folder is not None and pool is None:
            spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
            self.own = concurrent.futures.ProcessPoolExecutor(self.processes, spawn)
        self.pool = pool or self.own

    def __enter__(self) -> CRFWorkers:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._collect(concurrent.futures.ALL_COMPLETED)
        finally:
            if self.own is not None:
                self.own.shutdown()

    def submit(self, image_id: str, path: Path, probabilities: np.ndarray) -> None:
        """Queue one image. Waits where many are queued, which bounds the memory."""
        if self.folder is None:
            return
        half = torch.from_numpy(probabilities).half().numpy()  # NumPy's own conversion is slow on tiny values
        try:
            self.pending[self.pool.submit(crf_mask, path, half, self.largest)] = image_id
        except concurrent.futures.BrokenExecutor:  # a process has died: name the image
            self._collect(concurrent.futures.ALL_COMPLETED)
            raise
        if len(self.pending) > 2 * self.processes:
            self._collect(concurrent.futures.FIRST_COMPLETED)

    def _collect(self, when: str) -> None:
        """Write the masks that are done, in the order of the images."""
        done = concurrent.futures.wait(self.pending, return_when=when).done
        for future in [f for f in self.pending if f in done]:
            image_id = self.pending.pop(future)
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
    """Resize a mask of ids ``(h, w)`` to this width and height, by nearest neighbour."""
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.NEAREST))
