"""``make book``: what it passes on, one run at a time, a killed run continues, a finished one executes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from safn import inference
from safn_book import workflow
from safn_book.run_names import Stage
from safn_book.workflow import RUN
from workflow import make_book, run_notebook, single_run, todo

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != RUN}


VALUES = ["2012", "with blanks", "it's", 'a "quoted" one', "{braces}", "#1", "a;b", "-x", "*"]
VALUES += ["a$b", "$(HOME)", "5 %", "é"]


@pytest.mark.fault(
    28, "numbers, braces, quotes, blanks, $ and % in DATA, RUNS and PROFILE", "thirteen such values through make"
)
@pytest.mark.parametrize("value", VALUES)
def test_variables_reach_the_program_as_they_are(tmp_path, value, happened):
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    given = [f"{name}={value}" for name in ("PROFILE", "DATA", "RUNS", "CLUSTER", "FLAGS")]
    command = ["make", "-s", "-f", ROOT / "Makefile", "book", f"RUN={program}", "INSTALLED=", *given]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    arguments = json.loads(done.stdout)
    assert {f"--{name}={value}" for name in ("profile", "data", "runs", "cluster", "flags")} <= set(arguments)
    happened("no message: they reach the program as they are")


def test_clean_deletes_the_runs_of_the_profile_alone(tmp_path):
    for name in ("emoji", "my runs"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    command = ["make", "-s", "-f", ROOT / "Makefile", "clean"]
    subprocess.run([*command, "PROFILE=mine/my runs.yaml"], cwd=tmp_path, env=ENVIRONMENT, check=True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["emoji"]


SLEEPER = """
import subprocess, sys
from pathlib import Path
from workflow.single_run import alone

