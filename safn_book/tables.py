"""Tables as pages show them: short names, percent with one decimal, an en dash where nothing was measured."""

import html
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from safn_book.run_names import RunName

MISSING = "–"
METHODS = {"attention": "SAFN", "max": "max pooling", "avg": "average pooling"}
CONTROLS = {"maps": "labels from maps only", "saliency": "foreground from saliency only"}


def short_name(configuration: str) -> str:
    """Name a configuration (a run name without its seed) or an aggregation in words. Another text stays as it is.

    Example:
        >>> short_name("max_1-0.75-0.5"), short_name("attention_1+maps")
        ('max pooling, 3 scales', 'baseline, 1 scale, labels from maps only')
    """
    if configuration in METHODS:
        return METHODS[configuration]
    try:
        run = RunName.parse(configuration, seedless=True)
    except ValueError:
        return configuration
    if run.supervised:
        words = "fully supervised"
    elif len(run.scales) == 1:
        words = "baseline, 1 scale"
    else:
        words = f"{METHODS[run.aggregation]}, {len(run.scales)} scales"
    return ", ".join(filter(None, [words, CONTROLS.get(run.control), run.network]))


def versus(first: str, second: str) -> tuple[str, str]:
    """Name two configurations by what differs between them.

    Example:
        >>> versus("attention_1-0.75-0.5", "max_1-0.75-0.5"), versus("attention_1-0.75-0.5", "attention_1")
        (('SAFN', 'max pooling'), ('3 scales', '1 scale'))
    """
    try:
        runs = [RunName.parse(name, seedless=True) for name in (first, second)]
    except ValueError:
        return first, second
    methods = [METHODS[run.aggregation] for run in runs]
    counts = [f"{len(run.scales)} scale{'s' * (len(run.scales) > 1)}" for run in runs]
    for names, others in ((methods, counts), (counts, methods)):
        if names[0] != names[1] and others[0] == others[1]:
            return names[0], names[1]
    return short_name(first), short_name(second)


def with_short_names(table: pd.DataFrame) -> pd.DataFrame:
    """Replace configurations by short names in the index and the columns, unless two would be alike."""
    renamed = table.rename(index=short_name, columns=short_name).rename_axis(None)
    return renamed if renamed.index.is_unique and renamed.columns.is_unique else table


def number(value: Any, digits: int = 1, sign: bool = False) -> str:
    """Write a number with a fixed number of decimals, and an en dash where there is none.

    Example:
        >>> number(0.26), number(-1.04, 2), number(1, sign=True), number(float("nan"))
        ('0.3', '−1.04', '+1.0', '–')
    """
    if value is None or pd.isna(value) or np.isinf(value):
        return MISSING
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-+")
    return text.replace("-", "−")


def interval(low: Any, high: Any, digits: int = 1) -> str:
    """Write an interval, such as ``0.5 to 1.9``, and an en dash where an end is missing."""
    ends = [number(low, digits), number(high, digits)]
    return MISSING if MISSING in ends else " to ".join(ends)


def show(table: pd.DataFrame, caption: str = "", digits: int = 1, best: Iterable[str] = ()) -> Styler:
    """Style a table for a page, with so many ``digits`` after the point, and the largest value of the ``best`` columns
    in bold. Integers and texts stay as they are, and an index of consecutive numbers is hidden."""
    fractions = table.select_dtypes("float").columns
    others = table.columns.difference(fractions)
    styled = table.style.format(partial(number, digits=digits), subset=fractions)
    styled = styled.format(_unbroken, na_rep=MISSING, subset=others)
    styled = styled.apply(_bold_largest, subset=list(best)).set_caption(html.escape(caption, quote=False))
    styled = styled.format_index(escape="html", axis=0).format_index(escape="html", axis=1)  # names such as "< 10 %"
    styled = styled.set_table_attributes('class="dataframe"')  # as pandas does where a table has no style
    return styled.hide(axis="index") if isinstance(table.index, pd.RangeIndex) else styled


def _unbroken(value: Any) -> Any:
    """Keep ``54.1 ± 0.5`` in one line."""
    return value.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") if isinstance(value, str) else value


def _bold_largest(column: pd.Series) -> list[str]:
    """Mark the largest value, also of texts that begin with a number, such as ``54.1 ± 0.5``."""
    values = pd.to_numeric(column.astype(str).str.extract(r"^([\d.]+)")[0])
    return ["font-weight: bold" if value == values.max() else "" for value in values]


