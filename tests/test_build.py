"""The book builds from executed notebooks, opens without internet, and refuses notebooks with faults. Its report pages show
the numbers of ``results/``."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from safn_book import build, explorer, reports
from safn_book.run_names import Stage
from tests import browser, pages

RESULTS = build.ROOT / "results"

PROGRESS = [{"output_type": "stream", "name": "stdout", "text": t} for t in ("\r 10%", "\r100%\n", "finished\n")]


def code_cell(source="1 + 1", outputs=(), count=1):
    return {
        "cell_type": "code",
        "id": f"cell-{count}",
        "metadata": {},
        "source": source,
        "execution_count": count,
        "outputs": list(outputs),
    }


INJECTED = code_cell('runs = "/home/me/runs"', count=2)
INJECTED["metadata"]["tags"] = ["injected-parameters"]


def write_notebook(path: Path, *cells, title="Chapter", **papermill) -> Path:
    heading = {
        "cell_type": "markdown",
        "id": "heading",
        "metadata": {},
        "source": f"# {title}\n\nAfter {{eq}}`eq-1`.",
    }
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"language_info": {"name": "python"}, "papermill": papermill},
        "cells": [heading, *cells],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook))
    return path


def make_runs(root: Path) -> tuple[Path, dict[str, Path]]:
    """A run of every stage but 08, each with a record and an executed notebook."""
    runs, chapters = root / "runs" / "tiny", {}
    for stage in Stage:
        if stage is Stage.AGGREGATION:
            continue
        path = runs / "executed" / stage / "main.ipynb"
        chapters[stage] = write_notebook(path, INJECTED, code_cell(outputs=PROGRESS), title=stage.heading)
        folder = runs / stage / "main"
        folder.mkdir(parents=True)
        record = {"stage": stage, "run": "main", "fingerprint": stage[:2] * 8, "inputs": {}, "seconds": 60}
        (folder / "record.json").write_text(json.dumps(record))
    return runs, chapters


@pytest.fixture(scope="module")
def runs_and_html(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of runs and the book that is built from it."""
    root = tmp_path_factory.mktemp("book")
    runs, chapters = make_runs(root)
    jobs = [(stage, "main") for stage in chapters]
    return runs, build.build(runs, chapters, root / "out", jobs).parent


@pytest.fixture(scope="module")
def html(runs_and_html) -> Path:
    return runs_and_html[1]


def text_of(html: Path, page: str) -> str:
    return (html / f"{page}.html").read_text()


# The built pages


def test_every_chapter_is_built_from_its_executed_notebook(html):
    for stage in Stage:
        page = text_of(html, f"notebooks/{stage}")
        assert ("finished" in page) == (stage is not Stage.AGGREGATION)
    page = re.sub("<[^>]+>", "", text_of(html, "notebooks/08_aggregation"))
    assert "papermill 08_aggregation.ipynb" in page and "conclusions.differences" in page


in_a_browser = pytest.mark.skipif(not browser.CHROMIUM, reason="Chromium is not installed")


@in_a_browser
def test_a_browser_shows_every_page_whole(html):
    assert pages.look(html) == {}


@in_a_browser
@pytest.mark.parametrize(
    ("words", "first"), [("Eq. 2", "The method"), ("glossary", "Glossary"), ("number is low", "Recipes")]
)
def test_the_search_finds_the_page_that_explains(html, words, first):
    with browser.chromium() as page:
        page.open((html / "search.html").as_uri() + f"?q={words.replace(' ', '+')}")
        hit = page.evaluate(FIRST_HIT)
    assert hit.startswith(first)


FIRST_HIT = """(async () => {
  for (let k = 0; k < 100; k++) {
    const hit = document.querySelector('#search-results li a');
    if (hit) return hit.innerText;
    await new Promise(after => setTimeout(after, 100));
  }
  return 'nothing';
})()"""


class Resources(HTMLParser):
    """The addresses that a page loads by itself (links to follow are not among them)."""

    FOLLOWED = ("canonical", "next", "prev", "search", "author", "license", "index")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and values.get("rel") not in self.FOLLOWED:
            self.found.append(values.get("href", ""))
        elif tag != "a":
            self.found += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]


def external_resources(html: Path) -> list[str]:
    """Scripts, styles, fonts and pictures that built pages fetch from elsewhere, as ``page: address``."""
    found = []
    for path in sorted(html.rglob("*.html")):
        parser = Resources()
        parser.feed(path.read_text())
        found += [f"{path.relative_to(html)}: {a}" for a in parser.found if re.match(r"(https?:)?//", a)]
    for path in sorted(html.rglob("*.css")):
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s;]+)", path.read_text())
        found += [f"{path.relative_to(html)}: {a}" for a in addresses]
    return found


def test_built_pages_load_nothing_from_elsewhere_and_formulas_come_from_a_local_file(html):
    assert external_resources(html) == []
    assert "_static/mathjax/tex-svg-full.js" in text_of(html, "book/method")
    assert (html / "_static" / "mathjax" / "tex-svg-full.js").stat().st_size < 3_000_000
    assert not [p for p in html.rglob("*.html") if "thebe" in p.read_text() or "require.min.js" in p.read_text()]


