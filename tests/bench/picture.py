# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a report: what a pause consists of, and every ratio beside its goal. Pure: a report in, SVG out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from comparison import Entry, in_order, verdict
from goals import DIRECTIONS, goal

WIDTH, LEFT, RIGHT = 900, 250, 130
ROW, BAR, MARGIN = 22, 26, 20
PLOT = WIDTH - LEFT - RIGHT
COLOURS = {
    "stop": "#4e79a7", "save": "#f28e2b", "convert": "#e15759", "translations": "#76b7b2", "irqchip": "#59a14f", "resume": "#b07aa1",
}  # fmt: skip
MET = {"yes": "#2a7f3f", "no": "#c2571a"}
INK, FAINT = "#222222", "#cccccc"


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = INK, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def shares(phases: Mapping[str, float]) -> dict[str, float]:
    """Return each phase's share of the sum, 0 to 1. Raises ValueError when the sum is 0."""
    total = sum(phases.values())
    if total <= 0:
        raise ValueError("phases that took no time have no shares")
    return {name: value / total for name, value in phases.items()}


def decades(entries: Sequence[Entry]) -> tuple[int, int]:
    """Return the powers of ten between which all ratios and goals lie."""
    values = [entry[key] for entry in entries for key in ("ratio_min", "ratio_max")]
    values += [limit for entry in entries for limit in (goal(entry["name"]).least, goal(entry["name"]).most) if limit]
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _phases(phases: Mapping[str, Mapping[str, float]], top: float) -> tuple[list[str], float]:
    """Return a bar for each direction, and where the next part begins."""
    parts = [_text(MARGIN, top + 14, "What a pause consists of: share of each phase", size=15)]
    y = top + 30
    for direction in DIRECTIONS:
        x = float(LEFT)
        parts.append(_text(LEFT - 8, y + 17, direction.replace("_", " to "), "end"))
        for name, share in shares(phases[direction]).items():
            width = share * (WIDTH - LEFT - MARGIN)
            parts.append(_box(x, y, width, BAR, COLOURS[name]))
            if share >= 0.05:
                parts.append(_text(x + width / 2, y + 17, f"{share:.0%}", "middle", "#ffffff"))
            x += width
        y += BAR + 8
    x = float(LEFT)
    for name, colour in COLOURS.items():
        parts += [_box(x, y + 2, 12, 12, colour), _text(x + 17, y + 12, name)]
        x += 105
    return parts, y + 40


def _ratios(entries: Sequence[Entry], top: float) -> tuple[list[str], float]:
    """Return a row for each comparison, and where the next part begins."""
    low, high = decades(entries)

    def place(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * PLOT

    parts = [_text(MARGIN, top + 14, "Ratios: median (dot), minimum to maximum (line), goal (bar)", size=15)]
    y = top + 30
    bottom = y + ROW * len(entries)
    for power in range(low, high + 1):
        x = place(10.0**power)
        parts += [_line(x, y, x, bottom, FAINT), _text(x, bottom + 16, f"{10.0**power:g}", "middle")]
    for entry in entries:
        wanted = goal(entry["name"])
        colour = MET[verdict(entry)]
        middle = y + ROW / 2
        limit = place(wanted.least or wanted.most or 1)
        parts += [
            _text(LEFT - 8, middle + 4, entry["name"], "end"),
            _line(limit, middle - 8, limit, middle + 8, INK, 2.5),
            _line(place(entry["ratio_min"]), middle, place(entry["ratio_max"]), middle, colour, 3),
            f'<circle cx="{place(entry["ratio_median"]):.1f}" cy="{middle:.1f}" r="4.5" fill="{colour}"/>',
            _text(WIDTH - RIGHT + 12, middle + 4, f"{entry['ratio_median']:.3g} ({wanted})", colour=colour),
        ]
        y += ROW
    return parts, bottom + 30


def draw(report: Mapping[str, Any]) -> str:
    """Return the picture of a report as SVG.

    Raises ValueError for a report without comparisons, KeyError for a comparison that has no goal.
    """
    if not report["comparisons"]:
        raise ValueError("a report without comparisons has no picture")
    parts: list[str] = []
    y = float(MARGIN)
    if "pauses" in report.get("details", {}):
        parts, y = _phases(report["details"]["pauses"]["phases_us"], y)
    more, y = _ratios(in_order(report["comparisons"]), y)
    parts += more
    head = [
        "<!-- SPDX-License-Identifier: GPL-3.0-or-later (drawn by tests/bench/document.py) -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0f}" viewBox="0 0 {WIDTH} {y:.0f}" font-family="sans-serif">',
        _box(0, 0, WIDTH, y, "#ffffff"),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"
