"""`make book`: find out what has to be done, have snakemake do it, build the book. `--help` lists the options."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from safn_book import records, workflow
from safn_book.run_names import DEFAULT, RunName, Stage
from safn_book.workflow import ROOT, Job
from workflow import todo
from workflow.single_run import alone
from workflow.todo import Plan

DRY = {"-n", "--dry-run", "--dryrun"}


def main() -> int:
    """Returns the exit code."""
    given = _options()
    os.environ["PYTHONPATH"] = str(ROOT)  # the code of this folder, wherever another one is installed
    profile_name = given.profile.removesuffix(".yaml")
    runs = Path(given.runs or f"runs/{Path(profile_name).name}").resolve()
    try:
        if given.stage:
            profile = todo.profile_for(None if given.run == DEFAULT else RunName.parse(given.run))
        else:
            profile = workflow.load(given.profile, given.data)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    runs.mkdir(parents=True, exist_ok=True)
    lock = alone(runs)
    jobs = workflow.jobs(profile)
    if not os.access(Path.home(), os.W_OK):  # Jupyter, Matplotlib and snakemake write there
        os.environ["HOME"] = str(runs / ".home")
        (runs / ".home").mkdir(exist_ok=True)
    if given.stage:
        plan = todo.plan_of_missing(runs, jobs, (Stage(given.stage), given.run))
    else:
        plan = todo.make_plan(runs, jobs, remake=given.remake == "changed")
    flags = shlex.split(given.flags)
    say(runs, plan, jobs)
    if DRY & set(flags):
        return 0
    if plan.reasons:
        if not given.cluster and (problem := wrong_precision(jobs)):
            print(problem, file=sys.stderr)
            return 1
        write(runs, plan, jobs, profile, bool(given.stage), on_card=bool(graphics_cards() and not given.cluster))
        main_run = str(workflow.runs_of(profile)[0])
        first = [f".workflow/made/{stage}/{run}" for stage, run in plan.reasons if run == main_run]
        where = on_cluster(given.cluster) if given.cluster else on_this_machine(given.jobs)
        if code := snakemake(runs, [*where, *flags], first):
            return code
    done = not todo.make_plan(runs, jobs).reasons
    code = build(runs, jobs) if done and not given.stage else 0
    lock.close()
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="emoji", help="a name in profiles/, or a YAML file")
    parser.add_argument("--data", default="", help="the folder with the photographs, where the profile needs one")
    parser.add_argument("--runs", default="", help="the folder of its runs, runs/<profile> unless given")
    parser.add_argument("--jobs", default="all", help="cores to use")
    parser.add_argument("--remake", choices=["", "changed"], default="", help="changed: what other code has made too")
    parser.add_argument("--stage", choices=list(Stage), help="make this stage alone, and what it lacks")
    parser.add_argument("--run", default=DEFAULT, help="the run of that stage")
    parser.add_argument("--cluster", default="", help="a folder with snakemake's settings for a cluster: cluster/slurm")
    parser.add_argument("--flags", default="", help="more for snakemake")
    return parser.parse_args()


def say(runs: Path, plan: Plan, jobs: list[Job]) -> None:
    """What will be done, what is made again and why, and what other code has made."""
    for (stage, run), why in plan.reasons.items():
        if records.read(runs, stage, run) and not why.startswith("after "):
            print(f"{stage}/{run} is made again: {why}")
    if plan.by_other_code:
        counts = Counter(stage for stage, _ in plan.by_other_code)
        named = ", ".join(f"{stage} ({count})" for stage, count in counts.items())
        print(f"Made by other code than that of today, and kept: {named}. `make book REMAKE=changed` makes them again.")
    if plan.reasons:
        print(f"{len(plan.reasons)} of {len(jobs)} stages have to be made. Their logs: {runs / 'logs'}", flush=True)


def write(
    runs: Path, plan: Plan, jobs: list[Job], profile: workflow.Profile, only_missing: bool, on_card: bool
) -> None:
    """Write the plan that the Snakefile and its jobs read. ``on_card``: jobs share the graphics card of this machine."""
    table = {}
    for job in (job for job in jobs if job.name in plan.reasons):
        runs.joinpath("logs", job.stage, f"{job.run}.log").unlink(missing_ok=True)
        needs = profile.resources.get(job.stage, workflow.Resources()).model_dump(exclude_none=True)
        if on_card and job.stage in workflow.ON_GPU:
            needs = {"gpu": 1, **needs}
        table["/".join(job.name)] = {
            "stage": job.stage,
            "run": job.run,
            "parameters": job.parameters,
            "inputs": ["/".join(name) for name in job.after],
            "after": ["/".join(name) for name in job.after if name in plan.reasons],
            "threads": profile.threads,
            "resources": needs,
            "always": only_missing or plan.reasons[job.name] == todo.OTHER_CODE,
        }
    folder = runs / ".workflow"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    from safn_book import reports  # which imports PyTorch

    # these need no stage: they run while a core has nothing else to do
    early = {} if only_missing else reports.commands(runs)
    plan_of_all = {"began": time.time(), "jobs": table, "reports": {n: shlex.join(c) for n, c in early.items()}}
    (folder / "plan.json").write_text(json.dumps(plan_of_all, indent=1))


def graphics_cards() -> int:
    """How many NVIDIA cards this machine has."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def wrong_precision(jobs: list[Job]) -> str:
    """Say which stages ask for a precision that this machine has not, before the first one runs."""
    half = {job.stage for job in jobs if getattr(workflow.parameters(job), "precision", "") == "16-mixed"}
    if not half:
        return ""
    from safn.inference import best_device

    return (
        ""
        if best_device() != "cpu"
        else f"precision 16-mixed of {', '.join(sorted(half))} needs a GPU: set 32-true or bf16-mixed in a profile of your own"
    )