def test_resources_from_elsewhere_are_found_and_links_are_not(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://x.org">x</a><script src="https://x.org/a.js"></script><link rel="stylesheet" href="//x.org/b.css">'
        '<img src="c.png"><link rel="canonical" href="https://x.org/">'
    )
    (tmp_path / "d.css").write_text("@font-face {src: url('https://x.org/e.woff2')} a {background: url(f.png)}")
    assert external_resources(tmp_path) == [
        "a.html: https://x.org/a.js",
        "a.html: //x.org/b.css",
        "d.css: https://x.org/e.woff2",
    ]


def test_explorer_has_its_data(html):
    for script in ("explorer_data.js", "explorer.js"):
        assert f'src="../_static/{script}"' in text_of(html, "book/explorer")
        assert (html / "_static" / script).stat().st_size > 10_000


def test_first_page_and_records_name_the_profile_and_its_runs(html):
    sentence = re.search(r"the profile tiny\.[^.]*\.", text_of(html, "book/index"))[0]
    assert re.findall(r"\d+", sentence) == ["11", "11"]  # runs, and minutes of all of them
    assert "03030303" in text_of(html, "notebooks/15_records")
    assert "book/index.html" in text_of(html, "index")


def test_no_page_shows_an_injected_parameter_or_a_folder_of_the_machine(runs_and_html):
    runs, html = runs_and_html
    pages = [path for path in html.rglob("*.html") if "_modules" not in path.parts]
    assert not [path.name for path in pages if str(runs.parent) in path.read_text() or "/home/me" in path.read_text()]


def test_paper_to_code_leads_to_the_description_and_to_the_source(html):
    assert 'href="api_safn.html#safn.maps.localization_maps"' in text_of(html, "book/paper_to_code")
    assert '_modules/safn/maps.html#localization_maps"' in text_of(html, "book/api_safn")
    assert "localization_maps" in text_of(html, "_modules/safn/maps")


@pytest.mark.parametrize("package", ["safn", "safn_book"])
def test_every_public_module_is_described(package):
    page = (build.ROOT / "book" / f"api_{package}.md").read_text()
    described = set(re.findall(r"automodule:: (\S+)", page))
    files = [path.relative_to(build.ROOT).with_suffix("") for path in (build.ROOT / package).rglob("*.py")]
    assert {".".join(file.parts) for file in files if not file.name.startswith("_")} == described


def test_settings_that_paper_to_code_names_are_in_the_profile():
    names = set(re.findall(r"[|,] `(\w+)`(?= [|,]|,)", (build.ROOT / "book" / "paper_to_code.md").read_text()))
    profile = (build.ROOT / "profiles" / "paper.yaml").read_text()
    assert len(names) > 8 and {name for name in names if not re.search(rf"\b{name}:", profile)} == set()


def test_of_a_progress_line_only_the_last_state_is_shown(html):
    page = text_of(html, "notebooks/03_train_safn")
    assert "100%" in page and "10%" not in page.replace("100%", "")


# Refusals


