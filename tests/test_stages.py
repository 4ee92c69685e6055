from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from safn import files
from safn_book import sources, stages, workflow
from safn_book.run_names import RunName, Stage
from safn_book.stages import StageError


def opened(runs, stage="00_data", run="default", parameters=None, inputs=()):
    return stages.open_stage({"runs": str(runs), **(parameters or {})}, stage, run, inputs)


def made(runs, stage="00_data", run="default", text="x", inputs=(), **parameters):
    """A complete stage whose only file holds ``text``."""
    work = opened(runs, stage, run, parameters, inputs)
    (work.folder / "file.txt").write_text(text)
    return work.finish({"score": 0.5})


def test_the_final_name_appears_only_with_the_record(tmp_path):
    final = tmp_path / "00_data" / "default"
    work = opened(tmp_path, "00_data", "default", {"seed": 3})
    (work.folder / "file.txt").write_text("half")
    assert work.folder.is_dir() and work.folder != final and not final.exists()
    done = work.finish({"miou": np.float32(0.25), "each": np.array([1, np.nan])}, note="n")
    assert done.folder == work.folder == final and [p.name for p in final.parent.iterdir()] == ["default"]
    record = json.loads((final / "record.json").read_text())
    assert sorted(p.name for p in final.iterdir()) == [".begun", "file.txt", "record.json"]
    assert record["metrics"] == {"miou": 0.25, "each": [1, None]} and record["note"] == "n"
    assert (record["stage"], record["run"], record["seed"], record["resumed"]) == ("00_data", "default", 3, 0)
    assert (
        record["versions"]["torch"] == torch.__version__.split("+")[0]
        or record["versions"]["torch"] == torch.__version__
    )
    assert record["seconds"] >= 0 and record["peak_megabytes"] > 10


def test_cells_of_a_finished_stage_can_run_again(tmp_path):
    work = opened(tmp_path, "00_data", "default", {})
    (work.folder / "file.txt").write_text("x")
    before = work.finish({"miou": 0.1})
    assert (work.folder / "file.txt").read_text() == "x"
    again = work.finish({"miou": 0.2})
    assert again.folder == before.folder == work.folder and again.record["metrics"] == {"miou": 0.2}
    assert (work.folder / "file.txt").exists() and again.record["fingerprint"] == before.record["fingerprint"]


def test_a_crash_while_finishing_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    work = opened(tmp_path, "00_data", "default", {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        work.finish()
    assert not (tmp_path / "00_data" / "default").exists()


def test_a_killed_stage_is_continued_with_the_same_parameters_only(tmp_path):
    def killed_stage():
        work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2, "scales": (1, 0.5)})
        (work.folder / "last.ckpt").write_text("epoch 1")
        os.kill(os.getpid(), signal.SIGKILL)

    tiny.killed(killed_stage)
    final = tmp_path / "03_train_safn" / "a"
    assert not final.exists()

    again = opened(tmp_path, "03_train_safn", "a", {"epochs": 2, "scales": [1, 0.5]})
    assert (again.folder / "last.ckpt").read_text() == "epoch 1"
    assert again.finish().record["resumed"] == 1
    assert (final / "last.ckpt").read_text() == "epoch 1"


@pytest.mark.parametrize("moment", ["fingerprint", "rmtree", "rename"])
def test_a_stage_killed_while_it_finishes_keeps_its_work(tmp_path, moment):
    """In front of the fingerprint, of the deletion of the older folder, and of the final name."""
    made(tmp_path, "03_train_safn", "a", text="older", epochs=1)

    def killed_stage():
        work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2})
        (work.folder / "model.ckpt").write_text("trained")
        die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        setattr({"fingerprint": stages, "rmtree": shutil, "rename": Path}[moment], moment, die)
        work.finish()

    tiny.killed(killed_stage)
    again = opened(tmp_path, "03_train_safn", "a", {"epochs": 2})
    assert (again.folder / "model.ckpt").read_text() == "trained"
    done = again.finish()
    assert done.record["resumed"] == 1 and sorted(p.name for p in done.folder.iterdir()) == [
        ".begun",
        "model.ckpt",
        "record.json",
    ]


@pytest.mark.parametrize("changed", ["nothing", "parameters", "code", "record is there"])
def test_a_complete_folder_without_its_record_keeps_its_work(tmp_path, monkeypatch, changed):
    """`make book` takes the record away to execute a notebook again that the book has to show."""
    code = {"now": "one"}
    monkeypatch.setattr(sources, "code_fingerprint", lambda stage: code["now"])
    first = made(tmp_path, "03_train_safn", "a", text="trained", epochs=2)
    assert first.record["code"] == "one"
    if changed != "record is there":
        (first.folder / "record.json").unlink()
    if changed == "code":
        code["now"] = "another"
    again = opened(tmp_path, "03_train_safn", "a", {"epochs": 3 if changed == "parameters" else 2})
    assert (again.folder / "file.txt").exists() == (changed == "nothing")
    if changed == "nothing":
        done = again.finish()
        assert done.record["resumed"] == 1 and done.record["fingerprint"] == first.record["fingerprint"]


