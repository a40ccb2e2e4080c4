# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, reset, pause and end of a hybrid VM in either mode, seen by the bare-metal guest."""

from __future__ import annotations

import random
import re
import time

import pytest
from harness import Baremetal, LabHost, QmpError, Vm
from test_baremetal import CONFIGS, STOCK, go_to

pytestmark = pytest.mark.skipif(bool(STOCK), reason="a stock accelerator does not switch")
ACCEL, MACHINE, CPUS = next(iter(CONFIGS.values()))


def make(host, binary, kernel, seed, accel: str = ACCEL, machine: str = MACHINE, cpus: int = CPUS) -> Baremetal:
    return Baremetal(host, binary, kernel, accel=accel, machine=machine, cpus=cpus, seed=seed)


@pytest.fixture(scope="module")
def guest(host, binary, baremetal_kernel, seed):
    the_guest = make(host, binary, baremetal_kernel, seed)
    yield the_guest
    the_guest.stop()


def few(guest: Baremetal) -> None:
    """Some tests that show that the machine is well, with switches."""

    def flip(vm: Vm, _point: int, _name: str) -> None:
        vm.flip()

    for test, arg in (("x87", 3), ("smc", 0), ("irr-pending", 0), ("ap-halted", 0)):
        assert guest.order(test, arg, 0, at=flip) == [], test


# The first switch of a VM that has never been in kvm: nothing of its state has ever come from KVM (9, 14).
@pytest.mark.parametrize("irqchip", ["on", "split", "off"])
def test_start_in_tcg(host, binary, baremetal_kernel, seed, irqchip):
    for test, arg in (("xmm", 0), ("x87", 5), ("sse-flags", 0), ("lapic-oneshot", 0)):
        guest = make(host, binary, baremetal_kernel, seed, f"hybrid,start=tcg,kernel-irqchip={irqchip}")
        try:
            vm = guest.start()
            info = vm.qmp.run("query-hybrid")
            assert (info["mode"], info["start"], info["cause"], info["irqchip"]) == ("tcg", "tcg", "start", irqchip)
            assert guest.order(test, arg, 0, at=lambda vm, point, name: vm.flip()) == [], test
        finally:
            guest.stop()


def test_first_sipi_after_a_switch(host, binary, baremetal_kernel, seed):
    """The second vCPU has never run its own code: it waits for SIPI since reset (23)."""
    for start in ("kvm", "tcg"):
        guest = make(host, binary, baremetal_kernel, seed, f"hybrid,start={start}")
        try:
            guest.start()
            assert guest.order("sipi", 1, 0, at=lambda vm, point, name: vm.flip()) == [], start
        finally:
            guest.stop()


def translations(vm: Vm) -> tuple[int, int]:
    """How many translations there are, and how often all have been dropped."""
    text = vm.hmp("info jit")
    found = [re.search(rf"^{what} +(\d+)", text, re.MULTILINE) for what in ("TB count", "TB flush count")]
    assert all(found), text
    count, flushes = (int(one[1]) for one in found if one)
    return count, flushes


def test_translations_are_kept(guest):
    """A switch to tcg translates nothing anew that is still true, and drops nothing."""
    few(guest)

    def at(vm: Vm, point: int, _name: str) -> None:
        if point:
            return
        go_to(vm, "tcg")
        vm.set_mode("kvm")
        vm.set_mode("tcg")
        count, flushes = translations(vm)
        assert count > 100
        for _ in range(10):
            vm.set_mode("kvm")
            vm.set_mode("tcg")
        after, flushes_after = translations(vm)
        assert flushes_after == flushes
        assert count <= after < count * 1.2

    assert guest.order("gpr", 0, 0, at=at) == []


def test_translations_are_given_up(host, binary, baremetal_kernel, seed):
    """After tb-keep seconds in kvm, and not before a switch back to tcg; the guest does not notice."""
    guest = make(host, binary, baremetal_kernel, seed, f"{ACCEL},tb-keep=2")
    try:
        few(guest)

        def at(vm: Vm, point: int, _name: str) -> None:
            if point:
                return
            go_to(vm, "kvm")
            deadline = time.monotonic() + 30
            while translations(vm)[0]:
                assert time.monotonic() < deadline
                vm.qmp.poll(0.2)
            vm.set_mode("tcg")

        assert guest.order("smc", 0, 0, at=at) == []
        few(guest)
    finally:
        guest.stop()


TRACING = "/sys/kernel/tracing"


