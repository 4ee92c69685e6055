"""The code that a stage computes with, as a fingerprint: comments, docstrings and everything that only draws do not count."""

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path

from safn_book.run_names import Stage

ROOT = Path(__file__).resolve().parent.parent
# modules of safn_book that decide numbers
COMPUTING = ("scores", "studies", "results", "conclusions", "cost", "published")


def code_fingerprint(stage: Stage, root: Path = ROOT) -> str:
    """SHA-256 over a notebook's code and the modules that it computes with, those that they import included; 16 hex digits."""
    notebook = ast.parse(_notebook_code(root / "notebooks" / f"{stage}.ipynb"))
    imported = _imports(notebook, root)
    own = [statement for statement in notebook.body if not _only_shows(statement, imported)]
    modules = set()
    waiting = [*imported.values(), root / "safn" / "data.py"]  # with which every stage reads its images
    while waiting:
        path = waiting.pop()
        if path not in modules:
            modules.add(path)
            waiting += _module(path, root)[1]
    texts = [ast.unparse(ast.Module(own, [])), *(_module(path, root)[0] for path in sorted(modules))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _notebook_code(path: Path) -> str:
    """The code cells of a notebook without its parameters, which a record holds by themselves."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in code if "parameters" not in cell["metadata"].get("tags", ()))


def _only_shows(statement: ast.stmt, imported: dict[str, Path]) -> bool:
    """Whether a statement of a notebook only shows something: its value is not kept, and it names nothing that computes."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return True
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return isinstance(statement, ast.Expr) and not names & imported.keys()


@lru_cache
def _module(path: Path, root: Path) -> tuple[str, list[Path]]:
    """The code of a module without comments and docstrings, with the data file beside it, and the modules that it imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    table = path.with_suffix(".json")  # which some modules read
    data = table.read_text(encoding="utf-8") if table.exists() else ""
    return ast.unparse(tree) + data, list(_imports(tree, root).values())


def _imports(tree: ast.Module, root: Path) -> dict[str, Path]:
    """The names that a module imports from code that decides numbers, each with its file."""
    found: dict[str, Path | None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: _file(alias.name, root) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = _file(f"{node.module}.{alias.name}", root) or _file(node.module, root)
                if module and module.name == "__init__.py":  # which hands on what other modules define
                    module = _imports(ast.parse(module.read_text()), root).get(alias.name, module)
                found[alias.asname or alias.name] = module
    return {name: path for name, path in found.items() if path}


def _file(module: str, root: Path) -> Path | None:
    """The file of a module whose code decides numbers."""
    package, _, name = module.partition(".")
    if package != "safn" and not (package == "safn_book" and name in COMPUTING):
        return None
    path = root / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)
