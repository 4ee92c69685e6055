from __future__ import annotations

import json
import subprocess
import sys

import pytest

from safn_book import workflow
from safn_book.run_names import CHAPTERS, COMPARING, Stage
from safn_book.settings import SettingsError
from safn_book.workflow import Job


@pytest.mark.parametrize(
    "name", ["emoji", "voc-subset", "photos", "evidence", "evidence-448", "evidence-emoji", "paper"]
)
def test_the_profiles_are_valid_and_each_job_comes_after_its_inputs(name):
    done: set[tuple[str, str]] = set()
    for job in workflow.jobs(workflow.load(name, data_folder="somewhere")):
        assert set(job.after) <= done, job
        assert job.name not in done
        done.add(job.name)


def test_emoji_holds_the_rows_of_tables_4_and_6():
    evaluated = {job.run for job in workflow.jobs(workflow.load("emoji")) if job.stage == "07_evaluate"}
    table4 = {"attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"}
    table6 = {"attention_1_seed0", "attention_1-0.75_seed0", "attention_1-0.75-0.5_seed0"}
    assert table4 | table6 <= evaluated
    compared = {
        job.stage: job.parameters["experiments"]
        for job in workflow.jobs(workflow.load("emoji"))
        if job.stage in COMPARING
    }
    assert set(compared["08_aggregation"]) == table4 and set(compared["09_scales"]) == table6


def test_a_control_shares_the_maps_of_its_run():
    jobs = {job.name: job for job in workflow.jobs(workflow.load("emoji").model_copy(update={"controls": ["maps"]}))}
    control = jobs["05_pseudo_ground_truth", "attention_1-0.75-0.5_seed0+maps"]
    assert control.parameters == {"run": "attention_1-0.75-0.5_seed0", "combine": "maps"}
    assert ("04_localization_maps", "attention_1-0.75-0.5_seed0") in control.after
    assert ("03_train_safn", "attention_1-0.75-0.5_seed0+maps") not in jobs


def test_paper_holds_everything_that_tables_1_to_6_need():
    jobs = {job.name: job for job in workflow.jobs(workflow.load("paper", "somewhere"))}
    scales = "1-0.75-0.5"
    experiments = ["attention_" + scales, "max_" + scales, "avg_" + scales, "attention_1", "attention_1-0.75"]
    runs = {f"{e}_seed{s}" for e in experiments for s in (0, 1, 2)}  # Tables 4 and 6
    second = {f"attention_{scales}_seed{s}@resnet101-aspp" for s in (0, 1, 2)}  # Tables 2 and 3
    controls = {f"attention_{scales}_seed0+{control}" for control in ("maps", "saliency")}
    every = runs | second | controls | {"masks_seed0"}
    by_stage = {stage: {run for s, run in jobs if s == stage} for stage in Stage}
    assert by_stage == {
        **dict.fromkeys(("00_data", "01_saliency", "02_baseline"), {"default"}),
        **dict.fromkeys(("03_train_safn", "04_localization_maps"), runs),
        "05_pseudo_ground_truth": runs | controls,
        **dict.fromkeys(("06_train_segmentation", "07_evaluate"), every),
        **dict.fromkeys(("08_aggregation", "09_scales", "10_figures", "11_comparison"), {"default"}),
    }
    compared = {stage: jobs[stage, "default"].parameters for stage in CHAPTERS}
    assert set(compared["08_aggregation"]["experiments"]) == {r for r in runs if scales in r}
    assert set(compared["09_scales"]["experiments"]) == {r for r in runs if r.startswith("attention")}
    assert set(compared["11_comparison"]["experiments"]) == every
    assert compared["11_comparison"]["experiments"][0] == f"attention_{scales}_seed0"
    assert compared["10_figures"]["second"] == f"attention_{scales}_seed0@resnet101-aspp"
    assert ("07_evaluate", compared["10_figures"]["second"]) in jobs["10_figures", "default"].after


def test_the_second_network_learns_from_the_same_pseudo_ground_truth_with_the_same_seed():
    jobs = {job.name: job for job in workflow.jobs(workflow.load("paper", "somewhere"))}
    for seed in (0, 1, 2):
        run = f"attention_1-0.75-0.5_seed{seed}"
        first, second = (jobs["06_train_segmentation", r] for r in (run, f"{run}@resnet101-aspp"))
        assert first.after == second.after and ("05_pseudo_ground_truth", run) in second.after
        p, q = vars(workflow.parameters(first)), vars(workflow.parameters(second))
        changed = {k: (p[k], q[k]) for k in p if p[k] != q[k]}
        assert changed.pop("run") == (run, f"{run}@resnet101-aspp") and p["seed"] == seed
        assert changed == {"backbone": ("vgg16", "resnet101"), "head": ("largefov", "aspp")}
    assert ("03_train_safn", f"{run}@resnet101-aspp") not in jobs


@pytest.mark.parametrize(
    "name", ["emoji", "voc-subset", "photos", "evidence", "evidence-448", "evidence-emoji", "paper"]
)
def test_every_job_has_parameters_that_its_notebook_knows(name):
    for job in workflow.jobs(workflow.load(name, "somewhere")):
        given = workflow.parameters(job)
        assert vars(given).keys() >= job.parameters.keys() and given.runs == "../runs/emoji"


def test_a_parameter_that_the_notebook_has_not_is_an_error():
    with pytest.raises(SettingsError, match="gamma: unknown parameter"):
        workflow.parameters(Job(Stage.EVALUATE, "max_1_seed0", {"gamma": 0.2}))


