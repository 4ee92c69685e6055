"""Every notebook through papermill and the workflow, into a book: on emoji scenes and on real photographs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "tiny.yaml"


def workflow(runs: Path, profile: Path, data: str = "", *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock", "--rerun-incomplete", *flags]
    # its own folder for the workflow's notes, so that a test and `make book` do not wait for each other
    command += ["--snakefile", ROOT / "Snakefile", "--directory", runs.parent]
    command += ["--config", f"profile={profile}", f"runs={runs}", f"data={data}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


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
    done = workflow(runs, TINY)
    assert done.returncode == 0, output(done)
    return runs


def test_every_notebook_runs_and_the_book_opens(emoji_runs):
    assert (emoji_runs / "book" / "_build" / "html" / "index.html").exists()
    executed = {path.parent.name for path in (emoji_runs / "executed").glob("*/*.ipynb")}
    assert executed == {path.stem for path in (ROOT / "notebooks").glob("[01]*.ipynb")}


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
    done = workflow(emoji_runs, TINY, "", "--dry-run")
    assert done.returncode == 0 and "Nothing to be done" in output(done), output(done)


def test_a_stage_run_by_hand_is_told_before_anything_runs(emoji_runs):
    shown = emoji_runs / "executed" / "03_train_safn" / "attention_1-0.5_seed0.ipynb"
    aside = shown.rename(shown.with_suffix(".aside"))
    try:
        done = workflow(emoji_runs, TINY, "", "--dry-run")
    finally:
        aside.rename(shown)
    assert done.returncode != 0 and str(emoji_runs / "03_train_safn" / "attention_1-0.5_seed0") in output(done)
    assert "delete the folders, or give RUNS=another" in output(done)


def test_one_more_scale_set_runs_only_what_depends_on_it(emoji_runs, tmp_path):
    profile = yaml.safe_load(TINY.read_text())
    profile["experiments"][2] = "attention_1-0.75"
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(profile))
    planned = workflow(emoji_runs, changed, "", "--dry-run", "--quiet", "host", "reason")
    jobs = {line.split()[0] for line in (planned.stdout + planned.stderr).splitlines() if line[:2].isdigit()}
    chain = {f"{s}_attention_1-0.75_seed0" for s in ("03_train_safn", "04_localization_maps", "05_pseudo_ground_truth")}
    chain |= {f"{s}_attention_1-0.75_seed0" for s in ("06_train_segmentation", "07_evaluate")}
    assert jobs == chain | {"09_scales_default", "10_figures_default", "11_comparison_default"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-p", "aggregation", "foo"], ["'foo'", "'attention', 'max', 'avg'"]),
        (["-p", "scales", "[0]"], ["[0]", "(0, 2]"]),
        (["-p", "scales", "oops"], ["'oops'", "list"]),
        (["-p", "scalse", "[1]", "-p", "epochs", "0"], ["scalse", "did you mean 'scales'", "epochs: 0"]),
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
    done = workflow(runs, TINY, str(voc12))
    assert done.returncode == 0, output(done)
    assert record(runs, "00_data")["metrics"]["train_images"] == 16
    assert 0 <= record(runs, "07_evaluate", "masks_seed0")["metrics"]["val_miou_crf"] <= 1
