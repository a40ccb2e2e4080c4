# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of bare-metal tests: arguments, kinds of waiting, pitfalls. How they run is in test_baremetal.py.

Pitfall numbers are those of docs/architecture.md's list, see PITFALLS.md.
"""

from __future__ import annotations

from dataclasses import dataclass

POLL, SPIN, HALT = 0, 1, 2


@dataclass(frozen=True)
class Case:
    name: str
    pitfalls: tuple[int, ...] = ()
    args: tuple[int, ...] = (0,)
    waits: tuple[int, ...] = (POLL, SPIN, HALT)
    cpus: int = 1
    storm: bool = False
    switches: int = 25  # of a storm
    # What an accelerator may lack is run without any switch first; paths that end in such a mode are skipped.
    calibrate: bool = False
    paths: tuple[str, ...] = ()  # only these; none: all
    # What KVM, and with it a hybrid guest in either mode, is known to show otherwise than a processor: part of each discrepancy.
    differs: str = ""


def storm(name: str, *pitfalls: int, cpus: int = 1, args: tuple[int, ...] = (0,), switches: int = 25) -> Case:
    return Case(name, pitfalls, args, (POLL,), cpus, True, switches)


POINTS = (
    # FPU
    Case("x87", (1,), tuple(range(16))),
    Case("mmx", (1,), (0, 3, 6)),
    Case("x87-round", (1, 11), (0, 1, 2, 3, 8, 12, 13, 14, 15)),
    Case("x87-pending", (11,)),
    Case("x87-flags", (11,)),
    Case("x87-pointers", (), (1,), calibrate=True),
    Case("xmm", (9,)),
    Case("sse-round", (11,), tuple(range(8))),
    Case("sse-flags", (11,)),
    Case("sse-unmasked", (11,), calibrate=True),  # TCG never raises #XM
    Case("xcr0", (10, 19)),
    Case("ymm", (9, 10, 19)),
    Case("xinuse", (9,)),
    Case("xsave", (9, 19)),
    # processor state
    Case("gpr"),
    Case("eflags", (12,), tuple(range(15))),
    Case("sysregs", (), (0, 5), (POLL,)),
    Case("fsgs"),
    Case("ldt"),
    Case("segcache", (), waits=(POLL,)),
    Case("seglimit", (), waits=(POLL,), calibrate=True),  # TCG checks no limits
    Case("cpuid", (16, 18, 19)),
    Case("cpuid-osxsave", (16, 18)),
    Case("cpuid-xcr0", (16, 19)),
    Case("msr", (21,)),
    Case("msr-known", (21,), paths=("kvm-tcg", "tcg-kvm")),
    Case("smap", (10,)),
    Case("smep", (10,)),
    Case("umip", (10,)),
    Case("wp-nx", (10,)),
    Case("cr0-ts", (10,)),
    Case("dr", (17,)),
    Case("dr-fire", (17,)),
    Case("ring3-io", (2,), waits=(POLL,)),
    Case("ring3-spin", (2,), waits=(SPIN,)),
    Case("ioperm", (2,)),
    Case("task-switch", (2,), waits=(POLL,)),
    Case("task-flags", waits=(POLL,), calibrate=True),  # TCG saves stale ones
    Case("real-mode", waits=(POLL,)),
    # memory
    Case("smc", (15,)),
    Case("smc-dma", (15,)),
    Case("tlb", (15,)),
    Case("pt-bits", (15,)),
    Case("cr3", (15,)),
    Case("a20", (22,)),
    Case("a20-gate", (22,), differs="A20 closed"),  # KVM has no gate
    Case("ram"),
    # clocks
    Case("tsc", (13,)),
    Case("tsc-write", (13,)),  # TCG ignores the write
    Case("lapic-rate", (23,), waits=(POLL,)),
    Case("lapic-oneshot", (23,), (500,)),
    Case("lapic-expired", (23,), waits=(POLL,)),
    Case("lapic-periodic", (23,)),
    Case("deadline", (23,)),
    Case("deadline-expired", (23,), waits=(POLL,)),
    Case("deadline-masked", (23,), waits=(POLL,)),
    Case("deadline-mode", (23,), waits=(POLL,)),
    Case("deadline-tsc", (13, 23), waits=(POLL,), paths=("tcg", "kvm-tcg", "tcg-kvm")),  # the kernel's timer does not look again
    Case("pit"),
    Case("pit-latch"),
    Case("hpet"),
    Case("hpet-irq", (23, 30)),
    Case("rtc"),
    Case("rtc-irq", (23, 30), waits=(POLL,)),
    # interrupts
    Case("apic-regs", (23,), waits=(POLL,)),
    Case("irr-pending", (7, 23), waits=(POLL,)),
    Case("isr-nested", (7, 23), waits=(POLL,)),
    Case("tpr", (16, 23), waits=(POLL,)),
    Case("ioapic-route", (23, 30)),
    Case("ioapic-mask", (23,)),
    Case("pic", (7, 23, 30), waits=(POLL,)),
    Case("level-irq", (7, 23, 30), waits=(POLL,)),
    Case("msi", (23,)),
    Case("ipi-masked", (23,), cpus=2),
    Case("ap-halted", (23,), cpus=2),
    Case("sipi", (23,), cpus=2),
    Case("ap-dead", (23,), cpus=2),
    Case("nmi", (7,)),
    Case("x2apic", (23,), waits=(POLL,)),
    # I/O
    Case("ioeventfd", (16,), (0, 1, 2)),
)
STORMS = (
    storm("fpu-storm", 1, 9, 11),
    storm("single-step", 17, 12),
    storm("exceptions", 7, switches=40),
    storm("ring3-storm", 2, 7, switches=40),
    storm("smc-cross", 15, cpus=2),
    storm("smc-storm", 15),
    storm("atomics", cpus=2),
    storm("cmpxchg", cpus=2),
    storm("tsc-smp", 13, cpus=2, switches=40),
    storm("lapic-storm", 23),
    storm("deadline-storm", 23, switches=40),
    storm("x2apic-ipi", 7, 23, 29, cpus=2, switches=40),
    storm("sti-hlt", 8, 7, args=(0, 1, 2), switches=40),
    storm("shadow", 8, cpus=2, switches=80),
    storm("ipi", 7, 23, 29, cpus=2, args=(0, 1), switches=40),
    storm("ipi-duel", 7, 23, 29, cpus=2, switches=40),
    storm("nmi-storm", 7, 29, cpus=2, switches=40),
    storm("irq-storm", 7, 8, switches=60),
    storm("io-count", 16, 25),
    storm("rep-ins", 25),
    storm("rep-outs", 25),
    storm("rep-movs", 16, 25),
    storm("io-pairs", 25),
)
# These have tests of their own in test_lifecycle.py and test_transaction.py.
ELSEWHERE = ("msr-refused", "nmi-host", "paused", "reset")
CASES = {case.name: case for case in (*POINTS, *STORMS)}