@pytest.mark.fault(24, "two notebooks that work on one run", "a second process opens the stage of the first")
def test_a_stage_that_is_at_work_is_not_opened_by_another_process(tmp_path, happened):
    """Two notebooks with one run name: the second stops, whatever becomes of the first."""
    begun, end = multiprocessing.Event(), multiprocessing.Event()

    def at_work():
        opened(tmp_path, "03_train_safn", "a")
        begun.set()
        end.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)

    child = tiny.forked(at_work)
    assert begun.wait(60)
    with pytest.raises(StageError, match=str(child)) as error:
        opened(tmp_path, "03_train_safn", "a")
    made(tmp_path, "03_train_safn", "b")  # another run of the same stage
    end.set()
    tiny.ended(child)
    assert made(tmp_path, "03_train_safn", "a").record["run"] == "a"
    happened(str(error.value).replace(str(child), "<number>"))


def test_one_notebook_may_open_its_stage_again(tmp_path):
    opened(tmp_path, "03_train_safn", "a", {"epochs": 2})
    opened(tmp_path, "03_train_safn", "a", {"epochs": 3}).finish()
    opened(tmp_path, "03_train_safn", "a", {"epochs": 3}).finish()


def test_a_copied_folder_of_runs_goes_on_with_what_was_begun(tmp_path):
    work = opened(tmp_path / "one", "03_train_safn", "a", {"epochs": 2})
    (work.folder / "last.ckpt").write_text("epoch 1")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert (opened(tmp_path / "two", "03_train_safn", "a", {"epochs": 2}).folder / "last.ckpt").exists()


def test_a_kill_while_an_older_folder_is_deleted_leaves_nothing_to_continue(tmp_path):
    work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2})
    (work.folder / "model.ckpt").write_text("old")

    def killed_stage():
        shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        opened(tmp_path, "03_train_safn", "a", {"epochs": 3})

    tiny.killed(killed_stage)
    assert not (opened(tmp_path, "03_train_safn", "a", {"epochs": 2}).folder / "model.ckpt").exists()


def test_a_kill_while_a_complete_folder_is_replaced_leaves_no_half_of_it(tmp_path):
    made(tmp_path, "03_train_safn", "a", text="older", epochs=1)

    def killed_stage():
        work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2})
        shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        work.finish()

    tiny.killed(killed_stage)
    assert not (tmp_path / "03_train_safn" / "a" / "record.json").exists()


def test_a_killed_stage_starts_anew_upon_other_photographs_of_the_same_names(tmp_path):
    for data, kept in (("d1", False), ("d1", True), ("d2", False)):
        source = opened(tmp_path, "00_data", "default", {}).finish(data=data)
        work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2}, [source])
        assert (work.folder / "last.ckpt").exists() == kept
        (work.folder / "last.ckpt").write_text(data)


def test_the_commits_of_all_attempts_are_recorded(tmp_path, monkeypatch):
    for commit in ("a1", "b2", "b2"):
        monkeypatch.setattr(stages, "commit", lambda commit=commit: commit)
        work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2})
    assert work.finish().record["commit"] == "a1 then b2"


@pytest.mark.parametrize("change", ["parameters", "input"])
def test_a_killed_stage_starts_anew_with_other_parameters_or_inputs(tmp_path, change):
    source = made(tmp_path)
    work = opened(tmp_path, "03_train_safn", "a", {"epochs": 2}, [source])
    (work.folder / "last.ckpt").write_text("old")
    source = made(tmp_path, text="y") if change == "input" else source
    epochs = 3 if change == "parameters" else 2
    work = opened(tmp_path, "03_train_safn", "a", {"epochs": epochs}, [source])
    assert not (work.folder / "last.ckpt").exists()
    assert work.finish().record["resumed"] == 0


def test_a_stage_that_runs_again_replaces_all_of_the_old_one(tmp_path):
    made(tmp_path, run="a", text="old")
    work = opened(tmp_path, "00_data", "a", {})
    (work.folder / "new.txt").write_text("new")
    assert (tmp_path / "00_data" / "a" / "file.txt").read_text() == "old"  # until the new one is complete
    folder = work.finish().folder
    assert not (folder / "file.txt").exists() and (folder / "new.txt").exists()


