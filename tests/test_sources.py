"""Which code a stage computes with, on copies of the packages that are changed in one place."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from safn_book import sources
from safn_book.run_names import Stage
from safn_book.sources import code_fingerprint

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def copy(tmp_path) -> Path:
    for name in ("safn", "safn_book", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    return tmp_path


def fingerprints(root: Path) -> dict[Stage, str]:
    sources._module.cache_clear()
    return {stage: code_fingerprint(stage, root) for stage in Stage}


def changed_by(copy: Path, name: str, old: str, new: str) -> set[Stage]:
    """The stages whose fingerprint differs when a text of a file is replaced."""
    before = fingerprints(copy)
    path = copy / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = fingerprints(copy)
    return {stage for stage in Stage if before[stage] != after[stage]}


def test_the_fingerprint_depends_on_the_code_not_on_where_it_lies(copy):
    assert fingerprints(copy) == fingerprints(ROOT)


def test_comments_docstrings_and_blank_lines_do_not_count(copy):
    name = "safn/network.py"
    text = (copy / name).read_text()
    definition = next(line for line in text.splitlines() if line.startswith("def "))
    assert changed_by(copy, name, definition, f"# a comment\n\n\n{definition}") == set()
    assert changed_by(copy, name, '"""', '"""Another text. ') == set()


def test_a_number_in_the_network_counts_where_it_is_trained_and_used(copy):
    (copy / "safn" / "network.py").write_text(
        (copy / "safn" / "network.py")
        .read_text()
        .replace("class ScaleAttention(nn.Module):\n", "class ScaleAttention(nn.Module):\n    width = 1\n")
    )
    changed = changed_by(copy, "safn/network.py", "    width = 1\n", "    width = 2\n")
    assert changed >= {Stage.TRAIN_SAFN, Stage.MAPS} and not changed & {Stage.DATA, Stage.SALIENCY}


def test_a_module_counts_for_the_stages_that_import_it(copy):
    line = "def multi_view_saliency("
    changed = changed_by(copy, "safn/saliency.py", line, f"EXTRA = 1\n\n\n{line}")
    assert Stage.SALIENCY in changed and not changed & {Stage.DATA, Stage.TRAIN_SAFN, Stage.PSEUDO_LABELS}


def test_what_the_package_exports_counts_where_it_is_defined(copy):
    """Stage 06 says ``from safn import DeepLab``."""
    assert Stage.TRAIN_SEGMENTATION in changed_by(
        copy, "safn/segmentation.py", "class DeepLab", "EXTRA = 1\n\n\nclass DeepLab"
    )
    assert Stage.TRAIN_SEGMENTATION not in changed_by(copy, "safn/masks.py", "import ", "import sys\nimport ")


def test_the_reader_of_the_data_counts_for_every_stage(copy):
    assert Stage.TRAIN_SAFN in changed_by(copy, "safn/data.py", "class VOCFolder:", "class VOCFolder:\n    extra = 1\n")


def test_the_tables_of_the_emoji_count_for_their_data_alone(copy):
    assert changed_by(copy, "safn/datasets/emoji.json", "🚲", "🛴") == {Stage.DATA}


@pytest.mark.parametrize("module", ["charts", "galleries", "checks", "settings", "records", "workflow", "stages"])
def test_what_only_draws_or_runs_does_not_count(copy, module):
    name = f"safn_book/{module}.py"
    line = next(line for line in (copy / name).read_text().splitlines() if line.startswith("def "))
    assert changed_by(copy, name, line, f"EXTRA = 1\n\n\n{line}") == set()


def edit_notebook(copy: Path, stage: Stage, old: str, new: str) -> None:
    path = copy / "notebooks" / f"{stage}.ipynb"
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if old in "".join(cell["source"])]
    assert cells
    for cell in cells:
        cell["source"] = "".join(cell["source"]).replace(old, new)
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("# 3 Training SAFN", "# Another title", False),
        ("seed = 0 ", "seed = 7 ", False),  # parameters are in the record
        ("rows=5", "rows=6", False),  # a figure
        ("training.seed_everything(p.seed)", "training.seed_everything(p.seed + 1)", True),
    ],
)
def test_of_a_notebook_the_statements_that_compute_count(copy, old, new, differs):
    before = code_fingerprint(Stage.TRAIN_SAFN, copy)
    edit_notebook(copy, Stage.TRAIN_SAFN, old, new)
    sources._module.cache_clear()
    assert (code_fingerprint(Stage.TRAIN_SAFN, copy) != before) == differs


def test_all_stages_are_read_in_a_moment():
    began = time.process_time()
    fingerprints(ROOT)
    assert time.process_time() - began < 1
