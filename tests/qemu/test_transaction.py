# SPDX-License-Identifier: GPL-3.0-or-later
"""A switch that fails, anywhere: the guest goes on in the mode it was in, with all it had, and the error names the phase.

QEMU's property x-hybrid-fail makes the next switch fail at a point: the end of a phase, or a step in one. `msr-refused` is
a failure that no test injects.
"""

from __future__ import annotations

import time

import pytest
from harness import OTHER, Baremetal, QmpError, Unexpected, Vm
from test_baremetal import CONFIGS, FULL, STOCK, go_to
from test_linux import boot, check_alive, no_complaints

pytestmark = pytest.mark.skipif(bool(STOCK), reason="a stock accelerator does not switch")

# By the mode that is to be entered, in the order in which a switch comes by; the number is that of the vCPU.
POINTS = {
    "tcg": (
        "stop", "save-interrupts:0", "save-registers:0", "save-vcpu:0", "save-interrupts:1", "save-registers:1", "save-vcpu:1",
        "save-pic", "save", "convert", "translations",
    ),
    "kvm": (
        "stop", "save", "load-tlb:0", "load-registers:0", "load-vcpu:0", "load-tlb:1", "load-registers:1", "load-vcpu:1",
        "load-pic", "convert",
    ),
}  # fmt: skip
PHASES = {"load": "convert"}  # of points that are not named after the phase that they are in
ONLY_ON = ("save-pic", "load-pic")  # with the full irqchip
# The last point before the mode changes: everything has been done by then, and all of it has to be undone.
LAST = {"tcg": "translations", "kvm": "convert"}
# State that a failure might spoil: test, argument, kind of waiting. The one-shot timer must not expire meanwhile: its time is in ms.
DELICATE = (
    ("x87", 3, 1), ("sse-flags", 0, 0), ("ymm", 0, 0), ("eflags", 2, 1), ("dr-fire", 0, 0), ("smc", 0, 0), ("tsc", 0, 0),
    ("irr-pending", 0, 0), ("isr-nested", 0, 0), ("nmi", 0, 0), ("lapic-oneshot", 2000, 2), ("lapic-periodic", 0, 2),
    ("ioapic-route", 0, 0), ("pic", 0, 0), ("level-irq", 0, 0), ("ap-halted", 0, 0), ("sipi", 0, 0),
)  # fmt: skip
STORMS = (
    ("sti-hlt", 0), ("sti-hlt", 1), ("sti-hlt", 2), ("shadow", 0), ("irq-storm", 0), ("nmi-storm", 0), ("ipi", 0), ("lapic-storm", 0),
    ("exceptions", 0), ("fpu-storm", 0), ("single-step", 0), ("smc-storm", 0), ("io-count", 0),
)  # fmt: skip


def points(config: str, target: str) -> list[str]:
    return [point for point in POINTS[target] if config == "on" or point not in ONLY_ON]


def delicate(target: str, point: str) -> tuple[tuple[str, int, int], ...]:
    """All of the table where everything has to be undone; elsewhere a third of it, another one at each point."""
    return DELICATE if FULL or point == LAST[target] else DELICATE[POINTS[target].index(point) % 3 :: 3]


def phase_of(point: str) -> str:
    first = point.split(":")[0].split("-")[0]
    return PHASES.get(first, first)


def arm(vm: Vm, point: str) -> None:
    vm.qmp.run("qom-set", {"path": "/machine", "property": "x-hybrid-fail", "value": point})


def armed(vm: Vm) -> str:
    return vm.qmp.run("qom-get", {"path": "/machine", "property": "x-hybrid-fail"})


def fails(vm: Vm, point: str, why: str | None = None) -> None:
    """Ask for the other mode, which must fail at the point and change nothing but the count of failures."""
    assert vm.mode
    target = OTHER[vm.mode]
    before = vm.qmp.run("query-hybrid")
    if not why:
        arm(vm, point)
    with pytest.raises(QmpError) as error:
        vm.flip()
    start = f"switch to '{target}' failed in phase '{phase_of(point)}', the guest goes on in '{vm.mode}': "
    assert error.value.desc.startswith(start), error.value.desc
    assert (why or f"x-hybrid-fail at '{point}'") in error.value.desc
    assert armed(vm) == ""
    after = vm.qmp.run("query-hybrid")
    before["switches"]["failed"] += 1
    del before["time"], after["time"]
    assert after == before


@pytest.fixture(scope="module")
def guest(request, host, binary, baremetal_kernel, seed):
    accel, machine, cpus = CONFIGS[request.param]
    the_guest = Baremetal(host, binary, baremetal_kernel, accel=accel, machine=machine, cpus=cpus, seed=seed)
    yield the_guest
    the_guest.stop()


def only(config: str):
    return pytest.mark.parametrize("guest", [config], indirect=True)


# With the full irqchip everything; with the others what is theirs: the hand-over of the interrupt controllers.
EVERYWHERE = [(config, target, point) for config in CONFIGS for target in POINTS for point in points(config, target)
              if config == "on" or point in (*LAST.values(), "save-vcpu:0", "load-vcpu:0")]  # fmt: skip


