# SPDX-License-Identifier: GPL-3.0-or-later
"""What the conformance suite has found, as a report and as the tables of docs/conformance.md.

`make conformance-docs` puts reports/conformance.json into docs/. What runs the cases is run.py.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(TOP / "tests"), str(TOP / "tests" / "qemu")]

import marked
from cases import CASES, CLASSES, ELSEWHERE, Case

REPORT = TOP / "reports" / "conformance.json"
DOCS = TOP / "docs"
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later (this report)"
# Columns of a report: stock accelerators by name, a hybrid guest by the path of modes that it takes.
STOCK = ("kvm", "tcg")
HYBRID = ("kvm-tcg", "tcg-kvm")
COLUMNS = (*STOCK, *HYBRID)
SAID = {"kvm": "stock KVM", "tcg": "stock TCG", "kvm-tcg": "hybrid, first to tcg", "tcg-kvm": "hybrid, first to kvm"}
HOLDS, DIFFERS, LACKS, NONE, FAULT = "holds", "differs", "lacks", "n/a", "**fault**"
NOT_RUN = "not run"

Result = dict[str, Any]  # verdict, found: list of texts
Results = dict[str, dict[str, Result]]  # by case, by column


def result(problems: Iterable[str], notes: Iterable[str]) -> Result:
    """Return the result of one case in one column: discrepancies first, else what the guest says is not there ("no ...")."""
    found = [problem.strip().splitlines()[0] for problem in problems]
    missing = sorted({said for note in notes if (said := note.partition(": ")[2]).startswith("no ")})
    verdict = DIFFERS if found else LACKS if missing else HOLDS
    return {"verdict": verdict, "found": found[:5] or missing}


def wanted(case: Case, column: str) -> bool:
    """Return whether a case is to be run in a column: some compare the two modes, and storms go both ways at once."""
    if column in STOCK:
        return not case.paths or bool(set(STOCK) & set(case.paths))
    return column in case.paths if case.paths else not (case.storm and column != HYBRID[0])


def merged(earlier: Mapping[str, Any] | None, results: Results, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report; what an earlier one of the same conditions says and was not run now is kept."""
    kept: Results = dict(earlier["results"]) if earlier and earlier["conditions"] == conditions else {}
    for name, columns in results.items():
        kept[name] = {**kept.get(name, {}), **columns}
    return {"conditions": dict(conditions), "results": {name: kept[name] for name in CASES if name in kept}}


def verdict(results: Results, name: str, columns: Iterable[str]) -> str:
    """Return one word for the columns of a case: the worst of them, NOT_RUN if one is missing."""
    wanted_columns = [column for column in columns if wanted(CASES[name], column)]
    found = [results.get(name, {}).get(column, {"verdict": NOT_RUN})["verdict"] for column in wanted_columns]
    for word in (NOT_RUN, DIFFERS, LACKS):
        if word in found:
            return word
    return HOLDS if found else NONE


def only_hybrid(results: Results) -> list[str]:
    """Return the cases in which a hybrid guest shows what neither stock accelerator does: those are faults."""
    return [
        name for name in CASES
        if verdict(results, name, HYBRID) == DIFFERS and {verdict(results, name, [column]) for column in STOCK} == {HOLDS}
    ]  # fmt: skip


def missing(results: Results) -> list[str]:
    """Return what a report lacks, as "case column"."""
    return [f"{name} {column}" for name, case in CASES.items() for column in COLUMNS if wanted(case, column) and column not in results.get(name, {})]


def case_table(results: Results) -> str:
    """Return the table of classes, tests and results."""
    lines = ["| discrepancy class | test | stock KVM | stock TCG | hybrid |", "|---|---|---|---|---|"]
    for said, names in CLASSES.items():
        for number, name in enumerate(names):
            cells = [verdict(results, name, columns) for columns in (["kvm"], ["tcg"], HYBRID)]
            cells[2] = FAULT if name in only_hybrid(results) else cells[2]
            lines.append(f"| {'' if number else said} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return a finding as one cell: no bars, not too long."""
    text = re.sub(r"\s*\|\s*", "/", text)
    return text if len(text) <= 160 else text[:157] + "..."


def finding_table(results: Results) -> str:
    """Return what was found where a test does not hold: its first discrepancy, or what is not there."""
    lines = ["| test | where | what the guest says |", "|---|---|---|"]
    for name in (name for names in CLASSES.values() for name in names):
        for column in COLUMNS:
            found = results.get(name, {}).get(column)
            if found and found["verdict"] != HOLDS:
                lines.append(f"| `{name}` | {SAID[column]} | {cell(found['found'][0])} |")
    return "\n".join(lines)


def elsewhere_table() -> str:
    """Return the tests that need the harness's hand."""
    lines = ["| test | run by |", "|---|---|"]
    for name, test in ELSEWHERE.items():
        file, _, function = test.partition("::")
        lines.append(f"| `{name}` | `{function}` in `tests/qemu/{file}` |")
    return "\n".join(lines)


def with_tables(text: str, report: Mapping[str, Any]) -> str:
    """Return a document with the tables of a report, each between its two marks.

    Raises ValueError when it does not have a table's marks once.
    """
    results = report["results"]
    said = {**report["conditions"], "results": sum(map(len, results.values())), "not run": len(missing(results))}
    conditions = "\n".join(["| run with | |", "|---|---|", *(f"| {name} | {value} |" for name, value in said.items())])
    tables = {"cases": case_table(results), "findings": finding_table(results), "elsewhere": elsewhere_table(), "conditions": conditions}
    return marked.with_tables(text, "conformance", tables)


def main() -> int:
    """Write the documents; return the exit status."""
    if not REPORT.exists():
        sys.stderr.write("there is no reports/conformance.json: make conformance first\n")
        return 1
    report = json.loads(REPORT.read_text())
    if missing(report["results"]):
        sys.stderr.write(f"reports/conformance.json lacks {len(missing(report['results']))} results: the table says so\n")
    document = DOCS / "conformance.md"
    document.write_text(with_tables(document.read_text(), report))
    (DOCS / "conformance.json").write_text(json.dumps({"licence": LICENCE} | report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
