"""Files that appear only when complete."""

from __future__ import annotations

import json

import numpy as np
import pytest

from safn.files import write_file, write_json


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    write_file(path, b"after")
    assert path.read_text() == "after" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_names_the_file_and_leaves_no_part_of_it(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_file(tmp_path / "nowhere" / "a.txt", b"text")
    assert list(tmp_path.iterdir()) == []


def test_arrays_paths_and_nan_become_json(tmp_path):
    write_json(tmp_path / "a.json", {1: np.float32(0.5), "nan": float("nan"), "path": tmp_path, "array": np.arange(3)})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "1": 0.5,
        "nan": None,
        "path": str(tmp_path),
        "array": [0, 1, 2],
    }
