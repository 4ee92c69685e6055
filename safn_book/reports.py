"""The notebooks that need no runs, but ``results/`` or the package: executed for every book, where that has changed."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from safn.arguments import processors
from safn_book import execution

ROOT = Path(__file__).resolve().parent.parent
EMOJI = {"records": "../results/evidence-emoji.json", "images": "synthetic images of emoji glyphs"}
EXPLORER_DATA = ROOT / "book" / "_static" / "explorer_data.js"
RECORDS = "15_records"  # the report on the runs
# page of the book -> notebook and parameters
REPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "notebooks/12_what_we_learned": ("12_what_we_learned", {"records": "../results/evidence.json"}),
    "book/emoji_results": ("12_what_we_learned", EMOJI),
    "notebooks/13_attention": ("13_attention", {}),
    "notebooks/14_speed": ("14_speed", {}),
    "notebooks/15_records": (RECORDS, {}),
    "notebooks/16_safn_in_25_lines": ("16_safn_in_25_lines", {}),
    "notebooks/17_try_your_photograph": ("17_try_your_photograph", {}),
}


def execute(runs: Path, jobs: Iterable[tuple[str, str]] = ()) -> dict[str, Path]:
    """Execute each report where it, or what it reads, has changed: page of the book -> executed notebook, below
    ``runs/<profile>/executed``. One that failed holds its error. ``jobs`` are stage and run of all that the book
    shows."""
    own = {"runs": str(runs.resolve()), "stages": [f"{stage}/{run}" for stage, run in jobs]}
    with ThreadPoolExecutor(processors(0)) as pool:
        list(pool.map(partial(subprocess.run, cwd=ROOT, capture_output=True), commands(runs, own).values()))
    return {page: _executed(runs, page) for page in REPORTS}


def commands(runs: Path, own: dict[str, Any] | None = None) -> dict[str, list[str]]:
    """Name -> command of each report that has to be executed, and of the explorer's data where they are missing. Without
    the parameters of its ``own``, the report on the runs is left out."""
    found = {}
    for page, (name, parameters) in REPORTS.items():
        if name == RECORDS and own is None:
            continue
        given = parameters | own if own and name == RECORDS else parameters
        source, executed = ROOT / "notebooks" / f"{name}.ipynb", _executed(runs, page)
        stamp = executed.with_suffix(".sha256")
        if not executed.exists() or not stamp.exists() or stamp.read_text() != _state(source, given):
            arguments = [str(source), str(executed), json.dumps(given)]
            found[executed.stem] = [sys.executable, "-m", "safn_book.reports", *arguments]
    if not EXPLORER_DATA.exists():
        found["explorer"] = [sys.executable, "-m", "safn_book.explorer"]
    return found


def main(source: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Execute one report, and write down what it was made of."""
    stamp, state = executed.with_suffix(".sha256"), _state(source, parameters)
    executed.parent.mkdir(parents=True, exist_ok=True)
    for old in (stamp, executed):
        old.unlink(missing_ok=True)
    if problem := execution.execute(source, executed, parameters):
        sys.exit(problem)
    stamp.write_text(state)


def _executed(runs: Path, page: str) -> Path:
    return runs / "executed" / "reports" / f"{Path(page).name}.ipynb"


def _state(notebook: Path, parameters: dict[str, Any]) -> str:
    """A digest of all that a report depends on: notebook, parameters, ``results/``, code, trained networks and
    photographs of the package, records of the runs."""
    paths = [notebook, *sorted((ROOT / "results").glob("*")), *sorted((ROOT / "safn_book").glob("*.py")), *package()]
    paths += [Path(parameters["runs"]) / stage / "record.json" for stage in parameters.get("stages", ())]
    return digest(json.dumps(parameters, sort_keys=True), paths)


def package() -> list[Path]:
    """List the files of ``safn``: code, trained networks and photographs."""
    return sorted(path for path in (ROOT / "safn").rglob("*") if path.is_file() and path.suffix != ".pyc")


def digest(text: str, paths: Iterable[Path]) -> str:
    """SHA-256 over a text, and the names and contents of files as far as they are there."""
    found = hashlib.sha256(text.encode())
    for path in paths:
        if path.is_file():
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
