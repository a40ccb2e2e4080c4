# SPDX-License-Identifier: GPL-3.0-or-later
"""The bare-metal tests of cases.py: at points and in storms, along every path of modes, and without a switch.

A path names the mode in which the guest gets to its first point and those that follow there. At the next point the
other way round, so that a test with several points sees both directions.
"""

from __future__ import annotations

import os
import time

import pytest
from cases import CASES, ELSEWHERE, POINTS, STORMS, Case
from harness import OTHER, Baremetal, Unexpected, Vm

# HYBRID_STOCK=kvm or tcg: the same tests on a stock accelerator, without switches.
STOCK = os.environ.get("HYBRID_STOCK")
FULL = bool(os.environ.get("HYBRID_FULL"))
CONFIGS = {
    # name: (accelerator, machine, CPUs)
    "on": ("hybrid,kernel-irqchip=on", "pc,smm=off", 2),
    "split": ("hybrid,kernel-irqchip=split", "q35,smm=off", 2),
    "off": ("hybrid,kernel-irqchip=off", "q35,smm=off", 2),
}
PATHS: tuple[str, ...] = ("kvm", "tcg", "kvm-tcg", "tcg-kvm", "kvm-tcg-kvm", "tcg-kvm-tcg")
# Without HYBRID_FULL: both directions where the kernel has interrupt controllers, and a way there and back without.
WALKS: dict[str, tuple[str, ...]] = {"on": ("kvm-tcg", "tcg-kvm"), "split": ("kvm-tcg", "tcg-kvm"), "off": ("kvm-tcg-kvm",)}
RAGES: dict[str, tuple[str, ...]] = dict.fromkeys(WALKS, ("kvm-tcg",))
if FULL:
    WALKS = dict.fromkeys(WALKS, PATHS)
    RAGES = dict.fromkeys(RAGES, PATHS[:3])
if STOCK:
    # Stock QEMU has no userspace APIC under KVM, and TCG no other.
    CONFIGS = {"off": (STOCK, "pc", 2)} if STOCK == "tcg" else {name: (f"{STOCK},kernel-irqchip={name}", "pc", 2) for name in ("on", "split")}
    PATHS = (STOCK,)
    WALKS = RAGES = dict.fromkeys(CONFIGS, PATHS)


# What depends on who emulates the interrupt controllers; the rest is the same code in all configurations.
APIC_PITFALLS = {1, 7, 8, 16, 23, 30}


def along(cases: tuple[Case, ...], paths: dict[str, tuple[str, ...]]):
    """Parameters: each case with each configuration and path that it is for, configurations one after the other."""
    rows = []
    for config, (_accel, _machine, cpus) in CONFIGS.items():
        for case in cases:
            if config != "on" and not FULL and not STOCK and not APIC_PITFALLS & set(case.pitfalls):
                continue
            wanted = case.paths if case.paths and not STOCK else PATHS
            # A case that has only some paths gets them all: they may not be among the usual ones.
            ways = [path for path in (wanted if case.paths and not STOCK else paths[config]) if path in wanted]
            rows += [pytest.param(config, case, path, id=f"{case.name}-{config}-{path}") for path in ways if case.cpus <= cpus]
    return pytest.mark.parametrize(("guest", "case", "path"), rows, indirect=["guest"])


@pytest.fixture(scope="module")
def guest(request, host, binary, baremetal_kernel, seed):
    accel, machine, cpus = CONFIGS[request.param]
    the_guest = Baremetal(host, binary, baremetal_kernel, accel=accel, machine=machine, cpus=cpus, seed=seed)
    yield the_guest
    the_guest.stop()


def go_to(vm: Vm, mode: str) -> None:
    if vm.mode and vm.mode != mode:
        vm.set_mode(mode)


def walk(path: str):
    """What to do at each point: the steps of the path first, then the modes in turn."""
    steps = path.split("-")[1:]

    def at(vm: Vm, point: int, _name: str) -> None:
        if not steps:
            return
        time.sleep(0.005)  # the guest gets from its announcement to the waiting loop
        if point == 0 or len(steps) > 1:
            targets = steps if vm.mode != steps[0] else [OTHER[s] for s in steps]
            for mode in targets:
                vm.set_mode(mode)
        else:
            vm.flip()

    return at