@pytest.fixture
def mmu_loads(host):
    """How often KVM has loaded a guest's page tables since it was asked last, which is when it drops what the TLB had."""
    if not isinstance(host, LabHost):
        pytest.skip("probes the kernel of a lab host")
    host.run(f"echo 'p:hybrid/mmu_load kvm_mmu_load' > {TRACING}/kprobe_events && echo 1 > {TRACING}/events/hybrid/mmu_load/enable")

    def count() -> int:
        return int(host.run(f"grep -c mmu_load: {TRACING}/trace || true; : > {TRACING}/trace").split()[0])

    yield count
    host.run(f"echo 0 > {TRACING}/events/hybrid/mmu_load/enable; echo > {TRACING}/kprobe_events")


def test_stale_translations_of_the_processor_are_dropped(guest, mmu_loads):
    """26: the processor's TLB knows nothing of what the guest did to its page tables under TCG.

    The guest waits with the same CR3 all the time, so that KVM has no reason of its own. An emulated processor keeps nothing
    in its TLB over an exit, so that a guest cannot see the difference there: this sees that KVM is made to flush.
    """

    def probe(vm: Vm, _point: int, _name: str) -> None:
        go_to(vm, "kvm")
        mmu_loads()
        for _ in range(5):
            vm.qmp.run("stop")
            vm.qmp.run("cont")
        assert mmu_loads() == 0, "KVM loads the page tables anyway: the test shows nothing"
        for _ in range(5):
            vm.set_mode("tcg")
            vm.set_mode("kvm")
        assert mmu_loads() >= 5

    assert guest.order("gpr", 0, 0, at=probe) == []


@pytest.mark.parametrize("path", ["kvm", "tcg", "kvm-tcg", "tcg-kvm"])
def test_deadline_goes_on_while_paused(guest, path):
    """The TSC does not stop with the VM: what a deadline of 1.5 s has left after a pause of 1 s is half a second."""
    first, *rest = path.split("-")
    go_to(guest.running(), first)

    def pause(vm: Vm, _point: int, _name: str) -> None:
        vm.qmp.run("stop")
        time.sleep(1)
        for mode in rest if vm.mode == first else []:
            vm.set_mode(mode)
        vm.qmp.run("cont")

    assert guest.order("deadline", 1500, 0, at=pause) == []


RESETS = [(way, path) for way in ("qmp", "keyboard", "cf9", "triple-fault") for path in ("kvm", "tcg", "kvm-tcg", "tcg-kvm")]


@pytest.mark.parametrize(("way", "path"), RESETS)
def test_reset(guest, way, path):
    """14: the reset must not be undone by registers that KVM still has, nor lost in them."""
    vm = guest.running()
    first, *rest = path.split("-")
    go_to(vm, first)
    since = len(vm.console.lines)
    vm.console.send(f"reset {['qmp', 'keyboard', 'cf9', 'triple-fault'].index(way)} 0\n")
    since = vm.wait_line("^AT reset", 30, since)[0] + 1
    for mode in rest:
        vm.set_mode(mode)
    vm.console.send("g")
    if way == "qmp":
        vm.qmp.run("system_reset")
    vm.wait_line("^READY", 90, since, fatal="CRASH|PASS|FAIL")
    # Whoever looks at registers now makes QEMU fetch them from KVM, unless it knows that they are its own.
    vm.hmp("info registers -a")
    assert vm.qmp.run("query-hybrid")["mode"] == vm.mode
    few(guest)


def test_reset_and_switch_at_once(guest):
    """Switches race with resets and firmware."""
    vm = guest.running()
    rng = random.Random(vm.seed)
    for _ in range(3):
        since = len(vm.console.lines)
        vm.qmp.run("system_reset")
        for _ in range(rng.randrange(1, 6)):
            time.sleep(rng.uniform(0, 0.1))
            vm.flip()
        go_to(vm, "kvm")
        vm.wait_line("^READY", 90, since)
    few(guest)


def test_paused_vm_is_switched_and_stays_paused(guest):
    vm = guest.running()
    for start in ("kvm", "tcg"):
        go_to(vm, start)

        def at(vm: Vm, _point: int, _name: str) -> None:
            vm.qmp.run("stop")
            answer = vm.flip()
            assert answer["changed"]
            time.sleep(0.1)
            assert vm.qmp.run("query-status")["status"] == "paused"
            vm.qmp.run("cont")

        for test in ("gpr", "xmm", "lapic-periodic", "irr-pending", "ring3-spin" if start == "kvm" else "eflags"):
            assert guest.order(test, 0, 1 if test == "ring3-spin" else 0, at=at) == [], test


def test_stopped_by_a_device_in_the_middle_of_an_instruction(guest):
    """25: pvpanic stops the VM within an `out`. Such a VM is either switched or refused by name, and goes on well."""
    for first in ("kvm", "tcg"):
        vm = guest.running()
        go_to(vm, first)
        done = len(vm.qmp.events)
        since = len(vm.console.lines)
        vm.console.send("paused 0 0\n")
        for _ in range(4):
            since = vm.wait_line("^AT paused", 20, since, fatal="BAD|FAIL|CRASH")[0] + 1
            vm.console.send("g")
            vm.qmp.wait_event("STOP", done, 20)
            try:
                vm.flip()
            except QmpError as error:
                assert "blocked by 'runstate'" in error.desc
            done = len(vm.qmp.events)
            vm.qmp.run("cont")
        vm.wait_line("^PASS paused", 20, since, fatal="BAD|FAIL|CRASH")


