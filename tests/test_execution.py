"""Notebooks run in kernels that start quickly, end at once, and are started again where they die at their start."""

import json
import sys
from pathlib import Path

import nbformat

from safn_book import execution


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook of these code cells."""
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), path)
    return path


def result(path: Path) -> str:
    """What the last cell of an executed notebook shows."""
    return nbformat.read(path, 4).cells[-1].outputs[0]["data"]["text/plain"]


def test_a_kernel_looks_for_garbage_seldom_and_ends_at_once(tmp_path):
    ended = tmp_path / "ended by itself"
    ending = f"import atexit, pathlib; atexit.register(pathlib.Path({str(ended)!r}).touch)"
    source = write_notebook(tmp_path / "one.ipynb", ending, "import gc; gc.get_threshold()[0]")
    assert execution.execute(source, tmp_path / "{out}.ipynb", {}) == ""
    assert result(tmp_path / "{out}.ipynb") == "10000" and not ended.exists()


def test_an_error_of_a_cell_is_returned_in_words_and_what_it_prints_goes_to_the_log(tmp_path):
    source = write_notebook(tmp_path / "one.ipynb", "print('begun')", "1 / 0")
    with (tmp_path / "log").open("w") as log:
        assert execution.execute(source, tmp_path / "out.ipynb", {}, log) == "ZeroDivisionError: division by zero"
    assert (tmp_path / "log").read_text() == "begun\n"


def test_a_kernel_that_dies_at_its_start_is_started_once_more(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    script = tmp_path / "kernel.py"
    script.write_text(
        "import pathlib, runpy, sys\n"
        f"mark = pathlib.Path({str(tmp_path / 'died')!r})\n"
        "if not mark.exists():\n    mark.touch()\n    sys.exit(1)\n"
        "runpy.run_module('ipykernel_launcher', run_name='__main__')\n"
    )
    argv = [sys.executable, str(script), "-f", "{connection_file}"]
    spec.joinpath("kernel.json").write_text(json.dumps({"argv": argv, "display_name": "dies", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    source = write_notebook(tmp_path / "one.ipynb", "6 * 7")
    assert execution.execute(source, tmp_path / "out.ipynb", {}) == ""
    assert (tmp_path / "died").exists() and result(tmp_path / "out.ipynb") == "42"
