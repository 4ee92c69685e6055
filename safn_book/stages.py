"""Stages at work: each writes into a partial folder that gets its final name only when complete, with a record."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safn.data import VOCFolder
from safn.files import write_json
from safn_book import records, sources, workflow
from safn_book.environment import commit, environment, peak_megabytes
from safn_book.records import RECORD, Input, fingerprint
from safn_book.run_names import DEFAULT, RunName, Stage, stage_and_run

BEGUN = ".begun"  # what a stage at work was begun with


class StageError(RuntimeError):
    """An input of a stage is missing, stale or damaged; the message says which stage to run."""


# --- a stage at work -------------------------------------------------------------------------------------------------


@dataclass
class OpenStage:
    """A stage at work: write into ``folder``, then ``finish``."""

    final: Path
    parameters: dict[str, Any]
    inputs: list[Input]
    started: float = field(default_factory=time.time)
    finished: bool = False

    @property
    def folder(self) -> Path:
        """Where to write, and after ``finish`` where it lies: cells of a notebook can be run again."""
        return self.final if self.finished else partial_folder(self.final)

    def finish(self, metrics: Mapping[str, Any] | None = None, **extra: Any) -> Input:
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
            "inputs": begun["inputs"],
            "content": begun["content"],
            "code": begun["code"],
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
            _delete(self.final, first=RECORD)
            self.folder.rename(self.final)
            self.finished = True
            _unlock(self.final)
        return Input(self.final, json.loads((self.final / RECORD).read_text()))


def open_stage(
    parameters: Any, stage: Stage | str, run: RunName | str = DEFAULT, inputs: Iterable[Input] = ()
) -> OpenStage:
    """Begin a stage in the folder ``parameters.runs``. What a killed run with the same parameters and inputs has left is
    continued.

    Args:
        parameters: of ``settings.read``, or a dictionary.

    Raises:
        StageError: the same stage is at work in another process.
    """
    values = parameters if isinstance(parameters, Mapping) else vars(parameters)
    inputs = list(inputs)
    asked = records.request(values, inputs)
    code = sources.code_fingerprint(Stage(stage))
    final = Path(values["runs"]).resolve() / stage / str(run)
    _lock(final)
    _take_back(final, asked, code)
    before = _begun(partial_folder(final))
    if not _is_same(before, asked):
        _delete(partial_folder(final), first=BEGUN)  # what is left of a folder half deleted must not be continued
        before = {"attempts": 0, "commits": []}
    partial_folder(final).mkdir(parents=True, exist_ok=True)
    commits = [name for name in dict.fromkeys([*before["commits"], commit()]) if name]
    begun = {**asked, "code": code, "attempts": before["attempts"] + 1, "commits": commits}
    write_json(partial_folder(final) / BEGUN, begun)
    return OpenStage(final, asked["parameters"], inputs)


def partial_folder(final: Path) -> Path:
    """Where a stage is at work until it is complete."""
    return final.with_name(final.name + ".partial")


def _take_back(final: Path, asked: dict[str, Any], code: str | None) -> None:
    """Continue a complete folder of the same code that has no record. `make book` takes the record away where the executed
    notebook is missing that the book shows: what is trained is then not trained again."""
    begun = _begun(final)
    other = (final / RECORD).exists() or partial_folder(final).exists()
    if not other and begun.get("code") == code and _is_same(begun, asked):
        final.rename(partial_folder(final))


def _begun(folder: Path) -> dict[str, Any]:
    path = folder / BEGUN
    return json.loads(path.read_text()) if path.exists() else {}


def _is_same(begun: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a folder was begun with what is asked for now."""
    return {"attempts", "content"} <= begun.keys() and not records.changes(begun, asked)


def _delete(folder: Path, first: str) -> None:
    """Delete a folder. The file that makes it count goes first: a kill in between must not leave half of it for whole."""
    if folder.exists():
        (folder / first).unlink(missing_ok=True)
        shutil.rmtree(folder)


_LOCKS: dict[Path, int] = {}  # open files of the stages at work in this process


def _lock(final: Path) -> None:
    """Keep other processes out. The system takes the lock back however this one ends."""
    if final in _LOCKS:
        return
    path = final.parents[1] / ".locks" / final.parent.name / final.name
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(file, 20).decode()
        os.close(file)
        words = f"{final} is at work in another notebook (process {owner}): wait for it, or end its kernel"
        raise StageError(words) from None
    except OSError:  # a file system without locks
        os.close(file)
        return
    os.truncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    _LOCKS[final] = file


def _unlock(final: Path) -> None:
    if final in _LOCKS:
        os.close(_LOCKS.pop(final))


# --- the stages before it --------------------------------------------------------------------------------------------


def require(runs: Path | str, stage: Stage | str, run: RunName | str = DEFAULT, restored: bool = False) -> Input:
    """The complete folder of an earlier stage, checked to be still what its own inputs led to.

    Where it is missing, it is made first, with what it lacks itself: see ``workflow.make``.

    Args:
        restored: the record and the counts are enough, as ``archive.restore`` lays them out.

    Raises:
        StageError: missing and not to be made, stale, or restored; names the notebook to run and, where stale, both
            fingerprints.
    """
    runs = Path(runs).resolve()
    found = records.read(runs, stage, run) or _make(runs, Stage(stage), run)
    if found.record.get("restored") and not restored:
        raise StageError(
            f"{found.folder} was restored without networks, maps and masks, and they are needed now: delete the folder and run "
            f"notebooks/{stage}.ipynb for it"
        )
    _check_fresh(runs, found)
    return found


def _make(runs: Path, stage: Stage, run: RunName | str) -> Input:
    folder = runs / stage / str(run)
    print(f"{folder} is missing and is made first, with the defaults of its notebook", flush=True)
    try:
        workflow.make(runs, stage, run)
    except RuntimeError as error:
        raise StageError(f"{folder} is missing and could not be made: {error}") from None
    found = records.read(runs, stage, run)
    if not found:
        raise StageError(f"{folder} is missing: run notebooks/{stage}.ipynb with the parameters of this run first")
    return found


def _check_fresh(runs: Path, stage: Input) -> None:
    """Whether a stage, and all that it was made from, is still what its inputs led to."""
    for name, used in stage.record["inputs"].items():
        earlier = records.read(runs, *stage_and_run(name))
        now = earlier.record["fingerprint"] if earlier else "missing"
        if not earlier or now != used:
            raise StageError(
                f"{stage.folder} is stale: it was made from {name} with fingerprint {used}, which is now {now}. "
                f"Run notebooks/{stage.folder.parent.name}.ipynb for it again."
            )
        _check_fresh(runs, earlier)


class Data(NamedTuple):
    """Stage 00: its record, the data folder, and the image ids that all later stages use."""

    stage: Input
    folder: VOCFolder
    train: list[str]
    val: list[str]


def load_data(runs: Path | str) -> Data:
    """Stage 00 of a folder of runs."""
    stage = require(runs, Stage.DATA)
    train, val = ((stage.folder / f"{split}.txt").read_text().split() for split in ("train", "val"))
    return Data(stage, VOCFolder(stage.folder / stage.record["root"]), train, val)
