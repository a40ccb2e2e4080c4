# SPDX-License-Identifier: GPL-3.0-or-later
"""The pause of a switch: against the guest's RAM, against the ioctls it cannot avoid, and its tail.

Two guests of different size are switched in turn, and the program of ioctl-floor.c runs in turn with them, so that whatever disturbs
the lab disturbs all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ioctls
from comparison import Entry, comparison, percentile
from goals import DIRECTIONS
from guests import Bench, Guest, medians

from lab.progress import say

VCPUS = 2
SMALL_MIB = 256
# What the lab host needs beside the large guest: itself, the small guest and two QEMUs.
RESERVED_MIB = 256 + 450
SWITCHES = 40
WARM_UP = 3
TARGET = {"kvm_tcg": "tcg", "tcg_kvm": "kvm"}
Pauses = Mapping[str, Sequence[float]]  # by direction, in microseconds


def largest_mib(available_mib: int) -> int:
    """Return the size of the large guest for what the lab host has available."""
    return (available_mib - RESERVED_MIB) // 128 * 128


def switch_there_and_back(guest: Guest, times: int) -> tuple[Pauses, dict[str, dict[str, list[float]]]]:
    """Switch a guest in mode kvm to tcg and back; return pauses and phases in microseconds by direction."""
    pauses: dict[str, list[float]] = {direction: [] for direction in DIRECTIONS}
    phases: dict[str, dict[str, list[float]]] = {direction: {} for direction in DIRECTIONS}
    for _ in range(times):
        for direction in DIRECTIONS:
            answer = guest.set_mode(TARGET[direction])
            pauses[direction].append(answer["pause-us"])
            for phase in answer["phases"]:
                phases[direction].setdefault(phase["name"], []).append(phase["us"])
    return pauses, phases


def there_and_back(pauses: Pauses) -> list[float]:
    """Return for each switch to tcg the sum of its pause and that of the switch back."""
    return [there + back for there, back in zip(pauses["kvm_tcg"], pauses["tcg_kvm"])]


def both(name: str, a: Sequence[Pauses], b: Sequence[Pauses]) -> list[Entry]:
    """Compare medians of pauses: there and back, and each way."""
    series = {
        name: ([statistics.median(there_and_back(run)) for run in a], [statistics.median(there_and_back(run)) for run in b]),
        **{
            f"{name}_{way}": ([statistics.median(run[way]) for run in a], [statistics.median(run[way]) for run in b])
            for way in DIRECTIONS
        },
    }
    return [comparison(each, *pair, "us") for each, pair in series.items()]


def tails(runs: Sequence[Pauses]) -> list[Entry]:
    """Compare the 99th percentile of each run's pauses with their median."""
    series: dict[str, list[Sequence[float]]] = {"pause_p99_vs_p50": [there_and_back(run) for run in runs]}
    series |= {f"pause_p99_vs_p50_{way}": [run[way] for run in runs] for way in DIRECTIONS}
    return [
        comparison(name, [percentile(run, 0.99) for run in pauses], [statistics.median(run) for run in pauses], "us")
        for name, pauses in series.items()
    ]


def build_floor(folder: Path) -> Path:
    """Compile ioctl-floor.c into a folder; return the program."""
    program = folder / "ioctl-floor"
    source = Path(__file__).with_name("ioctl-floor.c")
    subprocess.run(["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", str(program), str(source)], check=True)
    return program


def floor(bench: Bench, program: str, direction: str, wanted: dict[str, Any], times: int) -> dict[str, Any]:
    """Run ioctl-floor for one direction; return what it says."""
    requests = ",".join(f"{request:x}" for request in wanted[direction])
    msrs = ",".join(f"{index:x}" for index in wanted["msrs"])
    way = "get" if direction == "kvm_tcg" else "set"
    return json.loads(bench.host.run(f"{program} {way} {VCPUS} {times} {requests} {msrs}", 300))


def measure(bench: Bench) -> list[Entry]:
    """Return the comparisons of this group."""
    available = int(bench.host.run("awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo"))
    large_mib = largest_mib(available)
    program = bench.push("ioctl-floor", build_floor(bench.host.local))
    sizes = {"small": SMALL_MIB, "large": large_mib}
    guests: dict[str, Guest] = {}
    small: list[Pauses] = []
    large: list[Pauses] = []
    floors: list[dict[str, list[float]]] = []
    beside: dict[str, list[float]] = defaultdict(list)
    phases: dict[str, dict[str, list[float]]] = {direction: {} for direction in DIRECTIONS}
    each: dict[str, dict[str, list[float]]] = {direction: {} for direction in DIRECTIONS}
    try:
        for name, size in sizes.items():
            say("bench", f"starting the {name} guest, {size} MiB")
            guests[name] = Guest(bench, "hybrid", memory_mib=size, vcpus=VCPUS)
            # Memory that the guest has never used is not there.
            guests[name].order(f"touch {size // 2}", r"^TOUCHED", 300)
        for guest in guests.values():
            switch_there_and_back(guest, WARM_UP)
        wanted = ioctls.of_a_switch(guests["small"])
        for _ in bench.each_run("pauses"):
            pauses, of_phases = switch_there_and_back(guests["small"], SWITCHES)
            small.append(pauses)
            large.append(switch_there_and_back(guests["large"], SWITCHES)[0])
            for direction in DIRECTIONS:
                for phase, values in of_phases[direction].items():
                    phases[direction].setdefault(phase, []).extend(values)
            said = {direction: floor(bench, program, direction, wanted, SWITCHES) for direction in DIRECTIONS}
            floors.append({direction: [ns / 1000 for ns in said[direction]["ns"]] for direction in DIRECTIONS})
            for direction in DIRECTIONS:
                beside["handoff_to_a_thread"].append(said[direction]["handoff"] / 1000)
                beside[f"floor_after_a_sleep_{direction}"].append(said[direction]["cold"] / 1000)
                beside["drain_interrupts"].append(said[direction]["drain"] / 1000)
                for request, ns in said[direction]["each"].items():
                    each[direction].setdefault(request, []).append(ns / 1000)
    finally:
        for guest in guests.values():
            guest.kill()
    bench.details["pauses"] = {
        "vcpus": VCPUS,
        "memory_mib": sizes,
        "switches_each_way_per_run": SWITCHES,
        "phases_us": {direction: medians(phases[direction], 0) for direction in DIRECTIONS},
        "floor_us": {direction: medians(each[direction]) for direction in DIRECTIONS},
        "ioctls_of_a_switch": {direction: ioctls.counts(wanted[direction]) for direction in DIRECTIONS},
        "msrs": len(wanted["msrs"]),
        "msrs_of_floor": said["kvm_tcg"]["msrs"],
        "beside_floor_us": medians(beside),
    }
    return [*both("pause_vs_ram", large, small), *both("pause_vs_ioctl_floor", small, floors), *tails(small)]
