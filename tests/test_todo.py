"""What has to be done in a folder of runs: compared by content, whoever made it and wherever it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from safn_book import workflow
from safn_book.records import listing
from safn_book.run_names import RunName, Stage
from safn_book.settings import SettingsError
from safn_book.sources import code_fingerprint
from safn_book.workflow import Job
from workflow import todo


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder in which each job of ``SMALL`` is finished and executed."""
    for job in SMALL:
        finish(tmp_path / "runs", job)
    return tmp_path / "runs"


TRAINED, MAPS = (Stage.TRAIN_SAFN, "max_1_seed0"), (Stage.MAPS, "max_1_seed0")
DATA = (Stage.DATA, "default")


def small(**epochs) -> list[Job]:
    return [
        Job(*DATA),
        Job(*TRAINED, {"aggregation": "max", **epochs}, (DATA,)),
        Job(*MAPS, {"run": "max_1_seed0"}, (DATA, TRAINED)),
    ]


SMALL = small()


def finish(runs: Path, job: Job, **more) -> None:
    before = {f"{stage}/{run}": f"{stage[:2]}-0" for stage, run in job.after}
    record = {"stage": job.stage, "run": job.run, "fingerprint": f"{job.stage[:2]}-0", "inputs": before}
    record |= {
        "parameters": workflow.parameters(job).model_dump(mode="json"),
        "code": code_fingerprint(job.stage),
    }
    folder, notebook = runs / job.stage / job.run, todo.executed(runs, job.name)
    for path in (folder, notebook.parent):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record | more))
    notebook.write_text("{}")


def planned(runs: Path, jobs: list[Job], remake: bool = False) -> list[Stage]:
    return [stage for stage, _ in todo.make_plan(runs, jobs, remake).reasons]


def test_what_is_asked_for_already_is_not_done_again(runs, tmp_path):
    assert planned(runs, SMALL) == []
    copied = tmp_path / "copied"
    shutil.copytree(runs, copied)  # other times, another place
    assert planned(copied, SMALL) == []


def test_what_is_missing_is_made_with_what_rests_on_it(runs):
    shutil.rmtree(runs / Stage.TRAIN_SAFN)
    assert planned(runs, SMALL) == [Stage.TRAIN_SAFN, Stage.MAPS]


def test_another_setting_or_another_input_is_noticed(runs):
    assert planned(runs, small(epochs=9)) == [Stage.TRAIN_SAFN, Stage.MAPS]
    assert "epochs" in todo.make_plan(runs, small(epochs=9)).reasons[TRAINED]
    finish(runs, SMALL[1], fingerprint="another")
    assert planned(runs, SMALL) == [Stage.MAPS]


@pytest.mark.fault(
    24, "other photographs under the same names, or another DATA, in a folder of runs", "the data of stage 00 replaced"
)
def test_another_data_set_of_the_same_names_is_noticed(runs, happened):
    for job in SMALL[1:]:
        finish(runs, job, content={"00_data/default": "d0"})
    finish(runs, SMALL[0], data="d0")
    assert planned(runs, SMALL) == []
    finish(runs, SMALL[0], data="d1")
    assert planned(runs, SMALL) == [Stage.TRAIN_SAFN, Stage.MAPS]
    happened("; ".join(todo.make_plan(runs, SMALL).reasons.values()))


def test_another_data_folder_is_noticed(runs, tiny_voc):
    jobs = [Job(*DATA, {"data_folder": str(tiny_voc)}), *SMALL[1:]]
    assert planned(runs, jobs) == [Stage.DATA, Stage.TRAIN_SAFN, Stage.MAPS]
    finish(runs, jobs[0], content={"data_folder": listing(tiny_voc)})
    assert planned(runs, jobs) == []
    (tiny_voc / "image_labels.csv").write_text((tiny_voc / "image_labels.csv").read_text() + " ")
    assert planned(runs, jobs)[0] == Stage.DATA


def test_what_other_code_has_made_stays_unless_it_is_asked_for(runs):
    finish(runs, SMALL[1], code="older")
    plan = todo.make_plan(runs, SMALL)
    assert plan.reasons == {} and plan.by_other_code == (TRAINED,)
    assert planned(runs, SMALL, remake=True) == [Stage.TRAIN_SAFN, Stage.MAPS]
    finish(runs, SMALL[1], code="older", restored=True)
    assert todo.make_plan(runs, SMALL).by_other_code == ()


def test_the_book_shows_each_notebook_so_a_stage_made_without_one_is_executed(runs):
    todo.executed(runs, MAPS).unlink()
    assert todo.make_plan(runs, SMALL).reasons == {MAPS: todo.NOT_SHOWN}
    finish(runs, SMALL[2], restored=True)
    todo.executed(runs, MAPS).unlink()
    assert planned(runs, SMALL) == []


@pytest.mark.parametrize(
    "text", ["attention_1-0.5_seed3", "max_1_seed0+maps", "avg_1-0.5_seed1@efficientnet_lite0-aspp", "masks_seed2"]
)
def test_a_notebook_asks_for_a_run_by_its_name(tmp_path, text):
    run = RunName.parse(text)
    jobs = workflow.jobs(todo.profile_for(run))
    plan = todo.plan_of_missing(tmp_path, jobs, (Stage.EVALUATE, text))
    made = {Stage.DATA, Stage.TRAIN_SEGMENTATION, Stage.EVALUATE}
    if not run.supervised:
        made |= {Stage.SALIENCY, Stage.TRAIN_SAFN, Stage.MAPS, Stage.PSEUDO_LABELS}
    assert {stage for stage, _ in plan.reasons} == made
    trained = next(job for job in jobs if job.name == (Stage.TRAIN_SEGMENTATION, text))
    given = workflow.parameters(trained)
    run.check_segmentation(given.backbone, given.head, given.label_source, given.seed)


def test_a_notebook_takes_what_is_there_as_it_is(runs):
    jobs = workflow.jobs(todo.profile_for(RunName.parse("max_1_seed0")))
    finish(runs, SMALL[1], parameters={"epochs": 99})
    plan = todo.plan_of_missing(runs, jobs, (Stage.PSEUDO_LABELS, "max_1_seed0"))
    assert [stage for stage, _ in plan.reasons] == [Stage.SALIENCY, Stage.PSEUDO_LABELS]


def test_a_run_that_no_profile_makes_is_refused():
    with pytest.raises(SettingsError):
        todo.profile_for(RunName.parse("max_1_seed0+maps@vgg16-aspp"))
