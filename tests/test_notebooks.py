"""Every notebook through papermill and the workflow, into a book: on emoji scenes and on real photographs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from safn_book import workflow
from safn_book.run_names import CHAIN, Stage
from workflow import todo

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "tiny.yaml"


def make_book(runs: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "workflow.make_book",
        f"--profile={profile}",
        f"--runs={runs}",
        "--jobs=2",
        *options,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)


def output(done: subprocess.CompletedProcess) -> str:
    return (done.stdout + done.stderr)[-6000:]


def record(runs: Path, stage: str, run: str = "default") -> dict:
    return json.loads((runs / stage / run / "record.json").read_text())


def papermill(notebook: str, out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", f"{notebook}.ipynb", str(out), *arguments]
    return subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def emoji_runs(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("emoji") / "runs"
    done = make_book(runs, TINY)
    assert done.returncode == 0, output(done)
    return runs


def test_every_notebook_runs_and_the_book_opens(emoji_runs):
    assert (emoji_runs / "book" / "_build" / "html" / "index.html").exists()
    executed = {path.parent.name for path in (emoji_runs / "executed").glob("*/*.ipynb")}
    assert executed == {*Stage, "reports"}


def test_each_stage_left_a_record_with_its_provenance(emoji_runs):
    evaluated = record(emoji_runs, "07_evaluate", "attention_1-0.5_seed0")
    assert 0 <= evaluated["metrics"]["val_miou_multi"] <= 1
    trained = record(emoji_runs, "06_train_segmentation", "attention_1-0.5_seed0")
    assert evaluated["inputs"]["06_train_segmentation/attention_1-0.5_seed0"] == trained["fingerprint"]
    assert trained["init"] == "imagenet" and trained["detector"] == "U2-Net-p" and trained["seconds"] > 0


def test_a_run_scored_once_more_has_its_recorded_numbers(emoji_runs):
    command = [sys.executable, "-m", "benchmarks.rescore", str(emoji_runs), "attention_1-0.5_seed0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, output(done)
    assert {"val_mAP", "map_miou", "pseudo_miou_wrong", "val_miou_crf"} <= set(done.stdout.split())
    assert "0 of" in done.stdout


def test_a_second_run_executes_nothing(emoji_runs):
    before = {path: path.stat().st_mtime_ns for path in emoji_runs.rglob("record.json")}
    done = make_book(emoji_runs, TINY)
    assert done.returncode == 0 and "Nothing to be done" in output(done), output(done)
    assert {path: path.stat().st_mtime_ns for path in emoji_runs.rglob("record.json")} == before


def planned(runs: Path, profile: Path) -> set[tuple[str, str]]:
    jobs = workflow.jobs(workflow.load(profile))
    return set(todo.make_plan(runs, jobs).reasons)


def test_one_more_scale_set_runs_only_what_depends_on_it(emoji_runs, tmp_path):
    profile = yaml.safe_load(TINY.read_text())
    profile["experiments"][2] = "attention_1-0.75"
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(profile))
    chapters = {(stage, "default") for stage in (Stage.SCALES, Stage.FIGURES, Stage.COMPARISON)}
    assert planned(emoji_runs, changed) == {(stage, "attention_1-0.75_seed0") for stage in CHAIN} | chapters


def test_a_copied_folder_of_runs_is_up_to_date(emoji_runs, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(emoji_runs, copied, ignore=shutil.ignore_patterns(".snakemake"), copy_function=shutil.copyfile)
    assert planned(copied, TINY) == set()


def test_a_stage_that_a_user_has_run_stays_and_is_shown(emoji_runs):
    """Its notebook is executed again for the book, on the folder that is there: nothing is trained twice."""
    run = "avg_1-0.5_seed0"
    shown = emoji_runs / "executed" / Stage.TRAIN_SAFN / f"{run}.ipynb"
    shown.unlink()
    before = record(emoji_runs, Stage.TRAIN_SAFN, run)
    done = make_book(emoji_runs, TINY)
    assert done.returncode == 0 and shown.exists(), output(done)
    after = record(emoji_runs, Stage.TRAIN_SAFN, run)
    assert after["resumed"] == before["resumed"] + 1
    assert (after["metrics"], after["fingerprint"]) == (before["metrics"], before["fingerprint"])


def test_a_notebook_makes_what_it_lacks(emoji_runs, tmp_path):
    """Run All after the installation: the pseudo labels ask for maps, a network, saliency and data."""
    runs = tmp_path / "mine"
    shutil.copytree(emoji_runs, runs)
    for stage in (Stage.MAPS, Stage.PSEUDO_LABELS):
        shutil.rmtree(runs / stage)
    kept = record(runs, Stage.TRAIN_SAFN, "avg_1-0.5_seed0")
    arguments = ["-p", "runs", str(runs), "-p", "run", "avg_1-0.5_seed0"]
    done = papermill("05_pseudo_ground_truth", tmp_path / "out.ipynb", *arguments)
    assert done.returncode == 0, output(done)
    assert record(runs, Stage.PSEUDO_LABELS, "avg_1-0.5_seed0")["inputs"].keys() >= {f"{Stage.MAPS}/avg_1-0.5_seed0"}
    assert record(runs, Stage.TRAIN_SAFN, "avg_1-0.5_seed0") == kept
    assert (runs / "executed" / Stage.MAPS / "avg_1-0.5_seed0.ipynb").exists()
    assert not (runs / Stage.MAPS / "max_1-0.5_seed0").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-p", "aggregation", "foo"], ["'foo'", "'attention'"]),
        (["-p", "scales", "[0]"], ["scales: 0"]),
        (["-p", "scales", "oops"], ["scales: 'oops'"]),
        (["-p", "scalse", "[1]", "-p", "epochs", "0"], ["scalse", "'scales'", "epochs: 0"]),
    ],
)
def test_wrong_parameters_stop_before_any_work(tmp_path, arguments, expected):
    done = papermill("03_train_safn", tmp_path / "out.ipynb", "-p", "runs", str(tmp_path / "runs"), *arguments)
    assert done.returncode == 1
    assert all(text in done.stderr for text in expected), done.stderr[-2000:]
    assert not (tmp_path / "runs").exists()


def test_the_notebook_takes_strings_and_lists_and_keeps_runs_apart(emoji_runs, tmp_path):
    quick = [
        "-p",
        "epochs",
        "1",
        "-p",
        "crop",
        "64",
        "-p",
        "resize",
        "[56, 80]",
        "-p",
        "size",
        "64",
        "-p",
        "freeze",
        "5",
    ]
    for scales, name in (
        (["-p", "scales", "[1,0.75]", "-p", "aggregation", "max"], "max_1-0.75_seed0"),
        (["-y", "scales: [1, 0.6]"], "attention_1-0.6_seed0"),
    ):
        done = papermill("03_train_safn", tmp_path / "out.ipynb", "-p", "runs", str(emoji_runs), *quick, *scales)
        assert done.returncode == 0, output(done)
        assert 0 <= record(emoji_runs, "03_train_safn", name)["metrics"]["val_mAP"] <= 1


def test_the_same_on_real_photographs(voc12, tmp_path):
    runs = tmp_path / "runs"
    done = make_book(runs, TINY, f"--data={voc12}")
    assert done.returncode == 0, output(done)
    assert record(runs, "00_data")["metrics"]["train_images"] == 16
    assert 0 <= record(runs, "07_evaluate", "masks_seed0")["metrics"]["val_miou_crf"] <= 1
