"""The look at built pages finds each fault that it is for, and none in a page without."""

from __future__ import annotations

import pytest

from tests import browser, pages

pytestmark = pytest.mark.skipif(not browser.CHROMIUM, reason="Chromium is not installed")

PAGE = """<!DOCTYPE html><meta charset="utf-8"><article style="width: 90%">
<p>Masks in <code>./tmp/masks</code> of {text}</p>
<pre style="overflow: auto">{code}</pre>
<div style="overflow: auto"><table><tr><th>cat</th></tr><tr><td style="white-space: nowrap">{cell}</td></tr></table></div>
<div class="cell_output"><figure><img alt="{alt}" width="{width}" src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="><figcaption>{caption}</figcaption></figure></div>
<details><summary>more</summary><pre style="overflow: auto">{folded}</pre></details>
</article><script>{script}</script>"""
GOOD = {
    "text": "a photograph",
    "code": "1 + 1",
    "cell": "information",
    "alt": "A cat on a wall",
    "width": 50,
    "caption": "A cat.",
    "folded": "2",
    "script": "",
}
FAULTS = {
    "code is cut off: xx": {"code": "x" * 900},
    "code is cut off: yy": {"folded": "y" * 900},
    "a table is cut off: cat zz": {"cell": "z" * 900},
    "a table shows: NaN in cat": {"cell": "NaN"},
    "a table shows: −inf in cat": {"cell": "−inf"},
    "a table shows: ... in cat": {"cell": "..."},
    "a folder of this machine: /home/me/runs": {"text": "/home/me/runs"},
    "AAICTAEAOw==": {"alt": ""},
    "a picture has no alternative text: a b.png": {"alt": "a b.png"},
    "a picture has no alternative text: 854226b5": {"alt": "854226b5"},
    "a figure has no caption: A cat": {"caption": " "},
    "a picture is cut off: A cat": {"width": 1300},
    "at 420: the page is wider than the window": {"width": 600},
    "a script fails: Error: broken": {"script": "throw Error('broken')"},
}


@pytest.fixture(scope="module")
def page():
    with browser.chromium() as opened:
        yield opened


def found(page, folder, **changes) -> list[str]:
    file = folder / "page.html"
    file.write_text(PAGE.format(**GOOD | changes))
    return pages.problems(page, file)


def test_a_page_without_faults_has_none(page, tmp_path):
    assert found(page, tmp_path) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(page, tmp_path, fault):
    assert [line for line in found(page, tmp_path, **FAULTS[fault]) if fault in line]


def test_faults_are_listed_by_page_and_pages_that_only_lead_to_others_are_left_out(tmp_path):
    (tmp_path / "bad.html").write_text(PAGE.format(**GOOD | {"cell": "nan"}))
    (tmp_path / "good.html").write_text(PAGE.format(**GOOD))
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=good.html">')
    assert pages.look(tmp_path) == {"bad.html": ["at 1280: a table shows: nan in cat nan"]}
