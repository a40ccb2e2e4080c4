# SPDX-License-Identifier: GPL-3.0-or-later
"""What reports/bench.json says about two series of measurements, and the goals it is measured by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import comparison as bench
from goals import GOALS, chosen, goal


def entry(name: str, ratio: float, least: float | None = None, most: float | None = None) -> dict[str, object]:
    return {
        "name": name, "a": 20, "b": 10, "unit": "us", "runs": 3,
        "ratio_median": ratio, "ratio_min": least or ratio, "ratio_max": most or ratio,
    }  # fmt: skip


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentile(share: float, expected: int) -> None:
    assert bench.percentile(list(range(100, 0, -1)), share) == expected


def test_ratios_are_run_by_run() -> None:
    assert bench.comparison("pause_vs_ram", [10, 30, 20], [10, 10, 10], "us") == entry("pause_vs_ram", 2.0, 1.0, 3.0)


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


@pytest.mark.parametrize(
    ("name", "ratio", "expected"),
    [
        ("pause_vs_ram", 1.1, "yes"), ("pause_vs_ram", 1.11, "no"),
        ("kvm_mode_vs_stock_net", 0.98, "yes"), ("kvm_mode_vs_stock_net", 0.97, "no"), ("kvm_mode_vs_stock_net", 3, "yes"),
    ],
)  # fmt: skip
def test_verdict(name: str, ratio: float, expected: str) -> None:
    assert bench.verdict(entry(name, ratio)) == expected


def test_tables_say_goal_and_verdict() -> None:
    entries = [entry("pause_vs_ram", 1.25, 1.2, 1.3)]
    assert bench.table(entries).splitlines()[1].split() == ["pause_vs_ram", *"20 10 us 1.25 (1.2 - 1.3) 3 <= 1.1 no".split()]
    lines = bench.markdown(entries).splitlines()[2:]
    assert "| `pause_vs_ram` | 1.25 | 1.2 to 1.3 | 3 | <= 1.1 | no |" in lines
    assert "| `memory_overhead` | not measured | | | <= 1.15 | |" in lines
    assert len(lines) == len(GOALS)


def test_merged_replaces_what_was_measured_again() -> None:
    earlier = [entry("pause_vs_ram", 1), entry("memory_overhead", 1), entry("no_longer_measured", 1)]
    now = [entry("memory_overhead", 2), entry("warm_late_vs_tcg", 2)]
    found = {each["name"]: each["ratio_median"] for each in bench.merged(earlier, now)}
    assert found == {"pause_vs_ram": 1, "warm_late_vs_tcg": 2, "memory_overhead": 2}
    assert list(found) == [each.name for each in GOALS if each.name in found]


def test_names_are_unique_and_each_goal_has_one_limit() -> None:
    assert len({each.name for each in GOALS}) == len(GOALS)
    assert [each.name for each in GOALS if (each.least is None) == (each.most is None)] == []
    assert goal("pause_vs_migration_tcg_kvm").most == 0.01


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["memory_overhead"], ["memory_overhead"]),
        (["tcg_mode"], ["tcg_mode_vs_stock_boot", "tcg_mode_vs_stock_compute", "tcg_mode_vs_stock_fork"]),
        (["*_fork", "kvm_mode_vs_stock_fork"], ["kvm_mode_vs_stock_fork", "tcg_mode_vs_stock_fork"]),
        ([], [each.name for each in GOALS]),
    ],
)
def test_chosen(patterns: list[str], expected: list[str]) -> None:
    assert [each.name for each in chosen(patterns)] == expected


def test_chosen_knows_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="--only pauses: no such comparison; known are pause_vs_migration_kvm_tcg, "):
        chosen(["pauses"])
