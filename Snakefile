# The jobs of a profile as rules around papermill. `make book` calls this; see safn_book/workflow.py for what runs after what.
import json
import sys
from pathlib import Path

from safn_book import workflow

HERE = workflow.ROOT

PROFILE = config.get("profile", "emoji")
RUNS = Path(config.get("runs", f"runs/{Path(PROFILE).stem}")).resolve()
profile = workflow.load(PROFILE, str(config.get("data") or ""))
JOBS = workflow.jobs(profile)
BOOK = RUNS / "book.built"
DATA = []  # what a change of makes everything anew; a photograph or a mask in the place of another is not noticed
if profile["data_folder"]:
    folder = Path(profile["data_folder"]).expanduser()
    lists = [folder / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{name}.txt" for name in ("train_aug", "train", "val")]
    DATA = [path for path in (folder / "image_labels.csv", *lists) if path.exists()]


def record(stage, run):
    return RUNS / stage / run / "record.json"


def executed(job):
    return RUNS / "executed" / job.stage / f"{job.run}.ipynb"


def by_hand(job):
    """Whether a stage lies there without the executed notebook that the book shows."""
    path = record(*job.name)
    return path.exists() and not executed(job).exists() and not json.loads(path.read_text()).get("restored")


if found := [str(record(*job.name).parent) for job in JOBS if by_hand(job)]:
    hint = "the book shows the notebooks that made its stages, and of these it has none: delete the folders, or give RUNS=another"
    raise plan.SettingsError("\n  - ".join([hint, *found]))


rule all:
    input:
        BOOK,


for job in JOBS:

    rule:
        name: f"{job.stage}_{job.run}"
        input:
            [record(*name) for name in job.after],
            DATA if job.stage == "00_data" else [],
            notebook=HERE / "notebooks" / f"{job.stage}.ipynb",
        output:
            record(*job.name),
        params:
            json.dumps({"runs": str(RUNS), **job.parameters}, sort_keys=True),  # the order of a profile is no change
            partial=RUNS / "executed" / job.stage / f"{job.run}.partial.ipynb",
            said=RUNS / "executed" / job.stage / f"{job.run}.partial.ipynb.txt",
        log:
            executed(job),
        threads: min(profile["threads"], workflow.cores)
        shell:
            # papermill's output is not atomic; a failed notebook is kept under its final name as well
            # PASSIVE: threads that wait spinning make a step several times slower where cores are shared
            "failed=0; OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE {sys.executable:q} -m papermill --no-progress-bar --cwd {HERE:q}/notebooks"
            " {input.notebook:q} {params.partial:q} -y {params[0]:q} > {params.said:q} 2>&1 || failed=1;"
            " mv {params.partial:q} {log:q}; if [ $failed = 1 ]; then cat {params.said:q} >&2; exit 1; fi;"
            " rm {params.said:q}"


rule book:
    input:
        [record(*job.name) for job in JOBS],
        [HERE / "_toc.yml", HERE / "_config.yml", *sorted(path for path in (HERE / "book").rglob("*") if path.is_file())],
        [path for folder in ("results", "profiles", "safn", "safn_book") for path in sorted((HERE / folder).rglob("*.*"))],
    output:
        touch(BOOK),
    run:
        from safn_book import build

        records = {job.name: json.loads(record(*job.name).read_text()) for job in JOBS}
        here = [job for job in JOBS if not records[job.name].get("restored")]  # the others ran elsewhere
        chapters = {}  # of each stage the first run, the main experiment's
        for job in here:
            chapters.setdefault(job.stage, executed(job))
        print(f"The book: {build.build(RUNS, chapters, RUNS / 'book', [job.name for job in here])}")
