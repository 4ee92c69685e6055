from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safn_book.run_names import AGGREGATIONS, CHAIN, CONTROLS, RunName, Stage

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
NETWORKS = st.sampled_from(["", "vgg16-largefov", "efficientnet_lite0-aspp"])
SCALES = st.lists(st.floats(2**-20, 2), min_size=1, max_size=4, unique=True).map(tuple)
CLASSIFIERS = st.builds(
    RunName, st.sampled_from(AGGREGATIONS), SCALES, st.integers(0, 99), st.sampled_from(["", *CONTROLS]), NETWORKS
)
SUPERVISED = st.builds(RunName, seed=st.integers(0, 99), network=NETWORKS, supervised=st.just(True))


def test_each_notebook_of_a_stage_has_one_member():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} >= set(Stage)
    assert all(stage.heading for stage in Stage)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(CLASSIFIERS, SUPERVISED))
def test_a_name_is_read_as_it_was_written(run):
    assert RunName.parse(str(run)) == run


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("attention_1-0.75-0.5_seed0", RunName("attention", (1.0, 0.75, 0.5))),
        ("max_1-0.5_seed12+saliency", RunName("max", (1.0, 0.5), 12, control="saliency")),
        ("avg_2_seed1@vgg16-aspp", RunName("avg", (2.0,), 1, network="vgg16-aspp")),
        ("masks_seed3", RunName(seed=3, supervised=True)),
        ("masks_seed3@vgg16-aspp", RunName(seed=3, network="vgg16-aspp", supervised=True)),
    ],
)
def test_names_on_disk(text, run):
    assert RunName.parse(text) == run and str(run) == text


@pytest.mark.parametrize(
    "text",
    [
        "default",
        "mean_1_seed0",
        "attention_1",
        "attention__seed0",
        "attention_1.0-0.5_seed0",  # written attention_1-0.5_seed0
        "attention_1-0.5_seed00",
        "attention_1..5_seed0",
        "masks_1_seed0",
        "masks_seed0+maps",
        "attention_1_seed0+both",
        "attention_1_seed0@aspp",
        "attention_1_seed0.partial",
        "../attention_1_seed0",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError):
        RunName.parse(text)


def test_the_configuration_is_the_name_without_the_seed():
    names = ("attention_1-0.5_seed0", "attention_1-0.5_seed7", "attention_1-0.5_seed1+maps", "masks_seed1")
    found = [RunName.parse(name).configuration for name in names]
    assert found == ["attention_1-0.5", "attention_1-0.5", "attention_1-0.5+maps", "masks"]


def test_a_name_leads_to_the_folders_that_it_shares():
    def places(text: str) -> list[str]:
        return [str(RunName.parse(text).at(stage)) for stage in CHAIN]

    base = "attention_1_seed0"
    assert places(f"{base}@vgg16-aspp") == [base] * 3 + [f"{base}@vgg16-aspp"] * 2
    assert places(f"{base}+maps") == [base] * 2 + [f"{base}+maps"] * 3
    assert str(RunName.parse(f"{base}+maps@vgg16-aspp").base) == base


@pytest.mark.parametrize(
    ("text", "network", "source", "seed", "problems"),
    [
        ("max_1_seed0", ("vgg16", "aspp"), "pseudo", 0, 0),
        ("max_1_seed0+maps@vgg16-aspp", ("vgg16", "aspp"), "pseudo", 0, 0),
        ("masks_seed1", ("vgg16", "aspp"), "masks", 1, 0),
        ("max_1_seed0@resnet101-aspp", ("vgg16", "largefov"), "pseudo", 0, 1),
        ("max_1_seed0", ("vgg16", "largefov"), "masks", 0, 1),
        ("masks_seed0", ("vgg16", "largefov"), "pseudo", 0, 1),
        ("max_1_seed1@resnet101-aspp", ("vgg16", "aspp"), "masks", 0, 3),
    ],
)
def test_a_name_that_contradicts_its_segmentation_is_refused(text, network, source, seed, problems):
    run = RunName.parse(text)
    if not problems:
        return run.check_segmentation(*network, source, seed)
    with pytest.raises(ValueError) as error:
        run.check_segmentation(*network, source, seed)
    assert str(error.value).count("\n  - ") == problems


def test_the_baseline_of_one_scale_is_called_so():
    assert "baseline" in RunName.parse("attention_1_seed0").words
    assert "attention" not in RunName.parse("attention_1_seed0").words
    assert "seed 3" in RunName.parse("max_1-0.5_seed3").words
