from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from safn_book import charts


def test_curves_draw_the_columns_that_are_there():
    log = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "val_mAP": [None, 0.5, 0.6]})
    figure = charts.curves(log, {"loss": ["loss"], "mAP": ["val_mAP", "absent"]})
    lines = [axis.lines[0].get_xydata().tolist() for axis in figure.axes]
    assert lines == [[[1, 3], [2, 2], [3, 1]], [[2, 0.5], [3, 0.6]]] and len(figure.axes[1].lines) == 1
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "mAP"]


def test_bars_have_the_heights_of_the_table():
    table = pd.DataFrame({"val": [10.0, 20.0], "test": [30.0, 40.0]}, index=["max", "avg"])
    axis = charts.bars(table, "mIoU (%)").axes[0]
    assert sorted(patch.get_height() for patch in axis.patches) == [10, 20, 30, 40]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["max", "avg"] and axis.get_ylabel() == "mIoU (%)"


def test_the_sweep_marks_the_best_threshold():
    axis = charts.sweep("SAFN", np.array([0.1, 0.5, 0.2])).axes[0]
    assert [text.get_text() for text in axis.texts] == ["50.0 at 0.50"]
    assert axis.lines[0].get_markevery() == [1]


def test_weights_by_size_have_a_line_a_run_and_scale_and_a_colour_a_scale():
    rows = [(run, scale, 0.01 * k, k, k + 1, k + 2) for run in "ab" for scale in ("1", "0.5") for k in (1, 50)]
    axis = charts.weights_by_size(pd.DataFrame(rows, columns=["run", "scale", "share", "from", "median", "to"])).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1", "0.5"]
    assert [line.get_color() for line in axis.lines] == [*charts.SERIES[:2]] * 2
    assert all((line.get_xydata() == [(1, 2), (50, 51)]).all() for line in axis.lines)
    assert axis.get_xscale() == "log" and axis.get_ylim() == (0, 1)


def test_objects_by_size_have_a_panel_a_measure_with_bars_of_the_means():
    means = pd.DataFrame(
        {"attention_1-0.5": [10.0, 20.0], "max_1-0.5": [30.0, 40.0]}, index=["small (< 10 %)", "large"]
    )
    figure = charts.by_size({"maps": (means, means / 10), "segmentation_multi": (2 * means, means / 10)})
    assert [axis.get_title() for axis in figure.axes] == ["Localization maps", "Multi-scale segmentations"]
    heights = [sorted(patch.get_height() for patch in axis.patches) for axis in figure.axes]
    assert heights == [[10, 20, 30, 40], [20, 40, 60, 80]]
    assert labels(figure) == ["SAFN, 2 scales", "max pooling, 2 scales"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["small\n(< 10 %)", "large"]


def test_other_weights_have_a_row_each_and_a_dot_with_an_interval_a_network():
    rows = [("a", "learned", 0, 0, 0), ("a", "equal", -1, -2, -0.5), ("a", "one", 1, 0, 2), ("b", "equal", -3, -4, -1)]
    axis = charts.replaced(
        pd.DataFrame(rows, columns=["run", "weights", "difference", "from", "to"]), {"equal": "1/S"}
    ).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["one", "1/S"]
    dots = axis.lines[1].get_xydata().tolist()
    assert [x for x, _ in dots] == [-1, 1, -3] and [round(y) for _, y in dots] == [1, 0, 1]
    assert dots[0][1] > dots[2][1]  # networks of one row do not hide one another
    assert [ends[:, 0].tolist() for ends in axis.collections[0].get_segments()] == [[-2, -0.5], [0, 2], [-4, -1]]


def test_the_sensitivity_has_a_panel_a_threshold_and_marks_what_was_set():
    rows = [["gamma", v, v, v, v, 0.0] for v in (0.1, 0.2)] + [["ignore_saliency", 0.5, 1.0, 2.0, 3.0, 4.0]]
    table = pd.DataFrame(rows, columns=["threshold", "value", "drop", "background", "wrong", "ignored (%)"])
    figure = charts.sensitivity(table, {"gamma": 0.2, "ignore_saliency": 0.06})
    first, second, ignored, _ = figure.axes
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "gamma", "ignore_saliency"]
    assert list(second.lines[-1].get_xdata()) == [0.06, 0.06] and len(first.lines) == 4 and len(ignored.lines) == 2
    assert ignored.get_ylabel() == "ignored (%)"


ROW = {"measure": "maps", "first": "a", "second": "b", "points": 1.5, "images_from": 1.0, "images_to": 2.0}
ROW |= {"all_from": -1.0, "all_to": 4.0}


def lines(axis) -> list[list[list[float]]]:
    """The ends of the intervals of a panel."""
    return [collection.get_segments()[0].tolist() for collection in axis.collections]


def labels(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_difference_is_a_dot_with_two_intervals():
    other = ROW | {"second": "c", "points": -1.5}
    figure = charts.differences(pd.DataFrame([ROW, other, ROW | {"measure": "segmentation_crf"}]))
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["a − c", "a − b"]
    assert lines(left) == [[[1, 1], [2, 1]], [[-1, 1], [4, 1]], [[1, 0], [2, 0]], [[-1, 0], [4, 0]]]
    assert [line.get_xydata().tolist() for line in left.lines[1:]] == [[[1.5, 1]], [[-1.5, 0]]]
    assert len(lines(right)) == 2 and labels(figure) == ["95 %, images", "95 %, images and seeds"]


def test_one_seed_has_no_interval_over_seeds_and_no_counts_have_none_over_images():
    nothing = dict.fromkeys(("images_from", "images_to", "all_from", "all_to"))
    one_seed = ROW | {"all_from": None, "all_to": None}
    no_counts = ROW | {"images_from": None, "images_to": None}
    for row, expected in ((one_seed, ["95 %, images"]), (no_counts, ["95 %, seeds"]), (ROW | nothing, [])):
        figure = charts.differences(pd.DataFrame([row]))
        assert labels(figure) == expected and len(lines(figure.axes[0])) == len(expected)


def test_only_a_call_changes_the_style():
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        charts.use_style()
        assert not mpl.rcParams["axes.spines.top"]


@pytest.mark.fault(
    25,
    "class names with dollar signs, and in letters that Matplotlib's font lacks",
    "drawn as a legend, under a matplotlibrc with another font and LaTeX",
)
def test_names_of_classes_are_drawn_as_they_are(monkeypatch, happened):
    monkeypatch.setattr(charts.fontManager, "get_font_names", lambda: ["DejaVu Sans", "Impact", "Noto Sans CJK SC"])
    with plt.rc_context():
        plt.rcParams.update({"font.family": ["Comic Sans MS"], "text.usetex": True})  # of a matplotlibrc
        charts.use_style()
        assert plt.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans CJK SC"]
        assert not plt.rcParams["text.usetex"]
        plt.rcParams["font.family"] = ["DejaVu Sans"]
        names = ["$5 and $10", "US$ \\frac"]
        figure = charts.bars(pd.DataFrame({names[0]: [1.0]}, [names[1]]), "images")
        figure.canvas.draw()  # as mathematics the names would be errors, or lose their signs
        axis = figure.axes[0]
        shown = [axis.get_legend().get_texts()[0], axis.get_xticklabels()[0]]
        assert [text.get_text() for text in shown] == names and not any(text.get_parse_math() for text in shown)
    happened("no message: drawn as they are, in another font of the machine where it has one")
