"""A notebook runs wherever people open it, with the parameters that stand in it: the same folder of runs comes out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import browser

ROOT = Path(__file__).resolve().parent.parent
NAME = "00_data"


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of this repository, in whose first notebook somebody asks for a few small images."""
    for name in ("safn", "safn_book", "notebooks", "results"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "copy" / "notebooks" / f"{NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in (("train_images", 20), ("val_images", 20), ("image_size", 64)):
        cell.source = cell.source.replace(f"\n{name} = ", f"\n{name} = {value}  # was ")
    nbformat.write(notebook, path)
    path.with_suffix(".py").unlink()  # JupyterLab opens no notebook whose paired text says something else
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "copy"))
    return tmp_path / "copy"


def made(copy: Path) -> dict[str, int]:
    """What is asked for of the data of the profile's folder of runs, from its record."""
    record = json.loads((copy / "runs" / "emoji" / NAME / "default" / "record.json").read_text())
    return {name: record["parameters"][name] for name in ("train_images", "val_images", "image_size")}


ASKED = {"train_images": 20, "val_images": 20, "image_size": 64}


@pytest.mark.parametrize("folder", ["notebooks", "."])
def test_run_all_in_an_editor_that_starts_the_kernel_in(copy, folder):
    """VS Code starts it beside the notebook, or in the root with ``jupyter.notebookFileRoot``."""
    notebook = nbformat.read(copy / "notebooks" / f"{NAME}.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(copy / folder)}}).execute()
    assert made(copy) == ASKED


@pytest.mark.parametrize(
    "command",
    [
        ("nbconvert", "--to", "notebook", "--execute", "--output-dir", "out", f"notebooks/{NAME}.ipynb"),
        ("papermill", f"notebooks/{NAME}.ipynb", "out.ipynb"),
    ],
    ids=["nbconvert", "papermill"],
)
def test_executed_from_the_root(copy, command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert made(copy) == ASKED


# JupyterLab in a browser

RUN_ALL = """(async () => {
  const there = async find => {
    for (let k = 0; k < 1800; k++) {
      const found = find();
      if (found) return found;
      await new Promise(after => setTimeout(after, 100));
    }
    throw Error('not there after three minutes: ' + find);
  };
  const lab = await there(() => window.jupyterapp);
  await lab.restored;
  const panel = await there(() => lab.shell.currentWidget?.sessionContext && lab.shell.currentWidget);
  await panel.context.ready;
  await panel.sessionContext.ready;
  await lab.commands.execute('notebook:run-all-cells');
  return panel.model.toJSON().cells.filter(cell => cell.cell_type === 'code');
})()"""


@contextlib.contextmanager
def jupyterlab(folder: Path, settings: Path) -> Iterator[str]:
    """JupyterLab as `make lab` starts it, with no settings of the user: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")
    environment = os.environ | {name: str(settings / name) for name in names}
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--IdentityProvider.token=", "--expose-app-in-browser"]
    with (settings / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api", server)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def wait_for(address: str, server: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address).close()
            return
        time.sleep(0.2)
    raise RuntimeError("JupyterLab has not started")


@pytest.mark.skipif(not browser.CHROMIUM, reason="Chromium is not installed")
def test_run_all_in_jupyterlab(copy, tmp_path):
    with jupyterlab(copy / "notebooks", tmp_path) as address, browser.chromium() as page:
        page.open(f"{address}/lab/tree/{NAME}.ipynb")
        cells = page.evaluate(RUN_ALL)
    assert len(cells) > 5 and all(cell["execution_count"] for cell in cells)
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "execute_result" in kinds and "error" not in kinds
    assert made(copy) == ASKED
