# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU command line: its words, and that a real QEMU takes them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from typing import Any

import pytest
from conftest import Host

from hybrid_vmm import command, definition, ready


def words_of(**keys: Any) -> list[str]:
    """Return the command line of a definition."""
    return command.qemu_command(definition.parse({"schema": 1, "name": "web1", **keys}))


def values(words: list[str], name: str) -> list[str]:
    """Return the values of an option."""
    return [words[index + 1] for index, word in enumerate(words) if word == name]


def test_the_whole_command_line() -> None:
    assert words_of(uuid="a9a19faa-82c8-5079-a741-228f71ee19f1", vcpus=2) == [
        "/opt/hybrid-vmm/current/bin/qemu-system-x86_64",
        "-name",
        "guest=web1,debug-threads=on",
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-accel",
        "hybrid,start=kvm,kernel-irqchip=on",
        "-machine",
        "pc,smm=off,vmport=off",
        "-cpu",
        "max",
        "-smp",
        "cpus=2,sockets=1,cores=2,threads=1",
        "-m",
        "size=512M",
        "-rtc",
        "base=utc",
        "-msg",
        "timestamp=on",
        "-boot",
        "strict=on",
        "-uuid",
        "a9a19faa-82c8-5079-a741-228f71ee19f1",
        "-chardev",
        "socket,id=control,path=/run/hybrid-vmm/web1/control.sock,server=on,wait=off",
        "-mon",
        "chardev=control,mode=control",
        "-chardev",
        "socket,id=events,path=/run/hybrid-vmm/web1/events.sock,server=on,wait=off",
        "-mon",
        "chardev=events,mode=control",
        "-chardev",
        "socket,id=console,path=/run/hybrid-vmm/web1/console.sock,server=on,wait=off,"
        "logfile=/var/lib/hybrid-vmm/web1/console.log,logappend=on",
        "-serial",
        "chardev:console",
        "-object",
        "rng-random,id=rng0,filename=/dev/urandom",
        "-device",
        "virtio-rng-pci,bus=pci.0,addr=0x02,rng=rng0",
    ]


@pytest.mark.parametrize(
    ("keys", "accel"),
    [
        ({}, "hybrid,start=kvm,kernel-irqchip=on"),
        ({"start_mode": "tcg", "irqchip": "off"}, "hybrid,start=tcg,kernel-irqchip=off"),
        ({"accel": "kvm"}, "kvm,kernel-irqchip=on"),
        ({"accel": "tcg"}, "tcg,thread=multi"),
    ],
)
def test_accelerator(keys: dict[str, Any], accel: str) -> None:
    assert values(words_of(**keys), "-accel") == [accel]


def test_kernel_and_firmware() -> None:
    words = words_of(kernel="/k", initrd="/i", cmdline="a b,c", firmware="/f", cpu="hybrid-v3,+rdrand,enforce")
    assert values(words, "-kernel") == ["/k"]
    assert values(words, "-initrd") == ["/i"]
    assert values(words, "-append") == ["a b,c"]
    assert values(words, "-bios") == ["/f"]
    assert values(words, "-cpu") == ["hybrid-v3,+rdrand,enforce"]


@pytest.mark.parametrize(
    ("disk", "blockdev", "device"),
    [
        (
            {"file": "root.qcow2"},
            "driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=/var/lib/hybrid-vmm/web1/root.qcow2",
            "virtio-blk-pci,bus=pci.0,addr=0x0d,drive=disk0,bootindex=1",
        ),
        (
            {"file": "/srv/a,b", "format": "raw", "readonly": True},
            "driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=/srv/a,,b",
            "virtio-blk-pci,bus=pci.0,addr=0x0d,drive=disk0,bootindex=1",
        ),
        (
            {"file": "/d", "bus": "scsi"},
            "driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=/d",
            "scsi-hd,bus=scsi0.0,scsi-id=0,drive=disk0,bootindex=1",
        ),
        (
            {"file": "/d", "bus": "ide"},
            "driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=/d",
            "ide-hd,bus=ide.0,unit=0,drive=disk0,bootindex=1",
        ),
    ],
)
def test_disk(disk: dict[str, Any], blockdev: str, device: str) -> None:
    words = words_of(disks=[disk])
    assert values(words, "-blockdev") == [blockdev]
    assert values(words, "-device")[-1] == device


