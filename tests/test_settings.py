from __future__ import annotations

import math
from pathlib import Path

import jupytext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from safn_book.run_names import Stage
from safn_book.settings import TYPES, SettingsError, assigned, check, read

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def parse_scales(value) -> tuple[float, ...]:
    return check({"scales": value}).scales


quick = settings(max_examples=60, deadline=None, derandomize=True)
SCALES = st.lists(st.floats(0.0625, 2), min_size=1, max_size=6, unique=True)


@quick
@given(SCALES)
def test_scales_are_the_same_from_a_list_and_from_papermills_text(scales):
    assert parse_scales(scales) == tuple(scales)
    assert parse_scales(str(scales)) == tuple(scales)
    assert all(type(scale) is float for scale in parse_scales([1, *(s for s in scales if s != 1)]))


@quick
@given(
    SCALES, st.one_of(st.floats(max_value=0), st.floats(min_value=2, exclude_min=True), st.just(math.nan)), st.data()
)
def test_one_scale_out_of_range_spoils_the_list(scales, wrong, data):
    scales.insert(data.draw(st.integers(0, len(scales))), wrong)
    with pytest.raises(ValueError):
        parse_scales(scales)


@quick
@given(SCALES, st.data())
def test_a_scale_that_comes_twice_is_an_error(scales, data):
    scales.append(data.draw(st.sampled_from(scales)))
    with pytest.raises(ValueError, match="twice"):
        parse_scales(scales)


@pytest.mark.parametrize(
    "value, scales",
    [("[1,0.75,0.5]", (1, 0.75, 0.5)), (1, (1,)), ("0.5", (0.5,)), ((2, 1), (2, 1)), ("(1, .5)", (1, 0.5))],
)
def test_scales_as_users_give_them(value, scales):
    assert parse_scales(value) == scales


@pytest.mark.parametrize(
    "value",
    [[], "[]", [0], [1, -0.5], [1, 1.0], ["0.5"], [True], True, "[1, 0.5", "1;0.5", {1: 2}, None],
    ids=repr,
)
def test_wrong_scales_are_refused(value):
    with pytest.raises(ValueError):
        parse_scales(value)


@pytest.mark.fault(26, "number that YAML takes for a text", "learning_rate: 1e-3")
def test_values_are_parsed(happened):
    p = check(
        {
            "learning_rate": "1e-3",  # a text to YAML
            "epochs": "8",
            "crop": 448.0,
            "gamma": 0,
            "flip": "true",
            "crf": False,
            "resize": "[256, 512]",
            "experiments": "[max_1_seed0, masks_seed1]",
            "aggregation": "max",
            "data_folder": 2012,  # papermill makes a number of it
        }  # fmt: skip
    )
    assert vars(p) == {
        "learning_rate": 0.001, "epochs": 8, "crop": 448, "gamma": 0.0, "flip": True, "crf": False,
        "resize": (256, 512), "experiments": ["max_1_seed0", "masks_seed1"], "aggregation": "max",
        "data_folder": "2012",
    }  # fmt: skip
    assert type(p.crop) is int and type(p.gamma) is float
    happened("no message: it is read as the number")


WRONG = {
    "scales": [0],
    "gamma": 1.5,
    "ignore_saliency": -0.1,
    "ignore_confidence": math.nan,
    "aggregation": "mean",
    "backbone": "vgg19",
    "learning_rate": 0,
    "weight_decay": math.inf,
    "momentum": 1,
    "epochs": 0,
    "batch_size": 2.5,
    "iterations": "many",
    "crop": True,
    "resize": [512, 256],
    "flip": "perhaps",
    "experiments": "attention_1",
    "data_folder": ["here"],
    "run": "attention",
    "baseline": "attention_1",
    "views": 3,
    "seed": "[1",
}


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_value_is_refused_by_name(name):
    with pytest.raises(SettingsError) as error:
        check({name: WRONG[name], "power": 0.9})
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and lines[1].startswith(f"  - {name}: ")


def test_what_is_one_of_a_few_names_them():
    with pytest.raises(SettingsError) as error:
        check({"aggregation": "mean"})
    assert all(repr(text) in str(error.value) for text in ("mean", "attention", "max", "avg"))


@pytest.mark.fault(11, "wrong settings", "22 at once, such as scales=[0] and gamma=1.5")
def test_all_wrong_values_are_listed_at_once(happened):
    with pytest.raises(SettingsError) as error:
        check({**WRONG, "epochz": 3, "power": 0.9})
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [f"  - {name}" for name in (*WRONG, "epochz")]
    assert "'epochs'" in lines[-1]
    happened(error.value)


