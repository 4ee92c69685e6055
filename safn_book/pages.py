"""Pages of the book that are written by the build: where the numbers come from, and the code itself."""

from __future__ import annotations

import ast
import csv
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from safn_book.stages import RECORD

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"(?<!\[)`((safn/datasets|safn_book|safn|profiles)/([\w-]+)\.(py|yaml)(?:::([\w.]+))?)`")


def faults(path: Path = ROOT / "results" / "faults.csv") -> str:
    """A table in MyST of what ``make faults`` provoked: how, what happened, and what was lost."""
    if not path.exists():
        return "No fault has been provoked yet: `make faults` does.\n"
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    rows = [[re.sub(r"([|<*$])", r"\\\1", cell) for cell in row] for row in rows]  # messages are no markup
    return table(f"{len(rows)} faults, each provoked by a test, and what happened", "faults", head, rows)


def kills(path: Path = ROOT / "results" / "kills.json") -> str:
    """What ``benchmarks.kills`` found, in MyST: what the killed run was compared in, and a table of the kills."""
    if not path.exists():
        return "Nothing is measured yet: `python -m benchmarks.kills` does.\n"
    found = json.loads(path.read_text())
    different = [f"`{run}`: {line}" for run, lines in found["differences"].items() for line in lines]
    verdict = "**nothing differs**, to the last digit" if not different else "**different**: " + "; ".join(different)
    text = (
        f"`make book PROFILE={found['profile']}` was killed {len(found['kills'])} times at random moments, and continued with the "
        f"same command each time. Of {found['metrics compared']} metrics in {found['records compared']} records, against an "
        f"undisturbed run: {verdict}. {found['folders with the same bytes']} folders hold the same bytes (that of Table 5 holds measured times).\n"
    )
    rows = [
        [str(k), f"{kill['seconds']:.0f}", ", ".join(f"`{name}`" for name in kill["at work"]), str(kill["finished"])]
        for k, kill in enumerate(found["kills"], 1)
    ]
    head = ["kill", "after seconds", "at work", "stages finished"]
    return f"{text}\n{table('The kills', 'kills', head, rows)}"


def smoke(path: Path = ROOT / "results" / "smoke.json") -> str:
    """A table in MyST of ``python -m safn smoke``: real steps of the paper's networks, and what a whole run would take."""
    if not path.exists():
        return "Nothing is measured yet: `python -m safn smoke` does.\n"
    found = json.loads(path.read_text())
    rows = [
        [
            m["stage"].partition("_")[0],
            m["network"],
            "x".join(map(str, m["image"])),
            f"{m['batch']}" + (f" of {m['profile_batch']}" if m["batch"] != m["profile_batch"] else ""),
            f"{m['seconds_a_step']:.1f}",
            f"{m['peak_megabytes']:,}",
        ]
        for m in found["measured"]
    ]
    estimate = found["estimate"]
    caption = (
        f"Steps of profile {found['profile']} on a processor ({found['machine']}), float32, random weights and photos"
    )
    head = ["stage", "network", "pixels", "batch", "seconds a step", "peak MB"]
    text = (
        f"By counted operations the whole profile takes **{estimate['gpu_hours']:.0f} hours** of one GPU that sustains "
        f"{estimate['assumed_sustained_tflops']:g} TFLOP/s, which is assumed and not measured (the times of the paper's "
        f"Table 5 imply {estimate['sustained_tflops_that_table_5_implies']:g}), and {estimate['crf_core_hours']:g} hours of "
        f"one core for the CRF. Not counted: {estimate['not_counted']}.\n"
    )
    return f"{table(caption, 'smoke', head, rows)}\n{text}"


def speed(path: Path = ROOT / "results" / "bench.json") -> str:
    """What ``make bench`` measured, in MyST: a table of ratios with their goals, and the figure of ``charts.growth``."""
    if not path.exists():
        return "Nothing is measured yet: `make bench` does.\n"
    found = json.loads(path.read_text())
    rows = []
    for r in found["rows"]:
        spread = f" ({r['quartile 1']:.2f}-{r['quartile 3']:.2f})" if "quartile 1" in r else ""
        times = [f"{r[key]:,.{0 if r[key] >= 100 else 1}f}" if key in r else "-" for key in ("ours ms", "other ms")]
        goal = f"{r['sense']} {r['goal']:g}"
        rows.append(
            [r["what"], r["against"], *times, f"{r['value']:.4g}{spread}", goal, "yes" if r["reached"] else "**no**"]
        )
    head = ["what", "against", "ours, ms", "other, ms", "ratio", "goal", "reached"]
    caption = (
        f"Ours beside the alternative, in turns: medians of {_span(found['rows'], 'pairs')} pairs, in brackets the quartiles "
        f"of the ratio. {found['machine']}, torch {found['versions']['torch']}, load before {_span(found['rows'], 'load before')}"
    )
    text = "Time against the number of images, scales, classes and pixels, with the exponent of the fitted power"
    figure = picture("growth", text) if found["growth"] else ""
    return f"{table(caption, 'speed', head, rows)}\n{figure}"


