"""Numbers in the prose of the book: quoted from ``results/``, never typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safn_book.pages import ATTENTION
from safn_book.recorded import FOLDER, Records, exported, runs_of
from safn_book.results import over_seeds

QUOTE = re.compile(r"\{=([^:{}]+):([^:{}]+):([^:{}]+)(?::([^:{}]+))?\}")


def glued(text: str, folder: Path = FOLDER) -> str:
    """The text with each ``{=<file>:<run>:<number>}`` replaced by what ``folder`` holds; a fourth part is another format of
    the bare number, such as ``.2f``.

    - ``<file>``: of ``recorded.exported``. ``<run>``: of ``runs_of``, and ``<number>`` a metric, in percent with one decimal;
      a run without its seed gives the mean ± standard deviation over the seeds. Or a stage: then a metric of its record
      ``default``, or a path into what that record holds beside its metrics, ``correlations/<run>/weight 1/to``, bare.
    - ``bench``, ``choices``: a row of ``make bench`` or ``benchmarks.choices`` and one of its numbers, with two decimals.
    - ``attention``: a row of ``benchmarks.attention``, as ``<images> <change>``, and a column, as in its table.

    Raises:
        KeyError: naming each quoted number that is not recorded.
    """
    files, problems = exported(folder), []

    def number(match: re.Match) -> str:
        name, row, metric, form = match.groups()
        try:
            if name in ("bench", "choices"):
                rows = json.loads((folder / f"{name}.json").read_text())["rows"]
                return format({r["what"]: r for r in rows}[row][metric], form or ".2f")
            if name == "attention":
                return _finite(_swept(folder / "attention.csv", row)[metric], form or f".{ATTENTION[metric]}f")
            return _of_run(files[name], row, metric, form)
        except (LookupError, TypeError, ValueError, FileNotFoundError):  # not there, or no number
            problems.append(match[0])
            return match[0]

    made = QUOTE.sub(number, text)
    if problems:
        raise KeyError(f"not in results/: {', '.join(problems)}")
    return made


def _finite(value: float, form: str) -> str:
    if not np.isfinite(value):
        raise ValueError("no number")
    return format(value, form)


def _of_run(records: Records, run: str, metric: str, form: str | None) -> str:
    if "/" in metric:
        return _finite(_within(records[run, "default"], metric.split("/")), form or ".1f")
    if (run, "default") in records:
        rows = pd.DataFrame([records[run, "default"]["metrics"]])
    else:
        runs = runs_of(records)
        rows = runs[(runs["run"] == run) | (runs["configuration"] == run)]
    values = rows[metric].dropna()
    if values.empty:
        raise LookupError(metric)
    if form is None and len(values) > 1:
        return over_seeds(values.to_frame().assign(of=run), "of", [metric]).iloc[0, 0]
    return format(values.mean(), form) if form else f"{100 * values.iloc[0]:.1f}"


def _within(found: Any, path: list[str]) -> float:
    """Follow a path: keys of dictionaries; in a list of rows, values that the row has, and last a column of the one left."""
    for key in path:
        if isinstance(found, list):
            rows = [row for row in found if key in row.values()]
            if rows:
                found = rows
                continue
            (found,) = found
        found = found[key]
    return found


def _swept(path: Path, row: str) -> pd.Series:
    rows = pd.read_csv(path)
    return rows[rows["images"].astype(str) + " " + rows["change"] == row].iloc[0]
