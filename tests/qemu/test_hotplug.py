# SPDX-License-Identifier: GPL-3.0-or-later
"""vCPUs that come, are switched, and go in either mode."""

from __future__ import annotations

import re
import time

import pytest
from harness import Unexpected, Vm
from test_baremetal import STOCK
from test_linux import FATAL, boot
from test_machines import FULL, switch_and_check

pytestmark = pytest.mark.skipif(bool(STOCK), reason="a stock accelerator does not switch")


def thread_of(vm: Vm, index: int) -> int:
    """The thread of a vCPU on the host."""
    return next(cpu["thread-id"] for cpu in vm.qmp.run("query-cpus-fast") if cpu["cpu-index"] == index)


def ticks(vm: Vm, index: int) -> int:
    """Processor time that a vCPU's thread has used, in clock ticks of the host."""
    thread = thread_of(vm, index)
    # After the name in parentheses, which has a space in it, utime and stime are fields 12 and 13.
    fields = vm.host.run(f"cat /proc/{thread}/task/{thread}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def plug_cpu(vm: Vm, index: int) -> None:
    """A vCPU comes; the guest uses it."""
    since = len(vm.console.lines)
    vm.qmp.run("device_add", {"driver": "max-x86_64-cpu", "id": f"cpu{index}", "socket-id": 0, "core-id": index, "thread-id": 0})
    vm.wait_line(rf"^ONLINE cpu{index}$", 120, since, fatal=FATAL)


def wait_busy(vm: Vm, index: int, seconds: float = 60) -> None:
    """The guest runs programs on this vCPU, not only its idle loop."""
    begin, end = ticks(vm, index), time.monotonic() + seconds
    while ticks(vm, index) < begin + 20:
        if time.monotonic() > end:
            raise Unexpected(f"vCPU {index} does nothing\n{vm.report()}")
        time.sleep(0.2)


def unplug_cpu(vm: Vm, index: int) -> None:
    """A vCPU goes, as soon as the guest gives it back."""
    since = len(vm.qmp.events)
    vm.qmp.run("device_del", {"id": f"cpu{index}"})
    vm.qmp.wait_event("DEVICE_DELETED", since, 120)


def check_cpus(vm: Vm) -> None:
    """All vCPUs are the same to the guest: their features, and their TSC, which Linux compares if it goes by it."""
    words = [vm.qmp.run("qom-get", {"path": cpu["qom-path"], "property": "feature-words"}) for cpu in vm.qmp.run("query-cpus-fast")]
    assert all(each == words[0] for each in words)
    bad = [text for _, text in vm.console.lines if re.search("TSC.*(warp|skew)|TSC unstable due to check", text)]
    assert not bad, bad


def boot_growing(host, binary, linux, seed, irqchip: str, workers: int) -> Vm:
    """A guest with 2 vCPUs that may get 2 more."""
    return boot(
        host, binary, linux, seed, accel=f"hybrid,kernel-irqchip={irqchip}", machine="q35,smm=off", cpus=2,
        mode="kvm", smp="2,maxcpus=4", append="hc.hotplug=1 loglevel=7", workers=workers,
    )  # fmt: skip


@pytest.fixture
def growing(host, binary, linux, seed, request):
    """A guest that has work for all vCPUs it may get."""
    vm = boot_growing(host, binary, linux, seed, getattr(request, "param", "on"), workers=6)
    yield vm
    vm.kill()


@pytest.fixture
def idle(host, binary, linux, seed, request):
    """A guest that has time for a vCPU that comes: Linux runs ACPI's code for it beside its processes."""
    vm = boot_growing(host, binary, linux, seed, request.param, workers=1)
    yield vm
    vm.kill()


full_only = pytest.mark.skipif(not FULL, reason="takes long: only with HYBRID_FULL=1")


@pytest.mark.parametrize("growing", ["on", pytest.param("split", marks=full_only)], indirect=True)
def test_cpus_come_and_go(growing):
    """A vCPU comes in kvm, the guest works on it through switches, and gives it back in tcg; then it works on with the others."""
    vm = growing
    plug_cpu(vm, 2)
    check_cpus(vm)
    switch_and_check(vm, 30)
    wait_busy(vm, 2)
    vm.set_mode("tcg")
    unplug_cpu(vm, 2)
    assert len(vm.qmp.run("query-cpus-fast")) == 2
    switch_and_check(vm, 20)


def test_cpus_come_again(growing):
    """More often than there are vCPUs at most."""
    vm = growing
    for _ in range(3):
        plug_cpu(vm, 2)
        unplug_cpu(vm, 2)
    switch_and_check(vm, 10)


@pytest.mark.parametrize("idle", ["on", pytest.param("split", marks=full_only)], indirect=True)
def test_cpus_come_in_tcg(idle):
    """A vCPU that comes in tcg is what its brothers are, and stays so through switches."""
    vm = idle
    vm.set_mode("tcg")
    plug_cpu(vm, 2)
    check_cpus(vm)
    switch_and_check(vm, 10)
    check_cpus(vm)
