# SPDX-License-Identifier: GPL-3.0-or-later
"""An unmodified Linux guest that works and checks itself (tests/guest) while it is switched at random moments."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import pytest
from harness import Unexpected, Vm

FATAL = r"\bERR |Kernel panic|BUG:|Oops|general protection|invalid opcode|double fault|Call Trace|I/O error"
# name: (irqchip, CPUs, switches, machine)
SOAKS = {
    "on-2": ("on", 2, 400, "pc"),
    "on-4": ("on", 4, 100, "q35"),
    "split-1": ("split", 1, 100, "q35"),
    "split-2": ("split", 2, 400, "pc"),
    "off-1": ("off", 1, 100, "pc"),
    "off-2": ("off", 2, 100, "q35"),
}


def boot(
    host, binary: str, linux, seed: int, *, accel: str, machine: str, cpus: int, mode: str | None, smp: str = "",
    cpu: str = "max", devices: tuple[str, ...] | None = None, append: str = "", workers: int | None = None,
    meanwhile: Callable[[Vm], None] = lambda vm: None,
) -> Vm:  # fmt: skip
    """A Linux guest that has said READY and works. `devices` are arguments instead of its one disk; `meanwhile` is called while it boots."""
    disk = f"{host.folder}/linux-{seed}-{cpus}.img"
    if devices is None:
        host.run(f"truncate -s 32M {disk}")
        devices = ("-drive", f"file={disk},format=raw,if=virtio,cache=writeback")
    vm = Vm(
        host, binary,
        ["-accel", accel, "-machine", machine, "-cpu", cpu, "-smp", smp or str(cpus), "-m", "256",
         "-kernel", linux[0], "-initrd", linux[1],
         "-append", "console=ttyS0 no_timer_check loglevel=4 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_timeout=300 "
         f"hc.workers={cpus if workers is None else workers} {append}", *devices],
        mode=mode, seed=seed,
    )  # fmt: skip
    try:
        meanwhile(vm)
        vm.wait_line(rf"READY vcpus={cpus}", 300, fatal=FATAL)
        vm.wait_line(r"^HB ", 60, fatal=FATAL)
    except BaseException:
        vm.kill()
        raise
    return vm


def check_alive(vm: Vm, beats: int = 4, seconds: float = 60) -> None:
    """Some heartbeats in a row, no error, time that moves on with the host's."""
    since = len(vm.console.lines)
    first = last = None
    for _ in range(beats):
        since, match = vm.wait_line(r"HB (\d+) mono_ms=(\d+) real_ms=(\d+) .*errors=(\d+)", seconds, since, fatal=FATAL)
        since += 1
        assert match[4] == "0", f"the guest counted {match[4]} errors\n{vm.report()}"
        last = match
        first = first or match
    assert first
    assert last
    assert int(last[2]) > int(first[2])


def go_to_kvm(vm: Vm) -> None:
    if vm.mode == "tcg":
        vm.flip()


def no_complaints(vm: Vm) -> None:
    bad = [text for _, text in vm.console.lines if re.search(FATAL, text)]
    if bad:
        raise Unexpected(f"the guest complains: {bad[:5]}\n{vm.report()}")


@pytest.mark.parametrize("name", SOAKS)
def test_random_switches_under_load(host, binary, linux, seed, name):
    irqchip, cpus, count, machine = SOAKS[name]
    count = int(os.environ.get("HYBRID_TEST_SWITCHES", count))
    vm = boot(host, binary, linux, seed, accel=f"hybrid,kernel-irqchip={irqchip}", machine=f"{machine},smm=off", cpus=cpus, mode="kvm")
    try:
        print(f"seed {seed}, {count} switches, {name}")
        check_alive(vm)
        done = 0
        while done < count:
            batch = min(20, count - done)
            vm.random_switches(batch, 5, 300, lambda: no_complaints(vm))
            done += batch
            if done % 100 == 0:
                go_to_kvm(vm)
                check_alive(vm, 2, 90)
        go_to_kvm(vm)
        check_alive(vm, 6, 90)
        no_complaints(vm)
        info = vm.qmp.run("query-hybrid")
        assert info["switches"]["kvm-to-tcg"] + info["switches"]["tcg-to-kvm"] >= count
        assert info["switches"]["failed"] == 0
        pauses = sorted(entry["pause-us"] for entry in vm.switches if entry["changed"])
        print(f"pauses: median {pauses[len(pauses) // 2]} us, longest {pauses[-1]} us")
    except Unexpected:
        raise
    except Exception as error:
        raise Unexpected(f"{error}\n{vm.report()}") from error
    finally:
        vm.kill()


def test_long_stay_in_tcg(host, binary, linux, seed):
    """The guest keeps time and finishes heartbeats in tcg, which takes long in a lab host."""
    vm = boot(host, binary, linux, seed, accel="hybrid", machine="pc,smm=off", cpus=2, mode="kvm")
    try:
        vm.set_mode("tcg")
        check_alive(vm, 2, 240)
        vm.set_mode("kvm")
        check_alive(vm)
        no_complaints(vm)
    finally:
        vm.kill()


@pytest.mark.parametrize("accel", ["kvm,kernel-irqchip=on", "kvm,kernel-irqchip=split"])
def test_stock_kvm_of_the_same_binary(host, binary, linux, seed, accel):
    """Without -accel hybrid the binary is a stock QEMU."""
    vm = boot(host, binary, linux, seed, accel=accel, machine="pc", cpus=2, mode=None)
    try:
        check_alive(vm)
        no_complaints(vm)
        time.sleep(1)
        assert vm.qmp.run("query-status")["running"]
    finally:
        vm.kill()