def percent(shares: dict[str, float], caption: str = "") -> Styler:
    """Style shares in 0..1 as one column of percentages."""
    return show(100 * pd.DataFrame({"%": pd.Series(shares, dtype=float)}), caption)


# --- metrics of a record ---------------------------------------------------------------------------------------------

METRICS = {  # a name begins with -> its words; the rest of the name stands at {}
    "train_images": "training images",
    "val_images": "validation images",
    "labels_an_image": "labels of an image",
    "saliency_mae": "saliency maps, mean absolute error",
    "saliency_iou": "saliency maps, IoU",
    "saliency_threshold": "saliency maps, best threshold",
    "val_mAP": "mAP",
    "loss": "loss of the last epoch",
    "weight ": "weight of scale {}",
    "weight spread ": "weight of scale {}, standard deviation between pixels",
    "map_miou": "localization maps, mIoU{}",
    "maps, ": "localization maps, mIoU, weights: {}",
    "map_threshold": "localization maps, best threshold",
    "map_iou ": "localization maps, IoU of {} objects",
    "empty_maps": "empty localization maps",
    "classifier_only_val_miou": "CAM baseline, mIoU",
    "pseudo_miou_drop": "pseudo labels, mIoU, ignored pixels excluded{}",
    "pseudo_miou_background": "pseudo labels, mIoU, ignored pixels as background{}",
    "pseudo_miou_wrong": "pseudo labels, mIoU, ignored pixels as errors{}",
    "pseudo_iou ": "pseudo labels, IoU of {} objects",
    "ignored_share": "ignored pixels{}",
    "val_miou_single": "mIoU, single scale{}",
    "val_miou_multi": "mIoU, multi-scale{}",
    "val_miou_crf": "mIoU, multi-scale + CRF{}",
    "val_iou_single ": "IoU of {} objects, single scale",
    "val_iou_multi ": "IoU of {} objects, multi-scale",
    "val_iou_crf ": "IoU of {} objects, multi-scale + CRF",
    "seconds_": "time of the test, {}",
    "gain_over_classifier_alone": "gain over the maps of the classifier",
}
# a name begins with -> how its value is written, the least and the largest value that it can have
FORMATS = {
    **dict.fromkeys(("train_images", "val_images", "empty_maps"), ("{:,.0f}", 0.0, math.inf)),
    "labels_an_image": ("{:.2f}", 0.0, math.inf),
    "loss": ("{:.3f}", 0.0, math.inf),
    "seconds": ("{:.1f} s", 0.0, math.inf),
    **dict.fromkeys(("weight", "map_threshold", "saliency_threshold"), ("{:.2f}", 0.0, 1.0)),
    "gain": ("{:.1%}", -1.0, 1.0),
}
SHARE = ("{:.1%}", 0.0, 1.0)  # what all other metrics are


def metric_name(metric: str) -> str:
    """Name a metric of a record in words. An unknown name stays as it is.

    Example:
        >>> metric_name("map_iou small (< 10 %)"), metric_name("val_miou_multi max_1-0.5_seed1")
        ('localization maps, IoU of small (< 10 %) objects', 'mIoU, multi-scale: max pooling, 2 scales, seed 1')
    """
    begin = max((known for known in METRICS if metric.startswith(known)), key=len, default="")
    rest = metric.removeprefix(begin)
    if rest.startswith(" "):  # a run
        run = RunName.parse(rest.strip())
        rest = f": {short_name(run.configuration)}, seed {run.seed}"
    return METRICS.get(begin, "{}").format(rest.replace("_train_list", ", official train list"))


def metric_value(metric: str, value: Any) -> str:
    """Write the value of a metric with its unit.

    Example:
        >>> metric_value("train_images", 10582), metric_value("weight 1", 0.734), metric_value("map_miou", None)
        ('10,582', '0.73', '–')
    """
    if value is None or pd.isna(value):
        return MISSING
    return _format(metric)[0].format(value).replace("%", "\N{NO-BREAK SPACE}%").replace("-", "−")


def metric_range(metric: str, low: Any, high: Any) -> str:
    """Write a range of a metric, without the part that no value can reach: ``0.00 to 0.26`` for a weight."""
    _, least, most = _format(metric)
    ends = [metric_value(metric, end) for end in np.clip(np.array((low, high), float), least, most)]
    return " to ".join(dict.fromkeys(ends))  # one end where both are alike


def _format(metric: str) -> tuple[str, float, float]:
    return next((found for begin, found in FORMATS.items() if metric.startswith(begin)), SHARE)
