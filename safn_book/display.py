"""What a cell shows: a figure with its caption, the source of the code that computes an equation, a sentence with numbers."""

import ast
import base64
import html
import inspect
import io
import textwrap
from collections.abc import Callable, Sized
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
INCH = 84  # pixels of a page


def figure(drawn: Figure, caption: str, alt: str) -> HTML:
    """Show a figure with a caption below it. The book numbers it by chapter.

    Args:
        caption: one or two sentences: what is shown, the data set and the split.
        alt: what is to be seen, for readers who do not see it.

    Raises:
        ValueError: the caption or the alternative text is empty.
    """
    if not caption.strip() or not alt.strip():
        raise ValueError(f"a figure needs a caption and an alternative text, got {caption!r} and {alt!r}")
    file = io.BytesIO()
    drawn.savefig(file, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    width = round(INCH * drawn.get_figwidth())  # a letter has one size in every chart
    picture = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" width="{width}">'
    return HTML(f'<figure class="safn">{picture}<figcaption>{html.escape(caption)}</figcaption></figure>')


def source(*objects: Callable[..., Any] | type) -> Markdown:
    """Show the source of functions, methods or classes as it is in the package, without docstrings.

    Example:
        >>> from safn.maps import localization_maps
        >>> print(source(localization_maps).data.splitlines()[1])
        # safn/maps.py
    """
    return Markdown("\n\n".join(f"```python\n{_code(given)}\n```" for given in objects))


def _code(given: Callable[..., Any] | type) -> str:
    text = textwrap.dedent(inspect.getsource(given))
    lines = text.splitlines()
    documented = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    docstrings = [node.body[0] for node in documented if ast.get_docstring(node)]
    for docstring in sorted(docstrings, key=attrgetter("lineno"), reverse=True):  # line numbers before it stay valid
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    file = inspect.getsourcefile(inspect.unwrap(given)) or ""
    return "\n".join([f"# {Path(file).resolve().relative_to(ROOT)}", *lines])


def text(words: str, images: Sized | None = None) -> Markdown:
    """Show a paragraph whose numbers were computed in this run, of ``images`` with a ground-truth mask. Where there is
    none, as with own photographs, it says so instead.

    Example:
        >>> text("The mIoU is – %.", images=[]).data
        'No image has a ground-truth mask, so nothing is measured here.'
    """
    measured = images is None or len(images)
    return Markdown(words if measured else "No image has a ground-truth mask, so nothing is measured here.")


def downloads(tables: dict[str, pd.DataFrame]) -> HTML:
    """Offer tables as CSV files, by file name. The page holds them itself, so that the links work everywhere."""
    links = []
    for name, table in tables.items():
        data = base64.b64encode(table.to_csv(index=not isinstance(table.index, pd.RangeIndex)).encode()).decode()
        rows = "1 row" if len(table) == 1 else f"{len(table)} rows"
        links.append(f'<li><a download="{name}" href="data:text/csv;base64,{data}">{name}</a>, {rows}</li>')
    return HTML(f"<ul>{''.join(links)}</ul>")
