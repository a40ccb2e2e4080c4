# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the last report into the documents: docs/bench.json, the picture docs/bench.svg, the tables in docs/performance.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests"), str(TOP / "tests" / "bench")]

import marked
from comparison import in_order, markdown
from goals import DIRECTIONS, GOALS
from picture import draw

REPORT = TOP / "reports" / "bench.json"
DOCS = TOP / "docs"
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later (this report)"


def pause_table(pauses: Mapping[str, Any]) -> str:
    """Return what the pauses of a report consist of, as shares of the sum of their phases."""
    phases, beside = pauses["phases_us"], pauses["beside_floor_us"]
    whole = {way: sum(phases[way].values()) for way in DIRECTIONS}
    rows = {f"phase `{name}`": [phases[way].get(name) for way in DIRECTIONS] for name in phases[DIRECTIONS[0]]}
    rows["all ioctls of the floor, one after another"] = [sum(pauses["floor_us"][way].values()) for way in DIRECTIONS]
    rows["the same after a sleep of 2 ms"] = [beside.get(f"floor_after_a_sleep_{way}") for way in DIRECTIONS]
    rows["collecting interrupts that the kernel still holds"] = [beside["drain_interrupts"], None]
    rows["waking one thread and waiting for it"] = [beside["handoff_to_a_thread"]] * 2
    lines = ["| share of the pause | kvm to tcg | tcg to kvm |", "|---|---|---|"]
    for name, values in rows.items():
        if values == [None, None]:
            continue  # an earlier report
        shares = ("" if value is None else f"{value / whole[way]:.1%}" for way, value in zip(DIRECTIONS, values))
        lines.append(f"| {name} | {' | '.join(shares)} |")
    return "\n".join(lines)


def memory_table(memory: Mapping[str, Any]) -> str:
    """Return the resident memory of a hybrid QEMU by stage."""
    resident = memory["resident_mib"]
    names = {
        "before_tcg": "in kvm, before it was in tcg", "in_tcg": "in tcg, after work", "back_in_kvm": "back in kvm, after work",
        "translations": "of it translations", "given_back": "given back",
    }  # fmt: skip
    lines = ["| resident memory of QEMU, hybrid | MiB |", "|---|---|"]
    return "\n".join([*lines, *(f"| {said} | {resident[name]:g} |" for name, said in names.items())])


def with_tables(text: str, report: Mapping[str, Any]) -> str:
    """Return a document with the tables of a report, each between its two marks.

    Raises ValueError when it does not have a table's marks once.
    """
    tables = {
        "table": markdown(in_order(report["comparisons"])),
        "pause": pause_table(report["details"]["pauses"]),
        "memory": memory_table(report["details"]["memory"]),
    }
    return marked.with_tables(text, "bench", tables)


def missing(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the comparisons that a report lacks."""
    names = {entry["name"] for entry in report["comparisons"]}
    return [each.name for each in GOALS if each.name not in names]


def main() -> int:
    """Write the documents; return the exit status."""
    if not REPORT.exists():
        sys.stderr.write("there is no reports/bench.json: make bench first\n")
        return 1
    report = json.loads(REPORT.read_text())
    if missing(report):
        sys.stderr.write(f"reports/bench.json lacks {', '.join(missing(report))}: the table says so\n")
    document = DOCS / "performance.md"
    document.write_text(with_tables(document.read_text(), report))
    (DOCS / "bench.json").write_text(json.dumps({"licence": LICENCE} | report, indent=2) + "\n")
    (DOCS / "bench.svg").write_text(draw(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
