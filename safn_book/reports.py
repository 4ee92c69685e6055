"""The notebooks that need no runs, but ``results/`` or the package: executed for every book, where that has changed."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safn.arguments import processors
from safn_book.workflow import DIED_AT_START, literal

ROOT = Path(__file__).resolve().parent.parent
EMOJI = {"records": "../results/evidence-emoji.json", "images": "synthetic images of emoji glyphs"}
# page of the book -> notebook and parameters
REPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "notebooks/12_what_we_learned": ("12_what_we_learned", {"records": "../results/evidence.json"}),
    "book/emoji_results": ("12_what_we_learned", EMOJI),
    "notebooks/13_attention": ("13_attention", {}),
    "notebooks/14_speed": ("14_speed", {}),
    "notebooks/15_records": ("15_records", {}),
    "notebooks/16_safn_in_25_lines": ("16_safn_in_25_lines", {}),
    "notebooks/17_try_your_photograph": ("17_try_your_photograph", {}),
}


def execute(runs: Path, jobs: Iterable[tuple[str, str]] = ()) -> dict[str, Path]:
    """Execute each report where it, or what it reads, has changed: page of the book -> executed notebook, below
    ``runs/<profile>/executed``. One that failed holds its error. ``jobs`` are stage and run of all that the book
    shows."""
    own = {"runs": str(runs.resolve()), "stages": [f"{stage}/{run}" for stage, run in jobs]}
    with ThreadPoolExecutor(processors(0)) as pool:
        tasks = {}
        for page, (name, parameters) in REPORTS.items():
            given = parameters | own if name == "15_records" else parameters
            executed = runs / "executed" / "reports" / f"{Path(page).name}.ipynb"
            tasks[page] = pool.submit(_execute, ROOT / "notebooks" / f"{name}.ipynb", given, executed)
        return {page: task.result() for page, task in tasks.items()}


def _execute(source: Path, parameters: dict[str, Any], executed: Path) -> Path:
    stamp, state = executed.with_suffix(".sha256"), _state(source, parameters)
    if executed.exists() and stamp.exists() and stamp.read_text() == state:
        return executed
    executed.parent.mkdir(parents=True, exist_ok=True)
    for old in (stamp, executed):
        old.unlink(missing_ok=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", str(source.parent)]
    command += [literal(source), literal(executed), "-y", json.dumps(parameters)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True)
        if DIED_AT_START not in done.stderr:
            break
    if done.returncode == 0:
        stamp.write_text(state)
    return executed


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
