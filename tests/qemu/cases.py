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
    spoils: bool = False  # the guest cannot undo what it has done and is started anew
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
    Case("pae", (32,), waits=(POLL,)),
    Case("task-switch", (2, 32), waits=(POLL,)),
    Case("task-flags", waits=(POLL,), calibrate=True),  # TCG saves stale ones
    Case("real-mode", waits=(POLL,)),
    # memory
    Case("smc", (15,)),
    Case("smc-chain", (15,)),
    Case("smc-dma", (15,)),
    Case("tlb", (15,)),
    Case("pt-bits", (15,)),
    Case("cr3", (15,)),
    Case("a20", (22,)),
    Case("a20-gate", (22,), differs="A20 closed"),  # KVM has no gate
    Case("ram"),
    # clocks
    Case("tsc", (13,)),
    Case("tsc-write", (13,), spoils=True),  # one vCPU's TSC is behind the other's
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
    Case("hpet-route", (30,), calibrate=True),  # with a full irqchip KVM has no interrupt 2
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
# These need the harness's hand: the test that runs each.
ELSEWHERE = {
    "msr-refused": "test_transaction.py::test_state_that_kvm_refuses",
    "nmi-host": "test_lifecycle.py::test_nmi_from_the_host",
    "paused": "test_lifecycle.py::test_stopped_by_a_device_in_the_middle_of_an_instruction",
    "reset": "test_lifecycle.py::test_reset",
}
CASES = {case.name: case for case in (*POINTS, *STORMS)}
# What a switch could get wrong, and the cases that would show it; each case is in one class. The table of docs/conformance.md.
CLASSES: dict[str, tuple[str, ...]] = {
    "general registers": ("gpr",),
    "flags, also those not yet computed": ("eflags",),
    "x87 and MMX registers in all rotations": ("x87", "mmx", "x87-pointers", "fpu-storm"),
    "x87 control, flags, exceptions pending": ("x87-round", "x87-flags", "x87-pending"),
    "SSE registers, control, flags, exceptions": ("xmm", "sse-round", "sse-flags", "sse-unmasked"),
    "AVX, XSAVE": ("ymm", "xcr0", "xinuse", "xsave"),
    "segment caches": ("fsgs", "segcache", "seglimit", "real-mode"),
    "descriptor tables, CR0 to CR8, task register": ("sysregs", "ldt"),
    "protection that control registers set": ("smap", "smep", "umip", "wp-nx", "cr0-ts"),
    "debug registers, breakpoints, single step": ("dr", "dr-fire", "single-step"),
    "MSRs": ("msr", "msr-known"),
    "CPUID": ("cpuid", "cpuid-osxsave", "cpuid-xcr0"),
    "A20": ("a20", "a20-gate"),
    "ring 3, system calls": ("ring3-spin", "ring3-storm"),
    "ports of ring 3: I/O bitmap, IOPL": ("ring3-io", "ioperm"),
    "hardware task switch": ("task-switch", "task-flags"),
    "exceptions in flight": ("exceptions",),
    "interrupts in flight": ("irr-pending", "isr-nested", "tpr", "irq-storm"),
    "NMIs in flight": ("nmi", "nmi-storm"),
    "interrupt shadow of STI and MOV SS": ("shadow",),
    "`sti; hlt`, HLT and its wake-up": ("sti-hlt", "ap-halted", "ap-dead"),
    "IPIs in flight, INIT and SIPI": ("ipi", "ipi-duel", "ipi-masked", "x2apic-ipi", "sipi"),
    "local APIC": ("apic-regs", "x2apic"),
    "local APIC timer: one-shot": ("lapic-rate", "lapic-oneshot", "lapic-expired"),
    "local APIC timer: periodic": ("lapic-periodic", "lapic-storm"),
    "local APIC timer: TSC deadline": ("deadline", "deadline-expired", "deadline-masked", "deadline-mode", "deadline-tsc", "deadline-storm"),
    "IOAPIC, 8259, MSI": ("ioapic-route", "ioapic-mask", "level-irq", "pic", "msi"),
    "PIT": ("pit", "pit-latch"),
    "RTC": ("rtc", "rtc-irq"),
    "HPET": ("hpet", "hpet-irq", "hpet-route"),
    "TSC, also across vCPUs": ("tsc", "tsc-write", "tsc-smp"),
    "code that changes, by itself, by another vCPU, by a device": ("smc", "smc-chain", "smc-storm", "smc-cross", "smc-dma"),
    "page tables: translations, PAE, accessed and dirty bits": ("tlb", "cr3", "pae", "pt-bits"),
    "memory": ("ram",),
    "locked operations and CMPXCHG across vCPUs": ("atomics", "cmpxchg"),
    "string instructions on ports and MMIO, interrupted": ("rep-ins", "rep-outs", "rep-movs"),
    "every I/O access carried out once": ("io-count", "io-pairs", "ioeventfd"),
}
