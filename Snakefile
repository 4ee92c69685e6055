# One rule a stage, and one for the reports. What has to run is in .workflow/plan.json of the folder of the runs, which
# workflow/make_book.py writes and where snakemake works (--directory): the jobs of a cluster read the same plan.
import json
import sys
from pathlib import Path

from safn_book.run_names import Stage

PLAN = json.loads(Path(".workflow/plan.json").read_text())
JOBS, REPORTS = PLAN["jobs"], PLAN["reports"]
SCRIPT = Path(workflow.basedir) / "workflow" / "run_notebook.py"


def made(name):
    """The mark of a job that has run. The record of its stage is no output: snakemake would delete it after a kill."""
    return f".workflow/made/{name}"


def inputs(stage):
    return lambda wildcards: [made(name) for name in JOBS[f"{stage}/{wildcards.run}"]["after"]]


def threads(stage):
    return lambda wildcards: JOBS[f"{stage}/{wildcards.run}"]["threads"]


def needs(stage, resource, default):
    return lambda wildcards: JOBS[f"{stage}/{wildcards.run}"]["resources"].get(resource, default)


rule all:
    default_target: True
    localrule: True
    input:
        [made(name) for name in JOBS],
        [made(f"report/{name}") for name in REPORTS],


rule report:
    localrule: True
    output:
        touch(made("report/{name}")),
    log:
        "logs/reports/{name}.log",
    priority: -1  # while a core has nothing else to do
    params:
        command=lambda wildcards: REPORTS[wildcards.name],
    shell:
        # One that fails stops no stage. It is tried again where the book is built, which says what is wrong.
        "{params.command} >{log:q} 2>&1 || true"


for STAGE in Stage:

    rule:
        name: STAGE.value
        input:
            inputs(STAGE),
        output:
            touch(made(f"{STAGE}/{{run}}")),
        log:
            f"logs/{STAGE}/{{run}}.log",
        # the classifiers first: so no long chain of stages remains for one core at the end
        priority: len(Stage) - list(Stage).index(STAGE)
        threads: threads(STAGE)
        resources:
            gpu=needs(STAGE, "gpu", 0),
            mem_mb=needs(STAGE, "mem_mb", 8000),
            runtime=needs(STAGE, "runtime", 720),
        shell:
            "{sys.executable:q} {SCRIPT:q} {rule} {wildcards.run:q} {threads}"
