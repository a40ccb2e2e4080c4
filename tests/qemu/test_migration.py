# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that is saved, loaded and migrated in either mode goes on as if nothing had happened (20).

The stream has KVM's conventions whatever the mode, and the mode is in it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from harness import Baremetal, Vm
from test_baremetal import STOCK, go_to
from test_linux import FATAL, boot, check_alive, no_complaints

pytestmark = pytest.mark.skipif(bool(STOCK), reason="a stock accelerator does not switch")
# What a stream has to carry: FPU, flags, system registers, breakpoints, pending interrupts, a halted processor, timers.
CASES = (("x87", 3), ("xmm", 0), ("eflags", 3), ("sysregs", 0), ("dr", 0), ("irr-pending", 0), ("pic", 0), ("ap-halted", 0), ("deadline", 0))
MACHINE = "pc,smm=off"
numbers = itertools.count()


def wait_for(what: str, done, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not done after {seconds} s"
        time.sleep(0.1)


def check_mode(vm: Vm, mode: str, cause: str | None = None) -> None:
    info = vm.qmp.run("query-hybrid")
    assert info["mode"] == mode
    assert cause is None or info["cause"] == cause


# ------------------------------------------------------------------------------------------------ snapshots
@pytest.fixture(scope="module")
def saved(host, binary, baremetal_kernel, seed):
    """A guest with a disk that takes snapshots."""
    disk = f"{host.folder}/snapshots-{seed}.qcow2"
    guest = Baremetal(host, binary, baremetal_kernel, accel="hybrid", machine=MACHINE, cpus=2, seed=seed)

    def start() -> Vm:
        host.run(f"rm -f {disk} && truncate -s 0 {disk}")
        vm = guest.start(("-blockdev", f"driver=file,node-name=file,filename={disk}"))
        job(vm, "blockdev-create", options={"driver": "qcow2", "file": "file", "size": 0})
        vm.qmp.run("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
        return vm

    yield lambda: (guest, guest.vm if guest.vm and guest.vm.process.poll() is None else start())
    guest.stop()
    host.run(f"rm -f {disk}")


def job(vm: Vm, command: str, **arguments) -> None:
    """Run a command that makes a job, and wait for its end."""
    name = f"job{next(numbers)}"
    vm.qmp.run(command, {"job-id": name} | arguments)

    def over() -> bool:
        return next(j for j in vm.qmp.run("query-jobs") if j["id"] == name)["status"] == "concluded"

    wait_for(command, over)
    error = next(j for j in vm.qmp.run("query-jobs") if j["id"] == name).get("error")
    vm.qmp.run("job-dismiss", {"id": name})
    assert error is None, error


def snapshot(vm: Vm, action: str, tag: str) -> None:
    job(vm, f"snapshot-{action}", tag=tag, vmstate="disk", devices=["disk"])


@pytest.mark.parametrize("mode", ["kvm", "tcg"])
@pytest.mark.parametrize("other", ["the same", "the other"])
def test_snapshot(saved, mode, other):
    """Saved in one mode and loaded in the same or the other: the mode comes back with the state."""
    for name, arg in CASES:
        guest, vm = saved()
        go_to(vm, mode)

        def at(vm: Vm, point: int, _name: str, tag: str = f"{name}-{mode}-{other}") -> None:
            if point:
                return
            snapshot(vm, "save", tag)
            check_mode(vm, mode)
            if other == "the other":
                vm.flip()
            snapshot(vm, "load", tag)
            check_mode(vm, mode, "loaded" if other == "the other" else None)
            vm.mode = mode
            if vm.qmp.run("query-status")["status"] != "running":
                vm.qmp.run("cont")

        assert guest.order(name, arg, 0, at=at) == [], name


def test_paused_guest_is_saved_in_tcg_and_leaves_it(saved):
    """Its state lies in KVM until it goes on; a switch to kvm before that costs nothing, and is one."""
    guest, vm = saved()
    go_to(vm, "tcg")

    def at(vm: Vm, point: int, _name: str) -> None:
        if point == 0:
            vm.qmp.run("stop")
            snapshot(vm, "save", "paused")
            check_mode(vm, "tcg")
            assert vm.set_mode("tcg")["changed"] is False
            answer = vm.set_mode("kvm")
            assert (answer["changed"], answer["before"], answer["phases"]) == (True, "tcg", [])
            vm.qmp.run("cont")
            check_mode(vm, "kvm", "operator")
            vm.set_mode("tcg")

    assert guest.order("x87", 5, 0, at=at) == []


def test_loaded_at_start(saved, host, seed):
    """-loadvm in a process that would start in the other mode."""
    guest, vm = saved()
    go_to(vm, "tcg")
    disk = f"{host.folder}/snapshots-{seed}.qcow2"

    def at(vm: Vm, point: int, _name: str) -> Vm | None:
        if point:
            return None
        snapshot(vm, "save", "start")
        vm.qmp.run("quit")
        vm.process.wait(30)
        moved = guest.process("hybrid,start=kvm", ("-drive", f"if=none,file={disk},format=qcow2,node-name=disk", "-loadvm", "start"))
        check_mode(moved, "tcg", "loaded")
        moved.mode = "tcg"
        return moved

    assert guest.order("x87", 6, 0, at=at) == []
    guest.stop()


# ------------------------------------------------------------------------------------------------ migration
def migrate(source: Vm, target: Vm) -> str:
    """Answers "completed" or "failed"; the target answers to the source, so that either both have the guest or one."""
    uri = f"unix:{source.host.folder}/migrate-{next(numbers)}"
    for vm in (source, target):
        vm.qmp.run("migrate-set-capabilities", {"capabilities": [{"capability": "return-path", "state": True}]})
    target.qmp.run("migrate-incoming", {"uri": uri})
    source.qmp.run("migrate", {"uri": uri})
    wait_for("the migration", lambda: source.qmp.run("query-migrate")["status"] in ("completed", "failed"))
    end = source.qmp.run("query-migrate")["status"]
    if end == "completed":
        wait_for("the target", lambda: target.qmp.run("query-status")["status"] == "running")
    return end


def moved(guest: Baremetal, source: Vm, accel: str, extra: tuple[str, ...] = (), check: Callable[[Vm], None] = lambda target: None) -> Vm:
    """Migrate the guest into a new process, check that one and answer it."""
    target = guest.process(accel, (*extra, "-incoming", "defer"))
    try:
        assert migrate(source, target) == "completed", target.stderr()
        check(target)
    except BaseException:
        target.kill()
        raise
    return target


@pytest.mark.parametrize("irqchip", ["on", "split", "off"])
@pytest.mark.parametrize(("mode", "start"), [("kvm", "kvm"), ("kvm", "tcg"), ("tcg", "kvm"), ("tcg", "tcg")])
def test_migration(host, binary, baremetal_kernel, seed, irqchip, mode, start):
    """From either mode; what the target was told to start in does not matter. Then it switches as ever."""
    guest = Baremetal(host, binary, baremetal_kernel, accel=f"hybrid,kernel-irqchip={irqchip}", machine=MACHINE, cpus=2, seed=seed)
    try:
        for name, arg in CASES if irqchip == "on" else CASES[:2]:
            go_to(guest.running(), mode)

            def at(vm: Vm, point: int, _name: str) -> Vm | None:
                if point:
                    vm.flip()
                    return None
                accel = f"hybrid,kernel-irqchip={irqchip},start={start}"
                target = moved(guest, vm, accel, check=lambda target: check_mode(target, mode, None if mode == "kvm" else "loaded"))
                target.mode = mode
                return target

            assert guest.order(name, arg, 0, at=at) == [], name
    finally:
        guest.stop()


@pytest.mark.parametrize("mode", ["kvm", "tcg"])
def test_migration_that_nobody_takes(host, binary, baremetal_kernel, seed, mode):
    """Its state was written and the guest goes on in its mode: the target has other hardware, or the stream was for a file."""
    guest, fewer = (Baremetal(host, binary, baremetal_kernel, accel="hybrid", machine=MACHINE, cpus=cpus, seed=seed) for cpus in (2, 1))
    stream = f"{host.folder}/stream-{seed}"

    def at(vm: Vm, point: int, _name: str) -> None:
        if point:
            return
        target = fewer.process("hybrid", ("-incoming", "defer"))
        try:
            assert migrate(vm, target) == "failed"
        finally:
            target.kill()
        wait_for("the guest", lambda: vm.qmp.run("query-status")["status"] == "running")
        check_mode(vm, mode)
        vm.qmp.run("migrate-set-capabilities", {"capabilities": [{"capability": "return-path", "state": False}]})
        vm.qmp.run("migrate", {"uri": f"file:{stream}"})
        wait_for("the file", lambda: vm.qmp.run("query-migrate")["status"] == "completed")
        check_mode(vm, mode)
        vm.qmp.run("cont")

    try:
        for name, arg in CASES[:5]:
            go_to(guest.running(), mode)
            assert guest.order(name, arg, 0, at=at) == [], name
    finally:
        guest.stop()
        host.run(f"rm -f {stream}")


def test_code_that_changes_while_memory_is_copied(host, binary, baremetal_kernel, seed):
    """KVM's log of dirty pages, which a migration reads, says nothing about the pages whose translations TCG has to watch."""
    guest = Baremetal(host, binary, baremetal_kernel, accel="hybrid", machine=MACHINE, cpus=2, seed=seed)

    def during(vm: Vm) -> None:
        vm.qmp.run("migrate-set-parameters", {"max-bandwidth": 4 << 20})
        for _ in range(2):
            vm.qmp.run("migrate", {"uri": "exec:cat >/dev/null"})
            wait_for("the second pass", lambda: vm.qmp.run("query-migrate").get("ram", {}).get("dirty-sync-count", 0) > 1)
            vm.qmp.run("migrate_cancel")
            wait_for("the end", lambda: vm.qmp.run("query-migrate")["status"] in ("cancelled", "completed"))
            if vm.qmp.run("query-status")["status"] == "postmigrate":  # it was faster
                vm.qmp.run("cont")
        check_mode(vm, "tcg")

    try:
        go_to(guest.running(), "tcg")
        assert guest.order("smc-storm", 0, 0, during=during) == []
    finally:
        guest.stop()


@pytest.mark.parametrize(("there", "back"), [("kvm", "hybrid"), ("hybrid", "kvm")])
def test_migration_with_stock_kvm(host, binary, baremetal_kernel, seed, there, back):
    """A guest in mode kvm comes from and goes to -accel kvm, which has the same devices but for the vAPIC."""
    stock = "-cpu", "qemu64,kvm=off", "-global", "apic-common.vapic=off"
    guest = Baremetal(host, binary, baremetal_kernel, accel=there, machine=MACHINE, cpus=2, seed=seed, cpu="qemu64")
    try:
        for name, arg in CASES[:3]:
            guest.stop()
            guest.start(stock)

            def at(vm: Vm, point: int, _name: str) -> Vm | None:
                if point:
                    if back == "hybrid":
                        vm.flip()
                    return None
                return moved(guest, vm, back, stock)

            assert guest.order(name, arg, 0, at=at) == [], name
    finally:
        guest.stop()


def test_stock_kvm_does_not_take_a_guest_in_tcg(host, binary, baremetal_kernel, seed):
    """It would run unwatched. The section that only hybrid QEMUs know stops it, and the guest goes on where it was."""
    guest = Baremetal(host, binary, baremetal_kernel, accel="hybrid", machine=MACHINE, cpus=2, seed=seed)

    def at(vm: Vm, point: int, _name: str) -> None:
        if point:
            return
        target = guest.process("kvm", ("-incoming", "defer"))
        try:
            assert migrate(vm, target) == "failed"
            assert "section or instance 'hybrid'" in target.stderr()
        finally:
            target.kill()
        wait_for("the guest", lambda: vm.qmp.run("query-status")["status"] == "running")
        check_mode(vm, "tcg")

    try:
        go_to(guest.running(), "tcg")
        assert guest.order("x87", 2, 0, at=at) == []
    finally:
        guest.stop()


@pytest.mark.parametrize("mode", ["kvm", "tcg"])
def test_linux_migrates_while_it_works(host, binary, linux, seed, mode):
    """Memory that changes while it is copied, in either mode, and on the target random switches."""
    hybrid = {"accel": "hybrid", "machine": MACHINE, "cpus": 2}
    vm = boot(host, binary, linux, seed, mode="kvm", **hybrid)
    target = None
    try:
        go_to(vm, mode)
        target = Vm(host, binary, [*vm.argv[1 : vm.argv.index("-display")], "-incoming", "defer"], mode=mode, seed=seed)
        assert migrate(vm, target) == "completed", target.stderr()
        check_mode(target, mode)
        vm.kill()
        target.wait_line(r"^HB ", 240, fatal=FATAL)
        target.random_switches(20, 5, 300, lambda: no_complaints(target))
        go_to(target, "kvm")
        check_alive(target, 4, 90)
        no_complaints(target)
    finally:
        vm.kill()
        if target:
            target.kill()
