# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the pause of switches on a lab host and write reports/bench.json.

Two guests of different size run at the same time and are switched in turn, so that whatever disturbs the lab disturbs both.
Only ratios mean something: a lab host is an emulated machine. Runs inside the venv: `make bench ARGS='--runs 5'`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "qemu"), str(TOP / "tests" / "bench")]

import harness
import test_linux
from comparison import comparison, percentile, table

from lab.config import cache_root, lab_from
from lab.guest import ensure_guest
from lab.image import ensure_image
from lab.progress import say

REPORT = TOP / "reports" / "bench.json"
SIZES_MIB = {"small": 256, "large": 1536}
DIRECTIONS = {"kvm_tcg": "tcg", "tcg_kvm": "kvm"}


def boot(host: harness.LabHost, binary: str, linux: tuple[str, str], memory_mib: int) -> harness.Vm:
    """Start an idle guest with one CPU."""
    vm = harness.Vm(
        host, binary,
        ["-accel", "hybrid", "-machine", "pc,smm=off", "-cpu", "max", "-m", str(memory_mib),
         "-kernel", linux[0], "-initrd", linux[1], "-append", "console=ttyS0 no_timer_check loglevel=4 panic=-1 nowatchdog hc.workers=0"],
        mode="kvm", seed=0,
    )  # fmt: skip
    vm.wait_line(r"READY vcpus=1", 300, fatal=test_linux.FATAL)
    vm.wait_line(r"^HB ", 60, fatal=test_linux.FATAL)
    return vm


def measure(vms: dict[str, harness.Vm], switches: int) -> dict[tuple[str, str], list[int]]:
    """Switch the guests in turn there and back; return pauses in microseconds by guest and direction."""
    pauses: dict[tuple[str, str], list[int]] = {(name, direction): [] for name in vms for direction in DIRECTIONS}
    for _ in range(switches):
        for name, vm in vms.items():
            for direction, mode in DIRECTIONS.items():
                pauses[name, direction].append(vm.set_mode(mode)["pause-us"])
    return pauses


def compare(runs: list[dict[tuple[str, str], list[int]]]) -> list[dict[str, object]]:
    """Turn the runs' pauses into comparisons."""
    result = []
    for direction in DIRECTIONS:
        small, large = ([run[name, direction] for run in runs] for name in ("small", "large"))
        medians = [statistics.median(run) for run in small]
        result.append(comparison(f"pause_vs_ram_{direction}", [statistics.median(run) for run in large], medians, "us"))
        result.append(comparison(f"pause_p99_vs_p50_{direction}", [percentile(run, 0.99) for run in small], medians, "us"))
    return result


def main() -> int:
    """Measure, print, write the report; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--switches", type=int, default=40, help="switches each way, per guest and run (default: 40)")
    chosen = parser.parse_args()
    lab = lab_from(os.environ.get("LAB", "0"), os.environ.get("LAB_DISTRO", "bookworm"), cache_root())
    guest = ensure_guest(lab.cache, ensure_image(lab))
    host = harness.LabHost(str(lab.number))
    vms: dict[str, harness.Vm] = {}
    runs = []
    try:
        binary = host.push(harness.stripped(harness.find_binary()), "qemu")
        linux = host.push(guest.kernel, "vmlinuz"), host.push(guest.initrd, "initrd")
        for name, size in SIZES_MIB.items():
            say("bench", f"starting the {name} guest, {size} MiB")
            vms[name] = boot(host, binary, linux, size)
        measure(vms, 3)  # the first switches translate what later ones find translated
        for number in range(chosen.runs):
            say("bench", f"run {number + 1} of {chosen.runs}")
            runs.append(measure(vms, chosen.switches))
        for vm in vms.values():
            test_linux.no_complaints(vm)
    finally:
        for vm in vms.values():
            vm.kill()
        host.close()
    comparisons = compare(runs)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"comparisons": comparisons}, indent=2) + "\n")
    print(table(comparisons))
    say("bench", f"wrote {REPORT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
