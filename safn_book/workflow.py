"""From a profile to the list of jobs: which notebook runs with which parameters after which others."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from safn_book.settings import CONTROLS, SettingsError, check
from safn_book.stages import NOTEBOOKS, parse_run, run_name

ROOT = Path(__file__).resolve().parent.parent
KEYS = {"data_folder", "seeds", "experiments", "controls", "upper_bound", "threads", "stages"}
OPTIONAL = {"segmentations", "segmentation_seeds"}
CHAIN = (
    "03_train_safn",
    "04_localization_maps",
    "05_pseudo_ground_truth",
    "06_train_segmentation",
    "07_evaluate",
)
COMPARING = ("08_aggregation", "09_scales")  # the chapters of Tables 4 and 6
STAGES = (
    "00_data",
    "01_saliency",
    "02_baseline",
    *CHAIN,
    "08_aggregation",
    "09_scales",
    "10_figures",
    "11_comparison",
)
TRAINED = ("03_train_safn", "06_train_segmentation")


@dataclass(frozen=True)
class Job:
    """One notebook with its parameters; ``after``: the jobs whose folders it reads, as (stage, run)."""

    stage: str
    run: str
    parameters: dict[str, Any] = field(default_factory=dict)
    after: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> tuple[str, str]:
        return self.stage, self.run


def load(path: Path | str, data_folder: str = "") -> dict[str, Any]:
    """A profile: ``emoji``, ``voc-subset``, ``paper`` or a YAML file; ``data_folder`` replaces the profile's.

    Raises:
        SettingsError: listing every wrong key, experiment, stage and parameter.
    """
    path = Path(path)
    path = path if path.suffix == ".yaml" else ROOT / "profiles" / f"{path}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (ROOT / "profiles").glob("*.yaml")))
        raise SettingsError(f"{path} is missing; profiles: {known}")
    try:
        profile = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML: {error}") from error
    if problems := _wrong_kinds(profile):  # what follows reads them
        raise SettingsError("\n  - ".join([f"{path}:", *problems]))
    profile["data_folder"] = data_folder = data_folder or profile.get("data_folder", "")
    problems = [f"data_folder: say where the photographs are, make book PROFILE={path.stem} DATA=/path/to/them"] * (
        data_folder is None
    )
    problems += [f"{key}: missing key" for key in KEYS - set(profile)]
    problems += [f"{key}: unknown key" for key in set(profile) - KEYS - OPTIONAL]
    seeds, segmented = profile.get("seeds") or [], profile.get("segmentation_seeds") or []
    if segmented and (seeds[:1] != segmented[:1] or not set(segmented) <= set(seeds)):
        problems.append(f"segmentation_seeds: {segmented} must be of seeds, {seeds}, and begin with their first")
    for experiment in profile.get("experiments", []):
        parsed = parse_run(f"{experiment}_seed0")
        if not parsed or run_name(**parsed) != f"{experiment}_seed0":
            problems.append(f"experiments: {experiment!r} is not <aggregation>_<scale>-<scale>..., such as max_1-0.5")
    unknown = [control for control in profile.get("controls", []) if control not in CONTROLS]
    problems += [f"controls: {control!r} is unknown; valid: {', '.join(CONTROLS)}" for control in unknown]
    for stage, given in profile.get("stages", {}).items():
        if stage not in STAGES:
            problems.append(f"stages: {stage!r} is unknown; valid: {', '.join(STAGES)}")
        problems += _problems(f"stages: {stage}", lambda given=given: check(given or {}))
    for name, given in (profile.get("segmentations") or {}).items():
        network = (given or {}).get("backbone", ""), (given or {}).get("head", "")
        problems += _problems(f"segmentations: {name}", lambda given=given: check(given or {}))
        problems += _problems("segmentations", lambda run=f"run@{name}", of=network: pseudo_run(run, *of))
    if not problems:  # each notebook knows its own parameters alone
        problems = [
            p for job in jobs(profile) for p in _problems(f"stages: {job.stage}", lambda job=job: parameters(job))
        ]
    if problems:
        raise SettingsError("\n  - ".join([f"{path}:", *dict.fromkeys(problems)]))
    return profile


def _wrong_kinds(profile: Any) -> list[str]:
    """What keeps a profile from being read at all."""
    if not isinstance(profile, dict):
        return [f"it holds no settings; needed: {', '.join(sorted(KEYS))}"]
    lists, tables = ("seeds", "experiments", "controls", "segmentation_seeds"), ("stages", "segmentations")
    kinds = {**dict.fromkeys(lists, (list, "no list")), "upper_bound": (bool, "neither true nor false")}
    kinds |= {
        **dict.fromkeys(tables, (dict, "no table of settings; without any it is {}")),
        "threads": (int, "no number"),
    }
    problems = [
        f"{key}: {profile[key]!r} is {what}"
        for key, (kind, what) in kinds.items()
        if not isinstance(profile.get(key, kind()), kind)
    ]
    if problems:
        return problems
    problems = [f"{key}: there must be one" for key in lists[:2] if profile.get(key, True) == []]
    problems += [f"{key}: {profile[key]} names one twice" for key in lists if _twice(profile.get(key, []))]
    wrong = [seed for seed in profile.get("seeds", []) if type(seed) is not int or seed < 0]
    problems += [f"seeds: {seed!r} is no number from 0 on" for seed in wrong]
    problems += ["threads: at least 1 is needed"] * (profile.get("threads", 1) < 1)
    given = {f"{key}: {name}": value for key in tables for name, value in profile.get(key, {}).items()}
    return problems + [
        f"{name}: {value!r} is no table of settings" for name, value in given.items() if type(value or {}) is not dict
    ]


def _twice(values: list[Any]) -> bool:
    return len(set(map(repr, values))) < len(values)


def _problems(where: str, call: Callable[[], Any]) -> list[str]:
    try:
        call()
    except SettingsError as error:
        return [f"{where}: {error}"]
    return []


def jobs(profile: dict[str, Any]) -> list[Job]:
    """All jobs of a profile, each after those it needs."""
    data, saliency = ("00_data", "default"), ("01_saliency", "default")
    source = {"data_folder": str(Path(profile["data_folder"]).expanduser().resolve())} if profile["data_folder"] else {}
    plan = [Job(*data, source), Job(*saliency, {}, (data,)), Job("02_baseline", "default", {}, (data,))]
    runs = runs_of(profile)
    main, seed = runs[0], profile["seeds"][0]
    for run in runs:
        plan += chain(run)[: None if segmented(profile, run) else -2]
    for control in profile["controls"]:
        plan += chain(f"{main}+{control}", {"combine": control})
    others = [
        job
        for each in profile["seeds"]
        for network, parameters in (profile.get("segmentations") or {}).items()
        for job in segmentation(f"{profile['experiments'][0]}_seed{each}", network, parameters)
    ]
    plan += others
    if profile["upper_bound"]:
        plan += supervised(f"masks_seed{seed}", seed)
    ends = [job.name for job in plan if job.stage == CHAIN[-1]]
    last = {job.run: job.name for job in plan}  # of each run its last stage
    scales = parse_run(main)["scales"]
    same_scales = [run for run in runs if parse_run(run)["scales"] == scales]
    single = next((run for run in runs if len(parse_run(run)["scales"]) == 1), "")
    compared = {
        "08_aggregation": same_scales,
        "09_scales": [run for run in runs if parse_run(run)["aggregation"] == "attention"],
        "10_figures": [run for run in same_scales if parse_run(run)["seed"] == seed],
        "11_comparison": [run for _, run in ends],
    }
    for stage, experiments in ((stage, of) for stage, of in compared.items() if of):
        drawn = {"baseline": single, **({"second": others[0].run} if others else {})}
        drawn = drawn if stage == "10_figures" else {}
        after = [last[run] for run in [*experiments, *filter(None, drawn.values())]]
        parameters = {"experiments": experiments, **drawn}
        if profile.get("segmentation_seeds") and stage in ("08_aggregation", "09_scales"):
            parameters["missing_segmentation"] = "leave"
        plan.append(Job(stage, "default", parameters, (data, ("02_baseline", "default"), *after)))
    return [Job(j.stage, j.run, {**(profile["stages"].get(j.stage) or {}), **j.parameters}, j.after) for j in plan]


def parameters(job: Job) -> SimpleNamespace:
    """All parameters that a job runs with: the defaults of its notebook, and what the profile says instead.

    Raises:
        SettingsError: a value is wrong, or the notebook has no parameter of that name.
    """
    cells = json.loads((NOTEBOOKS / f"{job.stage}.ipynb").read_text())["cells"]
    cell = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", ()))
    defaults = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell).body}
    return check({**defaults, **job.parameters}, set(defaults))


def runs_of(profile: dict[str, Any]) -> list[str]:
    """Names of the chains: every experiment with every seed, the main one first."""
    return [f"{experiment}_seed{seed}" for seed in profile["seeds"] for experiment in profile["experiments"]]


def segmented(profile: dict[str, Any], run: str) -> bool:
    """Whether a segmentation is trained for a run: for the main experiment with every seed, for the others with those of
    ``segmentation_seeds``, all unless the profile says so."""
    main = run.startswith(f"{profile['experiments'][0]}_seed")
    return main or parse_run(run)["seed"] in (profile.get("segmentation_seeds") or profile["seeds"])


def chain(run: str, control: dict[str, str] | None = None) -> list[Job]:
    """From training the classifier to the evaluation; a control shares the maps of its run and differs after them."""
    base = base_run(run)
    parsed = parse_run(base)
    data, maps = ("00_data", "default"), ("04_localization_maps", base)
    pseudo, trained = ("05_pseudo_ground_truth", run), ("06_train_segmentation", run)
    shared = [
        Job("03_train_safn", base, parsed, (data,)),
        Job(*maps, {"run": base}, (data, ("03_train_safn", base))),
    ]
    return ([] if control else shared) + [
        Job(*pseudo, {"run": base, **(control or {})}, (data, ("01_saliency", "default"), maps)),
        Job(*trained, {"run": run, "seed": parsed["seed"]}, (data, pseudo)),
        Job("07_evaluate", run, {"run": run}, (data, trained)),
    ]


def segmentation(run: str, name: str, parameters: dict[str, Any]) -> list[Job]:
    """Another segmentation network, ``<backbone>-<head>``, trained from the *same* pseudo ground truth as ``run``."""
    data, trained = ("00_data", "default"), ("06_train_segmentation", f"{run}@{name}")
    given = {**parameters, "run": trained[1], "seed": parse_run(run)["seed"]}
    return [
        Job(*trained, given, (data, ("05_pseudo_ground_truth", run))),
        Job("07_evaluate", trained[1], {"run": trained[1]}, (data, trained)),
    ]


def base_run(run: str) -> str:
    """The run whose classifier and maps ``run`` shares: its name without ``+<control>`` and ``@<network>``."""
    return re.split("[+@]", run)[0]


def place(stage: str, run: str) -> str:
    """The name under which a stage of a run lies: classifier and maps are those of its base run, and pseudo ground truth is
    shared by all networks that learn from it."""
    return base_run(run) if stage in CHAIN[:2] else run.split("@")[0] if stage == CHAIN[2] else run


def pseudo_run(run: str, backbone: str, head: str, label_source: str = "pseudo", seed: int | None = None) -> str:
    """The run whose pseudo ground truth a segmentation network learns from: ``run`` without ``@<backbone>-<head>``.

    Raises:
        SettingsError: the name says another network, other labels or another seed than the parameters.
    """
    source, _, network = run.partition("@")
    problems = []
    if network not in ("", f"{backbone}-{head}"):
        problems.append(f"names the network {network!r}, the parameters are of {backbone}-{head}")
    if (label_source == "masks") != run.startswith("masks"):
        problems.append(
            f"is to learn from {label_source}: names that begin with 'masks', such as masks_seed0, are of true masks"
        )
    named = re.search(r"_seed(\d+)", run)
    if seed is not None and named and int(named[1]) != seed:
        problems.append(f"names the seed {named[1]}, the parameter is {seed}")
    if problems:
        raise SettingsError(f"run {run!r} " + "; ".join(problems))
    return source


def supervised(run: str, seed: int) -> list[Job]:
    """The fully supervised upper bound: the same segmentation network on the true masks."""
    data, trained = ("00_data", "default"), ("06_train_segmentation", run)
    return [
        Job(*trained, {"run": run, "label_source": "masks", "seed": seed}, (data,)),
        Job("07_evaluate", run, {"run": run}, (data, trained)),
    ]
