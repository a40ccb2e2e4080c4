# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot switch is refused with the blocker's name: at start where it can be known then, else at the switch."""

from __future__ import annotations

import time

import pytest
from harness import QmpError, Vm

BASE = ["-machine", "pc,smm=off", "-m", "64"]


def refused_at_start(host, binary: str, arguments: list[str]) -> str:
    """QEMU's message; it must end by itself with an error."""
    import shlex

    argv = shlex.join([binary, "-display", "none", "-nodefaults", "-L", "/usr/share/qemu", "-L", "/usr/share/seabios", *arguments])
    out = host.run(f"timeout -k 1 60 {argv} 2>&1 </dev/null; echo status=$?", 90)
    text, _, status = out.rpartition("status=")
    assert status.strip() not in ("0", "124", "137"), f"not refused (status {status.strip()}): {text}"
    assert status.strip() == "1", f"died instead of refusing (status {status.strip()}): {text}"
    return text


AT_START = {
    "icount": (["-accel", "hybrid", "-icount", "shift=auto", *BASE], "'icount'"),
    "record": (["-accel", "hybrid", "-icount", "shift=7,rr=record,rrfile=/tmp/hq-rr", *BASE], "icount|replay"),
    "dirty-ring": (["-accel", "hybrid,dirty-ring-size=1024", *BASE], "'dirty-ring'"),
    "xen": (["-accel", "hybrid,xen-version=0x4000a", *BASE], "'xen'"),
    "smm": (["-accel", "hybrid", "-machine", "pc,smm=on", "-m", "64"], "'smm'"),
    "hyperv": (["-accel", "hybrid", "-cpu", "max,hv-relaxed=on,hv-vapic=on", *BASE], "hyperv|hyper-v|hv-"),
    "tsc-scaling": (["-accel", "hybrid", "-cpu", "max,tsc-frequency=1000000000", *BASE], "tsc"),
    "start": (["-accel", "hybrid,start=xen", *BASE], "xen"),
    "iothread": (["-accel", "hybrid", "-object", "iothread,id=io0", *BASE], "'iothread'"),
}


@pytest.mark.parametrize("name", AT_START)
def test_refused_at_start(host, binary, name):
    import re

    arguments, pattern = AT_START[name]
    text = refused_at_start(host, binary, arguments)
    assert re.search(pattern, text, re.IGNORECASE), text


def test_vhost_refused(host, binary, seed):
    """A vhost device: at start, and hot-plugged at the switch."""
    if host.run("(modprobe vhost_vsock && test -c /dev/vhost-vsock && echo yes) 2>/dev/null || true").strip() != "yes":
        pytest.skip("this host's kernel has no vhost-vsock")
    text = refused_at_start(host, binary, ["-accel", "hybrid", "-device", "vhost-vsock-pci,guest-cid=77", *BASE])
    assert "'vhost'" in text
    vm = Vm(host, binary, ["-accel", "hybrid", *BASE], mode="kvm", seed=seed, serial=False)
    try:
        vm.qmp.run("device_add", {"driver": "vhost-vsock-pci", "id": "v", "guest-cid": 78})
        assert {b["name"] for b in vm.qmp.run("query-hybrid")["blockers"]} == {"vhost"}
        with pytest.raises(QmpError, match="switch to 'tcg' blocked by 'vhost'"):
            vm.set_mode("tcg")
        assert vm.qmp.run("query-hybrid")["mode"] == "kvm"
        assert "vhost" in vm.hmp("info hybrid")
    finally:
        vm.kill()


# A slot that no guest has switched on gives its device back at once. SeaBIOS is not asked: it leaves the ports to themselves.
PORTS = ["-machine", "q35,smm=off", "-m", "64", "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
         "-device", "pcie-root-port,id=p1,chassis=1", "-device", "pcie-root-port,id=p2,chassis=2"]  # fmt: skip


def blockers(vm: Vm) -> list[str]:
    return [blocker["name"] for blocker in vm.qmp.run("query-hybrid")["blockers"]]


