"""The way out of Jupyter Book 1: Sphinx alone, with the same extensions and options, builds a book from a ``_toc.yml``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ITS_OWN = {"jupyter_book", "safn_book.extension"}  # the first would be gone, the second needs our pages
INDEX = """# A book

See {cite}`one`, {numref}`a-figure` and $x_1$.

```{bibliography}
```
"""
CONF = """
globals().update({options!r})
extensions = {extensions!r}
html_theme = "sphinx_book_theme"
external_toc_path = "_toc.yml"
nb_execution_mode = "off"
bibtex_bibfiles = ["references.bib"]
"""


@pytest.fixture
def book(tmp_path) -> Path:
    """A page, an executed notebook with a numbered figure, and a bibliography."""
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: chapter\n")
    (tmp_path / "index.md").write_text(INDEX)
    (tmp_path / "references.bib").write_text("@article{one, author={A. One}, title={First}, journal={J}, year={2020}}")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    figure = nbformat.v4.new_output("display_data", {"image/svg+xml": svg})
    cell = nbformat.v4.new_code_cell("figure", outputs=[figure], execution_count=1)
    cell.metadata["mystnb"] = {"figure": {"caption": "A figure", "name": "a-figure"}}
    cells = [nbformat.v4.new_markdown_cell("# A chapter"), cell]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, tmp_path / "chapter.ipynb")

    sphinx = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    extensions = [name for name in sphinx.pop("extensions") if name not in ITS_OWN]
    for name in ("html_static_path", "html_css_files", "html_theme_options"):
        sphinx.pop(name, None)  # files of our book
    (tmp_path / "conf.py").write_text(CONF.format(options=sphinx, extensions=extensions))
    return tmp_path


def test_sphinx_alone_builds_the_book(book):
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(book), str(book / "html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    index = (book / "html" / "index.html").read_text()
    assert 'href="chapter.html"' in index
    assert "Fig. B1" in index and "2020" in index
    assert "A figure" in (book / "html" / "chapter.html").read_text()
