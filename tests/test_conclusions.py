"""Differences are turned and counted as they should."""

from __future__ import annotations

import pandas as pd

from safn_book import conclusions

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
