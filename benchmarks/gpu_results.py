"""What a GPU measured, in one file: ``python -m benchmarks.gpu_results cost.json tests.xml results/gpu.json``.

``cost.json`` is of `benchmarks.gpu_cost`, ``tests.xml`` of the tests marked ``gpu``; `benchmarks/gpu_check.sh` makes both.
What the last file holds of the same card and versions stays, unless it was measured again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.gpu_cost import hours_in_the_loop, hours_of
from safn.files import write_json

HEAD = ("card", "memory MB", "driver", "python", "torch", "cuda", "cudnn")
ALLOCATOR = "reserved MB"  # what rows before had left over is in it
SAMPLE = re.compile(r"(?P<test>\w+)(\[(?P<case>.+)\])?")
Row = dict[str, Any]


def without(value: Any, name: str) -> Any:
    """``value`` without the entries called ``name``, however deep."""
    if isinstance(value, dict):
        return {k: without(v, name) for k, v in value.items() if k != name}
    return value


def rows_of(cost: Row) -> dict[str, Row]:
    """The rows of costs; one that was not measured has the command that measures it."""
    rows = without(cost["rows"], ALLOCATOR)
    for name, row in rows.items():
        if "not measured" in row:
            row["command"] = f'python -m benchmarks.gpu_cost --out cost.json --only "{name}"'
    return rows


def tests_of(report: Path, collected: list[str]) -> Row:
    """How many tests passed, which did not run, and what the others measured.

    Args:
        report: JUnit's XML; an interrupted run has a last test without a name. Without the file no test has run.
        collected: names of all tests.
    """
    found = ElementTree.parse(report).iter("testcase") if report.exists() else ()
    cases = [case for case in found if case.get("name")]
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    ran = {case.get("name") for case in cases} - set(skipped)
    measured = [difference(case) for case in cases if difference(case)]
    not_run = [name for name in collected if name not in ran]
    functions = dict.fromkeys(name.split("[")[0] for name in not_run)
    return {
        "passed": len(ran) - len(failed),
        "failed": failed,
        "not run": not_run,
        "command": f'python -m pytest -m gpu tests/test_gpu.py -k "{" or ".join(functions)}"',
        "measured": measured,
    }


def difference(case: ElementTree.Element) -> Row:
    """The largest difference that a test recorded; empty where it recorded none."""
    found = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
    names = [name for name in found if name.startswith(("largest", "share"))]
    numbers = {name: float(f"{float(found[name]):.3g}") for name in names}
    match = SAMPLE.fullmatch(case.get("name", ""))
    if not numbers or match is None:
        return {}
    test = match["test"].removeprefix("test_").replace("_", " ")
    return {"test": test, "case": match["case"] or "", **numbers}


def collected_tests() -> list[str]:
    """Names of the tests marked ``gpu``, in their order."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", "tests/test_gpu.py"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split("::", 1)[1] for line in lines if "::" in line]


def results(cost: Row, report: Path, collected: list[str], commit: str, known: Row) -> Row:
    """The content of ``results/gpu.json``, with what it held before (``known``)."""
    card = {name: cost[name] for name in HEAD if name in cost}
    known = known if card == {name: known[name] for name in HEAD if name in known} else {}
    measured = {name for name, row in cost["rows"].items() if "not measured" not in row}
    rows = rows_of(cost) | {name: row for name, row in known.get("rows", {}).items() if name not in measured}
    hours = {"steps alone": hours_of(rows), "in the loop of training": hours_in_the_loop(rows)}
    tests = known["tests"] if known and not report.exists() else tests_of(report, collected)
    return card | {"commit": commit, "tests": tests, "hours": hours, "rows": rows}


def commit_of(out: Path) -> str:
    """The commit that ``out`` names already, or the one that is checked out."""
    if out.exists():
        return json.loads(out.read_text())["commit"]
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_results", description=__doc__.splitlines()[0])
    parser.add_argument("cost", type=Path)
    parser.add_argument("tests", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--commit", help="that was measured; default: that of OUT, or the one checked out")
    given = parser.parse_args(arguments)
    commit = given.commit or commit_of(given.out)
    cost = json.loads(given.cost.read_text())
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    write_json(given.out, results(cost, given.tests, collected_tests(), commit, known))


if __name__ == "__main__":
    main()
