"""Collects the prose, the executed notebooks and what is generated into one folder, and builds the book there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from safn_book import charts, drawings, evidence, pages, quotes, recorded

ROOT = Path(__file__).resolve().parent.parent
TITLES = {
    "00_data": "Data",
    "01_saliency": "Saliency maps",
    "02_baseline": "Baseline maps and Grad-CAM",
    "03_train_safn": "Training SAFN",
    "04_localization_maps": "Localization maps",
    "05_pseudo_ground_truth": "Pseudo ground truth",
    "06_train_segmentation": "Training the segmentation network",
    "07_evaluate": "Evaluation",
    "08_aggregation": "Aggregation methods",
    "09_scales": "Sets of scales",
    "10_figures": "Figures",
    "11_comparison": "Comparison",
}


class BookError(RuntimeError):
    """The book cannot be built; the message lists every reason."""


def build(runs: Path, chapters: dict[str, Path], out: Path, jobs: Iterable[tuple[str, str]] | None = None) -> Path:
    """Build the book of a profile.

    Args:
        runs: ``runs/<profile>``: holds ``<stage>/<run>/record.json`` and ``executed/<stage>/<run>.ipynb``.
        chapters: stage -> executed notebook that is its chapter. A stage without one gets a page that says so.
        out: the build folder; whatever an earlier build left there is replaced.
        jobs: (stage, run) of all runs that belong to the book, for the provenance page and the search for errors;
            ``None``: the chapters alone are searched, and every record of ``runs`` is listed.

    Returns:
        the first page, ``out/_build/html/index.html``.

    Raises:
        BookError: notebooks with errors or warnings, a warning of the build, or pages that need the internet.
    """
    jobs = None if jobs is None else list(jobs)
    notebooks = set(chapters.values())
    notebooks |= {runs / "executed" / stage / f"{run}.ipynb" for stage, run in jobs or ()}
    problems = [line for path in sorted(notebooks) for line in notebook_problems(path)]
    if problems:
        raise BookError("\n  - ".join(["the book is not built, its notebooks have faults:", *problems]))
    collect(runs, chapters, out, jobs)
    # not the script jupyter-book: it names the Python of the folder that it was installed in
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*program, "build", str(out), "-W", "--keep-going"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    (out / "build.log").write_text(log)
    if done.returncode:
        lines = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
        lines = lines or [line for line in log.splitlines() if line.strip()][-5:]
        raise BookError("\n  - ".join([f"jupyter-book fails ({out / 'build.log'}):", *lines]))
    html = out / "_build" / "html"
    foreign = external_resources(html)
    if foreign:
        raise BookError("\n  - ".join(["these pages need the internet:", *foreign]))
    return html / "index.html"


# --- executed notebooks ----------------------------------------------------------------------------------------------


def notebook_problems(path: Path) -> list[str]:
    """What forbids a notebook in the book: errors, warnings or other error output, cells not run, widgets."""
    if not path.exists():
        return [f"{path}: missing"]
    notebook = json.loads(path.read_text())
    problems = []
    if notebook["metadata"].get("papermill", {}).get("exception"):
        problems.append(f"{path}: its execution failed")
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        where = f"{path}, cell {number}"
        if cell.get("execution_count") is None:
            problems.append(f"{where}: not executed")
        for output in cell["outputs"]:
            problems += [f"{where}: {text}" for text in _output_problems(output)]
    return problems


def _output_problems(output: dict[str, Any]) -> Iterator[str]:
    if output["output_type"] == "error":
        yield f"{output['ename']}: {output['evalue']}"
    elif output["output_type"] == "stream":
        lines = "".join(output["text"]).strip().splitlines()
        if output["name"] == "stderr" and lines:
            yield f"error output: {lines[0][:200]}"
        elif warned := next((line for line in lines if re.search(r"\b\w*Warning: ", line)), None):
            yield f"warning: {warned[:200]}"
    elif any("widget" in kind for kind in output.get("data", ())):
        yield "a widget, which needs scripts from elsewhere: use plain tqdm"


def _copy_notebook(source: Path, target: Path) -> None:
    """Copy an executed notebook; of a progress line that redrew itself the last state remains."""
    notebook = json.loads(source.read_text())
    for cell in notebook["cells"]:
        merged: list[dict[str, Any]] = []
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream" and merged and merged[-1].get("name") == output["name"]:
                merged[-1]["text"] += "".join(output["text"])
            elif output["output_type"] == "stream":
                merged.append({**output, "text": "".join(output["text"])})
            else:
                merged.append(output)
        for output in merged:
            if output["output_type"] == "stream":
                lines = output["text"].split("\n")
                output["text"] = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        if "outputs" in cell:
            cell["outputs"] = merged
    target.write_text(json.dumps(notebook, indent=1))


# --- the build folder ------------------------------------------------------------------------------------------------


def collect(runs: Path, chapters: dict[str, Path], out: Path, jobs: Iterable[tuple[str, str]] | None = None) -> None:
    """Fill the build folder: prose, chapters, drawings, provenance, pages of code."""
    if out.exists() and any(out.iterdir()) and not (out / "_toc.yml").exists():
        raise BookError(f"{out} holds other files: name a folder that is empty or an earlier build")
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)  # half deleted it would pass for other files
        shutil.rmtree(old)
    (out / "notebooks").mkdir(parents=True)
    for name in ("_toc.yml", "_config.yml"):  # what an earlier build is known by comes first
        shutil.copy(ROOT / name, out)
    shutil.copytree(ROOT / "book", out / "book")
    for stage in _stages(ROOT / "_toc.yml"):
        if stage in chapters:
            _copy_notebook(chapters[stage], out / "notebooks" / f"{stage}.ipynb")
        else:
            title = TITLES.get(stage, stage)
            text = f"# {title}\n\nThis profile does not run this stage. `notebooks/{stage}.ipynb` holds it.\n"
            (out / "notebooks" / f"{stage}.md").write_text(text)
    drawings.save(out / "book" / "drawn")
    _generate(out / "book" / "generated", runs, chapters, jobs)
    recorded.write_pages(out / "book" / "records")
    pages.write_code(out / "book" / "code")
    for page in (out / "book").glob("*.md"):
        page.write_text(pages.linked(quotes.glued(page.read_text())))


def _generate(out: Path, runs: Path, chapters: dict[str, Path], jobs: Iterable[tuple[str, str]] | None) -> None:
    """The texts and pictures that the prose includes."""
    out.mkdir()
    texts = {
        "profile": _built_from(runs, chapters),
        "provenance": pages.provenance(runs, jobs),
        "recorded": recorded.overview(),
        "evidence": evidence.sections("evidence"),
        "evidence_emoji": evidence.sections("evidence-emoji"),
        "faults": pages.faults(),
        "kills": pages.kills(),
        "attention": f"{pages.attention()}\n{recorded.weights()}",
        "smoke": pages.smoke(),
        "speed": pages.speed(),
        "missed": pages.missed(),
        "profiles": pages.profiles(),
    }
    for name, text in texts.items():
        (out / f"{name}.md").write_text(text)
    drawn = evidence.pictures()
    if len(rows := pages.swept()):
        drawn["attention-swept"] = charts.swept(rows)
    if curves := pages.growth():
        drawn["growth"] = charts.growth(curves)
    for name, figure in drawn.items():
        drawings.write_svg(out / f"{name}.svg", figure)


def _built_from(runs: Path, chapters: dict[str, Path]) -> str:
    """One sentence for the first page: which profile this copy shows, and which run of the main chapters."""
    text = f"This copy shows the profile `{runs.resolve().name}`"
    if "03_train_safn" in chapters:
        text += f"; its chapters on training show the run `{chapters['03_train_safn'].stem}`"
    return f":::{{note}}\n{text}.\n:::\n"


def _stages(toc: Path) -> list[str]:
    """The notebooks that a table of contents names."""
    parts = yaml.safe_load(toc.read_text())["parts"]
    files = [chapter["file"] for part in parts for chapter in part["chapters"]]
    return [Path(file).name for file in files if file.startswith("notebooks/")]


# --- the built pages -------------------------------------------------------------------------------------------------


class _Resources(HTMLParser):
    """Collects the addresses that a page loads by itself (links to follow are not among them)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and values.get("rel") not in (
            "canonical",
            "next",
            "prev",
            "search",
            "author",
            "license",
        ):
            self.found.append(values.get("href", ""))
        elif tag != "a":
            self.found += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]


def external_resources(html: Path) -> list[str]:
    """Scripts, styles, fonts and pictures that the built pages would fetch from elsewhere, as ``page: address``."""
    found = []
    for path in sorted(html.rglob("*.html")):
        parser = _Resources()
        parser.feed(path.read_text())
        found += [f"{path.relative_to(html)}: {a}" for a in parser.found if re.match(r"(https?:)?//", a)]
    for path in sorted(html.rglob("*.css")):
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s;]+)", path.read_text())
        found += [f"{path.relative_to(html)}: {a}" for a in addresses]
    return found
