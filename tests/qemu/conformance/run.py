# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the cases of the conformance suite under stock KVM, stock TCG and hybrid on one host; write reports/conformance.json.

Stock KVM and TCG are the same binary with -accel kvm and -accel tcg. All columns have the same machine. A part of the cases
(--only) or columns (--columns) replaces that part of an earlier report of the same QEMU and host; --resume goes on where a run was
ended. The exit status is 0 unless a hybrid guest shows a discrepancy that neither stock accelerator does.
Runs inside the venv: `make conformance ARGS='--only hpet,rtc --columns kvm,kvm-tcg'`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "qemu"), str(TOP / "tests" / "qemu" / "conformance")]

import harness
from cases import CASES, Case
from table import COLUMNS, DIFFERS, REPORT, STOCK, Results, merged, only_hybrid, result, wanted
from test_baremetal import run_points, run_storm

from lab.config import cache_root, lab_from
from lab.progress import say

MACHINE = "pc,smm=off"
ACCELERATORS = {"kvm": "kvm,kernel-irqchip=on", "tcg": "tcg"}
HYBRID = "hybrid,kernel-irqchip=on"


def run_case(guest: harness.Baremetal, case: Case, column: str) -> dict[str, Any]:
    """Run one case along the column's path of modes; return its result."""
    guest.notes = []
    try:
        problems = run_storm(guest, case, column not in STOCK, column.split("-")[0]) if case.storm else run_points(guest, case, column)
    except (harness.Unexpected, harness.QmpError) as error:
        problems = [str(error)]
        guest.stop()
    return result(problems, guest.notes)


def conditions_of(host: harness.Host, binary: str) -> dict[str, Any]:
    """Return what must be the same for two results to stand in one report."""
    where = "this machine"
    if isinstance(host, harness.LabHost):
        lab = lab_from(os.environ.get("LAB", "1"), os.environ.get("LAB_DISTRO", "bookworm"), cache_root())
        accelerator = json.loads(lab.state_file.read_text())["accelerator"]
        where = "lab host, " + ("emulated" if accelerator == "tcg" else accelerator)
    return {"QEMU": host.run(f"{binary} --version").splitlines()[0], "host": where, "kernel": host.run("uname -r").strip(), "machine": MACHINE}


def write(results: Results, conditions: dict[str, Any]) -> dict[str, Any]:
    """Write the report, with what an earlier one of the same conditions says beside it; return it."""
    report = merged(json.loads(REPORT.read_text()) if REPORT.exists() else None, results, conditions)
    REPORT.parent.mkdir(exist_ok=True)
    part = REPORT.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.rename(REPORT)
    return report


def names_of(text: str, known: tuple[str, ...]) -> list[str]:
    """Return the names in a list separated by commas, all known ones if it is empty.

    Raises ValueError, naming it, for one that is not known.
    """
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise ValueError(f"'{name}' is none of {', '.join(known)}")
    return [name for name in known if name in names] if names else list(known)


def main() -> int:
    """Run, print a line for each case, write the report; return the exit status."""
    parser = argparse.ArgumentParser(prog="conformance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="cases, by their names, separated by commas")
    parser.add_argument("--columns", default="", help=f"of {','.join(COLUMNS)}, separated by commas")
    parser.add_argument("--resume", action="store_true", help="only what the report of an earlier run with the same QEMU and host lacks")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of all random choices")
    arguments = parser.parse_args()
    try:
        names, columns = names_of(arguments.only, tuple(CASES)), names_of(arguments.columns, COLUMNS)
    except ValueError as error:
        parser.error(str(error))

    host: harness.Host = harness.LocalHost() if os.environ.get("HYBRID_TEST_HOST") == "local" else harness.LabHost(os.environ.get("LAB", "1"))
    report: dict[str, Any] = {"results": {}}
    try:
        found = harness.find_binary()
        binary = host.push(found if isinstance(host, harness.LocalHost) else harness.stripped(found), "qemu")
        kernel = host.push(harness.build_baremetal(), "conformance")
        conditions = conditions_of(host, binary)
        say("conformance", f"{conditions['QEMU']}, {conditions['host']}, seed {arguments.seed}")
        done = write({}, conditions)["results"] if arguments.resume else {}
        for column in columns:
            accel = ACCELERATORS.get(column, HYBRID)
            guest = harness.Baremetal(host, binary, kernel, accel=accel, machine=MACHINE, cpus=2, seed=arguments.seed)
            try:
                for name in (name for name in names if wanted(CASES[name], column) and column not in done.get(name, {})):
                    began = time.monotonic()
                    got = run_case(guest, CASES[name], column)
                    report = write({name: {column: got}}, conditions)
                    said = f"{column:8} {name:16} {got['verdict']:8} {time.monotonic() - began:5.1f} s  {'; '.join(got['found'][:2])}"
                    print(said, flush=True)
            finally:
                guest.stop()
    finally:
        host.close()
    faults = only_hybrid(report["results"])
    differ = [name for name, got in report["results"].items() if any(each["verdict"] == DIFFERS for each in got.values())]
    say("conformance", f"wrote {REPORT}; cases that differ somewhere: {', '.join(differ) or 'none'}; only under hybrid: {', '.join(faults) or 'none'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
