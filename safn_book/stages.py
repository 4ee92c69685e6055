"""Stages at work: each writes into a partial folder that gets its final name only when complete, with a record."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safn.data import VOCFolder
from safn.files import write_json
from safn_book import records, sources, workflow
from safn_book.environment import commit, environment, peak_megabytes
from safn_book.records import RECORD, Input, fingerprint
from safn_book.run_names import DEFAULT, RunName, Stage, stage_and_run

BEGUN = ".begun"  # what a stage at work was begun with


class StageError(RuntimeError):
    """An input of a stage is missing, stale or damaged; the message says which stage to run."""


@dataclass
class OpenStage:
    """A stage at work: write into ``folder``, then ``finish``."""

    final: Path
    parameters: dict[str, Any]
    started: float = field(default_factory=time.time)
    finished: bool = False

    @property
    def folder(self) -> Path:
        """Where to write, and after ``finish`` where it lies, since cells of a notebook can be run again."""
        return self.final if self.finished else _partial(self.final)

    def finish(self, metrics: Mapping[str, Any] | None = None, **extra: Any) -> Input:
        """Write the record and give the folder its final name. ``seconds`` is the time of the last attempt, ``resumed`` counts
        the interrupted ones before it, and ``commit`` names those of all attempts."""
        begun = json.loads((self.folder / BEGUN).read_text())
        record = {
            "stage": self.final.parent.name,
            "run": self.final.name,
            "parameters": self.parameters,
            "seed": self.parameters.get("seed"),
            **{name: begun[name] for name in ("inputs", "content", "code")},
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
            if self.final in _LOCKS:
                os.close(_LOCKS.pop(self.final))
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
    asked = records.request(values, inputs) | {"code": sources.code_fingerprint(Stage(stage))}
    final = Path(values["runs"]).resolve() / stage / str(run)
    partial = _partial(final)
    _lock(final)
    _take_back(final, asked)
    before = _begun(partial, asked)
    if not before:
        _delete(partial, first=BEGUN)  # what is left of a folder half deleted must not be continued
    partial.mkdir(parents=True, exist_ok=True)
    commits = [name for name in dict.fromkeys([*before.get("commits", ()), commit()]) if name]
    write_json(partial / BEGUN, {**asked, "attempts": before.get("attempts", 0) + 1, "commits": commits})
    return OpenStage(final, asked["parameters"])


def _partial(final: Path) -> Path:
    """Where a stage is at work until it is complete."""
    return final.with_name(final.name + ".partial")


def _take_back(final: Path, asked: dict[str, Any]) -> None:
    """Continue a complete folder of the same code that has no record. `make book` takes the record away where the executed
    notebook is missing that the book shows: what is trained is then not trained again."""
    other = (final / RECORD).exists() or _partial(final).exists()
    if not other and _begun(final, asked).get("code") == asked["code"]:
        final.rename(_partial(final))


def _begun(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What a folder was begun with, empty where that is not what is asked for now."""
    path = folder / BEGUN
    begun = json.loads(path.read_text()) if path.exists() else {}
    same = {"attempts", "content"} <= begun.keys() and not records.changes(begun, asked)
    return begun if same else {}


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
    except OSError as error:
        os.close(file)
        if not isinstance(error, BlockingIOError):
            return  # a file system without locks
        words = f"{final} is at work in another notebook (process {path.read_text()}): wait for it, or end its kernel"
        raise StageError(words) from None
    os.truncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    _LOCKS[final] = file


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
    found = records.read(runs, stage, run)
    if not found:
        folder = runs / stage / str(run)
        print(f"{folder} is missing and is made first, with the defaults of its notebook", flush=True)
        try:
            workflow.make(runs, Stage(stage), run)
        except RuntimeError as error:
            raise StageError(f"{folder} is missing and could not be made: {error}") from None
        found = Input(folder, json.loads((folder / RECORD).read_text()))
    if found.record.get("restored") and not restored:
        raise StageError(
            f"{found.folder} was restored without networks, maps and masks, and they are needed now: delete the folder and run "
            f"notebooks/{stage}.ipynb for it"
        )
    _check_fresh(runs, found)
    return found


def _check_fresh(runs: Path, stage: Input) -> None:
    """Whether a stage, and all that it was made from, is still what its inputs led to."""
    for name, used in stage.record["inputs"].items():
        earlier = records.read(runs, *stage_and_run(name))
        if not earlier or earlier.record["fingerprint"] != used:
            now = earlier.record["fingerprint"] if earlier else "missing"
            raise StageError(
                f"{stage.folder} is stale: it was made from {name} with fingerprint {used}, which is now {now}. "
                f"Run notebooks/{stage.folder.parent.name}.ipynb for it again."
            )
        _check_fresh(runs, earlier)


def load_data(runs: Path | str) -> tuple[Input, VOCFolder, list[str], list[str]]:
    """Stage 00 of a folder of runs, its data folder, and the ids of the training and the validation images that all
    later stages use.

    Raises:
        StageError: as ``require``, or files of the data folder have changed since.
    """
    stage = require(runs, Stage.DATA)
    if found := records.changes(stage.record, records.request(stage.record["parameters"], [])):
        raise StageError(f"{stage.folder} is stale: {'; '.join(found)}. Run notebooks/{Stage.DATA}.ipynb again.")
    train, val = ((stage.folder / f"{split}.txt").read_text().split() for split in ("train", "val"))
    folder = VOCFolder(stage.folder / stage.record["root"])
    return stage, folder, train, val
