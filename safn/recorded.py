"""The recorded runs of ``results/``: their tables and pages in the book, and the numbers that its text quotes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from safn import charts, drawings
from safn.metrics import CONVENTIONS
from safn.pages import ROOT, picture, table
from safn.plan import CHAIN, base_run
from safn.records import parse_run
from safn.results import PROTOCOLS, over_seeds

FOLDER = ROOT / "results"
Records = dict[tuple[str, str], dict[str, Any]]
QUOTE = re.compile(r"\{=([^:{}]+):([^:{}]+):([^:{}]+)(?::([^:{}]+))?\}")
# columns of the tables: the metrics that share a cell
OVERVIEW = {
    "mAP": ["val_mAP"],
    "maps": ["map_miou"],
    "pseudo ground truth, 255 dropped / background / wrong": [f"pseudo_miou_{k}" for k in CONVENTIONS],
    "255": ["ignored_share"],
    "val, single scale / multi-scale / CRF": [f"val_miou_{k}" for k in PROTOCOLS],
}
# the tables of means: title -> metric -> column
MEANS = {
    "classifier (mAP, validation images), maps and pseudo ground truth (mIoU, training images)": {
        "val_mAP": "mAP",
        "map_miou": "maps",
        "pseudo_miou_drop": "pseudo, 255 dropped",
        "pseudo_miou_background": "255 as background",
        "pseudo_miou_wrong": "255 as wrong",
        "ignored_share": "share of 255",
    },
    "the same mIoU on those training images that are on the official train list": {
        "map_miou_train_list": "maps",
        "pseudo_miou_drop_train_list": "pseudo, 255 dropped",
        "pseudo_miou_background_train_list": "255 as background",
        "pseudo_miou_wrong_train_list": "255 as wrong",
    },
    "segmentation (mIoU, validation images)": {f"val_miou_{key}": text for key, text in PROTOCOLS.items()},
}
PANELS = {
    "map_miou": "maps, training images",
    "pseudo_miou_background": "pseudo ground truth,\n255 as background",
    "val_miou_multi": "segmentation, val,\nmulti-scale",
    "val_miou_crf": "segmentation, val,\nmulti-scale + CRF",
}


def exported(folder: Path = FOLDER) -> dict[str, Records]:
    """Name of each file that ``python -m safn export`` wrote -> its records by stage and run; other files are left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        records = json.loads(path.read_text())
        if path.name != "expected.json" and isinstance(records, list):
            found[path.stem] = {(r["stage"], r["run"]): r for r in records}
    return found


def chain_of(records: Records, run: str) -> list[dict[str, Any]]:
    """The records of a run from the classifier to the evaluation; the first stages may be those of its base run."""
    names = (run, run.split("@")[0], base_run(run))
    found = [next((records[stage, n] for n in names if (stage, n) in records), None) for stage in CHAIN]
    return [record for record in found if record]


def runs_of(records: Records) -> pd.DataFrame:
    """One row a run with the metrics of all its stages (shares in 0..1) and, from its name, aggregation, scales and seed."""
    rows = []
    for run in sorted({run for stage, run in records if stage in CHAIN}):
        parsed = parse_run(base_run(run))
        scales = "-".join(f"{s:g}" for s in parsed.get("scales", []))
        row = {"run": run, "configuration": re.sub(r"_seed\d+", "", run), **parsed, "scales": scales}
        for record in chain_of(records, run):
            row |= {k: float("nan") if v is None else v for k, v in record["metrics"].items()}
        rows.append(row)
    return pd.DataFrame(rows)


# --- the page of all runs, and one for each ---------------------------------------------------------------------------


def overview(folder: Path = FOLDER) -> str:
    """A section in MyST for each exported file: what was measured on what, one row a run, linked to its record."""
    sections = []
    for name, records in exported(folder).items():
        runs = runs_of(records)
        rows = [
            [f"[{r['run']}](#{label(name, r['run'])})", *(_cell(r, metrics) for metrics in OVERVIEW.values())]
            for r in runs.to_dict("records")
        ]
        caption = f"Profile {name}, every run: mAP and mIoU in percent; maps and pseudo ground truth on training images"
        head = ["run", *OVERVIEW]
        sections.append(f"## Profile {name}\n\n{_said(records)}\n\n{table(caption, f'recorded-{name}', head, rows)}")
    return "\n".join(sections) or "No run is recorded yet.\n"


def label(name: str, run: str) -> str:
    """The label of the section that shows a run."""
    return re.sub(r"[^a-z0-9]+", "-", f"record-{name}-{run}".lower())


