"""What a check lets pass, what it refuses, and that the error says both."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from safn import arguments


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (arguments.require_one_of, [("max", ("max", "avg")), (2, (1, 2, 6)), ("vgg16", {"vgg16": 1})]),
        (arguments.require_number, [(0, 0), (0.5, 0, 1), (1, 0, 1), (1e9, 0), (np.float32(1), 0)]),
        (arguments.require_count, [(1,), (0, 0), (255, 1, 255), (3.0,), (np.int64(7),)]),
        (arguments.require_shape, [((2, 3), (2, 3)), ((2, 3), ("N", 3)), ((), ())]),
        (arguments.require_unit_interval, [(np.array([0, 1]),), (np.array([-1e-6, 1 + 1e-6]),), (np.zeros((0, 4)),)]),
    ],
)
def test_what_is_valid_passes(check, right):
    for values in right:
        check("name", *values)


@pytest.mark.parametrize(
    ("check", "values", "text"),
    [
        (arguments.require_one_of, ("Max", ("max", "avg")), "name='Max' is unknown; valid: max, avg"),
        (arguments.require_one_of, ([], {"a": 1}), r"name=\[\] is unknown; valid: a"),
        (arguments.require_number, (1.5, 0, 1), "name=1.5; valid: a number from 0 to 1"),
        (arguments.require_number, (-1, 0), "name=-1; valid: a number from 0 on"),
        (arguments.require_number, (float("inf"), 0), "name=inf; valid: a number from 0 on"),
        (arguments.require_number, (float("nan"), 0, 1), "name=nan; valid: a number from 0 to 1"),
        (arguments.require_number, ("1", 0), "name='1'; valid: a number from 0 on"),
        (arguments.require_number, (None, 0), "name=None; valid: a number from 0 on"),
        (arguments.require_count, (0,), "name=0; valid: a whole number from 1 on"),
        (arguments.require_count, (2.5, 1, 9), "name=2.5; valid: a whole number from 1 to 9"),
        (arguments.require_count, (float("inf"),), "name=inf; valid: a whole number from 1 on"),
        (arguments.require_shape, ((2, 3), ("N", 4)), r"name is of shape \(2, 3\); wanted: \(N, 4\)"),
        (arguments.require_shape, ((2,), ("N", "M")), r"name is of shape \(2,\); wanted: \(N, M\)"),
        (arguments.require_unit_interval, (np.array([0, 1.1]),), "name holds values from 0 to 1.1; wanted: 0 to 1"),
        (arguments.require_unit_interval, (np.array([-0.1, 1]),), "name holds values from -0.1 to 1; wanted: 0 to 1"),
        (arguments.require_unit_interval, (np.array([0, np.nan]),), "name holds values from nan to nan; .* no NaN"),
    ],
)
def test_the_error_holds_the_value_and_what_is_valid(check, values, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        check("name", *values)


@pytest.mark.parametrize("scales", [(1,), [1, 0.5], (2, 0.01)])
def test_scales_that_differ_pass(scales):
    arguments.require_scales(scales)


@pytest.mark.parametrize("scales", [(), 1, "1", (1, 1.0), (0,), (2.5,), (1, float("nan")), (1, "2")])
def test_other_scales_are_refused(scales):
    with pytest.raises(ValueError, match="^scales=.*; valid: different numbers above 0, at most 2"):
        arguments.require_scales(scales)


@pytest.mark.fault(25, "container with fewer processors than the machine", "eight processors, of which two may be used")
@pytest.mark.parametrize(
    ("allowed", "quota", "expected"),
    [(8, "max 100000", 8), (8, "250000 100000", 2), (1, "400000 100000", 1), (8, None, 8)],
)
def test_all_processors_are_those_that_this_process_may_use(monkeypatch, allowed, quota, expected, happened):
    def read(path):
        if quota is None:
            raise FileNotFoundError(path)
        return quota

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(Path, "read_text", read)
    assert arguments.processors(0) == expected and arguments.processors(3) == 3
    happened("no message: as many threads and processes as may be used")
