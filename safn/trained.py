"""Trained networks on disk: ``network.safetensors`` cannot run code, ``network.json`` says what builds the network.

``network.json`` holds ``format``, ``kind`` and ``arguments`` of its constructor, ``classes`` (in the order of the outputs,
without the background), ``normalisation`` (``mean`` and ``std`` of each colour), ``initial_weights``, ``longest_side`` of the
training images in pixels, and ``weights``: ``file``, and ``bits`` of a value. In 8 bits a tensor of two or more dimensions is
int8, and ``<name>.scale`` holds the float32 step of each of its outputs (dimension 0).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from safn.baseline import PlainClassifier
from safn.files import DataError, write_file, write_json
from safn.network import SAFN
from safn.segmentation import DeepLab

FORMAT = 1
DESCRIPTION, WEIGHTS = "network.json", "network.safetensors"
STEP = ".scale"  # ends the name of the steps of an int8 tensor
KINDS: dict[str, type[nn.Module]] = {"SAFN": SAFN, "DeepLab": DeepLab, "PlainClassifier": PlainClassifier}
SHIPPED = Path(__file__).with_name("weights")  # folders of networks that come with the package


def save(network: Any, folder: Path | str, classes: Sequence[str], longest_side: int = 0) -> None:
    """Write a network to a folder, so that ``load`` can build it again. The description is written last.

    Args:
        network: a ``SAFN``, ``DeepLab`` or ``PlainClassifier``.
        classes: names in the order of the outputs, without the background.
        longest_side: of the largest training image in pixels (0: not known).

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
    if problem := _problem(description):
        raise ValueError(problem)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_file(folder / WEIGHTS, tensor_bytes(tensors))
    write_json(folder / DESCRIPTION, description)


def load(folder: Path | str) -> Any:
    """Build a trained network from its folder, or by its name: ``voc`` (DeepLab) and ``voc-safn`` come with the package.

    Returns:
        The network in evaluation mode, on the CPU, with ``classes`` (names), ``normalisation`` and ``description``, the
        content of ``network.json``.

    Raises:
        DataError: a file is missing or damaged, its format is newer, the kind is unknown, or tensors do not fit.

    Example:
        >>> network = load("voc")
        >>> type(network).__name__, network.classes[:3], network.description["longest_side"]
        ('DeepLab', ['aeroplane', 'bicycle', 'bird'], 512)
    """
    folder = find(folder)
    description = read_description(folder / DESCRIPTION)
    try:
        with torch.random.fork_rng(devices=[]):  # random numbers of the caller stay as they were
            network: Any = KINDS[description["kind"]](**description["arguments"], weights="none")
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{folder / DESCRIPTION} does not describe a {description['kind']}: {error}") from error
    load_weights(network, folder)
    network.classes, network.initial_weights = description["classes"], description["initial_weights"]
    network.description = description
    return network.eval()


def find(folder: Path | str) -> Path:
    """Return the folder of a network, or of one that comes with the package, by its name: ``voc`` or ``voc-safn``."""
    for path in (Path(folder), SHIPPED / folder):
        if is_complete(path):
            return path
    named = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{DESCRIPTION}")))
    raise DataError(f"{folder} is not the folder of a trained network: {DESCRIPTION} is missing; by name: {named}")


def is_complete(folder: Path) -> bool:
    """Whether ``save`` has finished in this folder."""
    return (folder / DESCRIPTION).is_file()


def read_description(path: Path) -> dict[str, Any]:
    """Read and check ``network.json``; a ``DataError`` says what is wrong with it."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        problem = _problem(description)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error!r}") from error
    if problem:
        raise DataError(f"{path}: {problem}")
    return description


def _problem(description: dict[str, Any]) -> str:
    """What is wrong with a description, or an empty text."""
    if description["format"] > FORMAT:
        return f"format {description['format']} is newer than {FORMAT}: update safn"
    if description["kind"] not in KINDS:
        return f"kind {description['kind']!r} is unknown; valid: {', '.join(KINDS)}"
    arguments, names = description["arguments"], description["classes"]
    outputs = arguments["num_outputs"] - 1 if "num_outputs" in arguments else arguments["num_classes"]
    return "" if outputs == len(names) else f"{len(names)} classes for a network of {outputs}: {', '.join(names)}"


def load_weights(network: nn.Module, folder: Path) -> None:
    """Load the tensors of a folder into a network that they fit exactly.

    Raises:
        DataError: the file is missing or damaged. Or it names each tensor of another shape, missing or too many.
    """
    path = folder / WEIGHTS
    try:
        network.load_state_dict(to_floats(read_tensors(path.read_bytes())))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path} is damaged, or not a file of tensors: {error}") from error
    except RuntimeError as error:
        raise DataError(f"{path} does not fit the network: {error}") from error


def to_floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply the tensors of 8 bits by their steps; a ``ValueError`` names one without them.

    Example:
        >>> packed = {"weight": torch.tensor([[127, -50]], dtype=torch.int8), "weight.scale": torch.tensor([0.5])}
        >>> to_floats(packed)
        {'weight': tensor([[ 63.5000, -25.0000]])}
    """
    floats = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            step = floats.pop(name + STEP, None)
            if step is None or step.shape != tensor.shape[:1]:
                raise ValueError(f"{name}: 8 bits without a step for each of its {len(tensor)} outputs")
            floats[name] = tensor * step.view(-1, *[1] * (tensor.dim() - 1))
    return floats


def fingerprint(folder: Path) -> str:
    """Return 16 hex digits that change with the weights or the description."""
    content = b"\0".join((folder / name).read_bytes() for name in (DESCRIPTION, WEIGHTS))
    return hashlib.sha256(content).hexdigest()[:16]
