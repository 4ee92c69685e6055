"""``make book`` on a toy workflow: one run at a time, a killed run continues, a finished one executes nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
SNAKEFILE = """
rule all:
    input: "runs/emoji/book/_build/html/index.html"

rule first:
    output: "runs/first"
    shell: "echo run >> runs/first.log; touch {output}"

rule book:
    input: "runs/first"
    output: "runs/emoji/book/_build/html/index.html"
    shell: "if [ -e runs/begun ]; then touch {output}; else touch runs/begun; sleep 600; fi"
"""


@pytest.fixture
def make(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "SAFN_RUN"}
    command = ["make", "book", f"RUN={sys.executable}", "INSTALLED="]

    def start() -> subprocess.Popen:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **output)

    yield start
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("SAFN_RUN") == str(tmp_path / "runs" / ".lock"):
            process.kill()


def running(tree, word):
    """The process that has ``word`` in its command line; others may end while they are asked."""
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            if word in process.cmdline():
                return process
    return None


def test_killed_run_continues_with_the_same_command(make, tmp_path):
    killed = make()
    try:
        for _ in range(300):
            tree = psutil.Process(killed.pid).children(recursive=True)
            if sleeping := running(tree, "sleep"):
                break
            time.sleep(0.1)

        second, _ = make().communicate(timeout=60)
        assert "another `make book` is at work" in second
        assert sleeping.is_running()

        running(tree, "snakemake").kill()
        killed.wait(timeout=60)
        assert sleeping.is_running(), "the toy job outlives snakemake, as a notebook does"
    finally:
        killed.kill()
        killed.wait()
        killed.stdout.close()

    again = make()
    told, _ = again.communicate(timeout=60)
    assert again.returncode == 0, told
    assert f"The book: {tmp_path}/runs/emoji/book/_build/html/index.html" in told
    assert not sleeping.is_running()
    assert (tmp_path / "runs/first.log").read_text() == "run\n", "finished jobs stay"

    told, _ = make().communicate(timeout=60)
    assert "Nothing to be done" in told