def unplug(vm: Vm, device: str) -> None:
    since = len(vm.qmp.events)
    vm.qmp.run("device_del", {"id": device})
    while vm.qmp.wait_event("DEVICE_DELETED", since, 30)["data"].get("device") != device:
        since += 1


def test_vhost_comes_and_goes(host, binary, seed):
    """Devices that block are noted when they are plugged and forgotten when they are unplugged, one by one."""
    if host.run("(modprobe vhost_vsock && test -c /dev/vhost-vsock && echo yes) 2>/dev/null || true").strip() != "yes":
        pytest.skip("this host's kernel has no vhost-vsock")
    vm = Vm(host, binary, ["-accel", "hybrid", *PORTS], mode="kvm", seed=seed, serial=False)
    try:
        for cid, mode in ((81, "tcg"), (82, "kvm")):
            vm.qmp.run("device_add", {"driver": "vhost-vsock-pci", "id": "v1", "bus": "p1", "guest-cid": cid})
            one = blockers(vm)
            assert set(one) == {"vhost"}
            # One that the kernel refuses, because its number is taken, is none that blocks.
            with pytest.raises(QmpError):
                vm.qmp.run("device_add", {"driver": "vhost-vsock-pci", "id": "v2", "bus": "p2", "guest-cid": cid})
            assert blockers(vm) == one
            vm.qmp.run("device_add", {"driver": "vhost-vsock-pci", "id": "v2", "bus": "p2", "guest-cid": cid + 10})
            assert len(blockers(vm)) == 2 * len(one)
            unplug(vm, "v1")
            assert blockers(vm) == one
            with pytest.raises(QmpError, match=f"switch to '{mode}' blocked by 'vhost'"):
                vm.set_mode(mode)
            unplug(vm, "v2")
            assert blockers(vm) == []
            vm.set_mode(mode)
    finally:
        vm.kill()


def test_vhost_net_comes_and_goes(host, binary, seed):
    """A network card blocks by what it is connected to; without vhost it does not."""
    if host.run("(modprobe vhost_net && modprobe tun && test -c /dev/vhost-net && echo yes) 2>/dev/null || true").strip() != "yes":
        pytest.skip("this host's kernel has no vhost-net")
    vm = Vm(host, binary, ["-accel", "hybrid", *PORTS], mode="kvm", seed=seed, serial=False)
    try:
        for vhost in (True, False):
            backend = {"type": "tap", "id": "n1", "ifname": "hqtap1", "script": "no", "downscript": "no", "vhost": vhost}
            vm.qmp.run("netdev_add", backend)
            vm.qmp.run("device_add", {"driver": "virtio-net-pci", "id": "d1", "bus": "p1", "netdev": "n1"})
            assert blockers(vm) == (["vhost"] if vhost else [])
            unplug(vm, "d1")
            vm.qmp.run("netdev_del", {"id": "n1"})
            assert blockers(vm) == []
        vm.set_mode("tcg")
    finally:
        vm.kill()


def test_vhost_net_refused(host, binary):
    if host.run("(modprobe vhost_net && modprobe tun && test -c /dev/vhost-net && echo yes) 2>/dev/null || true").strip() != "yes":
        pytest.skip("this host's kernel has no vhost-net")
    tap = "tap,id=n0,ifname=hqtap0,script=no,downscript=no,vhost=on"
    text = refused_at_start(host, binary, ["-accel", "hybrid", "-netdev", tap, "-device", "virtio-net-pci,netdev=n0", *BASE])
    assert "'vhost'" in text


