"""Look at every page of a built book as a browser shows it: `python -m tests.pages runs/emoji/book/_build/html`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser import Page, chromium

WIDTHS = (1280, 420)  # pixels of a laptop and of a telephone

# Everything that is folded is opened first. A problem is one line.
LOOK = r"""(width => {
  const article = document.querySelector('article') || document.body;
  document.querySelectorAll('details').forEach(fold => fold.open = true);
  article.querySelectorAll('.toggle-hidden').forEach(fold => fold.classList.remove('toggle-hidden'));
  const problems = [], say = (what, element, text) =>
    problems.push(`${what}: ${(text || element.innerText || '').trim().replace(/\s+/g, ' ').slice(0, 80)}`);
  const edge = article.getBoundingClientRect().right + 1;

  if (document.documentElement.scrollWidth > width + 1) say('the page is wider than the window', article, location.pathname);
  if (width >= 1000) {
    for (const block of article.querySelectorAll('pre'))
      if (block.scrollWidth > block.clientWidth + 1) say('code is cut off', block);
    for (const table of article.querySelectorAll('table'))
      if (table.scrollWidth > table.parentElement.clientWidth + 1 || table.getBoundingClientRect().right > edge)
        say('a table is cut off', table);
    for (const formula of article.querySelectorAll('mjx-container[display="true"]'))
      if (formula.scrollWidth > formula.clientWidth + 1) say('a formula is cut off', formula, formula.id);
    for (const picture of article.querySelectorAll('img')) {
      if (!/\p{L}+\s+\p{L}+/u.test(picture.alt) || /\.(png|svg|jpe?g)$/.test(picture.alt))
        say('a picture has no alternative text', picture, picture.alt || picture.src.slice(-60));
      const caption = picture.closest('figure')?.querySelector('figcaption');
      if (picture.closest('.cell_output') && !caption?.innerText.trim())
        say('a figure has no caption', picture, picture.alt);
    }
    for (const cell of article.querySelectorAll('td, th'))
      if (/^[-−+]?(nan|inf|none|nat|\.\.\.|…)$/i.test(cell.innerText.trim()))
        say('a table shows', cell, `${cell.innerText} in ${cell.closest('table').innerText}`);
    for (const found of article.innerText.matchAll(/(?<![\w./)}~<-])\/(?:work|root|tmp|opt|home)\/\S*/g))
      say('a folder of this machine', article, found[0]);
  }
  for (const picture of article.querySelectorAll('img'))
    if (picture.getBoundingClientRect().right > edge && getComputedStyle(picture.closest('figure') || article).overflowX !== 'auto')
      say('a picture is cut off', picture, picture.alt);
  return [...new Set(problems)];
})"""


def problems(page: Page, file: Path) -> list[str]:
    """What is wrong with the page in a file, at both widths."""
    page.errors.clear()
    page.open(file.resolve().as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    found = []
    for width in WIDTHS:
        page.resize(width)
        found += [f"at {width}: {problem}" for problem in page.evaluate(f"{LOOK}({width})")]
    return found + [f"a script fails: {error}" for error in page.errors]


def look(html: Path) -> dict[str, list[str]]:
    """The pages of a book that have problems, and these. Pages of source code are not looked at."""
    pages = [file for file in sorted(html.rglob("*.html")) if not {"_modules", "_static"} & set(file.parts)]
    files = [file for file in pages if "<article" in file.read_text()]  # the first one only leads to another
    with chromium() as page:
        found = {str(file.relative_to(html)): problems(page, file) for file in files}
    return {name: lines for name, lines in found.items() if lines}


def main() -> int:
    """Print every problem; returns 1 where there is one."""
    found = look(Path(sys.argv[1]))
    for name, lines in found.items():
        print(name, *lines, sep="\n  ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