@pytest.mark.fault(13, "stale input of a stage", "the data made anew after the training")
def test_stale_input_is_refused_with_both_fingerprints(tmp_path, happened):
    source = made(tmp_path)
    made(tmp_path, "03_train_safn", "a", inputs=[source])
    assert stages.require(tmp_path, "03_train_safn", "a").record["inputs"] == {
        "00_data/default": source.record["fingerprint"]
    }
    newer = made(tmp_path, text="other photos")
    assert newer.record["fingerprint"] != source.record["fingerprint"]
    with pytest.raises(StageError) as error:
        stages.require(tmp_path, "03_train_safn", "a")
    for text in (source.record["fingerprint"], newer.record["fingerprint"], "00_data/default", "03_train_safn.ipynb"):
        assert text in str(error.value)
    happened(re.sub(r"fingerprint \w+, which is now \w+", "fingerprint <old>, which is now <new>", str(error.value)))


@pytest.mark.fault(24, "a data folder that changed after stage 00", "one of its photographs replaced")
def test_other_photographs_in_the_data_folder_are_noticed_by_every_later_notebook(tiny_voc, tmp_path, happened):
    data = opened(tmp_path / "runs", parameters={"data_folder": str(tiny_voc)})
    for split in ("train", "val"):
        (data.folder / f"{split}.txt").write_text("a0\n")
    data.finish(root=str(tiny_voc))
    _, _, train, _ = stages.load_data(tmp_path / "runs")
    assert train == ["a0"]
    photos = tiny_voc / "VOCdevkit" / "VOC2012" / "JPEGImages"
    (photos / "a0.jpg").write_bytes((photos / "a1.jpg").read_bytes())
    with pytest.raises(
        StageError, match=r"is stale: other files in data_folder\. Run notebooks/00_data\.ipynb"
    ) as error:
        stages.load_data(tmp_path / "runs")
    happened(error.value)


def test_an_input_made_again_to_the_same_bytes_is_not_stale(tmp_path):
    made(tmp_path, "03_train_safn", "a", inputs=[made(tmp_path)])
    made(tmp_path)
    assert stages.require(tmp_path, "03_train_safn", "a").name == "03_train_safn/a"


def test_a_stage_rests_on_all_stages_before_it(tmp_path):
    data = made(tmp_path)
    network = made(tmp_path, "03_train_safn", "a", "network", [data])
    maps = made(tmp_path, "04_localization_maps", "a", "maps", [network])
    made(tmp_path, "05_pseudo_ground_truth", "a", "masks", [data, maps])
    made(tmp_path, "03_train_safn", "a", "another network", [data])
    with pytest.raises(stages.StageError, match="04_localization_maps/a is stale: it was made from 03_train_safn/a"):
        stages.require(tmp_path, "05_pseudo_ground_truth", "a")


def test_a_deleted_input_of_an_input_is_refused(tmp_path):
    source = made(tmp_path)
    made(tmp_path, "03_train_safn", "a", inputs=[source])
    source.folder.rename(tmp_path / "elsewhere")
    with pytest.raises(StageError, match="which is now missing"):
        stages.require(tmp_path, "03_train_safn", "a")


def test_json_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": torch.tensor([1.5]), 2: (tmp_path, np.int64(3)), "inf": float("inf")})
    assert json.loads(path.read_text()) == {"a": [1.5], "2": [str(tmp_path), 3], "inf": None}
    with pytest.raises(TypeError):
        files.write_json(path, {"b": object()})
    assert "a" in json.loads(path.read_text())


def test_a_missing_input_is_made_first(tmp_path, monkeypatch, capsys):
    asked = []

    def make(runs, stage, run):
        asked.append((runs, stage, str(run)))
        made(runs, stage, str(run))

    monkeypatch.setattr(workflow, "make", make)
    run = RunName.parse("max_1_seed0")
    assert stages.require(tmp_path, Stage.MAPS, run).record["run"] == "max_1_seed0"
    stages.require(tmp_path, Stage.MAPS, run)
    assert asked == [(tmp_path.resolve(), Stage.MAPS, "max_1_seed0")]
    assert str(tmp_path) in capsys.readouterr().out


def test_a_missing_input_that_cannot_be_made_is_an_error_with_the_reason(tmp_path, monkeypatch):
    def make(runs, stage, run):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(workflow, "make", make)
    opened(tmp_path, "08_aggregation")  # a partial folder is no input
    with pytest.raises(StageError, match="08_aggregation/default is missing.*the disk is full"):
        stages.require(tmp_path, Stage.AGGREGATION)