def test_every_parameter_of_every_notebook_has_a_type():
    for stage in Stage:
        cell = next(
            c for c in jupytext.read(NOTEBOOKS / f"{stage}.py").cells if "parameters" in c.metadata.get("tags", ())
        )
        assert set(assigned(cell.source)) <= set(TYPES)


CELL = '# parameters\nscales = "[1, 0.75, 0.5]"  # sizes\nepochs = 8\nseed = 0\nruns = ""\n'


def notebook(*injected: str) -> dict:
    """The namespace of a running notebook after its parameter cells."""
    namespace = {"In": ["", "import numpy", CELL, *injected]}
    for cell in (CELL, *injected):
        exec(cell, namespace)
    return namespace


def injected(**parameters) -> str:
    """The cell that papermill puts behind the parameter cell."""
    return PythonTranslator.codify(parameters, "Parameters")


def test_names_of_a_cell_are_what_its_top_level_assigns():
    assert list(assigned("a = b = 1\nif a:\n    c = 2\nd[0] = 3\ne = lambda f: f\n")) == ["a", "b", "e"]


def test_a_notebook_reads_its_defaults():
    assert vars(read(notebook())) == {"scales": (1.0, 0.75, 0.5), "epochs": 8, "seed": 0, "runs": ""}


@pytest.mark.parametrize(
    ("folder", "named"),
    [("../runs/emoji", "runs/emoji"), ("mine", "notebooks/mine"), ("/data/runs", "/data/runs"), ("", "")],
)
def test_a_folder_of_the_parameter_cell_counts_from_the_notebooks_where_the_kernel_is_in_the_root(
    folder, named, monkeypatch, tmp_path
):
    cell = f"# parameters\nruns = {folder!r}\n"
    monkeypatch.chdir(NOTEBOOKS.parent)
    assert read(notebook(cell)).runs == named
    assert read(notebook(cell, injected(runs="../mine"))).runs == "../mine"
    monkeypatch.chdir(tmp_path)
    assert read(notebook(cell)).runs == folder


def test_what_papermill_injects_wins():
    cell = injected(scales="[1,0.5]", epochs=2)
    assert cell.startswith("# Parameters")
    assert vars(read(notebook(cell))) == {"scales": (1.0, 0.5), "epochs": 2, "seed": 0, "runs": ""}


def test_a_name_the_notebook_does_not_have_is_an_error_though_papermill_only_warns():
    with pytest.raises(SettingsError) as error:
        read(notebook(injected(epoch=2, scales="[]", gamma=0.3)))
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip(" -") for line in lines] == ["scales", "epoch", "gamma"]
    assert "'epochs'" in lines[1]


@pytest.mark.fault(26, "misspelt line in the parameter cell", "epochss, then epochs in the same kernel")
def test_a_name_mistyped_in_the_parameter_cell_is_an_error_until_it_is_corrected(happened):
    namespace = notebook("# parameters\nepochss = 3\n")
    with pytest.raises(SettingsError, match="'epochs'") as error:
        read(namespace)
    corrected = "# parameters\nepochs = 3\n"
    exec(corrected, namespace)
    namespace["In"].append(corrected)
    assert read(namespace).epochs == 3
    happened(f"{error.value}. With the corrected cell it runs, in the same kernel")
    broken = "# parameters\nepochs = = 4\n"  # which Python refuses, but the kernel keeps
    namespace["In"] += [broken, "\n# parameters\nepochs: int = 5\n"]
    namespace["epochs"] = 5
    assert read(namespace).epochs == 5
    with pytest.raises(AttributeError, match="the parameter cell has no line gamma = "):
        read(namespace).gamma  # noqa: B018


def test_the_injected_cell_that_ran_last_counts():
    namespace = notebook(injected(epoch=2))
    with pytest.raises(SettingsError):
        read(namespace)
    cell = injected(epochs=2)
    exec(cell, namespace)
    namespace["In"].append(cell)
    assert read(namespace).epochs == 2


@pytest.mark.fault(26, "parameter cell that has not run", "a notebook without it, and one without its first line")
@pytest.mark.parametrize("cells", [[], ["import numpy"], ["epochs = 3"]])
def test_without_a_parameter_cell_the_message_says_so(cells, happened):
    with pytest.raises(SettingsError, match="# parameters") as error:
        read({"In": cells, "epochs": 3})
    happened(error.value)


def test_other_cells_are_no_parameters():
    assert "gamma" not in vars(read(notebook("gamma = 7\n")))