def _said(records: Records) -> str:
    """What the numbers of a file were measured with."""
    data = records["00_data", "default"]
    each = lambda of: ", ".join(sorted({str(v) for r in records.values() if (v := of(r))}))  # noqa: E731
    network = each(lambda r: "head" in r["parameters"] and f"{r['parameters']['backbone']}, {r['parameters']['head']}")
    return (
        f"{data['metrics']['train_images']} training and {data['metrics']['val_images']} validation images "
        f"(fingerprint `{data.get('data', '')}`). Backbone of the classifiers: {each(lambda r: 'scales' in r['parameters'] and r['parameters']['backbone'])}; "
        f"initial weights: {each(lambda r: r.get('init'))}; saliency: {each(lambda r: r.get('detector'))}; "
        f"segmentation: {network or 'none yet'}. {each(lambda r: r['machine'])}. `+maps` and `+saliency` are controls whose "
        "pseudo ground truth has only that; `masks` learns from the true masks of the training images."
    )


def _cell(row: dict[str, Any], metrics: list[str]) -> str:
    return " / ".join("-" if pd.isna(row.get(metric)) else f"{100 * row[metric]:.1f}" for metric in metrics)


def write_pages(out: Path, folder: Path = FOLDER) -> None:
    """One page for each exported file, with a section for each run: settings, seed, commit, cost and numbers of its stages."""
    out.mkdir()
    for name, records in exported(folder).items():
        parts = [f"# Records of {name}\n"]
        for run in runs_of(records)["run"]:
            parts.append(f"({label(name, run)})=\n## {run}\n")
            for record in chain_of(records, run):
                settings = ", ".join(f"{k} {v}" for k, v in record["parameters"].items() if k != "run")
                numbers = ", ".join(f"{k} {'-' if v is None else f'{v:.5g}'}" for k, v in record["metrics"].items())
                made = f"commit `{record['commit']}`, {record['seconds']:,.0f} s, fingerprint `{record['fingerprint']}`"
                parts.append(
                    f"**`{record['stage']}/{record['run']}`**, {made}, {record['finished']}\n"
                    f"- Settings: {settings}\n- Numbers: {numbers}\n"
                )
        (out / f"{name}.md").write_text("\n".join(parts))


# --- the numbers of the text ------------------------------------------------------------------------------------------


def glued(text: str, folder: Path = FOLDER) -> str:
    """The text with each ``{=<file>:<run>:<metric>}`` replaced by the recorded number, in percent with one decimal; a
    fourth part is another format of the bare number, such as ``.2f``.

    ``run``: of ``runs_of``; without its seed, the mean ± standard deviation over the seeds; or a stage, for what its
    record ``default`` holds. File ``bench``: a row of ``make bench`` and one of its numbers, bare, with two decimals.

    Raises:
        KeyError: naming each quoted number that is not recorded.
    """
    files, problems = exported(folder), []

    def number(match: re.Match) -> str:
        try:
            if match[1] == "bench":
                rows = json.loads((folder / "bench.json").read_text())["rows"]
                return format({r["what"]: r for r in rows}[match[2]][match[3]], match[4] or ".2f")
            return _quoted(files[match[1]], match[2], match[3], match[4])
        except (KeyError, IndexError, FileNotFoundError):
            problems.append(match[0])
            return match[0]

    made = QUOTE.sub(number, text)
    if problems:
        raise KeyError(f"not in results/: {', '.join(problems)}")
    return made


def _quoted(records: Records, run: str, metric: str, form: str | None) -> str:
    if (run, "default") in records:
        rows = pd.DataFrame([records[run, "default"]["metrics"]])
    else:
        runs = runs_of(records)
        rows = runs[(runs["run"] == run) | (runs["configuration"] == run)]
    values = rows[metric].dropna()
    if form is None and len(values) > 1:
        return over_seeds(values.to_frame().assign(of=run), "of", [metric]).iloc[0, 0]
    return format(values.mean(), form) if form else f"{100 * values.iloc[0]:.1f}"


# --- the page on what the attention does ------------------------------------------------------------------------------