lock = alone(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def started(tmp_path):
    """Starts a run in a folder that begins a job and waits for it; returns its process and that of the job."""
    processes = []

    def start(runs: Path, **more: str) -> tuple[subprocess.Popen, psutil.Process]:
        output = {"stdout": subprocess.PIPE, "text": True}
        environment = ENVIRONMENT | more
        process = subprocess.Popen([sys.executable, "-c", SLEEPER, runs], cwd=ROOT, env=environment, **output)
        processes.append(process)
        job = psutil.Process(int(process.stdout.readline()))
        processes.append(job)
        return process, job

    yield start
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        if isinstance(process, subprocess.Popen):
            process.wait()
            process.stdout.close()


def test_one_run_at_a_time_and_what_a_killed_one_left_is_ended(started, tmp_path, monkeypatch):
    monkeypatch.setattr(single_run, "PATIENCE", 0.2)
    monkeypatch.setenv(RUN, "")  # so that what the test sets is taken back
    first, job = started(tmp_path)
    with pytest.raises(SystemExit, match="at work"):
        single_run.alone(tmp_path)
    assert job.is_running()
    first.kill()
    first.wait()
    assert job.is_running(), "a job outlives its run, as a notebook does"
    single_run.alone(tmp_path).close()
    with contextlib.suppress(psutil.NoSuchProcess):
        job.wait(10)
    assert not job.is_running()


def test_two_folders_are_at_work_at_once(started, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    _, first = started(tmp_path / "one")
    started(tmp_path / "two")
    assert first.is_running()


def test_jobs_of_a_cluster_that_a_killed_run_left_are_named_and_not_ended(started, tmp_path, monkeypatch):
    """A queue of five jobs of this user, two of them in this folder, on the machine where this runs."""
    runs, log = tmp_path / "runs with blanks", tmp_path / "asked"
    runs.mkdir()
    first, job = started(runs, SLURM_JOB_ID="11")
    first.kill()
    first.wait()
    queue = f"11 {runs}\n12 {runs}\n13 {tmp_path}\n14 {runs}/more\n15 (null)\n"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho \"$@\" >> '{log}'\nprintf '{queue}'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(RUN, "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(SystemExit) as refused:
        single_run.alone(runs)
    assert str(refused.value).endswith("scancel 11 12") and job.is_running()
    monkeypatch.setenv("SLURM_JOB_ID", "12")  # make book as a job of its own
    assert single_run.in_queue(runs) == ["11"] and "--me" in log.read_text().split()
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    assert single_run.in_queue(runs) == []


@pytest.fixture
def toy(tmp_path) -> Path:
    """This repository with two notebooks that take no time, and no chapters."""
    for name in ("Makefile", "Snakefile", "safn", "safn_book", "workflow", "notebooks"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for stage, wait in (("00_data", ""), ("01_saliency", "while not Path(runs, 'go').exists(): time.sleep(0.1)\n")):
        path = tmp_path / "notebooks" / f"{stage}.ipynb"
        notebook = json.loads(path.read_text())
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        parameters = next(cell for cell in code if "parameters" in cell["metadata"].get("tags", ()))
        inputs = "" if stage == "00_data" else ", inputs=[stages.require(runs, '00_data')]"
        body = (
            "import time\nfrom pathlib import Path\nfrom safn_book import settings, stages\np = settings.read(globals())\n"
            f"stage = stages.open_stage(p, '{stage}'{inputs})\n"
            f"with Path(runs, 'log').open('a') as file:\n    file.write('{stage} ')\n{wait}stage.finish()\n"
        )
        notebook["cells"] = [parameters, {**code[-1], "source": body, "metadata": {}}]
        path.write_text(json.dumps(notebook))
    return tmp_path


def make(toy: Path, *more: str, stage: str = "01_saliency", runs: str = "runs", **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "workflow.make_book", f"--runs={runs}", f"--stage={stage}", *more]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(command, cwd=toy, env={**ENVIRONMENT, "PYTHONPATH": str(toy), **environment}, **output)


@pytest.mark.fault(
    25, "HOME that cannot be written", "one below /dev/null, for a folder of runs with blanks, quotes, braces and $"
)
def test_a_stage_runs_without_a_home_in_a_folder_of_any_name(toy, happened):
    runs = "a $b 'c' {d} %e #f é"
    process = make(toy, stage="00_data", runs=runs, HOME="/dev/null/home", MPLCONFIGDIR="/dev/null/matplotlib")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0 and (toy / runs / "00_data/default/record.json").exists(), said
    happened("no message: the folder of the runs takes its place")


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.time() + seconds
    while not condition() and time.time() < deadline:
        time.sleep(0.1)
    assert condition()


def test_a_killed_run_continues_with_the_same_command(toy):
    log, partial = toy / "runs" / "log", toy / "runs" / "01_saliency" / "default.partial"
    killed = make(toy)
    wait_for(partial.exists)
    killed.kill()  # snakemake, the job and its kernel stay
    killed.wait()
    killed.stdout.close()
    (toy / "runs" / "go").touch()
    shutil.rmtree(toy / "runs" / ".snakemake")
    again = make(toy)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert log.read_text().split()[0] == "00_data" and log.read_text().split().count("00_data") == 1
    record = json.loads((toy / "runs" / "01_saliency" / "default" / "record.json").read_text())
    assert record["run"] == "default" and not partial.exists()
    before = log.read_text()
    last = make(toy)
    assert last.wait(60) == 0 and log.read_text() == before
    last.communicate()


SLOW = """
import time
from pathlib import Path
try:
    Path("begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # scancel of many jobs
    Path("ended").touch()
"""


@pytest.fixture
def interrupts(request):
    """Processes that a test starts can be interrupted: what runs in the background ignores the signal, and its children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))


def test_an_interrupt_leaves_snakemake_the_time_to_end_its_jobs(tmp_path, interrupts):
    (tmp_path / "snakemake.py").write_text(SLOW)
    code = f"from pathlib import Path; from workflow.make_book import snakemake; snakemake(Path({str(tmp_path)!r}), [], [])"
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, start_new_session=True) as process:
        wait_for((tmp_path / "begun").exists)
        os.killpg(process.pid, signal.SIGINT)
    assert (tmp_path / "ended").exists()


NODE = ROOT / "cluster" / "slurm" / "one_node.sh"
SLURM = all(map(shutil.which, ("munged", "slurmctld", "slurmd"))) and find_spec("snakemake_executor_plugin_slurm")
BUSY = Path("/etc/slurm/slurm.conf")  # a cluster that is at work here


@pytest.mark.skipif(not SLURM or os.geteuid() or BUSY.exists(), reason="no Slurm to start here")
def test_on_a_slurm_an_interrupt_ends_the_jobs_and_those_of_a_killed_run_go_on(toy, tmp_path_factory, interrupts):
    node, log = tmp_path_factory.mktemp("slurm"), toy / "runs" / "log"
    flags = [f"--cluster={NODE.parent}", "--flags=--slurm-init-seconds-before-status-checks 2"]
    subprocess.run(["bash", NODE, "start", node], check=True)
    partial = toy / "runs" / "01_saliency" / "default.partial"
    try:
        interrupted = make(toy, *flags)
        wait_for(partial.exists)
        os.killpg(interrupted.pid, signal.SIGINT)  # Ctrl-C
        interrupted.communicate(timeout=60)
        wait_for(lambda: not single_run.in_queue(toy / "runs"), 30)
        shutil.rmtree(partial)
        killed = make(toy, *flags)
        wait_for(partial.exists)
        killed.kill()  # snakemake and the job stay
        killed.wait()
        killed.stdout.close()
        refused = make(toy, *flags)
        said, _ = refused.communicate(timeout=60)
        (job,) = single_run.in_queue(toy / "runs")
        assert refused.returncode == 1 and f"scancel {job}" in said
        (toy / "runs" / "go").touch()
        wait_for(lambda: not single_run.in_queue(toy / "runs"))
        again = make(toy, *flags)
        said, _ = again.communicate(timeout=240)
        assert again.returncode == 0 and log.read_text() == "00_data 01_saliency 01_saliency ", said
    finally:
        subprocess.run(["bash", NODE, "stop", node], check=True)


def test_the_main_experiment_runs_first_and_reports_which_may_fail_when_no_stage_can(tmp_path, monkeypatch):
    copied, runs = tmp_path / "repository", tmp_path / "runs"
    (copied / "workflow").mkdir(parents=True)
    shutil.copy(ROOT / "Snakefile", copied)
    notebook = copied / "workflow" / "run_notebook.py"
    notebook.write_text("import sys\nwith open('order', 'a') as file:\n    file.write(sys.argv[2] + ' ')\n")
    trained = [f"03_train_safn/{run}_seed0" for run in ("max_1", "avg_1", "attention_1-0.5", "attention_1")]
    jobs = {name: {"after": [], "threads": 1, "resources": {}} for name in trained}
    (runs / ".workflow").mkdir(parents=True)
    reports = {"14_speed": "sh -c 'echo report >>order; exit 1'"}
    (runs / ".workflow" / "plan.json").write_text(json.dumps({"jobs": jobs, "reports": reports}))
    monkeypatch.setattr(make_book, "ROOT", copied)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert make_book.snakemake(runs, ["--cores", "1"], [f".workflow/made/{trained[2]}"]) == 0
    order = (runs / "order").read_text().split()
    assert order[0] == "attention_1-0.5_seed0" and order[-1] == "report" and len(order) == 5


def test_a_job_asks_for_what_its_profile_says_and_a_site_may_say_otherwise(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(make_book, "graphics_cards", lambda: 0)
    profile = workflow.load("paper", "photographs").model_copy(update={"seeds": [0], "experiments": ["max_1"]})
    jobs = workflow.jobs(profile)
    make_book.write(tmp_path, todo.make_plan(tmp_path, jobs), jobs, profile, only_missing=False, on_card=False)
    flags = ["--dry-run", *make_book.on_this_machine("2"), "--quiet", "progress"]
    flags += ["--set-resources", "03_train_safn:runtime=60", "--default-resources", "slurm_partition=long"]
    assert make_book.snakemake(tmp_path, flags, []) == 0
    blocks = re.findall(r"^rule (\d\w+):\n((?:    .+\n)+)", capfd.readouterr().out, re.MULTILINE)
    asked = {}
    for stage, block in blocks:
        text = re.search(r"resources: (.+)", block).group(1)
        asked[stage] = dict(part.split("=", 1) for part in text.split(", "))
        assert "threads: 2" in block, "of 8 as many as there are cores"
    on_gpu = {stage for stage, needs in asked.items() if needs["gpu"] == "1"}
    assert on_gpu == {*workflow.ON_GPU, Stage.AGGREGATION} and set(asked) >= {Stage.DATA, Stage.PSEUDO_LABELS}
    assert asked[Stage.TRAIN_SAFN]["runtime"] == "60" and asked[Stage.MAPS]["runtime"] != "60"
    assert all(needs["slurm_partition"] == "long" for needs in asked.values())


def test_a_machine_with_a_card_runs_one_job_at_a_time_on_it(tmp_path, monkeypatch):
    jobs = workflow.jobs(workflow.load("emoji"))
    for cards, gpu in ((2, 1), (0, 0)):
        monkeypatch.setattr(make_book, "graphics_cards", lambda cards=cards: cards)
        assert ("gpu=1" in make_book.on_this_machine("4")) == bool(cards)
        make_book.write(tmp_path, todo.make_plan(tmp_path, jobs), jobs, workflow.load("emoji"), False, bool(cards))
        planned = json.loads((tmp_path / ".workflow" / "plan.json").read_text())["jobs"].values()
        asked = {job["stage"]: job["resources"].get("gpu", 0) for job in planned}
        assert asked == {stage: gpu * (stage in workflow.ON_GPU) for stage in asked}


def test_a_precision_that_the_machine_has_not_is_refused_before_the_first_stage(monkeypatch):
    jobs = workflow.jobs(workflow.load("paper", "photographs"))
    monkeypatch.setattr(inference, "best_device", lambda: "cpu")
    said = make_book.wrong_precision(jobs)
    assert said.startswith("precision 16-mixed of 02_baseline, 03_train_safn, 06_train_segmentation needs a GPU")
    assert make_book.wrong_precision(workflow.jobs(workflow.load("emoji"))) == ""
    monkeypatch.setattr(inference, "best_device", lambda: "cuda")
    assert make_book.wrong_precision(jobs) == ""


def test_a_score_names_its_number_of_images(tiny_voc, tmp_path):
    for stage, record in (("00_data", {"root": str(tiny_voc)}), ("07_evaluate", {})):
        (tmp_path / stage / "default").mkdir(parents=True)
        record |= {"seconds": 3, "metrics": {"val_miou_multi": 0.5}}
        (tmp_path / stage / "default" / "record.json").write_text(json.dumps(record))
    (tmp_path / "00_data" / "default" / "val.txt").write_text("a5\na6\na7\n")
    job = workflow.Job(Stage.EVALUATE, "default")
    assert run_notebook.numbers(tmp_path, job) == "mIoU 50.0 % (3 images), 3 s"
    (tiny_voc / "VOCdevkit/VOC2012/SegmentationClass/a6.png").unlink()
    assert run_notebook.numbers(tmp_path, job) == "mIoU 50.0 % (2 of 3 images), 3 s"
