# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a guest works in a hybrid QEMU's mode kvm or tcg, against stock KVM or TCG, which is the same binary with -accel kvm or tcg.

Work is counted by the guest against its own clock, which is compared with the host's first. Of two guests the one that is not measured
is idle. A boot is measured on the lab host, from the start of QEMU until the guest says READY.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from comparison import Entry, comparison
from goals import KVM_WORK, TCG_WORK
from guests import BOOT_SECONDS, DISK, NETWORK, Bench, Guest
from harness import FIRMWARE

from lab.progress import say

MEMORY_MIB = 256
# A run is made of slices, in which the guests take turns: what disturbs an emulated host for a second or two disturbs both.
SLICES = 10
SLICE_MS = {"kvm": 250, "tcg": 400}
STOCK = {"kvm": "kvm,kernel-irqchip=on", "tcg": "tcg"}
HYBRID = {"kvm": "hybrid,kernel-irqchip=on", "tcg": "hybrid,kernel-irqchip=on,start=tcg"}


def boots_per_second(bench: Bench, accel: str) -> float:
    """Start a guest anew, wait until it is ready, end it; return one divided by the seconds that took."""
    script = bench.push("boot_time.py", Path(__file__).with_name("boot_time.py"))
    command = [
        *("python3", script, str(BOOT_SECONDS), bench.binary),
        *bench.arguments(accel, memory_mib=MEMORY_MIB, vcpus=1, options="hc.bench=1"),
        *DISK, *NETWORK, "-display", "none", "-nodefaults", "-no-user-config", "-serial", "stdio",
        *(word for folder in FIRMWARE.split(":") for word in ("-L", folder)),
    ]  # fmt: skip
    return 1 / float(bench.host.run(shlex.join(command), BOOT_SECONDS + 60))


def rates_in_turn(guests: Sequence[Guest], kind: str, slice_ms: int, slices: int = SLICES) -> list[float]:
    """Return how often per second each guest does a kind of work, measured in turn and every second time in the other order."""
    done = [(0, 0.0)] * len(guests)
    for number in range(slices):
        for index in sorted(range(len(guests)), reverse=number % 2 == 1):
            count, seconds = guests[index].work(kind, slice_ms)
            done[index] = (done[index][0] + count, done[index][1] + seconds)
    return [count / seconds for count, seconds in done]


def measure_mode(bench: Bench, mode: str, works: Sequence[str], group: str) -> list[Entry]:
    """Return the comparisons of one mode for these kinds of work."""
    rates: dict[str, tuple[list[float], list[float]]] = {work: ([], []) for work in works}
    guests: list[Guest] = []
    timed = [work for work in works if work != "boot"]
    try:
        if timed:
            say("bench", f"{group}: starting a hybrid and a stock guest")
            # One that starts in kvm is there sooner; how it got to tcg does not matter to the work.
            for accel in (HYBRID["kvm"], STOCK[mode]):
                guests.append(Guest(bench, accel, memory_mib=MEMORY_MIB, extra=[*DISK, *NETWORK]))
            if mode == "tcg":
                guests[0].set_mode("tcg")
            sources = [guest.read_clock() for guest in guests]
            for work in timed:
                rates_in_turn(guests, work, SLICE_MS[mode], 1)
        for _ in bench.each_run(group):
            for work in timed:
                for rate, series in zip(rates_in_turn(guests, work, SLICE_MS[mode]), rates[work]):
                    series.append(rate)
            if "boot" in works:
                for accel, series in zip((HYBRID[mode], STOCK[mode]), rates["boot"]):
                    series.append(boots_per_second(bench, accel))
        for guest in guests:
            guest.read_clock()
        if guests:
            bench.details[group] = {
                "clocksource": dict(zip(("hybrid", "stock"), sources)),
                "guest_clock_vs_host": dict(zip(("hybrid", "stock"), (guest.clock_rate() for guest in guests))),
            }
    finally:
        for guest in guests:
            guest.kill()
    return [comparison(f"{group}_vs_stock_{work}", *rates[work], "1/s") for work in works]


def measure_kvm(bench: Bench, works: Sequence[str] = KVM_WORK) -> list[Entry]:
    """Return the comparisons of mode kvm."""
    return measure_mode(bench, "kvm", works, "kvm_mode")


def measure_tcg(bench: Bench, works: Sequence[str] = TCG_WORK) -> list[Entry]:
    """Return the comparisons of mode tcg."""
    return measure_mode(bench, "tcg", works, "tcg_mode")
