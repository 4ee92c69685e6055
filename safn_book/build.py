"""Collect the prose and the executed notebooks in one folder, and build the book there."""

import gc
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat.reader
import yaml
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from safn_book import explorer, reports

ROOT = Path(__file__).resolve().parent.parent


class BookError(RuntimeError):
    """The book cannot be built; the message lists every reason."""


def build(runs: Path, chapters: dict[str, Path], out: Path, jobs: Iterable[tuple[str, str]] = ()) -> Path:
    """Build the book of ``runs/<profile>`` in the folder ``out``, and return its first page.

    ``chapters``: stage -> executed notebook. The other chapters appear without outputs, and say so. ``jobs``: stage and
    run of all that belongs to the book, which is searched for errors and listed with its cost.

    Raises:
        BookError: notebooks with errors, or a warning of Jupyter Book.
    """
    jobs = list(jobs)
    _refuse_faulty({*chapters.values(), *(runs / "executed" / stage / f"{run}.ipynb" for stage, run in jobs)})
    pages = reports.execute(runs, jobs)
    _refuse_faulty(pages.values())
    explorer.write(reports.EXPLORER_DATA)
    collect(chapters, pages, out)
    program = [sys.executable, "-m", "safn_book.build"]  # see _jupyter_book
    command = [*program, "build", str(out.resolve()), "-W", "--keep-going"]  # in ROOT, whose packages it describes
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    (out / "build.log").write_text(log)
    if done.returncode:
        lines = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
        problems = lines or log.strip().splitlines()[-5:]
        raise BookError("\n  - ".join([f"jupyter-book fails ({out / 'build.log'}):", *problems]))
    return out / "_build" / "html" / "index.html"


def _refuse_faulty(notebooks: Iterable[Path]) -> None:
    problems = [line for path in sorted(notebooks) for line in notebook_problems(path)]
    if problems:
        raise BookError("\n  - ".join(["the book is not built, its notebooks have faults:", *problems]))


def _read(notebook: Path) -> NotebookNode:
    return nbformat.reader.reads(notebook.read_text())  # without a check of its form, which is slow


def notebook_problems(path: Path) -> list[str]:
    """What keeps a notebook out of the book: errors, cells not run, widgets. Warnings do not: ``notebook_warnings``."""
    if not path.exists():
        return [f"{path}: missing"]
    notebook = _read(path)
    failed = notebook.metadata.get("papermill", {}).get("exception")
    problems = [f"{path}: its execution failed"] if failed else []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and cell.source.strip():
            problems += [f"{path}, cell {number}: {text}" for text in _cell_problems(cell)]
    return problems


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    if cell.execution_count is None:
        yield "not executed"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"{output.ename}: {output.evalue}"
        elif any("widget" in kind for kind in output.get("data", ())):
            yield "a widget, which needs scripts from elsewhere: use plain tqdm"


def notebook_warnings(path: Path) -> list[str]:
    """What other programs wrote to the error output of a notebook, each line once and without the folder it comes from.
    The book is built all the same, without these lines. The page of records lists them."""
    cells = _read(path).cells if path.exists() else []
    errors = [output.text for cell in cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    lines = [line for text in errors for line in text.splitlines()]
    return list(dict.fromkeys(re.sub(r"^/\S*/", "", line)[:200] for line in lines if line[:1].strip()))


def collect(chapters: dict[str, Path], pages: dict[str, Path], out: Path) -> None:
    """Fill the build folder with the prose, the chapters and the report pages; an earlier build in it is replaced."""
    if out.exists() and any(out.iterdir()) and not (out / "_toc.yml").exists():
        raise BookError(f"{out} holds other files: name a folder that is empty or an earlier build")
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)  # half deleted it would pass for other files
        shutil.rmtree(old)
    (out / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "_toc.yml", out)  # what an earlier build is known by comes first
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config.setdefault("execute", {})["execute_notebooks"] = "off"  # all that is to run has run
    (out / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    for name in ("book", "profiles", "cluster"):
        shutil.copytree(ROOT / name, out / name)
    shutil.copy(ROOT / "README.md", out)  # whose table is on the first page
    (out / "safn" / "weights").mkdir(parents=True)
    shutil.copy(ROOT / "safn" / "weights" / "README.md", out / "safn" / "weights")  # the model card
    for source in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        _copy_notebook(chapters.get(source.stem, source), out / "notebooks" / source.name, source)
    for page, executed in pages.items():
        source = ROOT / "notebooks" / f"{reports.REPORTS[page][0]}.ipynb"
        placeholder, title = out / f"{page}.md", ""
        if placeholder.exists():
            title = placeholder.read_text().partition("\n")[0]
            placeholder.unlink()
        _copy_notebook(executed, out / f"{page}.ipynb", source, title)


def _copy_notebook(executed: Path, target: Path, source: Path, title: str = "") -> None:
    """Copy an executed notebook with the prose of its ``source``, without injected parameters, which name folders of this
    machine, with the last state of each progress line, with numbers for figures and tables, and where it appears on a
    second page with the ``title`` of that."""
    notebook = _read(executed)
    cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    cells = notebook.cells = _with_prose(cells, _read(source).cells)
    if title:
        cells[0].source = "\n".join([title, *cells[0].source.split("\n")[1:]])
        for cell in cells:  # it lies in the folder book
            cell.source = re.sub(r"\]\((?=\d\d_)", "](../notebooks/", cell.source)
    for cell in _code(cells):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
    _number(cells)
    target.write_text(json.dumps(notebook, indent=1))


def _with_prose(cells: list[NotebookNode], source: list[NotebookNode]) -> list[NotebookNode]:
    """Replace the prose and the tags by those of the repository, where the code is still what ran."""
    ran, code = _code(cells), _code(source)
    if [cell.source for cell in ran] != [cell.source for cell in code]:
        return cells
    for cell, own in zip(ran, code, strict=True):
        cell.metadata = own.metadata
    remaining = iter(ran)
    return [next(remaining) if own.cell_type == "code" else own for own in source]


def _code(cells: list[NotebookNode]) -> list[NotebookNode]:
    return [cell for cell in cells if cell.cell_type == "code"]


def _number(cells: list[NotebookNode]) -> None:
    """Number the captions of figures and tables in a chapter with a number: ``Figure 3.1``."""
    chapter = re.match(r"# (\d+)", cells[0].source)
    if not chapter:
        return
    numbers = {"figcaption": itertools.count(1), "caption": itertools.count(1)}

    def numbered(tag: re.Match[str]) -> str:
        word = "Figure" if tag[1] == "figcaption" else "Table"
        return f"{tag[0]}<b>{word} {chapter[1]}.{next(numbers[tag[1]])}.</b> "

    for cell in _code(cells):
        for output in cell.outputs:
            if "text/html" in output.get("data", {}):
                output.data["text/html"] = re.sub("<(figcaption|caption)>", numbered, output.data["text/html"])


def _jupyter_book() -> None:
    """Run Jupyter Book with the arguments of this process. Its own script has a first line that names the Python of the
    folder that it was installed in."""
    gc.set_threshold(100_000, 50, 100)  # Sphinx makes millions of objects that stay: this saves a third of its time
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # a second to import for what no notebook has
    from jupyter_book.cli.main import main

    main()


if __name__ == "__main__":
    _jupyter_book()
