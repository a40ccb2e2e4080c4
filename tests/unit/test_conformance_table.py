# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of the conformance suite: verdicts, merging, what is a fault, what the table says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests" / "qemu"), str(TOP / "tests" / "qemu" / "conformance")]
import table
from cases import CASES, Case, storm

HOLDS: dict[str, Any] = {"verdict": "holds", "found": []}
DIFFERS: dict[str, Any] = {"verdict": "differs", "found": ["gpr 0 wait 0: rax is 1, expected 2"]}


@pytest.mark.parametrize(
    ("problems", "notes", "expected"),
    [
        ([], ["gpr 0: rounds 3"], HOLDS),
        (["rax is 1, expected 2\nmore"], ["x2apic 0: no x2APIC"], {"verdict": "differs", "found": ["rax is 1, expected 2"]}),
        ([], ["x2apic 0: no x2APIC", "x2apic 0: no x2APIC"], {"verdict": "lacks", "found": ["no x2APIC"]}),
    ],
)
def test_result(problems: list[str], notes: list[str], expected: dict[str, Any]) -> None:
    assert table.result(problems, notes) == expected


@pytest.mark.parametrize(
    ("case", "columns"),
    [
        (Case("a"), ["kvm", "tcg", "kvm-tcg", "tcg-kvm"]),
        (storm("a"), ["kvm", "tcg", "kvm-tcg"]),
        (Case("a", paths=("kvm-tcg", "tcg-kvm")), ["kvm-tcg", "tcg-kvm"]),
        (Case("a", paths=("tcg", "kvm-tcg")), ["kvm", "tcg", "kvm-tcg"]),
    ],
)
def test_wanted(case: Case, columns: list[str]) -> None:
    assert [column for column in table.COLUMNS if table.wanted(case, column)] == columns


def test_merged_keeps_what_was_not_run_again() -> None:
    conditions = {"QEMU": "one"}
    first = table.merged(None, {"gpr": {"kvm": HOLDS, "tcg": HOLDS}}, conditions)
    second = table.merged(first, {"gpr": {"kvm": DIFFERS}, "x87": {"tcg": HOLDS}}, conditions)
    assert second["results"] == {"x87": {"tcg": HOLDS}, "gpr": {"kvm": DIFFERS, "tcg": HOLDS}}
    assert table.merged(second, {"gpr": {"kvm": HOLDS}}, {"QEMU": "another"})["results"] == {"gpr": {"kvm": HOLDS}}


@pytest.mark.parametrize(
    ("columns", "words", "fault"),
    [
        ({"kvm": HOLDS, "tcg": HOLDS, "kvm-tcg": HOLDS, "tcg-kvm": HOLDS}, ["holds", "holds", "holds"], False),
        ({"kvm": HOLDS, "tcg": HOLDS, "kvm-tcg": HOLDS, "tcg-kvm": DIFFERS}, ["holds", "holds", "**fault**"], True),
        ({"kvm": HOLDS, "tcg": DIFFERS, "kvm-tcg": DIFFERS, "tcg-kvm": HOLDS}, ["holds", "differs", "differs"], False),
        ({"kvm": HOLDS, "kvm-tcg": HOLDS}, ["holds", "not run", "not run"], False),
    ],
)
def test_what_the_table_says(columns: dict[str, Any], words: list[str], fault: bool) -> None:
    results = {"gpr": columns}
    assert table.only_hybrid(results) == (["gpr"] if fault else [])
    assert f"| `gpr` | {' | '.join(words)} |" in table.case_table(results)
    assert ("| `gpr` | hybrid, first to kvm | gpr 0 wait 0: rax is 1, expected 2 |" in table.finding_table(results)) == (columns.get("tcg-kvm") == DIFFERS)


def test_missing() -> None:
    everything = {name: {column: HOLDS for column in table.COLUMNS if table.wanted(case, column)} for name, case in CASES.items()}
    assert table.missing(everything) == []
    del everything["gpr"]["tcg-kvm"]
    assert table.missing(everything) == ["gpr tcg-kvm"]


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="the document has 0 places for the table of cases"):
        table.with_tables("nothing", {"results": {}, "conditions": {}})
