# SPDX-License-Identifier: GPL-3.0-or-later
"""Two series of measurements, taken in turn, as one entry of reports/bench.json. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies: nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def comparison(name: str, a: Sequence[float], b: Sequence[float], unit: str) -> dict[str, object]:
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
        "a": statistics.median(a),
        "b": statistics.median(b),
        "unit": unit,
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "runs": len(a),
    }


def table(comparisons: Sequence[dict[str, object]]) -> str:
    """Return the comparisons as a text table."""
    lines = [f"{'name':<28} {'a':>10} {'b':>10} unit  ratio (min - max), runs"]
    for each in comparisons:
        lines.append(
            f"{each['name']:<28} {each['a']:>10.0f} {each['b']:>10.0f} {each['unit']:<5} "
            f"{each['ratio_median']} ({each['ratio_min']} - {each['ratio_max']}), {each['runs']}"
        )
    return "\n".join(lines)
