"""Trained networks on disk: a folder with the weights and a description from which the network is built again.

``network.safetensors`` holds the tensors and cannot run code. ``network.json`` holds what builds the network:

- ``format``: 1;
- ``kind``: a key of ``KINDS``, and ``arguments``, those of its constructor;
- ``classes``: names in the order of the outputs, without the background;
- ``normalisation``: ``mean`` and ``std`` of each colour;
- ``initial_weights``: what the training started from;
- ``longest_side``: of the largest training image in pixels, 0 where it is not known;
- ``weights``: the ``file``, and ``bits`` of a value. A file of 8 bits will hold int8 tensors, each beside
  ``<name>.scale`` with one float32 for each output channel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn

from safn.backbones import Normalisation
from safn.data import DataError
from safn.files import write_file, write_json
from safn.network import SAFN, PlainClassifier
from safn.segmentation import DeepLab

FORMAT = 1
DESCRIPTION, WEIGHTS = "network.json", "network.safetensors"
KINDS: dict[str, type[nn.Module]] = {"SAFN": SAFN, "DeepLab": DeepLab, "PlainClassifier": PlainClassifier}
SHIPPED = Path(__file__).with_name("weights")  # folders of networks that come with the package


def save(network: nn.Module, folder: Path | str, classes: Sequence[str], longest_side: int = 0) -> None:
    """Write a network so that ``load`` can build it again.

    The description is written last. A folder that has one is complete.

    Args:
        network: a ``SAFN``, ``DeepLab`` or ``PlainClassifier``.
        folder: is made where it is missing. Files of an earlier network are replaced.
        classes: names in the order of the outputs, without the background.
        longest_side: of the largest training image in pixels.

    Raises:
        ValueError: the network is of another kind, or has another number of classes.

    Example:
        >>> import tempfile
        >>> network = SAFN("efficientnet_lite0", 2, scales=(1, 0.5), weights="none")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(network, folder, ["cat", "dog"])
        ...     load(folder).classes
        ['cat', 'dog']
    """
    folder, kind = Path(folder), type(network).__name__
    if KINDS.get(kind) is not type(network):
        raise ValueError(f"a {kind} cannot be saved; valid: {', '.join(KINDS)}")
    description = {
        "format": FORMAT,
        "kind": kind,
        "arguments": network.arguments,
        "classes": list(classes),
        "normalisation": {"mean": network.normalisation.mean, "std": network.normalisation.std},
        "initial_weights": network.initial_weights,
        "longest_side": longest_side,
        "weights": {"file": WEIGHTS, "bits": 32},
    }
    if problem := _wrong_classes(description):
        raise ValueError(problem)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_file(folder / WEIGHTS, tensor_bytes(tensors))
    write_json(folder / DESCRIPTION, description)


def load(folder: Path | str) -> nn.Module:
    """Build a trained network, ready to use.

    Args:
        folder: what ``save`` wrote, such as a stage folder of chapter 03 or 06.

    Returns:
        The network in evaluation mode, on the CPU, with ``classes`` (names), ``normalisation``, and ``description``,
        the content of ``network.json``.

    Raises:
        DataError: a file is missing or damaged, its format is newer, the kind is unknown, or tensors do not fit.
    """
    folder = find(folder)
    description = read_description(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # random numbers of the caller stay as they were
            network = KINDS[description["kind"]](**description["arguments"], weights="none")
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{folder / DESCRIPTION} does not describe a {description['kind']}: {error}") from error
    load_weights(network, folder)
    network.classes = description["classes"]
    network.normalisation = Normalisation(*(tuple(description["normalisation"][k]) for k in ("mean", "std")))
    network.initial_weights, network.description = description["initial_weights"], description
    return network.eval()


def find(folder: Path | str) -> Path:
    """Return the folder of a network, or of one that comes with the package, by its name."""
    shipped = SHIPPED / folder
    if Path(folder).is_dir() or not shipped.is_dir():
        return Path(folder)
    return shipped


def is_complete(folder: Path | str) -> bool:
    """Whether ``save`` has finished in this folder."""
    return (Path(folder) / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check ``network.json``.

    Raises:
        DataError: it is missing, damaged, of a newer format or of an unknown kind, or lacks an entry.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{folder} is not the folder of a trained network: {DESCRIPTION} is missing")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        newer = description["format"] > FORMAT
        problem = "" if newer else _wrong_entries(description)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error!r}") from error
    if newer:
        raise DataError(f"{path} has format {description['format']}, this version reads up to {FORMAT}: update safn")
    if problem:
        raise DataError(f"{path}: {problem}")
    return description


def _wrong_entries(description: dict[str, Any]) -> str:
    """What is wrong with a description, or an empty text."""
    if description["kind"] not in KINDS:
        return f"kind {description['kind']!r} is unknown; valid: {', '.join(KINDS)}"
    if description["weights"]["bits"] != 32:
        return f"weights of {description['weights']['bits']} bits cannot be read; valid: 32"
    for entry in ("normalisation", "initial_weights", "longest_side"):
        description[entry]
    return _wrong_classes(description)


def _wrong_classes(description: dict[str, Any]) -> str:
    """Say where names and outputs differ in number."""
    arguments, names = description["arguments"], description["classes"]
    outputs = arguments["num_outputs"] - 1 if "num_outputs" in arguments else arguments["num_classes"]
    return "" if outputs == len(names) else f"{len(names)} classes for a network of {outputs}: {', '.join(names)}"


def load_weights(network: nn.Module, folder: Path) -> None:
    """Load the tensors of a folder into a network that fits them exactly.

    Raises:
        DataError: the file is missing or damaged, or names each tensor that is missing, unexpected or of another
            shape, with both shapes.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        tensors = read_tensors(path.read_bytes())
    except (safetensors.SafetensorError, ValueError) as error:
        raise DataError(f"{path} is damaged, or not a file of tensors: {error}") from error
    own = network.state_dict()
    problems = [f"{name}: missing in the file" for name in own if name not in tensors]
    problems += [f"{name}: not in the network" for name in tensors if name not in own]
    for name in own.keys() & tensors.keys():
        found, wanted = tuple(tensors[name].shape), tuple(own[name].shape)
        if found != wanted:
            problems.append(f"{name}: {found} in the file, {wanted} in the network")
    if problems:
        raise DataError.from_problems(f"{path} does not fit the network:", sorted(problems))
    network.load_state_dict(tensors)


def fingerprint(folder: Path) -> str:
    """Return 16 hex digits that change with the weights or the description."""
    digest = hashlib.sha256()
    for name in (DESCRIPTION, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]
