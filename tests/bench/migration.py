# SPDX-License-Identifier: GPL-3.0-or-later
"""What there was before: stock QEMU moves a VM between a KVM and a TCG process of the same host by migration.

The downtime is from the event STOP of the process that is left to the event RESUME of the one that takes over, both by the host's clock.
The VM and its size are the same; a stock VM needs a machine without kvmclock, or TCG would refuse its stream.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pauses
from comparison import Entry, comparison
from goals import DIRECTIONS
from guests import Bench, Guest
from harness import Unexpected
from pauses import TARGET, VCPUS

from lab.progress import say

MEMORY_MIB = 1024
# kvmclock is in the stream of every newer machine type, with or without the feature. TCG has none.
STOCK = {"machine": "pc-i440fx-5.1,smm=off", "cpu": "qemu64,kvm=off,x2apic=off,tsc-deadline=off,svm=off"}
SECONDS = 240
SWITCHES = 20


def at_us(event: dict[str, Any]) -> int:
    """Return when an event was sent, in microseconds of the host's clock."""
    return event["timestamp"]["seconds"] * 1_000_000 + event["timestamp"]["microseconds"]


def start(bench: Bench, accel: str, *, incoming: str = "") -> Guest:
    """Start a stock VM, or one that waits for a migration."""
    extra = ["-incoming", f"unix:{incoming}"] if incoming else []
    return Guest(bench, accel, memory_mib=MEMORY_MIB, vcpus=VCPUS, extra=extra, ready=not incoming, **STOCK)


def migrate(bench: Bench, source: Guest, accel: str) -> tuple[Guest, int, int]:
    """Migrate a VM into a new process; return it, the downtime in microseconds and what the source calls downtime.

    Raises Unexpected when it fails.
    """
    path = f"{bench.host.folder}/migration.sock"
    target = start(bench, accel, incoming=path)
    try:
        source.qmp.run("migrate", {"uri": f"unix:{path}"})
        deadline = time.monotonic() + SECONDS
        while (state := source.qmp.run("query-migrate"))["status"] != "completed":
            if state["status"] in ("failed", "cancelled") or time.monotonic() > deadline:
                raise Unexpected(f"migration to {accel}: {state}\n{target.report()}")
            time.sleep(0.2)
        resumed = target.qmp.wait_event("RESUME", 0, SECONDS)
        stopped = next(event for event in reversed(source.qmp.events) if event["event"] == "STOP")
    except BaseException:
        target.kill()
        raise
    source.kill()
    return target, at_us(resumed) - at_us(stopped), state["downtime"] * 1000


def goes_on(guest: Guest) -> bool:
    """Return whether a guest answers after its migration."""
    try:
        guest.order("clock", r"^CLOCK", 60)
    except Unexpected:
        return False
    return True


def measure(bench: Bench) -> list[Entry]:
    """Return the comparisons of this group."""
    switched: list[pauses.Pauses] = []
    downtimes: dict[str, list[int]] = {direction: [] for direction in DIRECTIONS}
    reported: dict[str, list[int]] = {direction: [] for direction in DIRECTIONS}
    alive: dict[str, int] = dict.fromkeys(DIRECTIONS, 0)
    say("bench", f"starting a hybrid and a stock guest, {MEMORY_MIB} MiB")
    hybrid = Guest(bench, "hybrid", memory_mib=MEMORY_MIB, vcpus=VCPUS)
    stock, living = None, True
    try:
        stock = start(bench, "kvm")
        pauses.switch_there_and_back(hybrid, pauses.WARM_UP)
        for _ in bench.each_run("migration"):
            switched.append(pauses.switch_there_and_back(hybrid, SWITCHES)[0])
            for direction in DIRECTIONS:
                stock, downtime, said = migrate(bench, stock, TARGET[direction])
                downtimes[direction].append(downtime)
                reported[direction].append(said)
                if living and goes_on(stock):
                    alive[direction] += 1
                else:
                    # The size of what is migrated stays the same; that the guest is lost is said in the report.
                    living = False
    finally:
        for guest in (hybrid, stock):
            if guest:
                guest.kill()
    bench.details["migration"] = {
        "memory_mib": MEMORY_MIB,
        "vcpus": VCPUS,
        "downtime_us": {direction: statistics.median(downtimes[direction]) for direction in DIRECTIONS},
        "downtime_said_by_qemu_us": {direction: statistics.median(reported[direction]) for direction in DIRECTIONS},
        "guests_that_went_on": alive,
    }
    return [
        comparison(f"pause_vs_migration_{way}", [statistics.median(run[way]) for run in switched], downtimes[way], "us")
        for way in DIRECTIONS
    ]
