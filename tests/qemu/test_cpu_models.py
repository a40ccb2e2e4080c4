# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU models hybrid-v2 and hybrid-v3: nothing of them is missing in KVM, TCG and hybrid, and a guest sees the same CPU in all."""

from __future__ import annotations

import pytest
from cases import CASES
from harness import Baremetal, LocalHost, Vm
from test_baremetal import STOCK, run_points
from test_linux import boot
from test_machines import switch_and_check

pytestmark = pytest.mark.skipif(bool(STOCK), reason="not about one stock accelerator")

# What the x86-64 psABI wants of a level, in QEMU's words (LZCNT is abm there), and what it may not have.
V2 = ("cx16", "lahf-lm", "popcnt", "pni", "sse4.1", "sse4.2", "ssse3")
V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")
MODELS = {"hybrid-v2": (V2, V3), "hybrid-v3": (V2 + V3, ("avx512f",))}
ACCELS = ("hybrid", "hybrid,start=tcg", "hybrid,kernel-irqchip=off", "kvm", "tcg")
# Fixed by the model: a host's vendor, physical address sizes and microcode must not show.
FIXED = {"vendor": "AuthenticAMD", "family": 23, "model": 1, "stepping": 2, "phys-bits": 40, "guest-phys-bits": 0, "unavailable-features": []}
# What stock KVM says of itself.
KVM_LEAF = 0x40000001
TSC_DEADLINE, X2APIC = 1 << 24, 1 << 21


def words(vm: Vm, path: str) -> dict[tuple[int, int, str], int]:
    """CPUID leaf, subleaf and register of each word of features."""
    rows = vm.qmp.run("qom-get", {"path": path, "property": "feature-words"})
    found = {(row["cpuid-input-eax"], row.get("cpuid-input-ecx", 0), row["cpuid-register"]): row["features"] for row in rows}
    return {key: value for key, value in found.items() if key[0] != KVM_LEAF}


@pytest.mark.parametrize("model", MODELS)
def test_same_with_every_accelerator(host, binary, baremetal_kernel, seed, model):
    """`enforce` passes; apart from what the local APIC decides, the features are the same, and so is every leaf in either start mode."""
    if isinstance(host, LocalHost):
        pytest.skip("needs a KVM that is ours: a lab host")
    has, lacks = MODELS[model]
    seen, leaves, apic = {}, {}, {}
    for accel in ACCELS:
        guest = Baremetal(host, binary, baremetal_kernel, accel=accel, machine="pc,smm=off", cpus=2, seed=seed, cpu=f"{model},enforce")
        try:
            vm = guest.start()
            cpu = vm.qmp.run("query-cpus-fast")[0]["qom-path"]
            got = {name: vm.qmp.run("qom-get", {"path": cpu, "property": name}) for name in (*FIXED, *has, *lacks)}
            assert got == FIXED | dict.fromkeys(has, True) | dict.fromkeys(lacks, False), accel
            assert guest.order("cpuid") == [], accel
            leaves[accel] = guest.notes[-1]
            seen[accel] = words(vm, cpu)
            ecx = seen[accel][1, 0, "ECX"]
            seen[accel][1, 0, "ECX"] &= ~(TSC_DEADLINE | X2APIC)
            apic[accel] = (bool(ecx & TSC_DEADLINE), bool(ecx & X2APIC))
        finally:
            guest.stop()
    assert all(one == seen["hybrid"] for one in seen.values()), seen
    assert leaves["hybrid"] == leaves["hybrid,start=tcg"]
    assert apic == dict.fromkeys(ACCELS, (True, True)) | {"hybrid,kernel-irqchip=off": (False, False), "tcg": (False, True)}


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_missing_before_one_tries(host, binary, seed, model):
    """query-cpu-definitions answers for a host without a VM of that model."""
    vm = Vm(host, binary, ["-accel", "hybrid", "-machine", "pc,smm=off", "-m", "64"], mode="kvm", seed=seed, serial=False)
    try:
        rows = {row["name"]: row for row in vm.qmp.run("query-cpu-definitions")}
        assert rows[model]["unavailable-features"] == []
        assert rows[model]["migration-safe"] is True
        assert rows["Skylake-Server"]["unavailable-features"], "a model with features that TCG lacks says so"
    finally:
        vm.kill()


@pytest.mark.parametrize("model", MODELS)
def test_switches(host, binary, baremetal_kernel, seed, model):
    """Leaves and registers across switches, with the FPU state that the model has: FXSAVE's or XSAVE's."""
    accel = "hybrid,kernel-irqchip=on"
    guest = Baremetal(host, binary, baremetal_kernel, accel=accel, machine="pc,smm=off", cpus=2, seed=seed, cpu=f"{model},enforce")
    names = ("cpuid", "cpuid-osxsave", "cpuid-xcr0", "msr", "x87", "xmm", "ymm", "lapic-oneshot", "ap-halted")
    try:
        assert [problem for name in names for path in ("kvm-tcg", "tcg-kvm") for problem in run_points(guest, CASES[name], path)] == []
    finally:
        guest.stop()


# The last is docs/operations.md's for fleets with older Intel processors: another vendor than the host's, here too.
@pytest.mark.parametrize("cpu", [*MODELS, "hybrid-v3,vendor=GenuineIntel,family=6,model=60,stepping=3"])
def test_linux(host, binary, linux, seed, cpu):
    vm = boot(host, binary, linux, seed, accel="hybrid", machine="q35,smm=off", cpus=2, mode="kvm", cpu=f"{cpu},enforce")
    try:
        switch_and_check(vm, 20)
    finally:
        vm.kill()
