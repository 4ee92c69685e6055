from __future__ import annotations

import json

import pytest

from safn_book import workflow
from safn_book.settings import SettingsError


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
        if job.stage[:2] in ("08", "09")
    }
    assert set(compared["08_aggregation"]) == table4 and set(compared["09_scales"]) == table6


def test_a_control_shares_the_maps_of_its_run():
    jobs = {job.name: job for job in workflow.jobs({**workflow.load("emoji"), "controls": ["maps"]})}
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
    by_stage = {stage: {run for s, run in jobs if s == stage} for stage in workflow.STAGES}
    assert by_stage == {
        **dict.fromkeys(("00_data", "01_saliency", "02_baseline"), {"default"}),
        **dict.fromkeys(("03_train_safn", "04_localization_maps"), runs),
        "05_pseudo_ground_truth": runs | controls,
        **dict.fromkeys(("06_train_segmentation", "07_evaluate"), every),
        **dict.fromkeys(("08_aggregation", "09_scales", "10_figures", "11_comparison"), {"default"}),
    }
    compared = {stage: jobs[stage, "default"].parameters for stage in workflow.STAGES[-4:]}
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


def test_the_name_of_a_run_leads_to_what_it_shares():
    assert (
        workflow.base_run("a_1_seed0")
        == workflow.base_run("a_1_seed0+maps")
        == workflow.base_run("a_1_seed0@x-y")
        == "a_1_seed0"
    )
    places = lambda run: [workflow.place(stage, run) for stage in workflow.CHAIN]  # noqa: E731
    assert places("a_1_seed0@x-y") == ["a_1_seed0"] * 3 + ["a_1_seed0@x-y"] * 2
    assert places("a_1_seed0+maps") == ["a_1_seed0"] * 2 + ["a_1_seed0+maps"] * 3
    assert workflow.pseudo_run("a_1_seed0+maps", "vgg16", "largefov") == "a_1_seed0+maps"
    assert workflow.pseudo_run("a_1_seed0@resnet101-aspp", "resnet101", "aspp") == "a_1_seed0"
    with pytest.raises(SettingsError, match="names the network 'resnet101-aspp', the parameters are of vgg16-largefov"):
        workflow.pseudo_run("a_1_seed0@resnet101-aspp", "vgg16", "largefov")
    assert workflow.pseudo_run("masks_seed1", "vgg16", "largefov", "masks", 1) == "masks_seed1"
    for run, source, seed in (("a_1_seed0", "masks", 0), ("masks_seed0", "pseudo", 0), ("a_1_seed1", "pseudo", 0)):
        with pytest.raises(SettingsError, match="is to learn from|names the seed 1, the parameter is 0"):
            workflow.pseudo_run(run, "vgg16", "largefov", source, seed)  # it would stand under the name of another


@pytest.mark.parametrize(
    "name", ["emoji", "voc-subset", "photos", "evidence", "evidence-448", "evidence-emoji", "paper"]
)
def test_every_job_has_parameters_that_its_notebook_knows(name):
    for job in workflow.jobs(workflow.load(name, "somewhere")):
        given = workflow.parameters(job)
        assert vars(given).keys() >= job.parameters.keys() and given.runs == "../runs/emoji"


def test_a_parameter_that_the_notebook_has_not_is_an_error():
    with pytest.raises(SettingsError, match="gamma: unknown parameter"):
        workflow.parameters(workflow.Job("07_evaluate", "a", {"gamma": 0.2}))


def test_every_fault_of_a_profile_is_listed(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "data_folder: ''\nseeds: [0]\nexperiments: [median_1]\ncontrols: []\nupper_bound: false\nthread: 1\n"
        "stages: {03_train_safn: {epochs: 0}, 99_more: {}}\n"
        "segmentations: {other: {backbone: vgg16, head: aspp, crop: 3}}\n"
    )
    with pytest.raises(SettingsError) as error:
        workflow.load(path)
    for text in ("thread: unknown", "threads: missing", "median_1", "epochs: 0", "99_more", "crop: 3", "'other'"):
        assert text in str(error.value)


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
    ("change", "said"),
    [
        ({"controls": ["harmonic"]}, "controls: 'harmonic' is unknown; valid: maps, saliency"),
        ({"experiments": ["attention_1.0-0.5"]}, "experiments: 'attention_1.0-0.5' is not"),
        ({"experiments": ["max_1..5"]}, "experiments: 'max_1..5' is not"),
        ({"experiments": []}, "experiments: there must be one"),
        ({"seeds": None}, "seeds: None is no list"),
        ({"stages": None}, "stages: None is no table of settings"),
        ({"data_folder": None}, "data_folder: say where the photographs are, make book PROFILE=p DATA="),
        ({"seeds": [0, -1, "a"]}, "seeds: -1 is no number from 0 on.*seeds: 'a' is no number"),
        ({"seeds": [0, 0]}, r"seeds: \[0, 0\] names one twice"),
        ({"threads": 0, "experiments": ["max_1", "max_1"]}, "experiments: .* names one twice.*threads: at least 1"),
        (
            {"threads": "two", "upper_bound": "false"},
            "upper_bound: 'false' is neither true nor false.*threads: 'two' is no",
        ),
        ({"segmentation_seeds": 1}, "segmentation_seeds: 1 is no list"),
        ({"segmentations": {"vgg16-aspp": 3}}, "segmentations: vgg16-aspp: 3 is no table of settings"),
        (
            {"stages": {"04_localization_maps": {"gamma": 0.3}}},
            "stages: 04_localization_maps: .*gamma: unknown parameter",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_fail_hours_later_is_refused_at_once(tmp_path, change, said):
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(WHOLE))
    assert workflow.load(path)["experiments"] == ["max_1"]
    path.write_text(json.dumps(WHOLE | change))
    with pytest.raises(SettingsError, match=f"(?s){said}"):
        workflow.load(path)


def test_what_is_no_yaml_and_chapters_without_runs(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("seeds: [0")
    with pytest.raises(SettingsError, match=r"p\.yaml is no YAML: "):
        workflow.load(path)
    path.write_text(json.dumps(WHOLE))
    stages = [job.stage for job in workflow.jobs(workflow.load(path))]
    assert "09_scales" not in stages and "08_aggregation" in stages  # nothing weighs scales


def test_an_empty_profile_is_refused_with_what_it_needs(tmp_path):
    (tmp_path / "p.yaml").touch()
    with pytest.raises(SettingsError, match="no settings; needed: controls, data_folder"):
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
    with pytest.raises(SettingsError, match=r"segmentation_seeds: .* must be of seeds, \[0, 1, 2\], and begin with"):
        workflow.load(path)


def test_a_missing_profile_names_those_there_are():
    with pytest.raises(SettingsError, match="emoji"):
        workflow.load("nonesuch")