def evidence(name: str, folder: Path = FOLDER) -> str:
    """The sections of one exported file in MyST: means over the seeds, differences with intervals, results by object size,
    and what the weights do."""
    records = exported(folder).get(name)
    if not records:
        return "Nothing is recorded yet.\n"
    runs, parts = runs_of(records), [_said(records), ""]
    parts.append(
        picture(f"seeds-{name}", "Each run (dots) and the mean over the seeds (lines); the axes do not begin at 0")
    )
    seeds = runs["seed"].dropna().astype(int).nunique()
    for number, (title, columns) in enumerate(MEANS.items()):
        there = [column for column in columns if column in runs]
        means = over_seeds(runs.dropna(subset=there, how="all"), "configuration", there)
        rows = [[plainly(kind), *row] for kind, row in zip(means.index, means.to_numpy())]
        caption = f"Mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}, percent: {title}"
        if there:
            parts.append(table(caption, f"{name}-means-{number}", ["", *(columns[c] for c in there)], rows))
    for stage, text in {"08_aggregation": "Table 4", "09_scales": "Table 6"}.items():
        found = records.get((stage, "default"), {})
        parts += [_frame(f"Differences of {text}: points of mIoU and 95 % intervals", f"{name}-differences-{stage}",
                         found.get("differences"), ".1f")]  # fmt: skip
        for what, sizes in found.get("by_size", {}).items():
            parts += [_frame(f"Foreground IoU (%) by object size, {text}: {what}", f"{name}-{stage}-{what.split()[-1]}",
                             pd.DataFrame(sizes).rename_axis("share of the image").reset_index().to_dict("records"), ".1f")]  # fmt: skip
    found = records.get(("09_scales", "default"), {})
    parts += [
        _frame("Rank correlation of a weight on an object with the share of the image that it covers",
               f"{name}-correlations", found.get("correlations"), ".2f"),
        _frame("mIoU (%) of the maps when other weights stand in the place of the learned ones, and IoU by object size",
               f"{name}-replaced", found.get("replaced"), ".1f"),
    ]  # fmt: skip
    if _thresholds(records):
        text = "The thresholds of the pseudo ground truth, one at a time moved, on up to 150 training images; dashed: as set"
        parts.append(picture(f"thresholds-{name}", text))
    return "\n".join(part for part in parts if part is not None)


def plainly(configuration: str) -> str:
    """``attention_1-0.75-0.5`` as ``attention, 1 / 0.75 / 0.5``."""
    return configuration.replace("_", ", ").replace("-", " / ")


def pictures(folder: Path = FOLDER) -> dict[str, Figure]:
    """Name -> figure of each that ``evidence`` shows."""
    drawn = {}
    for name, records in exported(folder).items():
        drawn[f"seeds-{name}"] = of_seeds(records)
        if record := _thresholds(records):
            drawn[f"thresholds-{name}"] = charts.sensitivity(pd.DataFrame(record["thresholds"]), record["parameters"])
    return drawn


def of_seeds(records: Records) -> Figure:
    """Every run and the means over the seeds, from the maps to the segmentation; controls and the upper bound have no maps
    of their own."""
    runs = runs_of(records)
    shown = runs.assign(configuration=runs["configuration"].map(plainly))
    shown.loc[runs["run"].str.contains("+", regex=False), "map_miou"] = float("nan")
    return charts.seeds(shown, {column: title for column, title in PANELS.items() if column in runs})


def draw(path: Path) -> None:
    """Write ``of_seeds`` of an exported file beside it, as SVG."""
    drawings.write_svg(path.with_suffix(".svg"), of_seeds(exported(path.parent)[path.stem]))


def _thresholds(records: Records) -> dict[str, Any] | None:
    """The record of stage 05 whose thresholds were moved: the first run's."""
    return next((r for (stage, _), r in sorted(records.items()) if stage == CHAIN[2] and r.get("thresholds")), None)


def _frame(caption: str, name: str, rows: list[dict[str, Any]] | None, form: str) -> str | None:
    """Rows of a record as a table; ``None`` where the record has none."""
    if not rows:
        return None

    def show(value: Any) -> str:
        return "-" if value is None else format(value, form) if isinstance(value, float) else str(value)

    return table(caption, name, list(rows[0]), [[show(value) for value in row.values()] for row in rows])


def weights(folder: Path = FOLDER) -> str:
    """A table in MyST of the scale weights that the exported runs have learnt."""
    rows = []
    for name, records in exported(folder).items():
        for r in (r for (stage, _), r in records.items() if stage == "03_train_safn" and "weight 1" in r["metrics"]):
            p, metrics = r["parameters"], r["metrics"]
            scales = [f"{scale:g}" for scale in p["scales"]]
            means, spreads = (" / ".join(f"{metrics[f'{kind} {s}']:.3f}" for s in scales)
                              for kind in ("weight", "weight spread"))  # fmt: skip
            rate = f"{p['learning_rate'] * p['attention_factor']:g}, {p.get('optimizer', 'sgd')}"
            rows.append([name, f"`{r['run']}`", str(p["crop"]), rate, means, spreads])
    head = ["profile", "run", "crop", "attention's rate", "mean weights", "spread between pixels"]
    return (
        table("Scale weights of the recorded runs, validation images", "recorded-weights", head, rows) if rows else ""
    )
