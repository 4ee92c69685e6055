"""Checks of what public functions are given; each raises a ``ValueError`` with the value and the valid ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

ROUNDING = 1e-5  # resampled values may leave 0..1 by so much


def require_one_of(name: str, value: object, valid: Iterable[object]) -> None:
    """Require one of the ``valid`` values; capitals count."""
    valid = list(valid)
    if value not in valid:
        raise ValueError(f"{name}={value!r} is unknown; valid: {', '.join(map(str, valid))}")


def require_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Require a finite number from ``low`` to ``high``."""
    if not (_is_finite(value) and low <= value <= high):
        raise ValueError(f"{name}={value!r}; valid: a number {_limits(low, high)}")


def require_positive(name: str, value: Any) -> None:
    """Require a finite number above 0."""
    if not (_is_finite(value) and value > 0):
        raise ValueError(f"{name}={value!r}; valid: a number above 0")


def require_count(name: str, value: Any, low: int = 1, high: float = math.inf) -> None:
    """Require a whole number from ``low`` to ``high``."""
    if not (_is_finite(value) and low <= value <= high and value == int(value)):
        raise ValueError(f"{name}={value!r}; valid: a whole number {_limits(low, high)}")


def require_scales(name: str, scales: Any, high: float = 2) -> None:
    """Require one or more numbers above 0, at most ``high``, none of them twice."""
    given = list(scales) if isinstance(scales, Iterable) else []
    valid = all(_is_finite(scale) and 0 < scale <= high for scale in given)
    if not given or not valid or len(set(given)) < len(given):
        raise ValueError(f"{name}={scales!r}; valid: different numbers above 0, at most {high}, such as (1, 0.75, 0.5)")


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


def _limits(low: float, high: float) -> str:
    return f"from {low} on" if high == math.inf else f"from {low} to {high}"
