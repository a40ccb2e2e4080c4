# SPDX-License-Identifier: GPL-3.0-or-later
"""Two series of measurements, taken in turn, as one entry of reports/bench.json, and tables of such entries. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from goals import GOALS, goal

Entry = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies: nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def comparison(name: str, a: Sequence[float], b: Sequence[float], unit: str) -> Entry:
    """Compare run by run: a and b hold one value per run, measured alternately.

    Raises ValueError when the numbers of runs differ, there is none, or a value of b is not positive.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{name}: {len(a)} runs of a and {len(b)} of b cannot be compared")
    if min(b) <= 0:
        raise ValueError(f"{name}: {min(b)} {unit} is nothing to divide by")
    ratios = [x / y for x, y in zip(a, b)]
    return {
        "name": name,
        "a": rounded(statistics.median(a)),
        "b": rounded(statistics.median(b)),
        "unit": unit,
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "runs": len(a),
    }


def rounded(value: float) -> float:
    """Return a value with five significant digits: more of them nobody measured."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def in_order(comparisons: Sequence[Entry]) -> list[Entry]:
    """Return the comparisons in the order of the goals."""
    order = [each.name for each in GOALS]
    return sorted(comparisons, key=lambda entry: order.index(entry["name"]))


def merged(earlier: Sequence[Entry], now: Sequence[Entry]) -> list[Entry]:
    """Return what was measured now and, of what was not, what an earlier report has."""
    names = {entry["name"] for entry in now}
    known = {each.name for each in GOALS}
    return in_order([*now, *(entry for entry in earlier if entry["name"] in known - names)])


def verdict(entry: Entry) -> str:
    """Return whether a comparison's median reaches its goal: yes or no."""
    return "yes" if goal(entry["name"]).met(entry["ratio_median"]) else "no"


def table(comparisons: Sequence[Entry]) -> str:
    """Return the comparisons as a text table."""
    lines = [f"{'name':<29} {'a':>8} {'b':>8} {'unit':<5} {'ratio':>7} {'(min - max)':<19} runs {'goal':<8} met"]
    for each in comparisons:
        spread = f"({each['ratio_min']:g} - {each['ratio_max']:g})"
        lines.append(
            f"{each['name']:<29} {each['a']:>8g} {each['b']:>8g} {each['unit']:<5} "
            f"{each['ratio_median']:>7g} {spread:<19} {each['runs']:>4} {goal(each['name'])!s:<8} {verdict(each)}"
        )
    return "\n".join(lines)


def markdown(comparisons: Sequence[Entry]) -> str:
    """Return a table for a document: a row for each goal, in their order, also for one that was not measured."""
    measured = {entry["name"]: entry for entry in comparisons}
    lines = ["| name | ratio, median | min to max | runs | goal | met |", "|---|---|---|---|---|---|"]
    for each in GOALS:
        entry = measured.get(each.name)
        if entry is None:
            lines.append(f"| `{each.name}` | not measured | | | {each} | |")
            continue
        lines.append(
            f"| `{each.name}` | {entry['ratio_median']:g} | {entry['ratio_min']:g} to {entry['ratio_max']:g} | {entry['runs']} "
            f"| {each} | {verdict(entry)} |"
        )
    return "\n".join(lines)