def on_this_machine(cores: str) -> list[str]:
    """Flags for jobs on this machine. One job at a time on a graphics card, for all take the first one."""
    if cores == "all":  # those of the machine, for snakemake
        from safn.arguments import processors

        cores = str(processors(0))
    return ["--cores", cores, "--quiet", "all", *(["--resources", "gpu=1"] if graphics_cards() else [])]


def on_cluster(folder: str) -> list[str]:
    """Flags for jobs on a cluster: cores, memory and queues are those of its nodes."""
    return ["--profile", str(Path(folder).resolve())]


def snakemake(runs: Path, flags: list[str], first: list[str]) -> int:
    """Execute the plan, ``first`` the main experiment, whose chapters can be read while the others run."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(runs)]
    command += ["--nolock", "--rerun-incomplete", "--forceall"]
    if first:
        command += ["--prioritize", *first]
    # jobs of a cluster are known by the folder where they are submitted: see single_run.in_queue
    with subprocess.Popen([*command, *flags], cwd=runs) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # which snakemake has, too: it ends its jobs
            return process.wait()


def build(runs: Path, jobs: list[Job]) -> int:
    """Build the book where anything that it shows has changed since."""
    content = todo.book_content(runs, jobs)
    built, page = runs / "book.built", runs / "book" / "_build" / "html" / "index.html"
    if page.exists() and built.exists() and built.read_text() == content:
        print("Nothing to be done")
    else:
        from safn_book.build import BookError
        from safn_book.build import build as build_pages

        print("Building the book", flush=True)
        built.unlink(missing_ok=True)
        shown = [job.name for job in jobs if todo.executed(runs, job.name).exists()]
        chapters: dict[str, Path] = {}  # of each stage the first run, the main experiment's
        for stage, run in shown:
            chapters.setdefault(stage, todo.executed(runs, (stage, run)))
        try:
            build_pages(runs, chapters, runs / "book", shown)
        except BookError as error:
            print(error, file=sys.stderr)
            return 1
        built.write_text(content)
    print(f"The book: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
