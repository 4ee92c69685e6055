"""Run folders: each stage writes into a partial folder that gets its final name only when complete, with a record."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from safn.data import VOCFolder
from safn.files import _plain, write_json
from safn.inference import best_device

RECORD = "record.json"
BEGUN = ".begun"  # what a stage at work was begun with
PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow", "onnxruntime", "pydensecrf2")
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


class StageError(RuntimeError):
    """An input of a stage is missing, stale or damaged; the message says which stage to run."""


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder`` except its record, ``training.log`` (which tells the
    time) and hidden ones; 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != "."):
        if path.name in (RECORD, "training.log"):
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Where and with what a stage runs: commit, versions, processor, cores."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else best_device(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
    }


def _commit() -> str | None:
    """The commit of this checkout, ``-dirty`` where it was changed; ``None`` without git or its history."""
    command = ["git", "-C", str(NOTEBOOKS.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _processor() -> str:
    """Name, family and model of the processor: of virtual machines the name alone hides the generation."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        said = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
        return f"{said['model name']} (family {said['cpu family']}, model {said['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def peak_megabytes() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: the other number is handed on by the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@dataclass
class Input:
    """A complete stage folder and its record."""

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"


@dataclass
class Stage:
    """A stage at work: write into ``folder``, then ``finish``."""

    final: Path
    parameters: dict[str, Any]
    inputs: list[Input]
    started: float = field(default_factory=time.time)
    finished: bool = False

    @property
    def folder(self) -> Path:
        """Where to write, and after ``finish`` where it lies: cells of a notebook can be run again."""
        return self.final if self.finished else self.final.with_name(self.final.name + ".partial")

    def finish(self, metrics: dict[str, Any] | None = None, **extra: Any) -> Input:
        """Write the record and give the folder its final name.

        ``seconds`` is the time of the last attempt; ``resumed`` counts the interrupted ones before it, and ``commit`` names
        those of all attempts.
        """
        begun = json.loads((self.folder / BEGUN).read_text())
        record = {
            "stage": self.final.parent.name,
            "run": self.final.name,
            "parameters": self.parameters,
            "seed": self.parameters.get("seed"),
            "inputs": {i.name: i.record["fingerprint"] for i in self.inputs},
            "fingerprint": fingerprint(self.folder),
            "metrics": metrics or {},
            "seconds": round(time.time() - self.started, 2),
            "resumed": begun["attempts"] - 1,
            "peak_megabytes": round(peak_megabytes()),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **environment(),
            "commit": " then ".join(begun["commits"]) or None,
            **extra,
        }
        write_json(self.folder / RECORD, record)
        if not self.finished:
            if self.final.exists():
                (self.final / RECORD).unlink(missing_ok=True)  # first: a folder half deleted must not pass for complete
                shutil.rmtree(self.final)
            self.folder.rename(self.final)
            self.finished = True
        return Input(self.final, json.loads((self.final / RECORD).read_text()))


def begin(runs: Path | str, stage: str, run: str, parameters: Any, inputs: list[Input] = ()) -> Stage:
    """Open the partial folder of a stage. One left by a killed run with the same parameters and inputs is continued.

    So is a complete folder of the same code without its record: a workflow that is killed before it has noticed the
    end of a stage takes the record away and runs the stage again.
    """
    values = _plain(vars(parameters) if hasattr(parameters, "__dict__") else parameters)
    work = Stage(Path(runs) / stage / run, values, list(inputs))
    identity = {"parameters": values, "inputs": {i.name: i.record["fingerprint"] for i in inputs}}
    identity["data"] = [
        i.record["data"] for i in inputs if "data" in i.record
    ]  # photographs of the same names may differ
    begun, attempts, commits, code = work.folder / BEGUN, 1, [], _code(stage)
    if not work.folder.exists() and not (work.final / RECORD).exists():
        before = _read(work.final / BEGUN)
        if {k: before.get(k) for k in (*identity, "code")} == {**identity, "code": code}:
            work.final.rename(work.folder)
    before = _read(begun)
    if {k: before.get(k) for k in identity} == identity:
        attempts, commits = before["attempts"] + 1, before.get("commits", [])
    if attempts == 1 and work.folder.exists():
        begun.unlink(missing_ok=True)  # first: what is left of a folder half deleted must not be continued
        shutil.rmtree(work.folder)
    work.folder.mkdir(parents=True, exist_ok=True)
    commits = [c for c in dict.fromkeys([*commits, _commit()]) if c]
    write_json(begun, {**identity, "code": code, "attempts": attempts, "commits": commits})
    return work


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _code(stage: str) -> str:
    """SHA-256 over a stage's notebook and this package; 16 hex digits."""
    paths = [NOTEBOOKS / f"{stage}.ipynb", *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths if path.exists())).hexdigest()[:16]