def test_interrupts_raised_while_paused(guest):
    """Input that arrives at a stopped VM, which is switched before it goes on."""
    vm = guest.running()
    for first in ("kvm", "tcg"):
        go_to(vm, first)
        since = len(vm.console.lines)
        vm.console.send("gpr 0 2\n")  # the guest halts, waiting for the UART's interrupt
        since = vm.wait_line("^AT gpr", 20, since)[0] + 1
        time.sleep(0.05)
        vm.qmp.run("stop")
        vm.console.send("g")
        vm.flip()
        vm.qmp.run("cont")
        since = vm.wait_line("^AT gpr2", 20, since, fatal="BAD|FAIL|CRASH")[0] + 1
        vm.console.send("g")
        vm.wait_line("^PASS gpr", 20, since, fatal="BAD|FAIL|CRASH")


@pytest.mark.parametrize("when", ["running", "paused"])
def test_nmi_from_the_host(guest, when):
    """7: an NMI injected right before the switch is delivered once after it."""
    vm = guest.running()
    for first in ("kvm", "tcg"):
        go_to(vm, first)

        def at(vm: Vm, _point: int, _name: str) -> None:
            if when == "paused":
                vm.qmp.run("stop")
            vm.qmp.run("inject-nmi")
            vm.flip()
            if when == "paused":
                vm.qmp.run("cont")

        assert guest.order("nmi-host", 0, 0, at=at) == []


def test_many_switches_at_one_point(guest):
    """A hundred switches as fast as they go, with all state in the registers."""
    for test, wait in (("x87", 0), ("xmm", 1), ("gpr", 1), ("sysregs", 0), ("lapic-oneshot", 2)):
        go_to(guest.running(), "kvm")

        def at(vm: Vm, _point: int, _name: str) -> None:
            for _ in range(20):
                vm.flip()

        assert guest.order(test, 0, wait, at=at) == [], test


def test_debug_console_loses_nothing(guest, host):
    """25: `rep outsb` interrupted by switches: each numbered line is there once, in order."""
    vm = guest.running()
    go_to(vm, "kvm")
    at = int(host.run(f"stat -c %s {vm.debug_path}"))
    assert guest.order("rep-outs", 0, 0, during=lambda vm: vm.random_switches(20, 2, 40)) == []
    text = host.run(f"tail -c +{at + 1} {vm.debug_path}", 60)
    lines = text.splitlines()
    assert len(lines) >= 16
    for number, line in enumerate(lines):
        want = f"{number:08x}" + "".join(chr(ord("a") + (number + i) % 26) for i in range(8, 63))
        assert line == want, f"line {number} of {len(lines)}"


def test_cpu_is_the_same_whatever_the_start(host, binary, baremetal_kernel, seed):
    """18: a guest cannot tell by its CPU or its MSRs in which mode it was started."""
    seen = {}
    for start in ("kvm", "tcg"):
        guest = make(host, binary, baremetal_kernel, seed, f"hybrid,start={start}")
        try:
            vm = guest.start()
            since = len(vm.console.lines)
            assert guest.order("msr", 1, 0) == []
            assert guest.order("cpuid", 0, 0) == []
            lines = [text for _, text in vm.console.lines[since:] if text.startswith("NOTE")]
            # EFER, the APIC base and everything else must agree; clocks are not in the list.
            seen[start] = lines
        finally:
            guest.stop()
    assert seen["kvm"] == seen["tcg"]


def test_registers_are_only_shown(guest):
    """11: QEMU adds softfloat's flags to the MXCSR that it shows, and puts what it has shown into KVM."""

    def at(vm: Vm, point: int, _name: str) -> None:
        if point == 0:
            vm.flip()  # the flags were raised in tcg, and the guest clears them in kvm
        else:
            vm.qmp.run("stop")
            vm.hmp("info registers -a")
            vm.qmp.run("cont")

    go_to(guest.running(), "tcg")
    assert guest.order("sse-flags", 0, 0, at=at) == []


def test_quit_in_either_mode(host, binary, baremetal_kernel, seed):
    for mode in ("kvm", "tcg"):
        guest = make(host, binary, baremetal_kernel, seed)
        try:
            vm = guest.start()
            go_to(vm, mode)
            vm.qmp.run("quit")
            assert vm.process.wait(30) == 0
            assert not re.search(r"(?i)assert|abort|error", vm.stderr()), vm.stderr()
        finally:
            guest.stop()
