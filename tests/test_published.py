"""The published numbers agree with one another."""

from __future__ import annotations

import pandas as pd
import pytest

from safn.data import VOC_CLASSES
from safn_book import published


def test_each_mean_of_table_3_is_the_mean_of_its_21_classes():
    table = published.table(3)
    assert list(table.index) == ["background", *VOC_CLASSES, "mean"]
    assert list(table.columns) == ["VGG16-val", "VGG16-test", "ResNet-val", "ResNet-test"]
    means = table.drop("mean").mean()
    assert (means - table.loc["mean"]).abs().max() <= 0.05  # the printed values have one decimal


@pytest.mark.parametrize("number, network", [(1, "VGG16"), (2, "ResNet")])
def test_tables_1_and_2_state_the_means_of_table_3(number, network):
    ours = published.table(number).set_index("method").loc["SAFN"]
    means = published.table(3).loc["mean"]
    assert (ours["val"], ours["test"]) == (means[f"{network}-val"], means[f"{network}-test"])


def test_tables_4_and_6_agree_on_attention_over_three_scales():
    tests = ["single scale", "multiple scales"]
    attention = published.table(4).set_index("aggregation").loc["attention", tests]
    three = published.table(6).set_index("scales").loc["1-0.75-0.5", tests]
    assert list(attention) == list(three) == [57.6, 59.5]


def test_every_table_is_there_with_its_rows_and_caption():
    assert [len(published.table(n)) for n in range(1, 7)] == [17, 10, 22, 3, 3, 3]
    for number in range(1, 7):
        assert published.CAPTIONS[number] and not published.table(number).isna().any().any()


def test_tables_1_and_2_put_safn_first_among_image_labels_only():
    for number in (1, 2):
        table = published.table(number)
        same = table[table["supervision"] == "labels only"]
        assert same.loc[same["val"].idxmax(), "method"] == same.loc[same["test"].idxmax(), "method"] == "SAFN"


def test_unknown_table_is_refused():
    with pytest.raises(ValueError, match="no Table 7; valid: 1, 2, 3, 4, 5, 6"):
        published.table(7)


def test_peers_are_on_train_and_refined_labels_beat_their_maps():
    peers = pd.read_csv(published.FOLDER / "peers.csv")
    assert set(peers["split"]) == {"VOC 2012 train"}
    both = peers.dropna()
    assert (both["pseudo labels"] > both["localization maps"]).all()
