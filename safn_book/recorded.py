"""The recorded runs of ``results/``: the table of all, a page for each, and the scale weights that they have learnt."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from safn.metrics import CONVENTIONS
from safn_book import archive
from safn_book.archive import Records
from safn_book.pages import ROOT, table
from safn_book.results import PROTOCOLS
from safn_book.settings import AGGREGATIONS
from safn_book.stages import parse_run
from safn_book.workflow import CHAIN, TRAINED, base_run, place

FOLDER = ROOT / "results"
# columns of the tables: the metrics that share a cell
OVERVIEW = {
    "mAP": ["val_mAP"],
    "maps": ["map_miou"],
    "pseudo ground truth, 255 dropped / background / wrong": [f"pseudo_miou_{k}" for k in CONVENTIONS],
    "255": ["ignored_share"],
    "val, single scale / multi-scale / CRF": [f"val_miou_{k}" for k in PROTOCOLS],
}


def exported(folder: Path = FOLDER) -> dict[str, Records]:
    """Name of each file that ``python -m safn export`` wrote -> its records by stage and run; other files are left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != "expected.json" and isinstance(json.loads(path.read_text()), list):
            found[path.stem] = archive.read(path)
    return found


def chain_of(records: Records, run: str) -> list[dict[str, Any]]:
    """The records of a run from the classifier to the evaluation, as far as there are any."""
    return [records[stage, name] for stage in CHAIN if (stage, name := place(stage, run)) in records]


def runs_of(records: Records) -> pd.DataFrame:
    """One row a run with the metrics of all its stages (shares in 0..1) and, from its name, aggregation, scales and seed; the
    main experiment's first, controls and the upper bound last."""
    rows = []
    for run in sorted({run for stage, run in records if stage in CHAIN}, key=_place):
        parsed = parse_run(base_run(run))
        scales = "-".join(f"{s:g}" for s in parsed.get("scales", []))
        row = {"run": run, "configuration": re.sub(r"_seed\d+", "", run), **parsed, "scales": scales}
        for record in chain_of(records, run):
            row |= {k: float("nan") if v is None else v for k, v in record["metrics"].items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["run", "configuration", "seed"])


def _place(run: str) -> tuple[Any, ...]:
    parsed = parse_run(base_run(run)) or {"scales": [], "aggregation": AGGREGATIONS[0]}
    return "+" in run, -len(parsed["scales"]), AGGREGATIONS.index(parsed["aggregation"]), run


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
        caption = f"{name}, every run: mAP and mIoU in percent; maps and pseudo ground truth on training images"
        head = ["run", *OVERVIEW]
        sections.append(
            f"## {name}\n\n{measured_with(records)} Data, saliency and comparing chapters have "
            f"[their records](#{label(name, 'shared')}), too.\n\n{table(caption, f'recorded-{name}', head, rows)}"
        )
    return "\n".join(sections) or "No run is recorded yet.\n"


def label(name: str, run: str) -> str:
    """The label of the section that shows a run."""
    return re.sub(r"[^a-z0-9]+", "-", f"record-{name}-{run}".lower())


TAUGHT = {
    "+saliency": "`+saliency` learns from the foreground of the saliency, of which only the class is from the maps",
    "+maps": "`+maps` learns from foreground and class of the maps alone",
    "masks_": "`masks` learns from the true masks of the training images",
}  # by what is in the name of a run


def measured_with(records: Records) -> str:
    """What the numbers of a file were measured with."""
    data = records["00_data", "default"]
    each = lambda of: "; ".join(sorted({str(v) for r in records.values() if (v := of(r))}))  # noqa: E731
    network = each(lambda r: "head" in r["parameters"] and f"{r['parameters']['backbone']}, {r['parameters']['head']}")
    return (
        f"{data['metrics']['train_images']} training and {data['metrics']['val_images']} validation images "
        f"(fingerprint `{data.get('data', '')}`). Backbone of the classifiers: {each(lambda r: 'scales' in r['parameters'] and r['parameters']['backbone'])}; "
        f"initial weights: {each(lambda r: r.get('init'))}; saliency: {each(lambda r: r.get('detector')) or 'none'}; "
        f"segmentation: {network or 'none'}. Trained on {each(lambda r: r['stage'] in TRAINED and _computer(r))}."
        + "".join(f" {text}." for name, text in TAUGHT.items() if any(name in run for _, run in records))
    )


def _computer(record: dict[str, Any]) -> str:
    graphics = "" if record["device"] == "cpu" else f", {record['device']}"
    return f"{record['machine']}{graphics}, torch {record['versions']['torch']}"


def _cell(row: dict[str, Any], metrics: list[str]) -> str:
    return " / ".join(percent(row.get(metric)) for metric in metrics)


def percent(share: float | None) -> str:
    """A share in 0..1 as percent with one digit, ``-`` where there is none."""
    return "-" if pd.isna(share) else f"{100 * share:.1f}"


def write_pages(out: Path, folder: Path = FOLDER) -> None:
    """One page for each exported file, with a section for each run: settings, seed, commit, cost and numbers of its stages."""
    out.mkdir()
    for name, records in exported(folder).items():
        parts = [f"# Records of {name}\n"]
        for run in runs_of(records)["run"]:
            parts.append(f"({label(name, run)})=\n## {run}\n")
            parts += map(_section, chain_of(records, run))
        parts.append(f"({label(name, 'shared')})=\n## What the runs share, and the chapters that compare them\n")
        parts += [_section(record) for (stage, _), record in records.items() if stage not in CHAIN]
        (out / f"{name}.md").write_text("\n".join(parts))


def _section(record: dict[str, Any]) -> str:
    """Settings, cost and numbers of one stage."""
    settings = ", ".join(f"{k} {v}" for k, v in record["parameters"].items() if k != "run")
    numbers = ", ".join(f"{k} {'-' if v is None else f'{v:.5g}'}" for k, v in record["metrics"].items())
    made = f"commit `{record['commit']}`, {record['seconds']:,.0f} s, fingerprint `{record['fingerprint']}`"
    since = [f"{what} {record[what]}" for what in ("init", "detector") if record.get(what)]
    return (
        f"**`{record['stage']}/{record['run']}`**, {made}, {record['finished']}\n"
        f"- Made with: {', '.join([_computer(record), *since])}\n- Settings: {settings}\n- Numbers: {numbers}\n"
        + (_by_class(record["per_class"]) if "per_class" in record else "")
    )


def _by_class(measured: dict[str, dict[str, float | None]]) -> str:
    """What a stage has measured for each class, as one item of a list."""
    classes = list(next(iter(measured.values())))
    cells = (f"{c} {' / '.join(percent(values[c]) for values in measured.values())}" for c in classes)
    return f"- By class (%), {' / '.join(measured)}: {', '.join(cells)}\n"


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
