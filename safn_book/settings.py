"""Parameters of a notebook: read from its parameter cell, parsed and checked all at once, before any work."""

import ast
import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from safn_book.records import FOLDERS
from safn_book.run_names import AGGREGATIONS, CONTROLS, RunName

ROOT = Path(__file__).resolve().parent.parent
BACKBONES = ("vgg16", "resnet101", "efficientnet_lite0")


class SettingsError(ValueError):
    """One or more parameters are wrong; the message lists every one of them with the values that are valid."""

    @classmethod
    def listing(cls, head: str, problems: Iterable[str]) -> Self:
        """The error with one line a problem."""
        return cls("\n  - ".join([head, *problems]))


class Parameters(BaseModel):
    """The checked parameters of one notebook, as attributes."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)  # papermill takes a folder 2012 for a number

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the parameter cell has no line {name} = ...: add it and run the cell again")


def _from_text(value: Any) -> Any:
    """What a text means: papermill's ``-p`` sends ``"[1,0.75]"``, and YAML takes ``1e-4`` and ``(1, 0.5)`` for texts."""
    for meaning in (yaml.safe_load, ast.literal_eval):
        try:
            found = meaning(value) if isinstance(value, str) else value
        except (yaml.YAMLError, ValueError, SyntaxError):
            continue
        if not isinstance(found, str):
            return found
    return value


def _number(value: Any) -> Any:
    value = _from_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("it is not a number")
    return value


def _numbers(value: Any) -> Any:
    value = _from_text(value)
    return value if isinstance(value, (list, tuple)) else [value]


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) < len(values):
        raise ValueError("it holds a scale twice")
    return values


def _ordered(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] > pair[1]:
        raise ValueError("the first number is above the second")
    return pair


def _run(text: str) -> str:
    RunName.parse(text)
    return text


