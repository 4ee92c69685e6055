from __future__ import annotations

import re

import pandas as pd
import pytest

from safn_book import tables


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        ("attention_1-0.75-0.5", "SAFN, 3 scales"),
        ("avg_1-0.5", "average pooling, 2 scales"),
        ("attention_1", "baseline, 1 scale"),
        ("masks", "fully supervised"),
        ("max_1-0.5+saliency@resnet101-aspp", "max pooling, 2 scales, foreground from saliency only, resnet101-aspp"),
        ("localization maps", "localization maps"),
    ],
)
def test_a_configuration_has_a_short_name(configuration, name):
    assert tables.short_name(configuration) == name


def test_names_that_would_be_alike_stay_as_they_are():
    table = pd.DataFrame({"v": [1, 2]}, index=["attention_1-0.5", "attention_1-0.75"])
    assert list(tables.with_short_names(table).index) == ["attention_1-0.5", "attention_1-0.75"]
    assert list(tables.with_short_names(table[:1]).index) == ["SAFN, 2 scales"]


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_missing_is_a_dash(missing):
    assert tables.number(missing) == tables.interval(missing, 1) == tables.interval(1, missing) == "–"


def test_numbers_have_a_sign_and_no_negative_zero():
    assert [tables.number(v, 1, sign=True) for v in (1.26, -1.26, -0.01)] == ["+1.3", "−1.3", "0.0"]


def test_a_shown_table_has_one_decimal_and_its_best_value_in_bold():
    table = pd.DataFrame({"method": ["a", None], "val": [41.25, float("nan")], "epochs": [6, 8]})
    html = tables.show(table, "mIoU (%)", best=["val"]).to_html()
    cells = re.findall(r"<td id=\"\w+(row\d_col\d)\"[^>]*>(.*?)</td>", html)
    assert cells == [("row0_col0", "a"), ("row0_col1", "41.2"), ("row0_col2", "6"),
                     ("row1_col0", "–"), ("row1_col1", "–"), ("row1_col2", "8")]  # fmt: skip
    assert re.search(r"row0_col1 {\s*font-weight: bold", html) and "<caption>mIoU (%)</caption>" in html
    assert "row_heading" not in html  # the numbers of the rows are hidden
    assert "row_heading" in tables.show(table.set_index("method")[["val"]]).to_html()


def test_shares_become_percent():
    assert ">12.3</td>" in tables.percent({"a": 0.1234, "b": float("nan")}).to_html()


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("weight 0.75", "weight of scale 0.75"),
        ("weight spread 1", "weight of scale 1, standard deviation between pixels"),
        ("ignored_share_train_list", "ignored pixels, official train list"),
        ("val_iou_crf large (> 30 %)", "IoU of large (> 30 %) objects, multi-scale + CRF"),
        ("a new metric", "a new metric"),
    ],
)
def test_a_metric_has_a_name_in_words(metric, name):
    assert tables.metric_name(metric) == name


@pytest.mark.parametrize(
    ("metric", "low", "high", "text"),
    [
        ("weight 0.5", -0.06, 0.3, "0.00 to 0.30"),
        ("weight 1", 0.9, 1.12, "0.90 to 1.00"),
        ("ignored_share", -0.024, 0.036, "0.0\xa0% to 3.6\xa0%"),
        ("train_images", 1631, 1631, "1,631"),
        ("labels_an_image", 1.72, 1.78, "1.72 to 1.78"),
        ("gain_over_classifier_alone", -0.02, 0.04, "−2.0\xa0% to 4.0\xa0%"),
        ("loss", 1.2, 1.4, "1.200 to 1.400"),
        ("map_miou", None, None, "–"),
    ],
)
def test_a_range_holds_only_what_is_possible(metric, low, high, text):
    assert tables.metric_range(metric, low, high) == text


def test_the_best_of_texts_with_deviations_is_in_bold():
    table = pd.DataFrame({"mIoU": ["9.5 ± 0.1", "54.1", "–"]})
    html = tables.show(table, best=["mIoU"]).to_html()
    assert re.findall(r"(row\d)_col0 {\s*font-weight: bold", html) == ["row1"] and "9.5\xa0±\xa00.1" in html
