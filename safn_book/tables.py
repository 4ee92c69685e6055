"""Tables as pages show them: short names, percent with one decimal, an en dash where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from safn_book.run_names import RunName

MISSING = "–"
METHODS = {"attention": "SAFN", "max": "max pooling", "avg": "average pooling"}
CONTROLS = {"maps": "labels from maps only", "saliency": "foreground from saliency only"}


def short_name(configuration: str) -> str:
    """Name a configuration (a run name without its seed) or an aggregation in words. Another text stays as it is.

    Example:
        >>> short_name("max_1-0.75-0.5"), short_name("attention_1+maps")
        ('max pooling, 3 scales', 'baseline, 1 scale, labels from maps only')
    """
    if configuration in METHODS:
        return METHODS[configuration]
    try:
        run = RunName.parse(configuration, seedless=True)
    except ValueError:
        return configuration
    if run.supervised:
        words = ["fully supervised"]
    elif len(run.scales) == 1:
        words = ["baseline", "1 scale"]
    else:
        words = [METHODS[run.aggregation], f"{len(run.scales)} scales"]
    if run.control:
        words.append(CONTROLS[run.control])
    if run.network:
        words.append(run.network)
    return ", ".join(words)


def phrase(configuration: str) -> str:
    """Name a configuration within a sentence: ``SAFN with 3 scales``, ``the baseline with 1 scale``."""
    name = short_name(configuration).replace(", ", " with ", 1)
    return f"the {name}" if name.startswith("baseline") else name


def with_short_names(table: pd.DataFrame) -> pd.DataFrame:
    """Replace configurations by short names in the index and the columns, unless two would be alike."""
    renamed = table.rename(index=short_name, columns=short_name).rename_axis(None)
    return renamed if renamed.index.is_unique and renamed.columns.is_unique else table


def number(value: Any, digits: int = 1, sign: bool = False) -> str:
    """Write a number with a fixed number of decimals, and an en dash where there is none.

    Example:
        >>> number(0.26), number(-1.04, 2), number(1, sign=True), number(float("nan"))
        ('0.3', '−1.04', '+1.0', '–')
    """
    if value is None or pd.isna(value) or np.isinf(value):
        return MISSING
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-+")
    return text.replace("-", "−")


def interval(low: Any, high: Any, digits: int = 1) -> str:
    """Write an interval, such as ``0.5 to 1.9``, and an en dash where an end is missing."""
    ends = [number(low, digits), number(high, digits)]
    return MISSING if MISSING in ends else " to ".join(ends)


def show(table: pd.DataFrame, caption: str = "", digits: int = 1, best: Iterable[str] = ()) -> Styler:
    """Style a table for a page, with so many ``digits`` after the point, and the largest value of the ``best`` columns
    in bold. Integers and texts stay as they are, and an index of consecutive numbers is hidden."""
    fractions = table.select_dtypes("float").columns
    others = table.columns.difference(fractions)
    styled = table.style.format(partial(number, digits=digits), subset=fractions).format(na_rep=MISSING, subset=others)
    styled = styled.highlight_max(list(best), props="font-weight: bold").set_caption(caption)
    styled = styled.format_index(escape="html", axis=0).format_index(escape="html", axis=1)  # names such as "< 10 %"
    styled = styled.set_table_attributes('class="dataframe"')  # as pandas does where a table has no style
    return styled.hide(axis="index") if isinstance(table.index, pd.RangeIndex) else styled


def percent(shares: dict[str, float], caption: str = "") -> Styler:
    """Style shares in 0..1 as one column of percentages."""
    return show(100 * pd.DataFrame({"%": pd.Series(shares, dtype=float)}), caption)