Run = Annotated[str, AfterValidator(_run)]
RunOrNothing = Annotated[str, AfterValidator(lambda text: text and _run(text))]
Flag = Annotated[bool, Field(strict=True), BeforeValidator(_from_text)]
Whole = Annotated[int, BeforeValidator(_number)]
Count = Annotated[Whole, Field(ge=1)]
CountOr0 = Annotated[Whole, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
Scale = Annotated[float, Field(strict=True, gt=0, le=2)]
Scales = Annotated[tuple[Scale, ...], BeforeValidator(_numbers), Field(min_length=1), AfterValidator(_distinct)]

TYPES: dict[str, Any] = {
    **dict.fromkeys(FOLDERS, str),
    "run": Run,
    "experiments": Annotated[list[Run], BeforeValidator(_from_text), Field(min_length=1)],
    **dict.fromkeys(("baseline", "second"), RunOrNothing),
    **dict.fromkeys(("scales", "test_scales"), Scales),
    "aggregation": Literal[AGGREGATIONS],
    "backbone": Literal[BACKBONES],
    "weights": Literal["imagenet", "none"],
    "head": Literal["largefov", "aspp"],
    "label_source": Literal["pseudo", "masks"],
    "combine": Literal[("harmonic", *CONTROLS)],
    "views": Annotated[Literal[1, 2, 6], BeforeValidator(_number)],
    "missing_saliency": Literal["error", "skip", "map-only"],
    "missing_segmentation": Literal["make", "leave"],
    "optimizer": Literal["sgd", "adamw"],
    "schedule": Literal["poly", "step"],
    "precision": Literal["32-true", "bf16-mixed", "16-mixed"],
    "accelerator": Literal["auto", "cpu", "gpu", "mps"],
    "attention_start": Literal["zero", "random"],
    **dict.fromkeys(("flip", "crf"), Flag),
    **dict.fromkeys(("gamma", "ignore_saliency", "ignore_confidence"), Share),
    **dict.fromkeys(("learning_rate", "new_layer_factor", "attention_factor"), Annotated[Number, Field(gt=0)]),
    **dict.fromkeys(("power", "weight_decay"), Annotated[Number, Field(ge=0)]),
    "momentum": Annotated[Number, Field(ge=0, lt=1)],
    **dict.fromkeys(("epochs", "batch_size", "accumulate", "head_width", "head_dilation"), Count),
    **dict.fromkeys(("examples", "bootstrap"), Count),
    **dict.fromkeys(("iterations", "size", "seed", "limit", "freeze", "largest"), CountOr0),
    **dict.fromkeys(("workers", "threads", "crf_processes", "study_images", "cost_steps"), CountOr0),
    **dict.fromkeys(("crop", "image_size"), Annotated[Whole, Field(ge=32)]),
    "resize": Annotated[tuple[Count, Count], BeforeValidator(_from_text), AfterValidator(_ordered)],
    **dict.fromkeys(("train_images", "val_images"), Annotated[Whole, Field(ge=20)]),
}


def check(values: dict[str, Any], known: Iterable[str] = TYPES) -> Parameters:
    """Parse and check parameters, texts as papermill sends them included. ``known``: the names that the notebook has.

    Raises:
        SettingsError: listing every wrong value and every unknown name.

    Example:
        >>> check({"scales": "[1,0.5]", "epochs": "8", "learning_rate": "1e-4"})
        Parameters(scales=(1.0, 0.5), epochs=8, learning_rate=0.0001)
    """
    problems = [_unknown(name, known) for name in values if name not in known]
    values = {name: value for name, value in values.items() if name in known}
    fields: dict[str, Any] = {name: (TYPES[name], ...) for name in values}
    try:
        parameters = create_model("Parameters", __base__=Parameters, **fields)(**values)
    except ValidationError as error:
        problems = sentences(error) + problems
    if problems:
        count = "1 wrong parameter" if len(problems) == 1 else f"{len(problems)} wrong parameters"
        raise SettingsError.listing(f"{count}, nothing was done:", problems)
    return parameters


def sentences(error: ValidationError) -> list[str]:
    """One line for each wrong value: its name, the value, what is valid."""
    lines: dict[str, str] = {}
    for fault in error.errors():
        name = ": ".join(str(part) for part in fault["loc"] if not isinstance(part, int))
        said = fault["msg"].removeprefix("Value error, ")
        lines.setdefault(name, f"{name}: {fault['input']!r} is not valid: {said}")
    return list(lines.values())


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{name}: unknown parameter; {hint}valid: {', '.join(sorted(known))}"


def assigned(source: str) -> dict[str, ast.expr]:
    """The names that the top level of a cell assigns, in order, and what to. Nothing, where it is not Python."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return {}
    found: dict[str, ast.expr] = {}
    for node in body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return found


def _from_notebooks(folder: Any) -> Any:
    return os.path.normpath(os.path.join("notebooks", folder)) if folder and isinstance(folder, str) else folder


def read(namespace: dict[str, Any]) -> Parameters:
    """The checked parameters of the running notebook: call it with ``globals()`` right after the parameter cell.

    The parameter cell begins with ``# parameters``, the cell that papermill injects behind it with ``# Parameters``. Of a
    cell that was corrected and run again, the last run counts. Papermill only warns about a name that the notebook does not
    have. Here it is an error.

    A folder in the parameter cell counts from ``notebooks/``, also where an editor or papermill starts the kernel in the root
    of the repository. A folder that papermill injects counts from where the kernel was started, as its ``--cwd`` says.

    Raises:
        SettingsError: listing every problem, or that the parameter cell has not run.
    """
    known: dict[str, None] = {}
    own, injected = {}, {}
    for cell in map(str.lstrip, namespace.get("In", [])):
        if cell.startswith("# parameters"):
            own = assigned(cell)
            known |= dict.fromkeys(name for name in own if name in TYPES)
        elif cell.startswith("# Parameters"):
            injected = assigned(cell)
    if not own:
        raise SettingsError("the parameter cell has not run: run the cell that begins with '# parameters' first")
    names = dict.fromkeys([*known, *own, *injected])
    values = {name: namespace[name] for name in names if name in namespace}
    if Path.cwd() == ROOT:  # where some editors start the kernel
        own_folders = (name for name in FOLDERS if name in values and name not in injected)
        values |= {name: _from_notebooks(values[name]) for name in own_folders}
    return check(values, known)
