"""From a profile to jobs, and from jobs to what has to be done: which notebook runs with which parameters after which."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt, ValidationError

from safn_book import settings
from safn_book.run_names import CHAPTERS, COMPARING, DEFAULT, Control, RunName, Stage
from safn_book.settings import Parameters, SettingsError, sentences

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
ON_GPU = (Stage.BASELINE, Stage.TRAIN_SAFN, Stage.MAPS, Stage.TRAIN_SEGMENTATION, Stage.EVALUATE)
RUN = "SAFN_RUN"  # environment variable of everything that `make book` starts: its folder of runs
Name = tuple[Stage, str]  # stage and run
Table = dict[str, Any]


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("it names one twice")
    return values


def _experiment(text: str) -> str:
    run = RunName.parse(text, seedless=True)
    if not run.aggregation or run != run.base:
        raise ValueError("it is not an experiment, such as max_1-0.5")
    return text


Seeds = Annotated[list[Annotated[StrictInt, Field(ge=0)]], AfterValidator(_unique)]
Experiment = Annotated[str, AfterValidator(_experiment)]


class Resources(BaseModel, extra="forbid"):
    """What a job of a stage needs, for a cluster: GPUs, memory in MB, minutes."""

    gpu: int | None = Field(None, ge=0)
    mem_mb: int | None = Field(None, ge=1)
    runtime: int | None = Field(None, ge=1)


class Profile(BaseModel, extra="forbid"):
    """A file of ``profiles/``."""

    data_folder: str | None
    seeds: Annotated[Seeds, Field(min_length=1)]
    experiments: Annotated[list[Experiment], Field(min_length=1), AfterValidator(_unique)]
    controls: Annotated[list[Control], AfterValidator(_unique)]
    upper_bound: StrictBool
    threads: Annotated[StrictInt, Field(ge=1)]
    stages: dict[Stage, Table | None]
    segmentations: dict[str, Table] = {}
    segmentation_seeds: Seeds = []
    resources: dict[Stage, Resources] = {}


def load(path: Path | str, data_folder: str = "") -> Profile:
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
        given = yaml.safe_load(path.read_text()) or {}
        if data_folder and isinstance(given, dict):
            given["data_folder"] = data_folder
        profile = Profile.model_validate(given)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError.listing(f"{path}:", sentences(error)) from None
    problems = _contradictions(profile)
    if profile.data_folder is None:
        problems.append(f"data_folder: say where the photographs are, make book PROFILE={path.stem} DATA=/path/to/them")
    if problems:
        raise SettingsError.listing(f"{path}:", problems)
    return profile


def _contradictions(profile: Profile) -> list[str]:
    """What is wrong with a profile whose single values are right."""
    problems = []
    seeds, segmented = profile.seeds, profile.segmentation_seeds
    if segmented and (seeds[0] != segmented[0] or not set(segmented) <= set(seeds)):
        problems.append(f"segmentation_seeds: {segmented} must be some of seeds, {seeds}, and begin with their first")
    for name, table in profile.segmentations.items():
        network = f"{table.get('backbone')}-{table.get('head')}"
        if name != network:
            problems.append(f"segmentations: {name} is the network {network}: give it that name")
    for job in () if problems else jobs(profile):  # each notebook knows its own parameters alone
        try:
            parameters(job)
        except SettingsError as error:
            problems.append(f"stages: {job.stage}: {error}")
    return list(dict.fromkeys(problems))


@dataclass(frozen=True)
class Job:
    """One notebook with its parameters; ``after``: the stages whose folders it reads."""

    stage: Stage
    run: str
    parameters: Table = field(default_factory=dict)
    after: tuple[Name, ...] = ()

    @property
    def name(self) -> Name:
        return self.stage, self.run

    @property
    def words(self) -> str:
        """The job in words, ``Training SAFN: attention, scales 1 / 0.5, seed 0``."""
        if self.run == DEFAULT:
            return self.stage.heading
        return f"{self.stage.heading}: {RunName.parse(self.run).words}"


DATA: Name = (Stage.DATA, DEFAULT)
SALIENCY: Name = (Stage.SALIENCY, DEFAULT)
BASELINE: Name = (Stage.BASELINE, DEFAULT)


def jobs(profile: Profile) -> list[Job]:
    """All jobs of a profile, each after those it needs."""
    folder = profile.data_folder
    source = {"data_folder": str(Path(folder).expanduser().resolve())} if folder else {}
    plan = [Job(*DATA, source), Job(*SALIENCY, {}, (DATA,)), Job(*BASELINE, {}, (DATA,))]
    main = runs_of(profile)[0]
    segmented = profile.segmentation_seeds or profile.seeds  # of all but the main experiment, which has all
    for run in runs_of(profile):
        plan += _classifier(run)
        if run.configuration == main.configuration or run.seed in segmented:
            plan += _segmentation(run)
    for control in profile.controls:
        run = replace(main, control=control)
        plan += [_pseudo_labels(run), *_segmentation(run)]
    for run in _second_networks(profile):
        plan += _segmentation(run, profile.segmentations[run.network])
    if profile.upper_bound:
        plan += _segmentation(RunName(seed=main.seed, supervised=True), {"label_source": "masks"})
    plan += _chapters(profile, plan)
    return [replace(job, parameters=(profile.stages.get(job.stage) or {}) | job.parameters) for job in plan]


def runs_of(profile: Profile) -> list[RunName]:
    """The run of each experiment with every seed, the main one first."""
    experiments = [RunName.parse(text, seedless=True) for text in profile.experiments]
    return [replace(run, seed=seed) for seed in profile.seeds for run in experiments]


def _second_networks(profile: Profile) -> list[RunName]:
    main = RunName.parse(profile.experiments[0], seedless=True)
    return [replace(main, seed=seed, network=name) for seed in profile.seeds for name in profile.segmentations]


def _classifier(run: RunName) -> list[Job]:
    """Training of a classifier, its maps and their pseudo labels."""
    given = {"aggregation": run.aggregation, "scales": list(run.scales), "seed": run.seed}
    trained = (Stage.TRAIN_SAFN, str(run))
    maps = Job(Stage.MAPS, str(run), {"run": str(run)}, (DATA, trained))
    return [Job(*trained, given, (DATA,)), maps, _pseudo_labels(run)]


def _pseudo_labels(run: RunName) -> Job:
    given = {"run": str(run.base)} | ({"combine": run.control} if run.control else {})
    return Job(Stage.PSEUDO_LABELS, str(run), given, (DATA, SALIENCY, (Stage.MAPS, str(run.base))))


def _segmentation(run: RunName, given: Table | None = None) -> list[Job]:
    """Training and evaluation of a segmentation; a second network shares the pseudo labels, a supervised run has none."""
    labels = () if run.supervised else ((Stage.PSEUDO_LABELS, str(run.at(Stage.PSEUDO_LABELS))),)
    given = (given or {}) | {"run": str(run), "seed": run.seed}
    trained = (Stage.TRAIN_SEGMENTATION, str(run))
    evaluated = Job(Stage.EVALUATE, str(run), {"run": str(run)}, (DATA, trained))
    return [Job(*trained, given, (DATA, *labels)), evaluated]


def _chapters(profile: Profile, plan: list[Job]) -> list[Job]:
    """The chapters that compare the runs of ``plan``, as far as there is something to compare."""
    runs, main = runs_of(profile), runs_of(profile)[0]
    same_scales = [run for run in runs if run.scales == main.scales]
    compared = {
        Stage.AGGREGATION: same_scales,
        Stage.SCALES: [run for run in runs if run.aggregation == "attention"],
        Stage.FIGURES: [run for run in same_scales if run.seed == main.seed],
        Stage.COMPARISON: [RunName.parse(job.run) for job in plan if job.stage is Stage.EVALUATE],
    }
    baseline = [str(run) for run in runs if len(run.scales) == 1][:1]
    second = [str(run) for run in _second_networks(profile)][:1]
    more: dict[Stage, Table] = {Stage.FIGURES: {"baseline": "".join(baseline), "second": "".join(second)}}
    if profile.segmentation_seeds:
        more |= dict.fromkeys(COMPARING, {"missing_segmentation": "leave"})
    last = {job.run: job.name for job in plan}  # the last stage of each run
    found = []
    for stage in CHAPTERS:
        experiments = [str(run) for run in compared[stage]]
        drawn = baseline + second if stage is Stage.FIGURES else []
        after = tuple(last[run] for run in experiments + drawn)
        if experiments:
            given = {"experiments": experiments, **more.get(stage, {})}
            found.append(Job(stage, DEFAULT, given, (DATA, BASELINE, *after)))
    return found


@lru_cache
def _parameter_cell(stage: Stage) -> str:
    cells = json.loads((NOTEBOOKS / f"{stage}.ipynb").read_text())["cells"]
    return next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))


def parameters(job: Job) -> Parameters:
    """All parameters that a job runs with: the defaults of its notebook, and what the profile says instead.

    Raises:
        SettingsError: a value is wrong, or the notebook has no parameter of that name.
    """
    nodes = settings.assigned(_parameter_cell(job.stage))
    defaults = {name: ast.literal_eval(value) for name, value in nodes.items()}
    return settings.check({**defaults, **job.parameters}, defaults)


def make(runs: Path, stage: Stage, run: RunName | str) -> None:
    """Make a missing stage and all that it lacks, as `make book` does: its notebook, executed by snakemake, with the defaults
    and what the name of the run says. What is printed meanwhile is printed here.

    Raises:
        RuntimeError: it failed, with the last lines.
    """
    if os.environ.get(RUN):
        raise RuntimeError("the profile that is at work does not make it")
    command = [sys.executable, "-m", "workflow.make_book", f"--runs={runs}", f"--stage={stage}", f"--run={run}"]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise RuntimeError("".join(lines[-5:]).strip())
