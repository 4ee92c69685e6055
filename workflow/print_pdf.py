"""Print a built book to one PDF, chapters in the order of `_toc.yml`. Needs Chromium.

python -m workflow.print_pdf runs/emoji/book/_build/html safn.pdf
"""

import base64
import io
import sys
from pathlib import Path

import yaml
from pypdf import PageObject, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject

from tests.browser import chromium

# Solutions are opened and folded code is left out. Formulas have no outline, which readers of PDFs draw too bold.
READY = """document.querySelectorAll('details:not(.hide)').forEach(fold => fold.open = true);
document.head.insertAdjacentHTML('beforeend', '<style>details.hide:not([open]) { display: none } mjx-container * { stroke: none }</style>')"""
PAPER = {"paperWidth": 8.27, "paperHeight": 11.69, "scale": 0.75, "printBackground": True}  # A4 in inches


def print_book(html: Path, target: Path) -> None:
    """Print each page, and join them. Links between pages lead to places in the PDF."""
    toc = yaml.safe_load(Path("_toc.yml").read_text())
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    book, first = PdfWriter(), {}
    with chromium() as page:
        for name in names:
            address = (html / f"{name}.html").resolve().as_uri()
            page.open(address)
            page.evaluate("window.MathJax?.startup?.promise")
            page.evaluate(READY)
            title = page.evaluate("document.querySelector('h1').innerText.trim()")
            printed = base64.b64decode(page.call("Page.printToPDF", **PAPER)["data"])
            first[address] = len(book.pages)
            book.append(io.BytesIO(printed), outline_item=title.rstrip("#"))
    chapters = {address: book.pages[number] for address, number in first.items()}
    for sheet in book.pages:
        _keep_links_inside(sheet, chapters)
    book.write(target)


def _keep_links_inside(sheet: PageObject, chapters: dict[str, PageObject]) -> None:
    for link in sheet.get("/Annots", []):
        address = link.get_object().get("/A", {}).get("/URI", "")
        chapter = chapters.get(str(address).partition("#")[0])
        if chapter:
            place = ArrayObject([chapter.indirect_reference, NameObject("/Fit")])
            action = {NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): place}
            link.get_object()[NameObject("/A")] = DictionaryObject(action)
        elif str(address).startswith("file:"):  # source code and pictures beside the pages
            del link.get_object()["/A"]


if __name__ == "__main__":
    print_book(Path(sys.argv[1]), Path(sys.argv[2]))