def run_points(guest: Baremetal, case: Case, path: str) -> list[str]:
    problems: list[str] = []
    for number, arg in enumerate(case.args):
        turn = number + PATHS.index(path)
        few = {case.waits[turn % len(case.waits)]} | ({case.waits[(turn + 1) % len(case.waits)]} if len(case.args) == 1 else set())
        waits = case.waits if FULL else sorted(few)
        for wait in waits:
            go_to(guest.running(), path.split("-")[0])
            bad = guest.order(case.name, arg, wait, at=walk(path))
            problems += [f"{case.name} {arg} wait {wait}: {b}" for b in bad]
    if case.spoils:
        guest.stop()
    return problems


def run_storm(guest: Baremetal, case: Case, switch: bool, start: str = "kvm") -> list[str]:
    problems = []
    for arg in case.args:
        go_to(guest.running(), start)

        def during(vm: Vm) -> None:
            if not switch:
                # Nor is it paused: stock KVM starts the 8254's period anew when a VM goes on.
                time.sleep(0.5)
                return
            count = case.switches * (10 if FULL else 1)
            vm.random_switches(count, 2, 60)

        problems += [f"{case.name} {arg}: {b}" for b in guest.order(case.name, arg, 0, during=during)]
    return problems


def without_switch(guest: Baremetal, case: Case, mode: str) -> list[str]:
    """What the test finds when nothing is switched: kept, for the cases which the lab itself may be unable to run."""
    if (case.name, mode) not in guest.controls:
        try:
            guest.controls[case.name, mode] = run_points(guest, case, mode)
        except Unexpected as error:
            guest.controls[case.name, mode] = [str(error)]
    return guest.controls[case.name, mode]


def fail_with(guest: Baremetal, problems: list[str]) -> None:
    vm = guest.vm
    tail = vm.report() if vm else ""
    guest.stop()
    pytest.fail("\n".join(["the guest found discrepancies:", *problems[:20], tail]), pytrace=False)


def check_case(guest: Baremetal, case: Case, path: str) -> None:
    modes = path.split("-")
    control = len(modes) == 1
    if case.calibrate:
        found = without_switch(guest, case, modes[-1])
        if found:
            pytest.skip(f"without any switch, in {modes[-1]}: {found[0].splitlines()[0]} (the processor of this host lacks it)")
        if control:
            return
    problems = run_storm(guest, case, not control, modes[0]) if case.storm else run_points(guest, case, path)
    if case.differs and STOCK != "tcg":
        expected = [problem for problem in problems if case.differs in problem]
        problems = [problem for problem in problems if problem not in expected] or ([] if expected else [f"{case.differs}: differs no more"])
    if problems:
        fail_with(guest, problems)


@pytest.mark.parametrize("guest", list(CONFIGS)[:1], indirect=True)
def test_table_is_complete(guest):
    """Each test in the guest has a row in cases.py or a test elsewhere, and the other way round."""
    vm = guest.running()
    since = len(vm.console.lines)
    assert guest.order("list") == []
    listed = {t.split()[1]: t.split() for _, t in vm.console.lines[since:] if t.startswith("TEST ")}
    assert set(listed) == set(CASES) | set(ELSEWHERE)
    for case in CASES.values():
        assert (listed[case.name][2] == "storm") == case.storm, case.name


@pytest.mark.skipif(STOCK == "tcg", reason="stock TCG has no TSC-deadline timer")
@pytest.mark.parametrize("guest", list(CONFIGS), indirect=True)
def test_what_a_local_apic_may_have(request, guest):
    """The tests of x2APIC and of the TSC-deadline timer end at once in a guest that has none: only one with irqchip off."""
    vm = guest.running()
    since = len(vm.console.lines)
    assert guest.order("deadline") == []
    assert guest.order("x2apic") == []
    missing = {t.partition(" no ")[2] for _, t in vm.console.lines[since:] if t.startswith("NOTE no ")}
    assert missing == ({"x2APIC", "TSC-deadline timer"} if request.node.callspec.params["guest"] == "off" else set())


@along(POINTS, WALKS)
def test_point(guest, case, path):
    check_case(guest, case, path)


@along(STORMS, RAGES)
def test_storm(guest, case, path):
    check_case(guest, case, path)
