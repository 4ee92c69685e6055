"""What the extension of Sphinx adds to a book of three pages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from safn_book import extension

CONF = """
extensions = ["myst_nb", "safn_book.extension"]
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"
"""
GLOSSARY = """# Glossary

```{glossary}
void
  Pixels that are
  not counted. They have the {term}`label` 255.

  A second paragraph.

label
  A number.
```
"""
CHAPTER = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"language_info": {"name": "python"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Chapter\n\nOf {term}`empty pixels <void>`."},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": "1 + 1", "execution_count": None, "outputs": []},
    ],
}


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("extension")
    (root / "conf.py").write_text(CONF)
    (root / "book").mkdir()
    (root / "book" / "glossary.md").write_text(GLOSSARY)
    (root / "03_chapter.ipynb").write_text(json.dumps(CHAPTER))
    (root / "index.md").write_text("# Book\n\n```{toctree}\n03_chapter\nbook/glossary\n```\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(root), str(root / "html")]
    done = subprocess.run(command, cwd=extension.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "html"


def test_a_link_to_a_term_shows_the_first_paragraph_of_its_definition(html):
    chapter = (html / "03_chapter.html").read_text()
    assert 'title="Pixels that are not counted. They have the label 255."' in chapter
    assert 'title="A number."' in (html / "book" / "glossary.html").read_text()


def test_a_chapter_that_has_not_run_names_the_command_that_runs_it(html):
    chapter = re.sub("<[^>]+>", "", (html / "03_chapter.html").read_text())
    assert "make book" in chapter and "papermill 03_chapter.ipynb out.ipynb" in chapter


def test_all_notebooks_are_one_download_without_outputs(html):
    with zipfile.ZipFile(html / "notebooks.zip") as archive:
        names = set(archive.namelist())
        notebooks = [json.loads(archive.read(name)) for name in names]
    assert names == {f"notebooks/{path.name}" for path in (extension.ROOT / "notebooks").glob("*.ipynb")}
    assert not [cell for notebook in notebooks for cell in notebook["cells"] if cell.get("outputs")]


def test_the_search_knows_which_pages_explain(html):
    scripts = "".join(path.read_text() for path in (html / "_static").glob("*.js"))
    assert "glossary|recipes" in scripts