def test_iothread_added_later(host, binary, seed):
    vm = Vm(host, binary, ["-accel", "hybrid", *BASE], mode="kvm", seed=seed, serial=False)
    try:
        vm.qmp.run("object-add", {"qom-type": "iothread", "id": "io1"})
        vm.qmp.run("object-add", {"qom-type": "iothread", "id": "io2"})
        assert blockers(vm) == ["iothread", "iothread"]
        vm.qmp.run("object-del", {"id": "io2"})
        with pytest.raises(QmpError, match="switch to 'tcg' blocked by 'iothread'"):
            vm.set_mode("tcg")
        vm.qmp.run("object-del", {"id": "io1"})
        assert vm.qmp.run("query-hybrid")["blockers"] == []
        vm.set_mode("tcg")
    finally:
        vm.kill()


# A detach packet, then every answer up to the one that says OK: the connection must not close before it is read.
DETACH = """printf '+$D#44' >&3; until [[ $answer == *OK ]]; do IFS= read -r -t 30 -d '#' -u 3 answer || exit; done"""


@pytest.mark.parametrize("goodbye", [DETACH, "exec 3>&-"], ids=["detaches", "goes-away"])
def test_debugger(host, binary, seed, goodbye):
    """gdb attached: refused; gone again, with or without a detach packet: allowed."""
    port = 10000 + seed % 20000
    vm = Vm(host, binary, ["-accel", "hybrid", "-gdb", f"tcp:127.0.0.1:{port}", *BASE], mode="kvm", seed=seed, serial=False)
    client = None
    try:
        vm.set_mode("tcg")
        vm.set_mode("kvm")
        leave = f"{host.folder}/detach-{seed}"
        host.run(f"rm -f {leave}")
        talk = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf '+$?#3f' >&3; until test -e {leave}; do sleep 0.2; done; {goodbye}; rm -f {leave}"
        client = host.spawn(["bash", "-c", talk], vm.stderr_path.with_suffix(".gdb"))
        deadline = time.monotonic() + 30
        while not vm.qmp.run("query-hybrid")["blockers"]:
            assert time.monotonic() < deadline, "gdb is attached and no blocker appears"
            time.sleep(0.1)
        assert "gdb" in [blocker["name"] for blocker in vm.qmp.run("query-hybrid")["blockers"]]
        with pytest.raises(QmpError, match=r"switch to 'tcg' blocked by '(gdb|runstate)'"):
            vm.set_mode("tcg")
        host.run(f"touch {leave}")
        deadline = time.monotonic() + 30
        while vm.qmp.run("query-hybrid")["blockers"]:
            assert time.monotonic() < deadline, "the debugger is gone and the blocker stays"
            time.sleep(0.1)
        vm.qmp.run("cont")
        vm.set_mode("tcg")
    finally:
        if client:
            client.kill()
        vm.stderr_path.with_suffix(".gdb").unlink(missing_ok=True)
        vm.kill()


def test_migrated_guest(host, binary, seed):
    """A guest that somebody else has now is not switched here."""
    vm = Vm(host, binary, ["-accel", "hybrid", *BASE], mode="kvm", seed=seed, serial=False)
    try:
        vm.qmp.run("migrate", {"uri": "exec:cat >/dev/null"})
        deadline = time.monotonic() + 60
        while (status := vm.qmp.run("query-migrate")["status"]) not in ("completed", "failed"):
            assert time.monotonic() < deadline, f"migration is still {status} after 60 s"
            time.sleep(0.2)
        assert status == "completed"
        with pytest.raises(QmpError, match="blocked by 'runstate'"):
            vm.set_mode("tcg")
    finally:
        vm.kill()


def test_nothing_blocks_an_ordinary_vm(host, binary, seed):
    disk = f"{host.folder}/disk-{seed}.img"
    host.run(f"truncate -s 1M {disk}")
    arguments = ["-accel", "hybrid", *BASE, "-drive", f"file={disk},format=raw,if=virtio", "-netdev", "user,id=n",
                 "-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci", "-vga", "std"]  # fmt: skip
    vm = Vm(host, binary, arguments, mode="kvm", seed=seed, serial=False)
    try:
        assert vm.qmp.run("query-hybrid")["blockers"] == []
        vm.random_switches(10, 1, 50)
    finally:
        vm.kill()
        host.run(f"rm -f {disk}")
