# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU command line of a VM.  Pure: the same definition gives the same list of words on every host.

Every device is named and has a fixed PCI slot, so that adding a disk does not rename the guest's network card:
0x02 random numbers, 0x03-0x0a networks, 0x0b SCSI controller, 0x0c seed, 0x0d-0x1c disks.
"""

from __future__ import annotations

import os
import shlex
from typing import Optional, Union

from .definition import Disk, Network, Vm
from .paths import Paths

_SLOT_RNG = 0x02
_SLOT_NETWORK = 0x03
_SLOT_SCSI = 0x0B
_SLOT_SEED = 0x0C
_SLOT_DISK = 0x0D

#: QEMU may not gain rights, start programs or change its scheduling, whatever the guest made it do.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def qemu_command(vm: Vm, paths: Optional[Paths] = None, policy_file: Optional[str] = None) -> list[str]:
    """Return the words of the QEMU command line, the binary first.

    :param vm: a checked definition.
    :param paths: where sockets and relative disk files are; the host's usual folders by default.
    :param policy_file: compiled policy with which a hybrid VM starts.
    """
    paths = paths or Paths()
    words = [vm.qemu, "-name", option(f"guest={vm.name}", debug_threads=True)]
    words += ["-no-user-config", "-nodefaults", "-display", "none", "-sandbox", _SANDBOX]
    words += ["-accel", _accelerator(vm, policy_file)]
    words += ["-machine", option(vm.machine, smm=False, vmport=False), "-cpu", vm.cpu]
    words += ["-smp", option(f"cpus={vm.vcpus}", sockets=1, cores=vm.vcpus, threads=1)]
    words += ["-m", f"size={vm.memory_mib}M", "-rtc", "base=utc", "-msg", "timestamp=on", "-boot", "strict=on"]
    if vm.uuid:
        words += ["-uuid", vm.uuid]
    words += _boot(vm)
    words += _monitor("control", paths.control(vm.name)) + _monitor("events", paths.events(vm.name))
    words += _console(vm, paths)
    words += ["-object", "rng-random,id=rng0,filename=/dev/urandom"]
    words += ["-device", _pci("virtio-rng-pci", vm, _SLOT_RNG, rng="rng0")]
    for index, network in enumerate(vm.networks):
        words += _network(vm, network, index)
    words += _disks(vm, paths)
    if vm.seed:
        words += _blockdev("seed", "raw", vm.seed, True)
        words += ["-device", _pci("virtio-blk-pci", vm, _SLOT_SEED, drive="seed")]
    return words + list(vm.extra_args)


def shell_text(words: list[str]) -> str:
    """Return the command line for people, one option per line, fit to be pasted into a shell."""
    lines: list[str] = []
    for word in words:
        quoted = shlex.quote(word)
        if lines and not word.startswith("-") and lines[-1].startswith("-") and " " not in lines[-1]:
            lines[-1] += " " + quoted
        else:
            lines.append(quoted)
    return " \\\n  ".join(lines)


def option(head: str, **values: Union[str, int, bool, None]) -> str:
    """Compose ``head,key=value,...`` in QEMU's syntax: commas in values are doubled, None is left out.

    :param head: written as it is.
    :param values: underscores in keys become hyphens, two of them a dot; booleans become on and off.
    """
    parts = [head]
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "on" if value else "off"
        parts.append(f"{key.replace('__', '.').replace('_', '-')}={escape(str(value))}")
    return ",".join(parts)


def escape(value: str) -> str:
    """Double the commas of a value, as QEMU's option syntax wants them."""
    return value.replace(",", ",,")


def disk_path(vm: Vm, disk: Disk, paths: Paths) -> str:
    """Return the absolute path of a disk's image."""
    return os.path.join(paths.state(vm.name), disk.file)


def _accelerator(vm: Vm, policy_file: Optional[str]) -> str:
    if vm.accel == "hybrid":
        return option("hybrid", start=vm.start_mode, kernel_irqchip=vm.irqchip, policy_file=policy_file)
    if vm.accel == "kvm":
        return option("kvm", kernel_irqchip=vm.irqchip)
    return option("tcg", thread="multi")


def _boot(vm: Vm) -> list[str]:
    words: list[str] = []
    for name, value in (
        ("-bios", vm.firmware),
        ("-kernel", vm.kernel),
        ("-initrd", vm.initrd),
        ("-append", vm.cmdline),
    ):
        if value is not None:
            words += [name, value]
    return words


def _monitor(name: str, path: str) -> list[str]:
    return [
        "-chardev",
        option("socket", id=name, path=path, server=True, wait=False),
        "-mon",
        option(f"chardev={name}", mode="control"),
    ]


def _console(vm: Vm, paths: Paths) -> list[str]:
    log = paths.console_log(vm.name)
    chardev = option("socket", id="console", path=paths.console(vm.name), server=True, wait=False, logfile=log, logappend=True)
    return ["-chardev", chardev, "-serial", "chardev:console"]


def _pci(driver: str, vm: Vm, slot: int, **values: Union[str, int, bool, None]) -> str:
    bus = "pci.0" if vm.machine == "pc" else "pcie.0"
    return option(driver, bus=bus, addr=f"{slot:#04x}", **values)


def _network(vm: Vm, network: Network, index: int) -> list[str]:
    name = f"net{index}"
    if network.type == "user":
        netdev = option("user", id=name, restrict=network.restrict or None)
        netdev += "".join(f",hostfwd={escape(rule)}" for rule in network.hostfwd)
    else:
        # No scripts (the sandbox forbids them) and no vhost (it writes guest memory behind the accelerator's back).
        netdev = option("tap", id=name, ifname=network.ifname, script="no", downscript="no", vhost=False)
    # An empty romfile: no network boot, so that no option ROM has to be installed.
    device = _pci(network.model, vm, _SLOT_NETWORK + index, netdev=name, mac=network.mac, romfile="")
    return ["-netdev", netdev, "-device", device]


def _blockdev(name: str, kind: str, path: str, readonly: bool) -> list[str]:
    return [
        "-blockdev",
        option(
            f"driver={kind}",
            node_name=name,
            read_only=readonly or None,
            discard=None if readonly else "unmap",
            file__driver="file",
            file__filename=path,
        ),
    ]


def _disks(vm: Vm, paths: Paths) -> list[str]:
    words: list[str] = []
    if any(disk.bus == "scsi" for disk in vm.disks):
        words += ["-device", _pci("virtio-scsi-pci", vm, _SLOT_SCSI, id="scsi0")]
    ide = 0
    for index, disk in enumerate(vm.disks):
        name = f"disk{index}"
        words += _blockdev(name, disk.format, disk_path(vm, disk, paths), disk.readonly)
        if disk.bus == "virtio":
            device = _pci("virtio-blk-pci", vm, _SLOT_DISK + index, drive=name, bootindex=index + 1)
        elif disk.bus == "scsi":
            device = option("scsi-hd", bus="scsi0.0", scsi_id=index, drive=name, bootindex=index + 1)
        else:
            # pc has two buses of two drives, q35 has six of one.
            bus, unit = divmod(ide, 2) if vm.machine == "pc" else (ide, 0)
            device = option("ide-hd", bus=f"ide.{bus}", unit=unit, drive=name, bootindex=index + 1)
            ide += 1
        words += ["-device", device]
    return words
