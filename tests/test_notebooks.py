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


BY_HAND = "avg_1-0.5_seed0"


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> tuple[Path, dict]:
    """A folder in which a user has run two notebooks of the profile, with parameters given in all ways of papermill:
    the folder, and the record of the training."""
    folder = tmp_path_factory.mktemp("emoji")
    runs, stages = folder / "runs", yaml.safe_load(TINY.read_text())["stages"]
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(stages[Stage.DATA]))
    of_data = ["-f", str(file)]
    of_training = [
        "-p",
        "aggregation",
        "avg",
        "-r",
        "scales",
        "[1,0.5]",
        "-y",
        yaml.safe_dump(stages[Stage.TRAIN_SAFN]),
    ]
    for stage, given in ((Stage.DATA, of_data), (Stage.TRAIN_SAFN, of_training)):
        done = papermill(stage, folder / "out.ipynb", "-p", "runs", str(runs), *given)
        assert done.returncode == 0, output(done)
    return runs, record(runs, Stage.TRAIN_SAFN, BY_HAND)


def test_papermill_takes_parameters_in_all_its_ways(by_hand):
    runs, trained = by_hand
    assert record(runs, Stage.DATA)["parameters"]["image_size"] == 64  # -f
    given = {name: trained["parameters"][name] for name in ("aggregation", "scales", "resize", "epochs")}
    assert given == {"aggregation": "avg", "scales": [1.0, 0.5], "resize": [56, 80], "epochs": 2}  # -p, -r, -y


@pytest.fixture(scope="module")
def emoji_runs(by_hand) -> Path:
    """All runs of the profile, and the book."""
    runs, _ = by_hand
    done = make_book(runs, TINY)
    assert done.returncode == 0, output(done)
    return runs


def test_a_stage_that_a_user_has_run_stays_and_is_shown(by_hand, emoji_runs):
    """Its notebook is executed again for the book, on the folder that is there: nothing is trained twice."""
    _, before = by_hand
    after = record(emoji_runs, Stage.TRAIN_SAFN, BY_HAND)
    assert (emoji_runs / "executed" / Stage.TRAIN_SAFN / f"{BY_HAND}.ipynb").exists()
    assert after["resumed"] == before["resumed"] + 1
    assert (after["metrics"], after["fingerprint"]) == (before["metrics"], before["fingerprint"])


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


def test_the_same_on_real_photographs(voc12, emoji_runs, tmp_path):
    """Every stage of a single experiment, as for photographs of one's own, and of the fully supervised run that the emoji
    scenes go without. Reports do not depend on the data."""
    profile, runs = tmp_path / "photographs.yaml", tmp_path / "runs"
    changed = {"experiments": ["attention_1-0.5"], "controls": [], "segmentations": {}, "upper_bound": True}
    profile.write_text(yaml.safe_dump(yaml.safe_load(TINY.read_text()) | changed))
    shutil.copytree(emoji_runs / "executed" / "reports", runs / "executed" / "reports")
    done = make_book(runs, profile, f"--data={voc12}")
    assert done.returncode == 0, output(done)
    assert {path.name for path in runs.glob("[01]*")} == set(Stage)
    assert record(runs, "00_data")["metrics"]["train_images"] == 16
    assert 0 <= record(runs, "07_evaluate", "masks_seed0")["metrics"]["val_miou_crf"] <= 1
