"""Sentences and tables say what the rows of differences allow, and no more."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pandas as pd
import pytest
from test_conclusions import MAIN, OTHER, difference

from safn_book import statements
from safn_book.results import runs_table
from safn_book.run_names import Stage

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("better", "are significantly better than those of"),
        ("worse", "are significantly worse than those of"),
        ("undecided", "do not differ significantly from those of"),
        ("too_few_seeds", "come from too few seeds to be compared with those of"),
        ("different_machines", "come from another type of machine"),
    ],
)
def test_a_verdict_is_said_as_it_is(verdict, words):
    text = statements.conclusion(pd.DataFrame([difference(MAIN, OTHER, verdict)]), "maps")
    assert text.startswith(f"The maps of SAFN {words}") and text.endswith("those of max pooling.")


def test_a_recorded_share_is_a_mean_over_the_seeds_of_its_configuration():
    found = json.loads((ROOT / "results" / "evidence.json").read_text())
    key = Stage.MAPS, "avg_1-0.75-0.5_seed"
    values = [100 * one["metrics"]["map_miou"] for one in found if (one["stage"], one["run"][:-1]) == key]
    text = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert len(values) == 3
    assert statements.recorded(Stage.MAPS, "metrics", "map_miou", configuration="avg_1-0.75-0.5") == text


def test_a_share_of_one_run_has_no_deviation():
    assert statements.recorded(Stage.PSEUDO_LABELS, "limits", "ground-truth classes") == "61.2"
    assert statements.recorded(Stage.EVALUATE, "per_class", "crf", "chair", configuration="masks") == "2.5"


@pytest.mark.parametrize("place", [("metrics", "nothing"), ("nothing", "at all")])
def test_what_no_run_has_recorded_is_refused(place):
    with pytest.raises(ValueError, match=" > ".join(place)):
        statements.recorded(Stage.MAPS, *place)


def test_other_configurations_are_listed_by_their_verdicts():
    rows = [
        difference(MAIN, OTHER, "better"),
        difference(MAIN, "attention_1", "undecided"),
        difference(MAIN, "avg_1-0.5", "better"),
    ]
    assert statements.conclusion(pd.DataFrame(rows), "maps") == (
        "The maps of SAFN are significantly better than those of max pooling and average pooling, and do not differ "
        "significantly from those of 1 scale."
    )
    assert statements.conclusion(pd.DataFrame(rows).iloc[:0], "maps") == "The maps were not compared."


@pytest.mark.parametrize(
    ("verdicts", "pooling", "scales"),
    [
        (("better", "better", "undecided"), "yes", "not measurably"),
        (("better", "undecided", "better"), "in part", "yes"),
        (("undecided", "too_few_seeds", "worse"), "not measurably", "no"),
    ],
)
def test_the_answer_is_that_of_the_maps(verdicts, pooling, scales):
    rows = [difference(MAIN, name, v) for name, v in zip((OTHER, "avg_1-0.5", "attention_1"), verdicts)]
    rows.append(difference(MAIN, OTHER, "worse", measure="segmentation_crf"))
    first, second = statements.answer(pd.DataFrame(rows)).split(". ")
    assert first.startswith(f"Compared with pooling: {pooling}")
    assert second.startswith(f"Compared with fewer scales: {scales}")


def test_verdicts_are_counted():
    rows = pd.DataFrame([difference(MAIN, OTHER, v) for v in ("better", "better", "worse", "undecided")])
    assert statements.tally(rows) == "Significant gains: 2 of 4. Significant losses: 1 of 4."
    assert statements.tally(pd.DataFrame([difference(MAIN, OTHER, "too_few_seeds")])).startswith("Open")


def test_a_report_of_one_seed_says_that_it_decides_nothing():
    one = difference(OTHER, MAIN, "too_few_seeds", seeds=(1.0,))
    text, figure = statements.report(pd.DataFrame([one]), "photographs, 9 for training")
    assert "cannot decide" in text.data and "photographs, 9 for training" in figure.data
    (text,) = statements.report(pd.DataFrame([one]).iloc[:0], "photographs")
    assert "Nothing was compared" in text.data


def test_a_report_of_several_seeds_has_a_point_a_measure():
    rows = [difference(MAIN, OTHER, "better"), difference(MAIN, OTHER, "worse", measure="segmentation_crf")]
    text, _ = statements.report(pd.DataFrame(rows), "photographs")
    first, second = text.data.splitlines()
    assert "localization maps of SAFN are significantly better" in first and "significantly worse" in second
    rows[1]["verdict"] = "too_few_seeds"
    assert statements.report(pd.DataFrame(rows), "photographs")[0].data.splitlines()[1] == (
        "- Too few seeds for a verdict: multi-scale segmentations with CRF."
    )


def test_scales_are_named_where_nothing_else_differs():
    rows = [difference("attention_1-0.75-0.5", name, "undecided") for name in ("attention_1-0.75", "attention_1")]
    text = statements.conclusion(pd.DataFrame(rows), "maps")
    assert text == "The maps of 3 scales do not differ significantly from those of 2 scales and 1 scale."


def test_sizes_are_reported_for_the_measures_that_were_scored():
    metrics = {"map_miou": 0.4, "map_iou small (< 10 %)": 0.2, "map_iou large (> 30 %)": 0.5}
    better = metrics | {"map_iou small (< 10 %)": 0.3}
    records = {("04_localization_maps", f"{MAIN}_seed0"): {"metrics": metrics}}
    records["04_localization_maps", f"{OTHER}_seed0"] = {"metrics": better}
    text, figure = statements.size_report(runs_table(records), "photographs")
    assert "max pooling on small" in text.data and "pseudo labels" not in text.data.lower()
    assert "1 seed:" in figure.data
    (text,) = statements.size_report(runs_of(**{f"{MAIN}_seed0": 0.4}), "photographs")
    assert "unknown" in text.data


def runs_of(**maps: float) -> pd.DataFrame:
    records = {("04_localization_maps", run): {"metrics": {"map_miou": value}} for run, value in maps.items()}
    return runs_table(records)


def test_means_are_those_of_the_seeds_that_all_configurations_have():
    runs = runs_of(**{f"{MAIN}_seed0": 0.4, f"{MAIN}_seed1": 0.9, f"{OTHER}_seed0": 0.3})
    row = difference(MAIN, OTHER, "too_few_seeds", 10.0, seeds=(10.0,))
    rows = pd.DataFrame([row | {"all_from": float("nan"), "all_to": float("nan")}])
    table = statements.comparison(runs, rows, "maps")
    assert table["mIoU (%)"].to_dict() == {"SAFN, 2 scales": "40.0", "max pooling, 2 scales": "30.0"}
    assert table.loc["max pooling, 2 scales", "SAFN ahead by"] == "+10.00"
    assert table.loc["max pooling, 2 scales", "95 % interval (images)"] == "0.20 to 1.80"


def test_replaced_weights_are_counted_over_the_networks():
    rows = [
        ("their mean", -0.2, -0.5, -0.0),
        ("their mean", 0.0, -0.1, 0.1),
        ("equal", 0.4, 0.1, 0.7),
        ("learned", 0, 0, 0),
    ]
    replaced = pd.DataFrame(rows, columns=["weights", "difference", "from", "to"])
    table = statements.replaced_table(replaced)
    constant = table.loc[statements.CONSTANT]
    assert (constant["change"], constant["worse"], constant["better"]) == (-0.1, 1, 0)
    assert table.loc["equal weights", "better"] == 1
    text = statements.weights_statement(table, 2)
    assert "does worse than the learned weights" in text and "−0.10 points" in text and "in 1 of 2 networks" in text
    assert statements.weights_statement(table, 1).endswith("of mIoU, a significant loss.")


def test_sizes_name_the_best_configuration():
    sizes = pd.DataFrame({MAIN: [20.5, 40.0, None], OTHER: [10.0, 50.25, None]}, index=["small", "large", "none"])
    text = statements.size_statement(sizes)
    assert text == "SAFN on small objects and max pooling on large objects."
    assert "no object" in statements.size_statement(sizes[2:])
    both = statements.size_statement(
        pd.DataFrame({MAIN: [2.0, 3.0], OTHER: [1.0, 1.0]}, index=["small (< 10 %)", "large"])
    )
    assert both == "SAFN on small and large objects."
    sizes["attention_1"] = [30.0, 10.0, None]
    assert statements.size_statement(sizes).startswith(
        "the baseline with 1 scale on small objects and max pooling with 2 scales"
    )


def test_correlations_are_those_of_the_largest_scale():
    rows = [("0.5", 0.45, 0.4, 0.5), ("1", -0.2, -0.3, -0.1), ("0.5", 0.45, 0.4, 0.5), ("1", -0.1, -0.3, 0.1)]
    text = statements.correlation_statement(pd.DataFrame(rows, columns=["scale", "correlation", "from", "to"]))
    assert "weight of scale 1 " in text and "in 1 of 2 networks" in text and "in none" in text and "is −0.15." in text
    text = statements.correlation_statement(pd.DataFrame(rows[-1:], columns=["scale", "correlation", "from", "to"]))
    assert "It neither falls nor rises significantly." in text
