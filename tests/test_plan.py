from __future__ import annotations

import pytest

from safn import plan
from safn.settings import SettingsError


@pytest.mark.parametrize("name", ["emoji", "voc-subset", "paper"])
def test_the_profiles_are_valid_and_each_job_comes_after_its_inputs(name):
    done: set[tuple[str, str]] = set()
    for job in plan.jobs(plan.load(name, data_folder="somewhere")):
        assert set(job.after) <= done, job
        assert job.name not in done
        done.add(job.name)


def test_emoji_holds_the_rows_of_tables_4_and_6():
    evaluated = {job.run for job in plan.jobs(plan.load("emoji")) if job.stage == "07_evaluate"}
    table4 = {"attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"}
    table6 = {"attention_1_seed0", "attention_1-0.75_seed0", "attention_1-0.75-0.5_seed0"}
    assert table4 | table6 <= evaluated
    compared = {
        job.stage: job.parameters["experiments"]
        for job in plan.jobs(plan.load("emoji"))
        if job.stage[:2] in ("08", "09")
    }
    assert set(compared["08_aggregation"]) == table4 and set(compared["09_scales"]) == table6


def test_a_control_shares_the_maps_of_its_run():
    jobs = {job.name: job for job in plan.jobs(plan.load("emoji"))}
    control = jobs["05_pseudo_ground_truth", "attention_1-0.75-0.5_seed0+maps"]
    assert control.parameters == {"run": "attention_1-0.75-0.5_seed0", "combine": "maps"}
    assert ("04_localization_maps", "attention_1-0.75-0.5_seed0") in control.after
    assert ("03_train_safn", "attention_1-0.75-0.5_seed0+maps") not in jobs


def test_every_fault_of_a_profile_is_listed(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "data_folder: ''\nseeds: [0]\nexperiments: [median_1]\ncontrols: []\nupper_bound: false\nthread: 1\n"
        "stages: {03_train_safn: {epochs: 0}, 99_more: {}}\n"
    )
    with pytest.raises(SettingsError) as error:
        plan.load(path)
    for text in ("thread: unknown", "threads: missing", "median_1", "epochs: 0", "99_more"):
        assert text in str(error.value)


def test_a_missing_profile_names_those_there_are():
    with pytest.raises(SettingsError, match="emoji"):
        plan.load("nonesuch")
