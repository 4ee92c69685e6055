"""Checks of what public functions are given; each raises a ``ValueError`` with the value and the valid ones."""

import math
import os
from collections.abc import Collection, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

ROUNDING = 1e-5  # resampled values may leave 0..1 by so much


def require_one_of(name: str, value: object, valid: Collection[object]) -> None:
    """Require one of the ``valid`` values; capitals count."""
    if value not in list(valid):
        raise ValueError(f"{name}={value!r} is unknown; valid: {', '.join(map(str, valid))}")


def require_number(name: str, value: Any, low: float, high: float = math.inf, whole: bool = False) -> None:
    """Require a finite number, or a ``whole`` number, from ``low`` to ``high``."""
    right = _is_finite(value) and low <= value <= high
    if not right or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        limits = f"from {low} on" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{name}={value!r}; valid: {kind} {limits}")


def require_count(name: str, value: Any, low: int = 1, high: float = math.inf) -> None:
    """Require a whole number from ``low`` to ``high``."""
    require_number(name, value, low, high, whole=True)


def processors(asked: int) -> int:
    """Return ``asked``, or for 0 all processors that this process may use. A container may have fewer than the machine."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()  # of a container: "200000 100000" is two
        allowed = min(allowed, max(1, int(time) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return asked or allowed


def require_scales(scales: Any) -> None:
    """Require one or more different numbers above 0, at most 2."""
    given = list(scales) if isinstance(scales, Iterable) else []
    in_range = all(_is_finite(scale) and 0 < scale <= 2 for scale in given)
    if not given or not in_range or len(set(given)) < len(given):
        raise ValueError(f"scales={scales!r}; valid: different numbers above 0, at most 2, such as (1, 0.75, 0.5)")


def require_shape(name: str, found: Sequence[int], wanted: Sequence[int | str]) -> None:
    """Require a shape; letters in ``wanted`` stand for any length."""
    same = len(found) == len(wanted) and all(isinstance(w, str) or f == w for f, w in zip(found, wanted))
    if not same:
        letters = str(tuple(wanted)).replace("'", "")
        raise ValueError(f"{name} is of shape {tuple(found)}; wanted: {letters}")


def require_unit_interval(name: str, values: np.ndarray) -> None:
    """Require numbers in 0..1."""
    low, high = values.min(initial=0), values.max(initial=0)  # NaN, where there is one
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(f"{name} holds values from {low:g} to {high:g}; wanted: 0 to 1, no NaN")


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
