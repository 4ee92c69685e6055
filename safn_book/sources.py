"""The code that a stage computes with, as a fingerprint: comments, docstrings and everything that only draws do not count."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from safn_book.run_names import Stage

ROOT = Path(__file__).resolve().parent.parent
COMPUTING = ("scores", "studies", "results", "cost", "published")  # modules of safn_book whose code decides numbers
READER = "safn_book.stages.load_data"  # its own code does not count, but the reader of the data that it calls does


def code_fingerprint(stage: Stage, root: Path = ROOT) -> str:
    """SHA-256 over the notebook's code and all definitions of the packages that it reaches; 16 hex digits."""
    index = _index(root)
    notebook = ast.parse(_notebook_code(root / "notebooks" / f"{stage}.ipynb"))
    imports = _imports(notebook)
    body = [node for node in notebook.body if not index.only_shows(node, imports)]
    texts = {ast.unparse(ast.Module(body, [])), *(index.texts[name] for name in index.reached(body, imports))}
    return hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest()[:16]


def _notebook_code(path: Path) -> str:
    """The code cells of a notebook without its parameters, which a record holds by themselves."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in code if "parameters" not in cell["metadata"].get("tags", ()))


@lru_cache(maxsize=4)
def _index(root: Path) -> Index:
    return Index(root)


class Index:
    """The top-level definitions of both packages by dotted name, and which of them a piece of code reaches."""

    def __init__(self, root: Path) -> None:
        self.imports: dict[str, dict[str, str]] = {}  # module -> local name -> dotted name
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.texts: dict[str, str] = {}  # without comments and docstrings
        book = [root / "safn_book" / f"{name}.py" for name in (*COMPUTING, "stages")]
        for path in [*root.glob("safn/**/*.py"), *book]:
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text())
            self.imports[module] = _imports(tree)
            for name, found in _definitions(tree).items():
                self.definitions[f"{module}.{name}"] = found
                self.texts[f"{module}.{name}"] = "\n".join(
                    [module, *map(_without_docstrings, found), *_tables(path, name)]
                )
        self.used = {name: list(self._used_by(name)) for name in self.definitions}

    def counts(self, name: str) -> bool:
        """Whether a definition decides numbers."""
        package, module, *_ = name.split(".")
        return package == "safn" or module in COMPUTING

    def reached(self, nodes: list[ast.stmt], imports: dict[str, str]) -> set[str]:
        """All definitions that count and that ``nodes`` of a notebook reach, directly or through others."""
        found: set[str] = set()
        waiting = list(self._used(nodes, imports, ""))
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.used[name]
        return {name for name in found if self.counts(name)}

    def only_shows(self, node: ast.stmt, imports: dict[str, str]) -> bool:
        """Whether a statement of a notebook only shows something: its value is not kept, and nothing that counts is called."""
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            return True
        return isinstance(node, ast.Expr) and not self.reached([node], imports)

    def _used_by(self, name: str) -> Iterator[str]:
        module = name.rpartition(".")[0]
        return self._used(self.definitions[name], self.imports[module], module)

    def _used(self, nodes: list[ast.stmt], imports: dict[str, str], module: str) -> Iterator[str]:
        """The definitions that are named in ``nodes`` of a module, or of a notebook (an empty ``module``)."""
        for node in (inner for outer in nodes for inner in ast.walk(outer)):
            own = f"{module}.{node.id}" if isinstance(node, ast.Name) else ""
            if own in self.definitions:
                yield own
            elif isinstance(node, (ast.Name, ast.Attribute)):
                yield from self._resolve(_dotted(node, imports))

    def _resolve(self, name: str) -> Iterator[str]:
        """The definition behind a dotted name such as ``safn.maps.load_maps``, followed through imports."""
        module, _, attribute = name.rpartition(".")
        if module not in self.imports or name in self.imports:
            return
        if name in self.definitions:
            yield from [name] if self.counts(name) or name == READER else []
        elif attribute in self.imports[module]:
            yield from self._resolve(self.imports[module][attribute])
        else:  # exported when it is asked for
            inside = (f"{other}.{attribute}" for other in self.imports if other.startswith(f"{module}."))
            yield from (other for other in inside if other in self.definitions)


def _imports(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name of everything that is imported anywhere in a module."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
    return found


def _definitions(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Name -> the top-level statements that bind it; of an ``if`` or ``try`` all names that it binds."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names = {statement.name}
        else:
            nodes = ast.walk(statement)
            names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for name in names:
            found.setdefault(name, []).append(statement)
    return found


def _tables(path: Path, name: str) -> list[str]:
    """The data file beside a module, which its ``TABLES`` holds."""
    return [path.with_suffix(".json").read_text(encoding="utf-8")] if name == "TABLES" else []


def _dotted(node: ast.expr, imports: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, imports)}.{node.attr}"
    return imports.get(node.id, "") if isinstance(node, ast.Name) else ""


def _without_docstrings(statement: ast.stmt) -> str:
    """The code of a statement, formatted alike, without docstrings."""
    for node in ast.walk(statement):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(statement)