def missed(path: Path = ROOT / "results" / "bench.json") -> str:
    """The rows of ``speed`` that miss their goal and the curves steeper than proportional, as a list in MyST."""
    if not path.exists():
        return "Nothing is measured yet.\n"
    rows = [r for r in json.loads(path.read_text())["rows"] if not r["reached"]]
    lines = [f"- {r['what']}: {r['value']:.4g}, wanted {r['sense']} {r['goal']:g}" for r in rows]
    steep = [c for c in growth(path) if c["exponent"] > 1]
    lines += [f"- {c['what']} grows with the {c['exponent']:.2f}th power of the {c['of']}" for c in steep]
    return "\n".join(lines or ["Every goal is reached, and nothing grows faster than in proportion."]) + "\n"


def _span(rows: list[dict[str, Any]], name: str) -> str:
    """The smallest and the largest of a value of some rows, or the one that all have."""
    values = sorted({row[name] for row in rows if name in row})
    return f"{values[0]:g} to {values[-1]:g}" if len(values) > 1 else f"{values[0]:g}"


def profiles(path: Path = ROOT / "results" / "bench.json") -> str:
    """A table in MyST for each profile of ``make bench``."""
    bench = json.loads(path.read_text()) if path.exists() else {}
    found = bench.get("profiles") or {}
    for row in (r for r in bench.get("rows", []) if "both processor s" in r and r["sense"] == "at most"):
        halves = {"network": row["network s"], "CRF": row["CRF s"], "both": round(row["ours ms"] / 1e3, 2)}
        busy = [{"what": k, "seconds": s, "processors busy for": row[f"{k} processor s"]} for k, s in halves.items()]
        found = {**found, "Eight photos, multi-scale test and CRF, alone and side by side: seconds": busy}
    tables = [
        table(title, f"profile-{number}", list(rows[0]), [[str(cell) for cell in row.values()] for row in rows])
        for number, (title, rows) in enumerate(found.items(), 1)
    ]
    return "\n".join(tables)


def growth(path: Path = ROOT / "results" / "bench.json") -> list[dict[str, Any]]:
    """The curves of ``make bench``; none where it has not run."""
    return json.loads(path.read_text())["growth"] if path.exists() else []


def attention(path: Path = ROOT / "results" / "attention.csv") -> str:
    """A figure of the settings that were changed alone, and a table in MyST for each data set of ``benchmarks.attention``."""
    rows = swept(path)
    if rows.empty:
        return "Nothing is measured yet: `python -m benchmarks.attention runs/emoji` does.\n"
    seeds = ", ".join(str(seed) for seed in rows["seed"].unique())
    start = f"EfficientNet-Lite0, ImageNet start, seed {seeds}"
    text = f"One setting at a time away from the default, which has a ring. {start}. Whiskers: spread between pixels"
    sections = [picture("attention-swept", text)]
    for number, ((data, images), group) in enumerate(rows.groupby(["data", "images"], sort=False), 1):
        cells = [
            [f"`{r['change']}`", *(_rounded(r[c], d) for c, d in ATTENTION.items())] for r in group.to_dict("records")
        ]
        text = f"{start}, {images} training images. Data: {data}"
        sections.append(table(text, f"attention-{number}-table", ["changed", *ATTENTION], cells))
    return "\n".join(sections)