def test_every_fault_of_a_profile_is_listed(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "data_folder: ''\nseeds: [0]\nexperiments: [median_1]\ncontrols: []\nupper_bound: false\nthread: 1\n"
        "stages: {03_train_safn: {epochs: 0}, 99_more: {}}\n"
        "segmentations: {other: {backbone: vgg16, head: aspp, crop: 3}}\n"
    )
    with pytest.raises(SettingsError) as error:
        workflow.load(path)
    for text in ("thread: ", "threads: ", "median_1", "99_more"):
        assert text in str(error.value)
    path.write_text(
        path.read_text().replace("thread:", "threads:").replace("median_1", "max_1").replace(", 99_more: {}", "")
    )
    with pytest.raises(SettingsError, match="segmentations: other"):
        workflow.load(path)
    path.write_text(path.read_text().replace("other:", "vgg16-aspp:"))
    with pytest.raises(SettingsError) as error:
        workflow.load(path)
    assert "epochs: 0" in str(error.value) and "crop: 3" in str(error.value)


WHOLE = {
    "data_folder": "",
    "seeds": [0],
    "experiments": ["max_1"],
    "controls": [],
    "upper_bound": False,
    "threads": 1,
    "stages": {},
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"controls": ["harmonic"]}, ["controls"]),
        ({"experiments": ["attention_1.0-0.5"]}, ["experiments"]),
        ({"experiments": ["max_1..5"]}, ["experiments"]),
        ({"experiments": []}, ["experiments"]),
        ({"seeds": None}, ["seeds"]),
        ({"stages": None}, ["stages"]),
        ({"data_folder": None}, ["data_folder"]),
        ({"seeds": [0, -1]}, ["seeds"]),
        ({"seeds": ["a"]}, ["seeds"]),
        ({"seeds": [0, 0]}, ["seeds"]),
        ({"threads": 0, "experiments": ["max_1", "max_1"]}, ["experiments", "threads"]),
        ({"threads": "two", "upper_bound": "false"}, ["upper_bound", "threads"]),
        ({"segmentation_seeds": 1}, ["segmentation_seeds"]),
        ({"segmentations": {"vgg16-aspp": 3}}, ["segmentations: vgg16-aspp"]),
        ({"stages": {"04_localization_maps": {"gamma": 0.3}}}, ["stages: 04_localization_maps"]),
        ({"resources": {"03_train_safn": {"gpus": 1}}}, ["resources: 03_train_safn: gpus"]),
    ],
    ids=str,
)
def test_what_would_fail_hours_later_is_refused_at_once(tmp_path, change, named):
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(WHOLE))
    assert workflow.load(path).experiments == ["max_1"]
    path.write_text(json.dumps(WHOLE | change))
    with pytest.raises(SettingsError) as error:
        workflow.load(path)
    lines = [line.removeprefix("  - ") for line in str(error.value).splitlines() if line.startswith("  - ")]
    assert all(any(line.startswith(f"{name}:") for line in lines) for name in named)


def test_what_is_no_yaml_and_chapters_without_runs(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("seeds: [0")
    with pytest.raises(SettingsError, match=r"p\.yaml is not YAML"):
        workflow.load(path)
    path.write_text(json.dumps(WHOLE))
    stages = [job.stage for job in workflow.jobs(workflow.load(path))]
    assert "09_scales" not in stages and "08_aggregation" in stages  # nothing weighs scales


def test_an_empty_profile_is_refused_with_what_it_needs(tmp_path):
    (tmp_path / "p.yaml").touch()
    with pytest.raises(SettingsError, match="data_folder"):
        workflow.load(tmp_path / "p.yaml")


def test_segmentations_of_some_seeds_only():
    profile = workflow.load("evidence", "somewhere")
    jobs = {job.name: job for job in workflow.jobs(profile)}
    main, other = "attention_1-0.75-0.5", "max_1-0.75-0.5"
    evaluated = {run for stage, run in jobs if stage == "07_evaluate"}
    assert {f"{main}_seed{seed}" for seed in (0, 1, 2)} | {f"{other}_seed0", "masks_seed0"} <= evaluated
    assert not {f"{other}_seed1", "attention_1_seed2"} & evaluated
    assert ("05_pseudo_ground_truth", f"{other}_seed1") in jobs
    chapter = jobs["08_aggregation", "default"]
    assert ("05_pseudo_ground_truth", f"{other}_seed1") in chapter.after and (
        "07_evaluate",
        f"{other}_seed0",
    ) in chapter.after
    assert chapter.parameters["missing_segmentation"] == "leave"
    assert set(jobs["11_comparison", "default"].parameters["experiments"]) == evaluated


@pytest.mark.parametrize("seeds", ["[1]", "[0, 7]"])
def test_seeds_of_segmentations_are_seeds_of_the_profile(tmp_path, seeds):
    path = tmp_path / "p.yaml"
    path.write_text(
        (workflow.ROOT / "profiles" / "evidence.yaml")
        .read_text()
        .replace("segmentation_seeds: [0]", f"segmentation_seeds: {seeds}")
    )
    with pytest.raises(SettingsError, match="segmentation_seeds: "):
        workflow.load(path)


def test_a_missing_profile_names_those_there_are():
    with pytest.raises(SettingsError, match="emoji"):
        workflow.load("nonesuch")


def test_the_plan_imports_neither_torch_nor_lightning():
    code = "import sys; from safn_book import workflow; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=workflow.ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "safn_book" in loaded and not loaded & {"torch", "lightning", "numpy", "pandas", "papermill", "snakemake"}


def test_a_job_of_a_profile_makes_nothing_that_the_profile_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv(workflow.RUN, str(tmp_path))
    with pytest.raises(RuntimeError):
        workflow.make(tmp_path, Stage.MAPS, "max_1_seed0")
