"""What has to be done in a folder of runs: what is asked for beside what there is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safn_book import records
from safn_book.run_names import RunName
from safn_book.settings import SettingsError
from safn_book.sources import code_fingerprint
from safn_book.workflow import ROOT, Job, Name, Profile, Table, jobs, parameters

# Why a job runs, where nothing differs from what is asked for.
MISSING, NOT_SHOWN, OTHER_CODE = "missing", "without its executed notebook", "made by other code"


@dataclass(frozen=True)
class State:
    """What there is of a job.

    Attributes:
        made: its record is there.
        changes: how what is asked for now differs from what it was made with.
        by_other_code: its notebook, or a module that it computes with, has changed since.
        shown: the executed notebook that the book shows is there.
    """

    made: bool = False
    changes: tuple[str, ...] = ()
    by_other_code: bool = False
    shown: bool = False


def find_state(runs: Path, job: Job) -> State:
    """What there is of a job in a folder of runs, and how it differs from what is asked for."""
    found = records.read(runs, *job.name)
    if not found:
        return State()
    inputs = [records.read(runs, *name) for name in job.after]
    missing = [f"{stage}/{run} is missing" for (stage, run), i in zip(job.after, inputs) if not i]
    asked = records.request(vars(parameters(job)), [i for i in inputs if i and i.name in found.record["inputs"]])
    changes = [*missing, *records.changes(found.record, asked)]
    restored = bool(found.record.get("restored"))
    code = found.record.get("code")
    by_other_code = not restored and code not in (None, code_fingerprint(job.stage))
    shown = restored or executed(runs, job.name).exists()
    return State(True, tuple(changes), by_other_code, shown)


def executed(runs: Path, name: Name) -> Path:
    """The executed notebook of a job, which the book shows."""
    stage, run = name
    return runs / "executed" / stage / f"{run}.ipynb"


@dataclass(frozen=True)
class Plan:
    """What has to be done in a folder of runs.

    Attributes:
        reasons: each job that runs, in order, with why, in words.
        by_other_code: finished jobs that stay although other code made them.
    """

    reasons: dict[Name, str]
    by_other_code: tuple[Name, ...] = ()


def make_plan(runs: Path, wanted: Iterable[Job], remake: bool = False) -> Plan:
    """Compare what there is with what is asked for, in the order of the jobs.

    Args:
        wanted: all jobs, each after those it needs.
        remake: run again what other code has made.
    """
    reasons: dict[Name, str] = {}
    stays = []
    for job in wanted:
        found = find_state(runs, job)
        before = [name for name in job.after if name in reasons]
        if not found.made:
            reasons[job.name] = MISSING
        elif found.changes:
            reasons[job.name] = "; ".join(found.changes)
        elif remake and found.by_other_code:
            reasons[job.name] = OTHER_CODE
        elif before:
            reasons[job.name] = f"after {'/'.join(before[0])}"
        elif not found.shown and not found.by_other_code:
            reasons[job.name] = NOT_SHOWN
        elif found.by_other_code:
            stays.append(job.name)
    return Plan(reasons, tuple(stays))


def plan_of_missing(runs: Path, wanted: list[Job], target: Name) -> Plan:
    """What has to be done for one stage where everything that exists is taken as it is."""
    by_name = {job.name: job for job in wanted}
    reasons: dict[Name, str] = {}
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name not in reasons and not records.read(runs, *name):
            reasons[name] = MISSING
            waiting += by_name[name].after
    return Plan({job.name: reasons[job.name] for job in wanted if job.name in reasons})


def profile_for(run: RunName | None) -> Profile:
    """The profile of one run with the defaults of the notebooks: what a notebook that lacks an input asks for.

    Raises:
        SettingsError: a run that no profile makes, such as a control with a second network.
    """
    experiment = "attention_1-0.75-0.5"
    given: Table = {"data_folder": "", "seeds": [0], "controls": [], "upper_bound": False, "threads": 1, "stages": {}}
    if run:
        given |= {"seeds": [run.seed], "upper_bound": run.supervised, "controls": [run.control] if run.control else []}
        if not run.supervised:
            experiment = run.base.configuration
        if run.network:
            backbone, _, head = run.network.partition("-")
            given["segmentations"] = {run.network: {"backbone": backbone, "head": head}}
    profile = Profile(experiments=[experiment], **given)
    if run and str(run) not in {job.run for job in jobs(profile)}:
        raise SettingsError(f"{run} is not a run that a profile makes: run its notebooks yourself")
    return profile


def book_content(runs: Path, wanted: Iterable[Job]) -> str:
    """SHA-256 over all that the book shows: executed notebooks, records, prose, recorded results and code."""
    paths = [ROOT / "_toc.yml", ROOT / "_config.yml"]
    for folder in ("book", "results", "profiles", "cluster", "safn", "safn_book", "notebooks"):
        files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
        paths += sorted(path for path in files if "__pycache__" not in path.parts)
    for job in wanted:
        paths += [runs / job.stage / job.run / records.RECORD, executed(runs, job.name)]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes() if path.exists() else b"").digest())
    return digest.hexdigest()
