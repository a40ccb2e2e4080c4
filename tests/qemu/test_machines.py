# SPDX-License-Identifier: GPL-3.0-or-later
"""Ordinary machines that switch: many vCPUs, UEFI firmware. The guest is the Linux that checks itself (tests/guest)."""

from __future__ import annotations

import os

import pytest
from harness import LabHost, Vm
from test_baremetal import STOCK
from test_linux import boot, check_alive, go_to_kvm, no_complaints

FULL = bool(os.environ.get("HYBRID_FULL"))
pytestmark = pytest.mark.skipif(bool(STOCK), reason="a stock accelerator does not switch")


def switch_and_check(vm: Vm, count: int) -> None:
    """Random switches, then in kvm the guest goes on and no switch has failed."""
    before = vm.qmp.run("query-hybrid")["switches"]["kvm-to-tcg"]
    vm.random_switches(count, 5, 300, lambda: no_complaints(vm))
    go_to_kvm(vm)
    check_alive(vm, 3, 90)
    no_complaints(vm)
    switches = vm.qmp.run("query-hybrid")["switches"]
    assert switches["failed"] == 0
    assert switches["kvm-to-tcg"] - before >= count // 2


def test_eight_vcpus(host, binary, linux, seed):
    """Four times as many as the lab host has."""
    vm = boot(host, binary, linux, seed, accel="hybrid", machine="q35,smm=off", cpus=8, mode="kvm")
    try:
        switch_and_check(vm, 100 if FULL else 20)
    finally:
        vm.kill()


def test_eight_vcpus_with_x2apic(host, binary, linux, seed):
    """Linux takes x2APIC only with interrupt remapping, which needs a split irqchip."""
    vm = boot(
        host, binary, linux, seed, accel="hybrid,kernel-irqchip=split", machine="q35,smm=off", cpus=8, mode="kvm",
        devices=("-device", "intel-iommu,intremap=on,eim=on"), append="loglevel=7",
    )  # fmt: skip
    try:
        vm.wait_line("x2apic.*enabled|Enabled IRQ remapping in x2apic mode", 1)
        switch_and_check(vm, 100 if FULL else 20)
    finally:
        vm.kill()


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_uefi(host, binary, linux, seed, machine):
    """UEFI firmware (OVMF without SMM) is switched from its first instructions on, and boots a Linux that is switched, too."""
    if not isinstance(host, LabHost):
        pytest.skip("installs OVMF: only on a lab host")
    host.install("ovmf")
    vm = boot(
        host, binary, linux, seed, accel="hybrid", machine=f"{machine},smm=off", cpus=2, mode="kvm",
        devices=("-bios", "/usr/share/ovmf/OVMF.fd"), append="loglevel=7",
        meanwhile=lambda vm: vm.random_switches(60 if FULL else 20, 5, 100),
    )  # fmt: skip
    try:
        assert any("efi: EFI v" in text for _, text in vm.console.lines), "Linux was not started by UEFI firmware"
        switch_and_check(vm, 100 if FULL else 20)
    finally:
        vm.kill()
