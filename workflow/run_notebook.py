"""Execute the notebook of one job of `.workflow/plan.json`, in the folder of the runs: run_notebook.py STAGE RUN THREADS.

The executed notebook appears under `executed/<stage>/<run>.ipynb` only when the stage is complete; one that fails is kept
as `<run>.failed.ipynb`. What its cells print goes to `logs/<stage>/<run>.log` while they run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from safn_book import execution, records
from safn_book.records import RECORD
from safn_book.run_names import Stage, stage_and_run
from safn_book.workflow import NOTEBOOKS, Job
from workflow import todo

# The number of a stage that people look at first, and how to show it.
MAIN_NUMBER = {
    Stage.SALIENCY: ("saliency_iou", "IoU"),
    Stage.BASELINE: ("map_miou", "mIoU of its maps"),
    Stage.TRAIN_SAFN: ("val_mAP", "validation mAP"),
    Stage.MAPS: ("map_miou", "mIoU"),
    Stage.PSEUDO_LABELS: ("pseudo_miou_background", "mIoU"),
    Stage.EVALUATE: ("val_miou_multi", "mIoU"),
}
MASKS = ("SegmentationClass", "SegmentationClassAug")
# Rough seconds of a stage of the emoji scenes, for the time that is left. Others have about the same shares.
WEIGHTS = {
    Stage.DATA: 20,
    Stage.SALIENCY: 60,
    Stage.BASELINE: 45,
    Stage.TRAIN_SAFN: 80,
    Stage.MAPS: 20,
    Stage.TRAIN_SEGMENTATION: 65,
    Stage.EVALUATE: 25,
}
OTHER_STAGE = 15


def main(stage: str, run: str, threads: str) -> int:
    """Returns the exit code."""
    runs = Path.cwd()
    plan = json.loads((runs / ".workflow" / "plan.json").read_text())
    planned = plan["jobs"][f"{stage}/{run}"]
    inputs = tuple(stage_and_run(name) for name in planned["inputs"])
    job = Job(Stage(stage), run, planned["parameters"], inputs)
    if planned["always"] or todo.make_plan(runs, [job]).reasons:
        # threads that spin slow shared cores down
        os.environ |= {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        if not execute(runs, job):
            return 1
        news = numbers(runs, job)
    else:
        news = "its inputs are the same again, it stays"
    print(f"{progress(runs, plan, job)}  {job.words}  {news}", flush=True)
    return 0


def execute(runs: Path, job: Job) -> bool:
    """Execute a notebook; returns whether its stage is complete."""
    final = todo.executed(runs, job.name)
    partial, failed = final.with_suffix(".partial.ipynb"), final.with_suffix(".failed.ipynb")
    log = runs / "logs" / job.stage / f"{job.run}.log"
    for path in (final, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    show_again(runs, job)
    began = time.time()
    given = {"runs": str(runs), **job.parameters}
    source = NOTEBOOKS / f"{job.stage}.ipynb"
    with log.open("a") as file, error_output_in(file):  # after an earlier attempt of a cluster's job
        problem = execution.execute(source, partial, given, log=file)
    found = records.read(runs, *job.name)
    if not problem and not (found and (found.folder / RECORD).stat().st_mtime > began - 2):
        problem = "the notebook ended before the record of its stage was written"
    if problem:
        if partial.exists():
            partial.replace(failed)
        print(f"{job.words} failed: {problem}\n  notebook: {failed}\n  log: {log}", file=sys.stderr, flush=True)
        return False
    partial.replace(final)
    failed.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def error_output_in(file: IO[str]) -> Iterator[None]:
    """Send what kernels write to the standard error of this process, such as advice on their transport, to ``file``."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def show_again(runs: Path, job: Job) -> None:
    """Where a finished stage lacks only its executed notebook, its folder is continued: see ``stages._take_back``."""
    if todo.make_plan(runs, [job]).reasons.get(job.name) == todo.NOT_SHOWN:
        records.read(runs, *job.name).folder.joinpath(RECORD).unlink()


def numbers(runs: Path, job: Job) -> str:
    """The time that a stage took, and its main number."""
    record = records.read(runs, *job.name).record
    parts = [f"{record['seconds']:.0f} s"]
    name, words = MAIN_NUMBER.get(job.stage, ("", ""))
    value = record["metrics"].get(name)
    if value is not None:
        parts.insert(0, f"{words} {100 * value:.1f} %{scored_images(runs, job)}")
    return ", ".join(parts)


def scored_images(runs: Path, job: Job) -> str:
    """Say how many images have the mask that a score needs."""
    data = records.read(runs, Stage.DATA)
    if job.stage is Stage.TRAIN_SAFN or not data:  # the first is scored by the image labels, which all have
        return ""
    split = "val" if job.stage is Stage.EVALUATE else "train"
    ids = (data.folder / f"{split}.txt").read_text().split()
    base = data.folder / data.record["root"] / "VOCdevkit" / "VOC2012"
    masks = {path.stem for name in MASKS for path in (base / name).glob("*.png")}
    masked = sum(i in masks for i in ids)
    return f" ({masked} images)" if masked == len(ids) else f" ({masked} of {len(ids)} images)"


def progress(runs: Path, plan: dict, job: Job) -> str:
    """``[3/12, 4 minutes left]``, when this job is done."""
    with (runs / ".workflow" / "done").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("/".join(job.name) + "\n")
        file.flush()
        file.seek(0)
        done = set(file.read().split())
    total = sum(WEIGHTS.get(job["stage"], OTHER_STAGE) for job in plan["jobs"].values())
    finished = sum(WEIGHTS.get(job["stage"], OTHER_STAGE) for name, job in plan["jobs"].items() if name in done)
    minutes = (time.time() - plan["began"]) / finished * (total - finished) / 60
    return f"[{len(done)}/{len(plan['jobs'])}, {minutes:.0f} min left]"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
