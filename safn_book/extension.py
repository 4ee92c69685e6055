"""What this project adds to Sphinx: chapters say that they have not run, words of the glossary are links, the search puts
explanations before records, and all notebooks are one file to download."""

import itertools
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from safn_book import reports

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = "book/glossary"
EVERYDAY = {"confidence", "record", "run"}  # words of the glossary that pages also use otherwise: they are no links
UNLINKED = (nodes.thead, nodes.citation, addnodes.desc)  # heads of tables, references, docstrings
NOTEBOOKS = "notebooks.zip"  # beside the pages
NOT_RUN = """:::{{note}}
This copy of the book shows the code of this chapter, but not its results. `make book` runs every stage and builds
the book with them. This chapter alone: `papermill {name}.ipynb out.ipynb` in the folder `notebooks`.
:::"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this module an extension of Sphinx (``_config.yml``)."""
    app.connect("config-inited", _weigh_search_results)
    app.connect("source-read", _say_not_run)
    app.connect("doctree-resolved", _link_terms)
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


def _link_terms(app: Sphinx, page: nodes.document, name: str) -> None:
    """Link words of the glossary to their entries where a page, or an entry, first uses them. The title of a link, which
    browsers show under the pointer, is the definition."""
    glossary = page if name == GLOSSARY else app.env.get_doctree(GLOSSARY)
    entries = list(glossary.findall(nodes.definition_list_item))
    words = {term.astext(): entry for entry in entries for term in entry.findall(nodes.term)}
    words = {word: words[word] for word in sorted(words.keys() - EVERYDAY, key=len, reverse=True)}  # longest first
    address = "" if name == GLOSSARY else app.builder.get_relative_uri(name, GLOSSARY)
    unlinked = {text for kind in UNLINKED for block in page.findall(kind) for text in block.findall(nodes.paragraph)}
    for part in entries if name == GLOSSARY else [page]:
        linked = {part}  # a definition does not link to itself
        for paragraph in part.findall(nodes.paragraph):
            if paragraph not in unlinked:
                paragraph[:] = list(_with_links(paragraph.children, words, linked, address))


def _with_links(
    children: list[nodes.Node], words: dict[str, nodes.Element], linked: set[nodes.Element], address: str
) -> Iterator[nodes.Node]:
    """The children of a paragraph, with links to those entries in plain text that are not yet in ``linked``. What is
    emphasised, linked, or code stays as it is."""
    pattern = "|".join(f"({_spelling(word)})s?" for word in words)
    for plain, group in itertools.groupby(children, lambda child: isinstance(child, nodes.Text)):
        if not plain:
            yield from group
            continue
        text, begin = "".join(group), 0  # each line is a child of its own
        for found in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text):
            entry = next(entry for entry, word in zip(words.values(), found.groups(), strict=True) if word)
            if entry not in linked:
                linked.add(entry)
                yield nodes.Text(text[begin : found.start()])
                yield _link(found[0], entry, address)
                begin = found.end()
        yield nodes.Text(text[begin:])


def _spelling(word: str) -> str:
    """A regular expression: the first letter may be a capital, and a space may be the end of a line."""
    return f"[{word[0].lower()}{word[0].upper()}]" + r"\s+".join(map(re.escape, word[1:].split()))


def _link(word: str, entry: nodes.Element, address: str) -> nodes.reference:
    anchor = next(entry.findall(nodes.term))["ids"][0]
    definition = next(entry.findall(nodes.paragraph)).astext().replace("\n", " ")
    text = nodes.inline(word, word, classes=["xref", "std", "std-term"])
    return nodes.reference("", "", text, internal=True, refuri=f"{address}#{anchor}", reftitle=definition)


def _pack_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Write all notebooks of the repository, which have no outputs, to one archive."""
    if error or app.builder.format != "html":
        return
    with zipfile.ZipFile(Path(app.outdir) / NOTEBOOKS, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            archive.write(path, path.relative_to(ROOT))
