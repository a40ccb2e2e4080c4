# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of docs/conformance.md are those of docs/conformance.json and name exactly the cases that exist."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import pytest
from documents import ROOT, code, rows, section, text

sys.path[:0] = [str(ROOT / "tests" / "qemu"), str(ROOT / "tests" / "qemu" / "conformance")]
from cases import CASES, CLASSES, ELSEWHERE
from table import missing, only_hybrid, with_tables

AGAIN = "make conformance-docs writes it"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads(text("docs/conformance.json"))


def test_tables(report: dict[str, Any]) -> None:
    assert text("docs/conformance.md") == with_tables(text("docs/conformance.md"), report), AGAIN


def test_every_case_is_in_one_class() -> None:
    assert Counter(name for names in CLASSES.values() for name in names) == Counter(list(CASES))


def test_the_tables_name_the_cases_that_exist() -> None:
    results, others = (rows(section("docs/conformance.md", heading)) for heading in ("Results", "Tests by other means"))
    named = [name for row in results if len(row) == 5 for name in code(row[1])] + [name for row in others for name in code(row[0])]
    assert Counter(named) == Counter([*CASES, *ELSEWHERE])


def test_elsewhere() -> None:
    for name, where in ELSEWHERE.items():
        file, _, function = where.partition("::")
        assert f"def {function}(" in text(f"tests/qemu/{file}"), name


def test_what_was_not_run_is_said(report: dict[str, Any]) -> None:
    said = {row[0]: row[1] for row in rows(section("docs/conformance.md", "Results")) if len(row) == 2}
    assert said["not run"] == str(len(missing(report["results"])))
    assert said["QEMU"] == report["conditions"]["QEMU"]


def test_there_is_no_fault(report: dict[str, Any]) -> None:
    """Nothing differs under hybrid only."""
    assert only_hybrid(report["results"]) == []