def need(runs: Path | str, stage: str, run: str = "default", restored: bool = False) -> Input:
    """The complete folder of an earlier stage, checked to be still what its own inputs led to.

    Where it is missing, the stage's notebook runs first, with its defaults and with what the name of the run says.

    Args:
        restored: the record and the counts are enough, as ``exporting.restore`` lays them out.

    Raises:
        StageError: missing and not to be made, stale, or restored; names the notebook to run and, where stale, both
            fingerprints.
    """
    folder = Path(runs) / stage / run
    if not (folder / RECORD).exists():
        _make(Path(runs).resolve(), stage, run)
    found = Input(folder, json.loads((folder / RECORD).read_text()))
    if found.record.get("restored") and not restored:
        raise StageError(
            f"{folder} was restored without networks, maps and masks, and they are needed now: delete the folder and run "
            f"notebooks/{stage}.ipynb for it"
        )
    _check_fresh(Path(runs), stage, run, found.record)
    return found


def _check_fresh(runs: Path, stage: str, run: str, record: dict[str, Any]) -> None:
    """Whether a stage, and all that it was made from, is still what its inputs led to."""
    for name, used in record["inputs"].items():
        earlier = _read(runs / name / RECORD)
        now = earlier.get("fingerprint", "missing")
        if now != used:
            raise StageError(
                f"{runs / stage / run} is stale: it was made from {name} with fingerprint {used}, which is now {now}. "
                f"Run notebooks/{stage}.ipynb for it again."
            )
        _check_fresh(runs, *name.split("/"), earlier)


def run_name(aggregation: str, scales: tuple[float, ...], seed: int) -> str:
    """The name of a chain of stages, such as ``attention_1-0.75-0.5_seed0``."""
    return f"{aggregation}_{'-'.join(f'{s:g}' for s in scales)}_seed{seed}"


def parse_run(run: str) -> dict[str, Any]:
    """What ``run_name`` put together; an empty dict for another name."""
    match = re.fullmatch(r"(attention|max|avg)_(\d*\.?\d+(?:-\d*\.?\d+)*)_seed(\d+)", run)
    if not match:
        return {}
    scales = [float(s) for s in match[2].split("-")]
    return {"aggregation": match[1], "scales": scales, "seed": int(match[3])}


def _make(runs: Path, stage: str, run: str) -> None:
    """Execute a stage's notebook for ``run``; the executed copy stays beside those of the workflow."""
    import papermill

    folder = runs / stage / run
    notebook = NOTEBOOKS / f"{stage}.ipynb"
    has = papermill.inspect_notebook(str(notebook))
    base = re.split("[+@]", run)[0]
    given = {"runs": str(runs), "run": run, **parse_run(base)}
    if "combine" in has and "+" in run:  # a control: other pseudo ground truth of the same maps
        given |= {"run": base, "combine": run.split("+")[1]}
    given = {name: value for name, value in given.items() if name in has}
    remedy = f"run notebooks/{stage}.ipynb with the parameters of this run first"
    if run != "default" and len(given) < 2:
        raise StageError(f"{folder} is missing: {remedy}")
    print(f"{folder} is missing: running notebooks/{stage}.ipynb with its defaults first", flush=True)
    executed = runs / "executed" / stage / f"{run}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    partial = executed.with_suffix(".partial.ipynb")  # papermill's output is not atomic
    try:
        papermill.execute_notebook(str(notebook), str(partial), given, cwd=str(NOTEBOOKS), progress_bar=False)
    finally:
        if partial.exists():  # a failed notebook shows where
            os.replace(partial, executed)
    if not (folder / RECORD).exists():
        raise StageError(f"{folder} is missing, and the defaults of {stage} do not make it: {remedy}")


def of_stage(runs: Path | str) -> tuple[Input, VOCFolder, list[str], list[str]]:
    """Stage 00, its data folder, the training ids and the validation ids that all later stages use."""
    stage = need(runs, "00_data")
    lists = [(stage.folder / f"{split}.txt").read_text().split() for split in ("train", "val")]
    return stage, VOCFolder(stage.folder / stage.record["root"]), *lists