FAULTS = {
    "error": (
        code_cell(outputs=[{"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}]),
        "cell 2: ValueError: no",
    ),
    "not run": (code_cell(count=None), "cell 2: not executed"),
    "widget": (
        code_cell(outputs=[{"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}}}]),
        "cell 2: a widget",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_notebook_with_a_fault_is_named_with_its_cell(tmp_path, fault):
    cell, message = FAULTS[fault]
    path = write_notebook(tmp_path / "03_train_safn.ipynb", cell)
    assert [line for line in build.notebook_problems(path) if f"03_train_safn.ipynb, {message}" in line]


STDERR = {
    "output_type": "stream",
    "name": "stderr",
    "text": "/usr/lib/python3/site-packages/x/fonts.py:12: UserWarning: Glyph 29483 missing\n  draw()\nodd\nodd\n",
}


@pytest.mark.fault(25, "warning of another program in a notebook", "a missing glyph, and a line that is no warning")
def test_warnings_of_other_programs_are_listed_once_and_left_out_of_the_page(tmp_path, happened):
    path = write_notebook(tmp_path / "03_train_safn.ipynb", code_cell(outputs=[STDERR, *PROGRESS]))
    assert build.notebook_problems(path) == []
    assert build.notebook_warnings(path) == ["fonts.py:12: UserWarning: Glyph 29483 missing", "odd"]
    assert build.notebook_warnings(tmp_path / "restored.ipynb") == []
    build.collect({"03_train_safn": path}, {}, tmp_path / "out")
    page = (tmp_path / "out" / "notebooks" / "03_train_safn.ipynb").read_text()
    assert "finished" in page and "Glyph" not in page
    happened("no message: the book is built, and its page of records lists them")


def test_build_refuses_all_faulty_notebooks_at_once_and_writes_nothing(tmp_path):
    runs, chapters = make_runs(tmp_path)
    write_notebook(chapters["05_pseudo_ground_truth"], FAULTS["error"][0])
    write_notebook(runs / "executed" / "03_train_safn" / "max.ipynb", exception=True)
    jobs = [("03_train_safn", "max"), ("04_localization_maps", "max")]
    with pytest.raises(build.BookError) as error:
        build.build(runs, chapters, tmp_path / "out", jobs)
    for part in (
        "05_pseudo_ground_truth/main.ipynb, cell 2: ValueError",
        "03_train_safn/max.ipynb: its execution failed",
        "04_localization_maps/max.ipynb: missing",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists() and not (runs / "executed" / "reports").exists()


def test_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(build.BookError, match="holds other files"):
        build.collect({}, {}, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_build_that_was_killed_is_built_again(tmp_path, monkeypatch):
    _, chapters = make_runs(tmp_path)
    out = tmp_path / "out"

    def killed(*_, **__):
        raise KeyboardInterrupt

    for function in ("rmtree", "copytree"):  # while the earlier build is deleted, while the next is laid out
        monkeypatch.setattr(build.shutil, function, killed)
        with pytest.raises(KeyboardInterrupt):
            build.collect(chapters, {}, out)
        monkeypatch.undo()
        build.collect(chapters, {}, out)
        assert (out / "book" / "index.md").exists() and not out.with_name("out.old").exists()


def test_a_warning_of_the_build_fails_it_and_is_shown(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "book").mkdir(parents=True)
    (root / "book" / "index.md").write_text("# Tiny\n\n{ref}`nowhere`\n")
    (root / "_config.yml").write_text("title: Tiny\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\nparts: [{chapters: [{file: book/more}]}]\n")
    (root / "book" / "more.md").write_text("# More\n")
    for name in ("profiles", "cluster"):
        (root / name).mkdir()
    (root / "README.md").write_text("# Tiny\n")
    (root / "safn" / "weights").mkdir(parents=True)
    (root / "safn" / "weights" / "README.md").write_text("# Card\n")
    monkeypatch.setenv("PYTHONPATH", str(build.ROOT))  # not the folder safn of the tiny root
    monkeypatch.setattr(build, "ROOT", root)
    monkeypatch.setattr(reports, "REPORTS", {})
    monkeypatch.setattr(explorer, "write", lambda path: None)
    with pytest.raises(build.BookError, match="undefined label: 'nowhere'"):
        build.build(tmp_path / "runs", {}, tmp_path / "out")


def test_a_second_page_of_a_notebook_links_to_the_chapters_from_its_own_folder(tmp_path):
    source = write_notebook(tmp_path / "12_what_we_learned.ipynb")
    notebook = json.loads(source.read_text())
    notebook["cells"][0]["source"] += (
        "\n\nSee [chapter 8](08_aggregation.ipynb) and [open points](../book/open_points.md)."
    )
    source.write_text(json.dumps(notebook))
    build._copy_notebook(source, tmp_path / "second.ipynb", source, "# On synthetic images")
    text = json.loads((tmp_path / "second.ipynb").read_text())["cells"][0]["source"]
    assert text.startswith("# On synthetic images\n")
    assert "[chapter 8](../notebooks/08_aggregation.ipynb) and [open points](../book/open_points.md)" in text


def copied(tmp_path, *cells, title="3 Training SAFN", source=None) -> list[dict]:
    executed = write_notebook(tmp_path / "executed.ipynb", *cells, title=title)
    build._copy_notebook(executed, tmp_path / "page.ipynb", source or executed)
    return json.loads((tmp_path / "page.ipynb").read_text())["cells"]


def shown(text: str) -> dict:
    return code_cell(outputs=[{"output_type": "display_data", "metadata": {}, "data": {"text/html": text}}])


def test_captions_are_numbered_by_chapter_figures_and_tables_apart(tmp_path):
    figure, table = "<figcaption>Maps</figcaption>", "<caption>Scores</caption>"
    cells = copied(tmp_path, shown(figure), shown(table), shown(figure + table))
    pages = ["".join(cell["outputs"][0]["data"]["text/html"]) for cell in cells[1:]]
    assert pages == [
        "<figcaption><b>Figure 3.1.</b> Maps</figcaption>",
        "<caption><b>Table 3.1.</b> Scores</caption>",
        "<figcaption><b>Figure 3.2.</b> Maps</figcaption><caption><b>Table 3.2.</b> Scores</caption>",
    ]


def test_captions_of_a_page_without_a_number_have_none(tmp_path):
    cells = copied(tmp_path, shown("<caption>Scores</caption>"), title="SAFN in 25 lines")
    assert cells[1]["outputs"][0]["data"]["text/html"] == "<caption>Scores</caption>"


def test_changed_prose_is_shown_where_the_code_is_still_what_ran(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", code_cell(count=None), title="3 A better title")
    cells = copied(tmp_path, INJECTED, code_cell(outputs=PROGRESS), source=source)
    assert cells[0]["source"].startswith("# 3 A better title")
    assert cells[1]["execution_count"] == 1 and cells[1]["outputs"]


def test_prose_stays_beside_the_results_that_it_was_written_for_where_the_code_has_changed(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", code_cell("2 + 2", count=None), title="3 Another title")
    assert copied(tmp_path, code_cell(outputs=PROGRESS), source=source)[0]["source"].startswith("# 3 Training SAFN")
