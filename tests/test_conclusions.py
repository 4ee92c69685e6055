"""Sentences and tables say what the rows of differences allow, and no more."""

from __future__ import annotations

import pandas as pd
import pytest

from safn_book import conclusions
from safn_book.results import runs_table

MAIN, OTHER = "attention_1-0.5", "max_1-0.5"


def difference(first, second, verdict, points=1.0, measure="maps", seeds=(1.0, 1.5, 0.5), ends=(0.2, 1.8)):
    row = {"measure": measure, "first": first, "second": second, "points": points, "seeds": list(seeds)}
    row |= {"images_from": ends[0], "images_to": ends[1], "all_from": ends[0], "all_to": ends[1]}
    return row | {"verdict": verdict}


def test_a_difference_is_turned_so_that_the_configuration_comes_first():
    rows = pd.DataFrame([difference(OTHER, MAIN, "better"), difference(OTHER, "avg_1-0.5", "better")])
    (row,) = conclusions.against(rows, MAIN).to_dict("records")
    assert (row["first"], row["second"], row["verdict"]) == (MAIN, OTHER, "worse")
    assert (row["points"], row["seeds"]) == (-1.0, [-1.0, -1.5, -0.5])
    assert (row["all_from"], row["all_to"], row["images_from"], row["images_to"]) == (-1.8, -0.2, -1.8, -0.2)


def test_a_pair_that_two_chapters_compare_counts_once():
    rows = pd.DataFrame([difference(MAIN, OTHER, "better"), difference(OTHER, MAIN, "worse", -1.0)])
    assert len(conclusions.against(rows, MAIN)) == 1


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("better", "are significantly better than those of"),
        ("worse", "are significantly worse than those of"),
        ("undecided", "do not differ significantly from those of"),
        ("too_few_seeds", "have too few seeds to be compared with those of"),
        ("different_machines", "come from another type of machine"),
    ],
)
def test_a_verdict_is_said_as_it_is(verdict, words):
    text = conclusions.conclusion(pd.DataFrame([difference(MAIN, OTHER, verdict)]), "maps")
    assert text.startswith(f"The maps of SAFN with 2 scales {words}") and "max pooling with 2 scales" in text


def test_other_configurations_are_listed_by_their_verdicts():
    rows = [
        difference(MAIN, OTHER, "better"),
        difference(MAIN, "attention_1", "undecided"),
        difference(MAIN, "avg_1-0.5", "better"),
    ]
    first, second = conclusions.conclusion(pd.DataFrame(rows), "maps").split(". ")
    assert first.endswith("better than those of max pooling with 2 scales and average pooling with 2 scales")
    assert second == "They do not differ significantly from those of the baseline with 1 scale."
    assert conclusions.conclusion(pd.DataFrame(rows).iloc[:0], "maps") == "The maps were not compared."


def runs_of(**maps: float) -> pd.DataFrame:
    records = {("04_localization_maps", run): {"metrics": {"map_miou": value}} for run, value in maps.items()}
    return runs_table(records)


def test_means_are_those_of_the_seeds_that_all_configurations_have():
    runs = runs_of(**{f"{MAIN}_seed0": 0.4, f"{MAIN}_seed1": 0.9, f"{OTHER}_seed0": 0.3})
    row = difference(MAIN, OTHER, "too_few_seeds", 10.0, seeds=(10.0,))
    rows = pd.DataFrame([row | {"all_from": float("nan"), "all_to": float("nan")}])
    table = conclusions.comparison(runs, rows, "maps")
    assert table["mIoU"].to_dict() == {"SAFN, 2 scales": "40.0", "max pooling, 2 scales": "30.0"}
    assert table.loc["max pooling, 2 scales", "ahead by"] == "+10.00"
    assert table.loc["max pooling, 2 scales", "95 % interval (images)"] == "0.20 to 1.80"


def test_replaced_weights_are_counted_over_the_networks():
    rows = [
        ("their mean", -0.2, -0.5, -0.0),
        ("their mean", 0.0, -0.1, 0.1),
        ("equal", 0.4, 0.1, 0.7),
        ("learned", 0, 0, 0),
    ]
    replaced = pd.DataFrame(rows, columns=["weights", "difference", "from", "to"])
    table = conclusions.replaced_table(replaced)
    constant = table.loc[conclusions.CONSTANT]
    assert (constant["change"], constant["worse"], constant["better"]) == (-0.1, 1, 0)
    assert constant["each network"] == "−0.20, 0.00" and table.loc["equal weights", "better"] == 1
    text = conclusions.weights_statement(table, 2)
    assert "does worse than the learned weights" in text and "−0.10 points" in text and "in 1 of 2 networks" in text


def test_sizes_name_the_best_configuration():
    sizes = pd.DataFrame({MAIN: [20.5, 40.0, None], OTHER: [10.0, 50.25, None]}, index=["small", "large", "none"])
    text = conclusions.size_statement(sizes)
    assert "SAFN with 2 scales on small objects" in text and "max pooling with 2 scales on large objects" in text
    assert "none" not in text and "No object" in conclusions.size_statement(sizes[2:])


def test_correlations_are_those_of_the_largest_scale():
    rows = [("0.5", 0.4, 0.5), ("1", -0.3, -0.1), ("0.5", 0.4, 0.5), ("1", -0.3, 0.1)]
    text = conclusions.correlation_statement(pd.DataFrame(rows, columns=["scale", "from", "to"]))
    assert "weight of scale 1 " in text and "in 1 of 2 networks" in text and "in none" in text