def swept(path: Path = ROOT / "results" / "attention.csv") -> pd.DataFrame:
    """The rows of ``benchmarks.attention``; none where nothing was measured."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


# columns of results/attention.csv and their decimals; weight: mean over validation images, spread: standard deviation
# between the pixels of an image
ATTENTION = {"weight 1": 3, "weight 0.75": 3, "weight 0.5": 3, "spread 1": 3, "val mAP (%)": 1, "map mIoU (%)": 1}


def _rounded(value: float, digits: int) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def provenance(runs: Path, jobs: Iterable[tuple[str, str]] | None = None) -> str:
    """Two tables in MyST: the environments (commit, versions, machine), and each run with what it cost."""
    paths = sorted(runs.glob(f"*/*/{RECORD}")) if jobs is None else [runs / s / r / RECORD for s, r in sorted(jobs)]
    records = {f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text()) for path in paths if path.exists()}
    if not records:
        return "No stage has left a record.\n"
    environments: dict[str, str] = {}
    rows = []
    for name, record in records.items():
        key = environments.setdefault(json.dumps(_environment(record)), str(len(environments) + 1))
        cells = [
            record["stage"].partition("_")[0],
            f"`{record['run']}`",
            _shown(record.get("seed")),
            _shown(record.get("seconds"), ",.0f"),
            _shown(record.get("peak_megabytes"), ",.0f"),
            f"`{record['fingerprint'][:8]}`",
            f"`{data[:8]}`" if (data := _data_fingerprint(name, records)) else "-",
            key,
        ]
        rows.append(cells)
    total = sum(record.get("seconds") or 0 for record in records.values())
    head = ["stage", "run", "seed", "seconds", "peak MB", "result", "data", "env."]
    tables = [
        f"{len(rows)} runs took {total / 60:,.0f} minutes in all, one after another.\n",
        table(
            "Each run: its cost, and the fingerprints of what it wrote and of the data it goes back to",
            "runs",
            head,
            rows,
        ),
    ]
    for text, key in environments.items():
        values = [[what, str(value)] for what, value in json.loads(text).items()]
        tables.append(table(f"Environment {key}", f"environment-{key}", ["what", "value"], values))
    return "\n".join(tables)


def _environment(record: dict[str, Any]) -> dict[str, Any]:
    versions = {name: version for name, version in (record.get("versions") or {}).items() if version}
    return {
        "commit": record.get("commit") or "not known",
        "machine": record.get("machine") or "not known",
        **({"device": record["device"]} if record.get("device") else {}),
        "python": record.get("python") or "not known",
        **versions,
    }


def _data_fingerprint(name: str, records: dict[str, dict[str, Any]]) -> str | None:
    """The fingerprint of stage 00 that a run goes back to."""
    if name.startswith("00_data/"):
        return records[name]["fingerprint"]
    for source, fingerprint in records.get(name, {}).get("inputs", {}).items():
        if source.startswith("00_data/"):
            return fingerprint
        if found := _data_fingerprint(source, records):
            return found
    return None


def _shown(value: Any, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def table(caption: str, name: str, head: list[str], rows: list[list[str]]) -> str:
    """A table in MyST with a caption and a label."""
    lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *rows)]
    body = "\n".join(f"| {line} |" for line in lines)
    return f"```{{table}} {caption}\n:name: {name}\n\n{body}\n```\n"


def picture(name: str, caption: str) -> str:
    """A figure in MyST: ``generated/<name>.svg`` with a caption and its name as the label."""
    return f"```{{figure}} generated/{name}.svg\n:name: {name}\n\n{caption}\n```\n"


def names(path: Path) -> dict[str, str | None]:
    """What a module defines, or the keys of a YAML file -> the function or class whose section shows it.

    Methods are ``Class.method``. ``None`` stands for the top of the page.
    """
    text = path.read_text()
    if path.suffix == ".yaml":
        return dict.fromkeys(re.findall(r"^[\s-]*([\w-]+):", text, re.MULTILINE))
    found: dict[str, str | None] = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inner = (
                [n.name for n in node.body if isinstance(n, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
            )
            found |= dict.fromkeys([node.name, *(f"{node.name}.{name}" for name in inner)], node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= dict.fromkeys(t.id for t in targets if isinstance(t, ast.Name))
    return found


def unknown_names(text: str) -> list[str]:
    """Names such as `` `safn/maps.py::localization_maps` `` in a page that the tree does not have."""
    return [match[1] for match in NAMED.finditer(text) if _label(match) is None]


def linked(text: str) -> str:
    """The page with every such name linked to the page of code that shows it; unknown ones stay as they are."""
    return NAMED.sub(lambda match: f"[{match[0]}](#{label})" if (label := _label(match)) else match[0], text)


def _label(match: re.Match) -> str | None:
    _, folder, stem, suffix, name = match.groups()
    path = ROOT / folder / f"{stem}.{suffix}"
    if not path.exists() or (name and name not in (known := names(path))):
        return None
    section = known[name] if name else None
    return f"code-{Path(folder).name}-{stem}" + (f"-{section.lower()}" if section else "")


def write_code(folder: Path) -> None:
    """One page for each module and profile, one section for each function and class, line numbers as in the file."""
    folder.mkdir()
    for path in sorted(
        [
            *ROOT.glob("safn/[!_]*.py"),
            *ROOT.glob("safn/datasets/[!_]*.py"),
            *ROOT.glob("safn_book/[!_]*.py"),
            *ROOT.glob("profiles/*.yaml"),
        ]
    ):
        label = f"code-{path.parent.name}-{path.stem}"
        lines = path.read_text().splitlines()
        language, nodes = ("python", ast.parse(path.read_text()).body) if path.suffix == ".py" else ("yaml", [])
        nodes = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        starts = [(n.name, min([n.lineno, *(d.lineno for d in n.decorator_list)])) for n in nodes]
        parts = [f"({label})=\n# {path.relative_to(ROOT)}\n"]
        for (name, first), (_, after) in itertools.pairwise([("", 1), *starts, ("", len(lines) + 1)]):
            parts += [f"({label}-{name.lower()})=\n## {name}\n"] if name else []
            code = "\n".join(lines[first - 1 : after - 1]).rstrip()
            parts.append(
                f"````{{code-block}} {language}\n:class: source\n:linenos:\n:lineno-start: {first}\n\n{code}\n````\n"
            )
        (folder / f"{path.parent.name}_{path.stem}.md").write_text("\n".join(parts))
