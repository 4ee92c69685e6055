"""What this project adds to Sphinx: chapters say that they have not run, links to terms show their definition, the search
puts explanations before records, and all notebooks are one file to download."""

import json
import zipfile
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from safn_book import reports

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = "book/glossary"
NOTEBOOKS = "notebooks.zip"  # beside the pages
NOT_RUN = """:::{{note}}
This copy of the book shows the code of this chapter, but not its results. `make book` runs every stage and builds
the book with them. This chapter alone: `papermill {name}.ipynb out.ipynb` in the folder `notebooks`.
:::"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this module an extension of Sphinx (``_config.yml``)."""
    app.connect("config-inited", _weigh_search_results)
    app.connect("source-read", _say_not_run)
    app.connect("doctree-resolved", _explain_terms)
    app.connect("build-finished", _pack_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _weigh_search_results(app: Sphinx, config: Any) -> None:
    config.html_search_scorer = str(ROOT / "book" / "search_scorer.js")


def _say_not_run(app: Sphinx, page: str, source: list[str]) -> None:
    if not str(app.env.doc2path(page)).endswith(".ipynb") or page in reports.REPORTS:
        return
    notebook = json.loads(source[0])
    if not any(cell.get("execution_count") for cell in notebook["cells"]):
        text = NOT_RUN.format(name=Path(page).name)
        notebook["cells"].insert(1, {"cell_type": "markdown", "id": "not-run", "metadata": {}, "source": text})
        source[0] = json.dumps(notebook)


def _explain_terms(app: Sphinx, page: nodes.document, name: str) -> None:
    """Give links to terms the definition as their title, which browsers show under the pointer."""
    links = [word.parent for word in page.findall(nodes.inline) if "std-term" in word["classes"]]
    if not links:
        return
    definitions: dict[str, str] = {}
    for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        first = next(item.findall(nodes.paragraph)).astext().replace("\n", " ")
        definitions |= {anchor: first for term in item.findall(nodes.term) for anchor in term["ids"]}
    for link in links:
        anchor = link.get("refid") or link.get("refuri", "").rpartition("#")[2]
        if anchor in definitions:
            link["reftitle"] = definitions[anchor]


def _pack_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Write all notebooks of the repository, which have no outputs, to one archive."""
    if error or app.builder.format != "html":
        return
    with zipfile.ZipFile(Path(app.outdir) / NOTEBOOKS, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            archive.write(path, path.relative_to(ROOT))
