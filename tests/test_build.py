"""The book builds from executed notebooks, opens without internet, and refuses notebooks with faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safn_book import build

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
    for stage, title in build.TITLES.items():
        if stage == "08_aggregation":
            continue
        path = runs / "executed" / stage / "main.ipynb"
        chapters[stage] = write_notebook(path, code_cell(outputs=PROGRESS), title=title)
        folder = runs / stage / "main"
        folder.mkdir(parents=True)
        record = {"stage": stage, "run": "main", "fingerprint": stage[:2] * 8, "inputs": {}, "seconds": 60}
        (folder / "record.json").write_text(json.dumps(record))
    return runs, chapters


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("book")
    runs, chapters = make_runs(root)
    return build.build(runs, chapters, root / "out").parent


def test_every_chapter_is_built_from_its_executed_notebook(html):
    for stage, title in build.TITLES.items():
        page = (html / "notebooks" / f"{stage}.html").read_text()
        assert title in page
        assert ("finished" in page) == (stage != "08_aggregation")
    assert "does not run this stage" in (html / "notebooks" / "08_aggregation.html").read_text()


def test_built_pages_load_nothing_from_elsewhere_and_formulas_come_from_a_local_file(html):
    assert build.external_resources(html) == []
    page = (html / "book" / "method.html").read_text()
    assert "_static/mathjax/tex-svg-full.js" in page
    assert (html / "_static" / "mathjax" / "tex-svg-full.js").stat().st_size < 3_000_000
    assert not [p for p in html.rglob("*.html") if "thebe" in p.read_text() or "require.min.js" in p.read_text()]


def test_first_page_names_the_profile_and_the_run(html):
    page = (html / "book" / "index.html").read_text()
    assert "tiny" in page and "main" in page
    assert "book/index.html" in (html / "index.html").read_text()


def test_paper_to_code_leads_to_the_code(html):
    assert (
        'href="code/safn_maps.html#code-safn-maps-localization-maps"'
        in (html / "book" / "paper_to_code.html").read_text()
    )
    assert 'id="code-safn-maps-localization-maps"' in (html / "book" / "code" / "safn_maps.html").read_text()


def test_of_a_progress_line_only_the_last_state_is_shown(html):
    page = (html / "notebooks" / "03_train_safn.html").read_text()
    assert "100%" in page and "10%" not in page.replace("100%", "")


def test_provenance_lists_every_run(html):
    page = (html / "book" / "provenance.html").read_text()
    assert "11 runs took 11 minutes" in page and "03030303" in page


FAULTS = {
    "error": (
        code_cell(outputs=[{"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}]),
        "cell 2: ValueError: no",
    ),
    "stderr": (
        code_cell(outputs=[{"output_type": "stream", "name": "stderr", "text": "odd\nmore"}]),
        "cell 2: error output: odd",
    ),
    "warning": (
        code_cell(outputs=[{"output_type": "stream", "name": "stdout", "text": "ok\nx.py: UserWarning: odd\n"}]),
        "cell 2: warning: x.py: UserWarning: odd",
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
    assert not (tmp_path / "out").exists()


def test_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(build.BookError, match="holds other files"):
        build.collect(tmp_path, {}, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_build_that_was_killed_is_built_again(tmp_path, monkeypatch):
    runs, chapters = make_runs(tmp_path)
    out = tmp_path / "out"

    def killed(*_, **__):
        raise KeyboardInterrupt

    for function in ("rmtree", "copytree"):  # while the earlier build is deleted, while the next is laid out
        monkeypatch.setattr(build.shutil, function, killed)
        with pytest.raises(KeyboardInterrupt):
            build.collect(runs, chapters, out)
        monkeypatch.undo()
        build.collect(runs, chapters, out)
        assert (out / "book" / "index.md").exists() and not out.with_name("out.old").exists()


def test_a_warning_of_the_build_fails_it_and_is_shown(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "book").mkdir(parents=True)
    (root / "book" / "index.md").write_text("# Tiny\n\n{ref}`nowhere`\n")
    (root / "_config.yml").write_text("title: Tiny\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\nparts: [{chapters: [{file: book/more}]}]\n")
    (root / "book" / "more.md").write_text("# More\n")
    monkeypatch.setattr(build, "ROOT", root)
    with pytest.raises(build.BookError, match="undefined label: 'nowhere'"):
        build.build(tmp_path / "runs", {}, tmp_path / "out")


def test_resources_from_elsewhere_are_found_and_links_are_not(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://x.org">x</a><script src="https://x.org/a.js"></script><link rel="stylesheet" href="//x.org/b.css">'
        '<img src="c.png"><link rel="canonical" href="https://x.org/">'
    )
    (tmp_path / "d.css").write_text("@font-face {src: url('https://x.org/e.woff2')} a {background: url(f.png)}")
    assert build.external_resources(tmp_path) == [
        "a.html: https://x.org/a.js",
        "a.html: //x.org/b.css",
        "d.css: https://x.org/e.woff2",
    ]
