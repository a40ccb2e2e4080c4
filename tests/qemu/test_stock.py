# SPDX-License-Identifier: GPL-3.0-or-later
"""Without -accel hybrid the binary is a stock QEMU: the bare-metal tests pass under its -accel tcg and -accel kvm."""

from __future__ import annotations

import pytest
from cases import CASES
from harness import Baremetal, LocalHost
from test_baremetal import run_points, run_storm

SOME = ("x87", "xmm", "gpr", "eflags", "sysregs", "ldt", "ioperm", "task-switch", "cpuid", "msr", "smap", "smc", "tlb", "tsc", "lapic-oneshot", "apic-regs",
        "irr-pending", "pic", "msi", "ap-halted", "sipi", "nmi", "ioeventfd")  # fmt: skip
STORMS = ("sti-hlt", "ipi", "irq-storm", "rep-movs")


@pytest.mark.parametrize("accel", ["tcg", "kvm", "kvm,kernel-irqchip=split"])
def test_bare_metal(host, binary, baremetal_kernel, seed, accel):
    if isinstance(host, LocalHost) and accel != "tcg":
        pytest.skip("this machine's own KVM is not tested")
    guest = Baremetal(host, binary, baremetal_kernel, accel=accel, machine="pc", cpus=2, seed=seed)
    mode = accel.partition(",")[0]
    try:
        problems = [p for name in SOME for p in run_points(guest, CASES[name], mode)]
        problems += [p for name in STORMS for p in run_storm(guest, CASES[name], False)]
        assert problems == []
    finally:
        guest.stop()
