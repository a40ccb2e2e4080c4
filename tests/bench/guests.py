# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that work on order, and what every group of measurements needs."""

from __future__ import annotations

import itertools
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from test_linux import FATAL

from lab.progress import say

MACHINE = "pc,smm=off"
KERNEL_ARGUMENTS = "console=ttyS0 no_timer_check loglevel=4 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_timeout=300"
BOOT_SECONDS = 400
# A disk that stores nothing and a network that ends in QEMU: what is measured is the way there and back.
DISK = ["-drive", "driver=null-co,size=64M,read-zeroes=on,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]
NETWORK = ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
CLOCK_TOLERANCE = 0.02


@dataclass
class Bench:
    """The lab host, what was pushed to it, and how much is to be measured."""

    host: harness.LabHost
    binary: str
    kernel: str
    initrd: str
    runs: int
    # Kernel arguments of guests that an emulated host makes necessary; see tsc_arguments().
    kernel_arguments: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def each_run(self, what: str) -> Iterator[int]:
        """Yield the numbers of the runs, saying where the measurement is."""
        for number in range(self.runs):
            say("bench", f"{what}: run {number + 1} of {self.runs}")
            yield number

    def arguments(self, accel: str, *, memory_mib: int, vcpus: int, options: str, cpu: str = "max", machine: str = MACHINE) -> list[str]:
        """Return QEMU's arguments for the test guest; options go to the kernel command line."""
        return [
            *("-accel", accel, "-machine", machine, "-cpu", cpu, "-smp", str(vcpus), "-m", str(memory_mib)),
            *("-kernel", self.kernel, "-initrd", self.initrd, "-append", f"{KERNEL_ARGUMENTS} {self.kernel_arguments} {options}"),
        ]

    def push(self, name: str, source: Path) -> str:
        """Return the path on the lab host of a file of this machine."""
        return self.host.push(source, name)


class Guest(harness.Vm):
    """The test guest in a QEMU that may or may not be hybrid."""

    pid_files = itertools.count()

    def __init__(
        self, bench: Bench, accel: str, *, memory_mib: int = 256, vcpus: int = 1, options: str = "hc.bench=1",
        extra: Sequence[str] = (), ready: bool = True, cpu: str = "max", machine: str = MACHINE,
    ) -> None:  # fmt: skip
        mode = None
        if accel.startswith("hybrid"):
            mode = "tcg" if "start=tcg" in accel else "kvm"
        arguments = bench.arguments(accel, memory_mib=memory_mib, vcpus=vcpus, options=options, cpu=cpu, machine=machine)
        self.pid_file = f"{bench.host.folder}/bench-{next(Guest.pid_files)}.pid"
        super().__init__(bench.host, bench.binary, [*arguments, "-pidfile", self.pid_file, *extra], mode=mode, seed=0)
        self.clocks: list[tuple[float, float]] = []
        if ready:
            try:
                self.wait_line(rf"READY vcpus={vcpus}", BOOT_SECONDS, fatal=FATAL)
            except BaseException:
                self.kill()
                raise

    def order(self, line: str, answer: str, seconds: float = 120) -> re.Match[str]:
        """Give an order and return the guest's answer, which must match; see tests/guest/work.c."""
        since = len(self.console.lines)
        self.console.send(line + "\n")
        return self.wait_line(answer, seconds, since, fatal=FATAL)[1]

    def work(self, kind: str, ms: int) -> tuple[int, float]:
        """Let the guest do a kind of work; return how often it did it and the seconds of its own clock that it took."""
        said = self.order(f"{kind} {ms}", rf"^RESULT {kind} n=(\d+) ns=(\d+)")
        return int(said[1]), int(said[2]) / 1e9

    def read_clock(self) -> str:
        """Note what the guest's clock says now; return its clocksource."""
        before = time.monotonic()
        said = self.order("clock", r"^CLOCK ns=(\d+) source=(\w+)")
        self.clocks.append((int(said[1]) / 1e9, (before + time.monotonic()) / 2))
        return said[2]

    def clock_rate(self) -> float:
        """Return the speed of the guest's clock against this machine's between the first and the last reading.

        Raises Unexpected when it is wrong: what such a guest measures is no measurement.
        """
        (guest_from, from_), *_, (guest_to, to) = self.clocks
        rate = (guest_to - guest_from) / (to - from_)
        if abs(rate - 1) > CLOCK_TOLERANCE:
            raise harness.Unexpected(f"the guest's clock goes {rate:.4f} times as fast as the host's, nothing can be measured with it")
        return round(rate, 4)

    def process_id(self) -> int:
        """Return the process id of QEMU on its host."""
        return int(self.host.run(f"cat {self.pid_file}"))


def tsc_arguments(lab_command_line: str) -> str:
    """Return what a guest's kernel must be told about its TSC, given the lab host's own command line: nothing on a real host.

    A guest of an emulated host cannot measure the rate of its TSC and would take the HPET for its clock, each reading of which is an exit
    to QEMU. The lab host was told the rate (lab/tsc.py), and its guests have the same TSC. A guest that sees kvmclock still takes that.
    """
    rate = re.search(r"\btsc_early_khz=\d+", lab_command_line)
    return f"{rate[0]} tsc=reliable" if rate else ""


def medians(values: Mapping[str, Sequence[float]], digits: int = 1) -> dict[str, float]:
    """Return the median of each series."""
    return {name: round(statistics.median(series), digits) for name, series in values.items() if series}