@pytest.mark.parametrize(("guest", "target", "point"), EVERYWHERE, indirect=["guest"])
def test_guest_goes_on(guest, target, point):
    """At each point of a test a failure; then the same and a switch that works."""

    def fail(vm: Vm, _point: int, _name: str) -> None:
        time.sleep(0.005)  # the guest gets from its announcement to the waiting loop
        if vm.mode == OTHER[target]:
            fails(vm, point)

    def fail_and_switch(vm: Vm, number: int, name: str) -> None:
        fail(vm, number, name)
        vm.flip()

    for at in (fail, fail_and_switch):
        for test, arg, wait in delicate(target, point):
            go_to(guest.running(), OTHER[target])
            assert guest.order(test, arg, wait, at=at) == [], f"{test} {arg}"


@only("on")
@pytest.mark.parametrize("target", POINTS)
def test_every_point_in_a_row(guest, target):
    """Failure upon failure in one place: what the last one left is what the next one finds."""

    def at(vm: Vm, _point: int, _name: str) -> None:
        go_to(vm, OTHER[target])
        for point in POINTS[target]:
            fails(vm, point)
        vm.flip()

    for test, arg, wait in (("x87", 5, 1), ("irr-pending", 0, 0), ("lapic-oneshot", 6000, 2), ("ap-halted", 0, 0)):
        assert guest.order(test, arg, wait, at=at) == [], f"{test} {arg}"


@only("on")
@pytest.mark.parametrize("target", POINTS)
def test_no_register_changes(guest, target):
    """All registers of all vCPUs, as QEMU shows them, before and after a failure at each point; the VM stays paused."""

    def at(vm: Vm, _point: int, _name: str) -> None:
        go_to(vm, target)
        go_to(vm, OTHER[target])
        vm.qmp.run("stop")
        before = vm.hmp("info registers -a")
        for point in POINTS[target]:
            fails(vm, point)
            assert vm.qmp.run("query-status")["status"] == "paused"
            assert vm.hmp("info registers -a") == before, point
        vm.qmp.run("cont")

    for test, arg in (("x87", 3), ("sse-flags", 0), ("ymm", 0), ("gpr", 0), ("dr", 0)):
        assert guest.order(test, arg, 1, at=at) == [], test


@only("on")
@pytest.mark.parametrize("target", POINTS)
def test_nmi_from_the_host_comes_once(guest, target):
    """An NMI that waits in a paused VM while switches fail, and is there once: neither lost, nor left in both accelerators."""

    def at(vm: Vm, _point: int, _name: str) -> None:
        vm.qmp.run("stop")
        vm.qmp.run("inject-nmi")
        for point in POINTS[target]:
            fails(vm, point)
        vm.qmp.run("cont")

    go_to(guest.running(), OTHER[target])
    assert guest.order("nmi-host", 0, 0, at=at) == []


@pytest.mark.parametrize(("guest", "test", "arg"), [
    (config, test, arg) for config in CONFIGS for test, arg in STORMS
    if config == "on" or (config, test) == ("off", "irq-storm") or (FULL and test in ("sti-hlt", "irq-storm", "nmi-storm"))
], indirect=["guest"])  # fmt: skip
def test_storm_with_failures(request, guest, test, arg):
    """Each second switch fails, somewhere."""
    config = request.node.callspec.params["guest"]

    def during(vm: Vm) -> None:
        for number in range(30):
            time.sleep(vm.random.uniform(0.002, 0.06))
            target = OTHER[vm.mode or ""]
            if number % 3 == 0:
                vm.flip()
            elif number % 3 == 1:
                fails(vm, LAST[target])
            else:
                fails(vm, vm.random.choice(points(config, target)))

    go_to(guest.running(), "kvm")
    assert guest.order(test, arg, 0, during=during) == []


@only("on")
def test_state_that_kvm_refuses(guest):
    """A failure of KVM's own: the first vCPU is half loaded. When the guest has put it right the switch works."""

    def at(vm: Vm, point: int, _name: str) -> None:
        if point == 0:
            for _ in range(3):
                fails(vm, "load-registers:0", "vCPU 0: Failed to set MSRs")
        else:
            vm.flip()

    go_to(guest.running(), "tcg")
    assert guest.order("msr-refused", 0, 0, at=at) == []


def test_linux_goes_on(host, binary, linux, seed):
    """Two of three switches of a working Linux fail."""
    vm = boot(host, binary, linux, seed, accel="hybrid", machine="pc,smm=off", cpus=2, mode="kvm")
    try:
        for number in range(90):
            time.sleep(vm.random.uniform(0.005, 0.3))
            target = OTHER[vm.mode or ""]
            if number % 3 == 0:
                vm.flip()
            else:
                fails(vm, LAST[target] if number % 3 == 1 else vm.random.choice(POINTS[target]))
            no_complaints(vm)
        go_to(vm, "kvm")
        check_alive(vm, 4, 90)
        no_complaints(vm)
        assert vm.qmp.run("query-hybrid")["switches"]["failed"] == 60
    except Unexpected:
        raise
    except Exception as error:
        raise Unexpected(f"{error}\n{vm.report()}") from error
    finally:
        vm.kill()
