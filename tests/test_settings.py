from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from safn_book.settings import CHECKS, SettingsError, assigned_names, check, parse_scales, read

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
    with pytest.raises(ValueError, match=r"outside \(0, 2\]"):
        parse_scales(scales)


@quick
@given(SCALES, st.data())
def test_a_scale_that_comes_twice_is_an_error(scales, data):
    scales.append(data.draw(st.sampled_from(scales)))
    with pytest.raises(ValueError, match="twice"):
        parse_scales(scales)


@pytest.mark.parametrize(
    "value, scales", [("[1,0.75,0.5]", (1, 0.75, 0.5)), (1, (1,)), ("0.5", (0.5,)), ((2, 1), (2, 1))]
)
def test_scales_as_users_give_them(value, scales):
    assert parse_scales(value) == scales


@pytest.mark.parametrize(
    "value, says",
    [
        ([], "empty"),
        ("[]", "empty"),
        ([0], "outside"),
        ([1, -0.5], r"\[-0.5\] outside"),
        ([1, 1.0], "twice"),
        (["0.5"], "no list of numbers"),
        ([True], "no list of numbers"),
        (True, "no list of numbers"),
        ("[1, 0.5", "no list of numbers"),
        ("1;0.5", "no list of numbers"),
        ({1: 2}, "no list of numbers"),
        (None, "no list of numbers"),
    ],
)
def test_wrong_scales_say_what_is_wrong(value, says):
    with pytest.raises(ValueError, match=says):
        parse_scales(value)


def test_values_are_parsed():
    p = check(
        {
            "learning_rate": "1.0e-3",
            "epochs": "8",
            "crop": 448.0,
            "gamma": 0,
            "flip": "true",
            "crf": False,
            "resize": "[256, 512]",
            "experiments": "[a, b]",
            "aggregation": "max",
        }  # fmt: skip
    )
    assert vars(p) == {
        "learning_rate": 0.001, "epochs": 8, "crop": 448, "gamma": 0.0, "flip": True, "crf": False,
        "resize": (256, 512), "experiments": ["a", "b"], "aggregation": "max",
    }  # fmt: skip
    assert type(p.crop) is int and type(p.gamma) is float


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
    "data_folder": 3,
    "seed": "[1",
}


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_value_is_refused_with_what_is_valid(name):
    with pytest.raises(SettingsError, match=f"1 wrong parameter, nothing was done:\n  - {name}: ") as error:
        check({name: WRONG[name]})
    assert f"valid: {CHECKS[name].valid}" in str(error.value)


@pytest.mark.fault(11, "wrong settings", "19 at once, such as scales=[0] and gamma=1.5")
def test_all_wrong_values_are_listed_at_once(happened):
    with pytest.raises(SettingsError) as error:
        check({**WRONG, "epochz": 3, "power": 0.9})
    lines = str(error.value).splitlines()
    assert lines[0] == f"{len(WRONG) + 1} wrong parameters, nothing was done:"
    assert [line.split(":")[0] for line in lines[1:]] == [f"  - {name}" for name in (*WRONG, "epochz")]
    assert "did you mean 'epochs'?" in lines[-1]
    happened(error.value)


CELL = '# parameters\nscales = "[1, 0.75, 0.5]"  # sizes\nepochs = 8\nseed = 0\nrun = ""\n'


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
    assert assigned_names("a = b = 1\nif a:\n    c = 2\nd[0] = 3\ne = lambda f: f\n") == ["a", "b", "e"]


def test_a_notebook_reads_its_defaults():
    assert vars(read(notebook())) == {"scales": (1.0, 0.75, 0.5), "epochs": 8, "seed": 0, "run": ""}


def test_what_papermill_injects_wins():
    cell = injected(scales="[1,0.5]", epochs=2)
    assert cell.startswith("# Parameters")
    assert vars(read(notebook(cell))) == {"scales": (1.0, 0.5), "epochs": 2, "seed": 0, "run": ""}


def test_a_name_the_notebook_does_not_have_is_an_error_though_papermill_only_warns():
    with pytest.raises(SettingsError) as error:
        read(notebook(injected(epoch=2, scales="[]", gamma=0.3)))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("3 wrong parameters")
    assert "scales: the list is empty" in lines[1]
    assert "epoch: unknown parameter; did you mean 'epochs'? valid: epochs, run, scales, seed" in lines[2]
    assert "gamma: unknown parameter" in lines[3]  # of other notebooks, not of this one


def test_a_name_mistyped_in_the_parameter_cell_itself_is_an_error():
    with pytest.raises(SettingsError, match="epochss: unknown parameter; did you mean 'epochs'"):
        read(notebook("# parameters\nepochss = 3\n"))


def test_other_cells_are_no_parameters():
    assert "gamma" not in vars(read(notebook("gamma = 7\n")))
