"""The printed book: chapters in their order, links that stay inside."""

from __future__ import annotations

import pytest

from tests import browser

pypdf = pytest.importorskip("pypdf")
TOC = "root: index\nparts: [{chapters: [{file: notes/second}]}]\n"
PAGES = {
    "index": '<h1>First#</h1><a href="notes/second.html#part">second</a> <a href="source.py">code</a>',
    "notes/second": '<h1>Second#</h1><details><p>solution</p></details><details class="hide"><p>code</p></details>',
}


@pytest.mark.skipif(not browser.CHROMIUM, reason="Chromium is not installed")
def test_a_printed_book_has_its_chapters_in_order_and_links_inside(tmp_path, monkeypatch):
    from workflow.print_pdf import print_book

    (tmp_path / "notes").mkdir()
    (tmp_path / "_toc.yml").write_text(TOC)
    for name, body in PAGES.items():
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><body>{body}</body>")
    monkeypatch.chdir(tmp_path)
    print_book(tmp_path, tmp_path / "book.pdf")
    read = pypdf.PdfReader(tmp_path / "book.pdf")
    first, second = read.pages
    assert [entry.title for entry in read.outline] == ["First", "Second"]
    assert "solution" in second.extract_text() and "code" not in second.extract_text()
    inside, removed = (annotation.get_object().get("/A") for annotation in first["/Annots"])
    assert inside["/S"] == "/GoTo" and inside["/D"][0].get_object() == second
    assert removed is None
