# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a hybrid VM with stock QEMU on a lab host and write reports/bench.json.

A and B of each comparison are measured in turn on one lab host, and only their ratio means something: a lab host may be an emulated
machine. Stock KVM and TCG are the same binary with -accel kvm and -accel tcg; `make stock-tests` checks that it is a stock QEMU then.
Whether a goal is met is said and is not an error: the exit status is 0 when everything was measured.
Runs inside the venv: `make bench ARGS='--only pause_vs_ram,memory_overhead --runs 5'`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "qemu"), str(TOP / "tests" / "bench")]

import harness
import lateness
import memory
import migration
import modes
import pauses
from comparison import Entry, merged, table, verdict
from goals import GOALS, Goal, chosen
from guests import Bench, tsc_arguments

from lab.config import cache_root, lab_from
from lab.guest import ensure_guest
from lab.image import ensure_image
from lab.progress import say

REPORT = TOP / "reports" / "bench.json"
RUNS = 5


def plan(goals: list[Goal]) -> dict[str, Callable[[Bench], list[Entry]]]:
    """Return what measures these goals by group; of the modes only the kinds of work that are asked for."""
    measures: dict[str, Callable[[Bench], list[Entry]]] = {
        "pauses": pauses.measure, "migration": migration.measure, "lateness": lateness.measure, "memory": memory.measure,
    }  # fmt: skip
    for group, measure in (("kvm_mode", modes.measure_kvm), ("tcg_mode", modes.measure_tcg)):
        works = [each.name.rpartition("_")[2] for each in goals if each.group == group]
        measures[group] = partial(measure, works=works)
    wanted = {each.group for each in goals}
    return {group: measures[group] for group in dict.fromkeys(each.group for each in GOALS) if group in wanted}


def write_report(comparisons: list[Entry], details: dict[str, Any], conditions: dict[str, Any]) -> dict[str, Any]:
    """Write the report and return it. What an earlier one says of the same QEMU and was not measured now is kept."""
    report: dict[str, Any] = {"comparisons": merged([], comparisons), "conditions": conditions, "details": details}
    if REPORT.exists():
        earlier = json.loads(REPORT.read_text())
        if earlier.get("conditions") == conditions:
            report["comparisons"] = merged(earlier["comparisons"], comparisons)
            report["details"] = earlier["details"] | details
        else:
            say("bench", "the earlier report is of another QEMU or lab host: replaced")
    REPORT.parent.mkdir(exist_ok=True)
    part = REPORT.with_suffix(".part")
    part.write_text(json.dumps(report, indent=2) + "\n")
    part.rename(REPORT)
    return report


def conditions_of(bench: Bench, accelerator: str) -> dict[str, Any]:
    """Return what must be the same for two measurements to stand in one report."""
    return {
        "qemu": bench.host.run(f"{bench.binary} --version").splitlines()[0],
        "lab_host": "emulated" if accelerator == "tcg" else accelerator,
        "lab_kernel": bench.host.run("uname -r").strip(),
        "lab_cpus": int(bench.host.run("nproc")),
        "lab_memory_mib": int(bench.host.run("awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo")),
    }


def main() -> int:
    """Measure, print, write the report; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how often each is measured (default: {RUNS})")
    parser.add_argument("--only", default="", help="comparisons, by their names or the beginnings of them, separated by commas")
    arguments = parser.parse_args()
    try:
        goals = chosen([word for word in arguments.only.split(",") if word])
    except ValueError as error:
        parser.error(str(error))
    if arguments.runs < 1:
        parser.error("--runs: at least 1")

    lab = lab_from(os.environ.get("LAB", "0"), os.environ.get("LAB_DISTRO", "bookworm"), cache_root())
    guest = ensure_guest(lab.cache, ensure_image(lab))
    host = harness.LabHost(str(lab.number))
    names = [each.name for each in goals]
    report: dict[str, Any] = {}
    try:
        bench = Bench(
            host,
            host.push(harness.stripped(harness.find_binary()), "qemu"),
            host.push(guest.kernel, "vmlinuz"),
            host.push(guest.initrd, "initrd"),
            arguments.runs,
            tsc_arguments(host.run("cat /proc/cmdline")),
        )
        conditions = conditions_of(bench, json.loads(lab.state_file.read_text())["accelerator"])
        for group, measure in plan(goals).items():
            began = time.monotonic()
            bench.details = {}
            entries = [entry for entry in measure(bench) if entry["name"] in names]
            report = write_report(entries, bench.details, conditions)
            say("bench", f"{group}: done in {time.monotonic() - began:.0f} s")
            print(table(entries), flush=True)
    finally:
        host.close()
    done = [entry for entry in report["comparisons"] if entry["name"] in names]
    say("bench", "all that was asked for")
    print(table(done))
    missed = [entry["name"] for entry in done if verdict(entry) == "no"]
    say("bench", f"wrote {REPORT}; {len(done) - len(missed)} of {len(done)} goals met" + (f", not met: {', '.join(missed)}" if missed else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
