"""Importing the package is quick and leaves the importer's settings alone."""

from __future__ import annotations

import subprocess
import sys

import safn

HEAVY = {
    "papermill",
    "snakemake",
    "matplotlib",
    "pandas",
    "lightning",
    "torchmetrics",
    "onnxruntime",
    "timm",
    "torchvision",
}
SCRIPT = """
import sys, warnings
import torch  # it sets filters of its own
before = list(warnings.filters)
import safn
assert warnings.filters == before, "warnings"
print(*sys.modules)
"""


def test_the_import_loads_nothing_heavy_and_changes_no_filter():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr == "" and HEAVY & set(done.stdout.split()) == set()


def test_the_names_of_the_package_are_there():
    assert all(callable(getattr(safn, name)) for name in safn.__all__)
