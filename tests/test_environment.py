from __future__ import annotations

import os

import torch

from safn_book.environment import commit, environment, peak_megabytes


def test_the_environment_names_versions_and_machine():
    found = environment()
    assert found["versions"]["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert f"{os.cpu_count()} cores" in found["machine"] and found["device"]


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_the_peak_counts_memory_that_was_given_back():
    before = peak_megabytes()
    block = bytearray(200 << 20)
    del block
    assert peak_megabytes() >= before > 10