@pytest.mark.parametrize(
    ("network", "netdev", "device"),
    [
        (
            {"type": "user", "mac": "52:54:00:00:00:01", "hostfwd": ["tcp::2222-:22", "udp::53-:53"]},
            "user,id=net0,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53",
            "virtio-net-pci,bus=pci.0,addr=0x03,netdev=net0,mac=52:54:00:00:00:01,romfile=",
        ),
        (
            {"type": "user", "restrict": True, "model": "e1000"},
            "user,id=net0,restrict=on",
            "e1000,bus=pci.0,addr=0x03,netdev=net0,romfile=",
        ),
        (
            {"type": "tap", "ifname": "vm0"},
            "tap,id=net0,ifname=vm0,script=no,downscript=no,vhost=off",
            "virtio-net-pci,bus=pci.0,addr=0x03,netdev=net0,romfile=",
        ),
    ],
)
def test_network(network: dict[str, Any], netdev: str, device: str) -> None:
    words = words_of(networks=[network])
    assert values(words, "-netdev") == [netdev]
    assert values(words, "-device")[-1] == device


def test_a_new_disk_moves_no_other_device() -> None:
    keys: dict[str, Any] = {"networks": [{"type": "user"}], "seed": "/s", "disks": [{"file": "a"}]}
    before = values(words_of(**keys), "-device")
    keys["disks"].append({"file": "b"})
    assert [device for device in values(words_of(**keys), "-device") if device in before] == before


def test_extra_arguments_come_last() -> None:
    assert words_of(extra_args=["-device", "pvpanic"])[-2:] == ["-device", "pvpanic"]


def test_shell_text_can_be_pasted() -> None:
    words = words_of(kernel="/boot/my kernel", cmdline="console=ttyS0 'x'")
    text = command.shell_text(words)
    assert "  -append 'console=ttyS0 '\"'\"'x'\"'\"'' \\\n" in text
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True, text=True, check=True).stdout
    assert printed.split("\0")[:-1] == words


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_real_qemu_takes_it(host: Host, machine: str) -> None:
    """Every kind of device at once, in tcg because a test machine need not have KVM."""
    program, image = shutil.which("qemu-system-x86_64"), shutil.which("qemu-img")
    if program is None or image is None:
        pytest.skip("no qemu-system-x86_64 and qemu-img here: make env installs them")
    os.makedirs(host.paths.run("web1"))
    os.makedirs(host.paths.state("web1"))
    keys = {
        "name": "web1",
        "machine": machine,
        "accel": "tcg",
        "vcpus": 2,
        "memory_mib": 64,
        "qemu": program,
        "disks": [{"file": "a,b"}, {"file": "c", "bus": "scsi", "readonly": True}, {"file": "d", "bus": "ide"}],
        "networks": [{"type": "user"}, {"type": "user", "model": "e1000"}],
        "seed": host.paths.state("web1") + "/seed",
        "extra_args": ["-S"],
    }
    for name in ("a,b", "c", "d", "seed"):
        kind = "raw" if name == "seed" else "qcow2"
        subprocess.run([image, "create", "-q", "-f", kind, host.paths.state("web1") + "/" + name, "1M"], check=True)
    vm = definition.parse(definition.complete(keys, "lab0"))
    with subprocess.Popen(command.qemu_command(vm, host.paths), stderr=subprocess.PIPE) as process:
        try:
            state = asyncio.run(ready.wait_ready("web1", host.paths, 60, process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
        assert state in ("paused", "prelaunch")
        assert process.stderr is not None
        complaints = [
            line
            for line in process.stderr.read().decode().splitlines()
            if "terminating on signal" not in line and "TCG doesn't support" not in line
        ]
        assert complaints == []
        assert process.wait() == 0
    assert os.path.exists(host.paths.console_log("web1"))
