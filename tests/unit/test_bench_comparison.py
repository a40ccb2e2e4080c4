# SPDX-License-Identifier: GPL-3.0-or-later
"""What reports/bench.json says about two series of measurements."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("comparison", Path(__file__).parents[1] / "bench" / "comparison.py")
assert _spec
assert _spec.loader
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentile(share: float, expected: int) -> None:
    assert bench.percentile(list(range(100, 0, -1)), share) == expected


def test_ratios_are_run_by_run() -> None:
    entry = bench.comparison("pause", [10, 30, 20], [10, 10, 10], "us")
    assert entry == {
        "name": "pause", "a": 20, "b": 10, "unit": "us", "ratio_median": 2.0, "ratio_min": 1.0, "ratio_max": 3.0, "runs": 3,
    }  # fmt: skip
    assert "2.0 (1.0 - 3.0), 3" in bench.table([entry])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "pause: 0 runs of a and 0 of b cannot be compared"),
        ([1], [1, 2], "pause: 1 runs of a and 2 of b cannot be compared"),
        ([1], [0], "pause: 0 us is nothing to divide by"),
    ],
)
def test_nothing_to_compare(a: list[int], b: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.comparison("pause", a, b, "us")
