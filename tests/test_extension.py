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
empty
  Pixels that are
  not counted. They have the label 255, and not the label 0.

  A second paragraph.

label
  A number of a void pixel.

image label
  A note.

run
  One experiment.
```
"""
TEXT = """# Chapter with a void

The `void` and [a void](https://example.org) of *void* pixels, avoided in a void-free image: an Image
label, labels of void pixels and a run.

| void |
|---|
| label, empty |
"""
CHAPTER = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"language_info": {"name": "python"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": TEXT},
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


def links(page: Path) -> list[tuple[str, str, str]]:
    """Address, title and text of each link to the glossary."""
    link = r'<a class="reference internal" href="([^"]+)" title="([^"]+)"><span class="xref std std-term">([^<]+)<'
    return re.findall(link, page.read_text())


VOID = "Pixels that are not counted. They have the label 255, and not the label 0."


def test_the_first_use_of_a_term_on_a_page_is_a_link_whose_title_is_the_first_paragraph_of_its_definition(html):
    assert links(html / "03_chapter.html") == [
        ("book/glossary.html#term-image-label", "A note.", "Image\nlabel"),
        ("book/glossary.html#term-label", "A number of a void pixel.", "labels"),
        ("book/glossary.html#term-void", VOID, "void"),
    ]


def test_definitions_link_to_one_another_and_none_to_itself(html):
    assert links(html / "book" / "glossary.html") == [
        ("#term-label", "A number of a void pixel.", "label"),
        ("#term-void", VOID, "void"),
    ]


def test_everyday_words_are_in_the_glossary():
    words = (extension.ROOT / f"{extension.GLOSSARY}.md").read_text().splitlines()
    assert set(words) >= extension.EVERYDAY


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
