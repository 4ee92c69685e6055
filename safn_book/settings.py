"""Parameters of a notebook: read from its parameter cell, parsed and checked all at once, before any work."""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import yaml

AGGREGATIONS = ("attention", "max", "avg")
CONTROLS = ("maps", "saliency")  # of the pseudo ground truth
BACKBONES = ("vgg16", "resnet101", "efficientnet_lite0")


class SettingsError(ValueError):
    """One or more parameters are wrong; the message lists every one of them with the values that are valid."""


def parse_scales(value: Any) -> tuple[float, ...]:
    """Image scales from a list, one number or a string such as ``"[1,0.75,0.5]"`` (papermill's ``-p`` sends strings).

    Returns a tuple of distinct floats in (0, 2].

    Raises:
        ValueError: naming what is wrong with the value.
    """
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"{value!r} is no list of numbers") from None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
    ):
        raise ValueError(f"{value!r} is no list of numbers")
    if not value:
        raise ValueError("the list is empty")
    wrong = [v for v in value if not 0 < v <= 2]  # NaN fails this comparison as well
    if wrong:
        raise ValueError(f"{wrong} outside (0, 2]")
    if len(set(value)) < len(value):
        raise ValueError(f"{list(value)} holds a scale twice")
    return tuple(float(v) for v in value)


def _one_of(*valid: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in valid:
            raise ValueError(f"{value!r} is unknown")
        return value

    check.valid = "one of " + ", ".join(map(repr, valid))
    return check


def _number(kind: type, low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], Any]:
    """A number of ``kind`` with low <= value <= high (low < value where ``above``)."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            with contextlib.suppress(yaml.YAMLError):
                value = yaml.safe_load(value)
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer() and kind is int)
        if isinstance(value, bool) or not (whole or (kind is float and isinstance(value, float))):
            raise ValueError(f"{value!r} is no {'whole ' if kind is int else ''}number")
        if not (low < value if above else low <= value) or value > high or math.isinf(value):
            raise ValueError(f"{value!r} is out of range")
        return kind(value)

    span = f"{'above' if above else 'at least'} {low:g}" + ("" if high == math.inf else f", at most {high:g}")
    check.valid = f"a{' whole' if kind is int else ''} number {span}"
    return check


def _flag(value: Any) -> bool:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _names(value: Any) -> list[str]:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{value!r} is no list of names")
    return value


def _pair(value: Any) -> tuple[int, int]:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value)):
        raise ValueError(f"{value!r} is no pair of whole numbers")
    if not 1 <= value[0] <= value[1]:
        raise ValueError(f"{list(value)} is not 1 <= low <= high")
    return tuple(value)


parse_scales.valid = 'a list of distinct numbers in (0, 2], such as "[1, 0.75, 0.5]"'
_flag.valid = "true or false"
_text.valid = "a text"
_names.valid = "a list of names"
_pair.valid = "a list [low, high] of two positive whole numbers"

_RATE = _number(float, 0, above=True)
_SHARE = _number(float, 0, 1)
_COUNT = _number(int, 1)
_SIZE_OR_0 = _number(int, 0)

CHECKS: dict[str, Callable[[Any], Any]] = {
    "runs": _text,
    "run": _text,
    "data_folder": _text,
    "saliency_folder": _text,
    "experiments": _names,
    "baseline": _text,
    "second": _text,
    "scales": parse_scales,
    "test_scales": parse_scales,
    "aggregation": _one_of(*AGGREGATIONS),
    "backbone": _one_of(*BACKBONES),
    "weights": _one_of("imagenet", "none"),
    "head": _one_of("largefov", "aspp"),
    "head_width": _COUNT,
    "head_dilation": _COUNT,
    "label_source": _one_of("pseudo", "masks"),
    "combine": _one_of("harmonic", *CONTROLS),
    "views": _one_of(1, 2, 6),
    "missing_saliency": _one_of("error", "skip", "map-only"),
    "missing_segmentation": _one_of("make", "leave"),
    "optimizer": _one_of("sgd", "adamw"),
    "schedule": _one_of("poly", "step"),
    "precision": _one_of("32-true", "bf16-mixed", "16-mixed"),
    "accelerator": _one_of("auto", "cpu", "gpu", "mps"),
    "attention_start": _one_of("zero", "random"),
    "gamma": _SHARE,
    "ignore_saliency": _SHARE,
    "ignore_confidence": _SHARE,
    "learning_rate": _RATE,
    "new_layer_factor": _RATE,
    "attention_factor": _RATE,
    "power": _number(float, 0),
    "momentum": _number(float, 0, 0.9999),
    "weight_decay": _number(float, 0),
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "accumulate": _COUNT,
    "iterations": _SIZE_OR_0,
    "crop": _number(int, 32),
    "resize": _pair,
    "size": _SIZE_OR_0,
    "seed": _number(int, 0),
    "workers": _number(int, 0),
    "threads": _SIZE_OR_0,
    "limit": _SIZE_OR_0,
    "train_images": _number(int, 20),
    "val_images": _number(int, 20),
    "image_size": _number(int, 32),
    "flip": _flag,
    "crf": _flag,
    "crf_processes": _SIZE_OR_0,
    "freeze": _number(int, 0),
    "examples": _COUNT,
    "bootstrap": _COUNT,
    "study_images": _SIZE_OR_0,
    "largest": _SIZE_OR_0,
    "cost_steps": _SIZE_OR_0,
}


def check(values: dict[str, Any], known: set[str] | None = None) -> SimpleNamespace:
    """Parse and check parameters.

    Args:
        values: parameter name -> value.
        known: the names the notebook has; any further name is an error (``None``: every name of ``CHECKS``).

    Raises:
        SettingsError: one line for each problem, with the valid values.
    """
    known = set(CHECKS) if known is None else known & set(CHECKS)
    problems, parsed = [], {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problems.append(f"{name}: unknown parameter; {hint}valid: {', '.join(sorted(known))}")
            continue
        try:
            parsed[name] = CHECKS[name](value)
        except (ValueError, yaml.YAMLError) as error:
            problems.append(f"{name}: {error}; valid: {CHECKS[name].valid}")
    if problems:
        head = f"{len(problems)} wrong parameter{'s' * (len(problems) > 1)}, nothing was done:"
        raise SettingsError("\n  - ".join([head, *problems]))
    return SimpleNamespace(**parsed)


def assigned_names(source: str) -> list[str]:
    """Names that the top level of a cell assigns, in order."""
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def read(namespace: dict[str, Any]) -> SimpleNamespace:
    """The checked parameters of the running notebook: call it with ``globals()`` right after the parameter cell.

    The parameter cell is recognised by its first line ``# parameters``, the cell that papermill injects by its
    ``# Parameters``. Papermill only warns about a name that the notebook does not have; here it is an error.

    Raises:
        SettingsError: listing every problem.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.lower().startswith("# parameters")]
    known = {name for cell in cells if cell.startswith("# parameters") for name in assigned_names(cell)}
    given = dict.fromkeys(name for cell in cells for name in assigned_names(cell))
    return check({name: namespace[name] for name in given}, known)
