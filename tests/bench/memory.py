# SPDX-License-Identifier: GPL-3.0-or-later
"""Resident memory of QEMU with a hybrid guest that has been in tcg and is back in kvm, against stock KVM with the same guest.

The guest has used no memory but what a boot and the work need: all that is spent beside the guest's memory shows in the ratio.
"""

from __future__ import annotations

import re
import time

from comparison import Entry, comparison
from guests import Bench, Guest, medians
from harness import Unexpected

MEMORY_MIB = 512
WORKS = ("syscall", "fork", "compute")
WORK_MS = 1500
# Beyond the default of tb-keep, 60 s, in a lab host that is slow.
GIVEN_UP_S = 120


def rollup_mib(text: str) -> float:
    """Return the resident memory in MiB out of /proc/<pid>/smaps_rollup. Raises ValueError when it is not in there."""
    found = re.search(r"^Rss:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:
        raise ValueError(f"no Rss in {text!r}")
    return int(found[1]) / 1024


def code_mib(text: str) -> float:
    """Return the resident memory in MiB, out of /proc/<pid>/smaps, of what is both written and run: the translation cache."""
    mappings = re.findall(r"^[0-9a-f]+-[0-9a-f]+ (\S+) .*$(?:\n^\w+: .*$)*?\n^Rss:\s+(\d+) kB$", text, re.MULTILINE)
    return sum(int(size) for rights, size in mappings if rights.startswith("rwx")) / 1024


def resident(guest: Guest) -> float:
    """Return the resident memory of a guest's QEMU in MiB."""
    return rollup_mib(guest.host.run(f"cat /proc/{guest.process_id()}/smaps_rollup"))


def wait_given_up(guest: Guest) -> None:
    """Wait until a guest that is in kvm to stay has given its translations up (tb-keep). Raises Unexpected when it keeps them."""
    deadline = time.monotonic() + GIVEN_UP_S
    while not re.search(r"^TB count +0\s*$", guest.qmp.run("human-monitor-command", {"command-line": "info jit"}), re.MULTILINE):
        if time.monotonic() > deadline:
            raise Unexpected(f"translations were not given up within {GIVEN_UP_S} s in mode kvm")
        time.sleep(1)


def work(guest: Guest) -> None:
    """Let a guest do some of everything."""
    for kind in WORKS:
        guest.work(kind, WORK_MS)


def measure(bench: Bench) -> list[Entry]:
    """Return the comparison of this group."""
    hybrid_mib, stock_mib = [], []
    stages: dict[str, list[float]] = {name: [] for name in ("before_tcg", "in_tcg", "back_in_kvm", "translations", "given_back")}
    for _ in bench.each_run("memory"):
        guests = []
        try:
            for accel in ("hybrid", "kvm"):
                guests.append(Guest(bench, accel, memory_mib=MEMORY_MIB))
                work(guests[-1])
            hybrid, stock = guests
            stages["before_tcg"].append(resident(hybrid))
            hybrid.set_mode("tcg")
            work(hybrid)
            stages["translations"].append(code_mib(hybrid.host.run(f"cat /proc/{hybrid.process_id()}/smaps")))
            stages["in_tcg"].append(resident(hybrid))
            hybrid.set_mode("kvm")
            work(hybrid)
            wait_given_up(hybrid)
            stages["back_in_kvm"].append(resident(hybrid))
            stages["given_back"].append(stages["in_tcg"][-1] - stages["back_in_kvm"][-1])
            hybrid_mib.append(stages["back_in_kvm"][-1])
            stock_mib.append(resident(stock))
        finally:
            for guest in guests:
                guest.kill()
    bench.details["memory"] = {"memory_mib": MEMORY_MIB, "resident_mib": medians(stages)}
    return [comparison("memory_overhead", hybrid_mib, stock_mib, "MiB")]
