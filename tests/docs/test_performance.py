# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and picture of docs/performance.md are those of docs/bench.json; what was not measured is named."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from documents import ROOT, code, rows, section, text

sys.path.insert(0, str(ROOT / "tests" / "bench"))
from document import with_tables
from goals import GOALS
from picture import draw

AGAIN = "make bench-docs writes it"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads(text("docs/bench.json"))


def test_picture(report: dict[str, Any]) -> None:
    assert text("docs/bench.svg") == draw(report), AGAIN
    assert "(bench.svg)" in text("docs/performance.md")


def test_tables(report: dict[str, Any]) -> None:
    assert text("docs/performance.md") == with_tables(text("docs/performance.md"), report), AGAIN


def test_there_is_a_spread(report: dict[str, Any]) -> None:
    assert min(entry["runs"] for entry in report["comparisons"]) >= 3, "too few for a spread"


def test_every_comparison_is_explained() -> None:
    """A row of the table of comparisons names each goal, itself or the beginning of its family."""
    named = [word for row in rows(section("docs/performance.md", "What is compared with what")) for word in code(row[0])]
    assert [goal.name for goal in GOALS if not any(goal.name.startswith(name) for name in named)] == []
    assert [name for name in named if not any(goal.name.startswith(name) for goal in GOALS)] == []
