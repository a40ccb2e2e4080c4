# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VM is: the definition of schema 1, checked and complete.  Pure: no file, no host.

store.py reads and writes it, command.py turns it into a QEMU command line.  docs/architecture.md lists the keys.
"""

from __future__ import annotations

import hashlib
import uuid as uuid_module
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional

from .errors import DefinitionError
from .reader import Reader, show

SCHEMA = 1
MODES = ("kvm", "tcg")
ACCELERATORS = ("hybrid", "kvm", "tcg")
MACHINES = ("pc", "q35")
IRQCHIPS = ("on", "split", "off")
DISK_BUSES = ("virtio", "scsi", "ide")
DISK_FORMATS = ("qcow2", "raw")
NETWORK_TYPES = ("user", "tap")
NETWORK_MODELS = ("virtio-net-pci", "e1000")
DEFAULT_QEMU = "/opt/hybrid-vmm/current/bin/qemu-system-x86_64"
#: PCI slots are given by position, so there are limits (see command.py).
MAX_DISKS = 16
MAX_NETWORKS = 8
#: IDE positions: two buses of two on pc, six buses of one on q35.
MAX_IDE = {"pc": 4, "q35": 6}

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}"
_NAME_WHAT = "a VM name (1 to 48 of A-Z a-z 0-9 _ . -, beginning with a letter or digit)"
_MAC = r"[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}"
_HOSTFWD = r"(tcp|udp):[0-9.]*:[0-9]+-[0-9.]*:[0-9]+"
#: Root of all derived UUIDs; any constant will do, but it must never change.
_NAMESPACE = uuid_module.UUID("6f0f54a2-6d1c-5c6b-9f6e-1d7b0f9a4c11")


@dataclass(frozen=True)
class Disk:
    """One disk.

    :param file: image; absolute, or relative to the VM's folder.
    :param size: for role hybrid_vm, which creates missing images, e.g. ``10G``; QEMU is not told.
    """

    file: str
    format: str = "qcow2"
    size: Optional[str] = None
    bus: str = "virtio"
    readonly: bool = False


@dataclass(frozen=True)
class Network:
    """One network card.

    :param type: ``user`` (QEMU's own NAT) or ``tap`` (an existing tap device, never vhost: that blocks switching).
    """

    type: str
    mac: Optional[str] = None
    model: str = "virtio-net-pci"
    ifname: Optional[str] = None
    hostfwd: tuple[str, ...] = ()
    restrict: bool = False


@dataclass(frozen=True)
class Vm:
    """One VM. Modes are ``kvm`` or ``tcg``; memory is in MiB; paths are of the host.

    :param cpu: a QEMU CPU model with its options; ``hybrid-v2`` and ``hybrid-v3`` are made to be the same on Intel and AMD, ``max`` depends on the host.
    """

    name: str
    uuid: Optional[str] = None
    vcpus: int = 1
    memory_mib: int = 512
    machine: str = "pc"
    cpu: str = "max"
    accel: str = "hybrid"
    start_mode: str = "kvm"
    expected_mode: str = "kvm"
    irqchip: str = "on"
    qemu: str = DEFAULT_QEMU
    firmware: Optional[str] = None
    kernel: Optional[str] = None
    initrd: Optional[str] = None
    cmdline: Optional[str] = None
    seed: Optional[str] = None
    disks: tuple[Disk, ...] = ()
    networks: tuple[Network, ...] = ()
    extra_args: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the complete definition for JSON, every key present; parse() gives the same Vm back."""
        data: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        data["disks"] = [asdict(disk) for disk in self.disks]
        data["networks"] = [{**asdict(item), "hostfwd": list(item.hostfwd)} for item in self.networks]
        data["extra_args"] = list(self.extra_args)
        return data


def parse(data: Any) -> Vm:
    """Check a definition.

    :param data: as read from JSON.
    :raises DefinitionError: e.g. ``disks[1].bus: 'ide9' is not one of 'virtio', 'scsi', 'ide'``.
    """
    reader = Reader(data)
    schema = reader.number("schema", 0, 0, 1 << 31)
    if schema != SCHEMA:
        raise reader.fail("schema", f"{schema} is not {SCHEMA}, the only schema that this version reads")
    name = check_name(reader.text("name", required=True), reader.at("name"))
    accel = reader.choice("accel", ACCELERATORS, "hybrid")
    start_mode = reader.choice("start_mode", MODES, accel if accel != "hybrid" else "kvm")
    machine = reader.choice("machine", MACHINES, "pc")
    vm = Vm(
        name=name,
        uuid=_uuid(reader),
        vcpus=reader.number("vcpus", 1, 1, 64),
        memory_mib=reader.number("memory_mib", 512, 16, 4194304),
        machine=machine,
        cpu=reader.text("cpu", "max", pattern=r"\S+", what="a QEMU CPU model") or "max",
        accel=accel,
        start_mode=start_mode,
        expected_mode=reader.choice("expected_mode", MODES, start_mode),
        irqchip=reader.choice("irqchip", IRQCHIPS, "on"),
        qemu=reader.path_name("qemu", DEFAULT_QEMU) or DEFAULT_QEMU,
        firmware=reader.path_name("firmware"),
        kernel=reader.path_name("kernel"),
        initrd=reader.path_name("initrd"),
        cmdline=reader.text("cmdline"),
        seed=reader.path_name("seed"),
        disks=tuple(_disk(item, f"disks[{i}]") for i, item in enumerate(reader.items("disks", MAX_DISKS))),
        networks=tuple(_network(item, f"networks[{i}]") for i, item in enumerate(reader.items("networks", MAX_NETWORKS))),
        extra_args=tuple(reader.texts("extra_args", 64)),
    )
    reader.finish()
    _check_together(vm)
    return vm


def check_name(name: Optional[str], path: str = "name") -> str:
    """Return a VM name that is fit for files, sockets and unit names.

    :raises DefinitionError: it is not.
    """
    checked = Reader({path: name}).text(path, pattern=NAME_PATTERN, what=_NAME_WHAT, required=True)
    assert checked is not None
    if checked == "all":
        raise DefinitionError(f"{path}: 'all' means every VM of a host and cannot be the name of one")
    return checked


def complete(data: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Turn what an inventory says into a complete definition, the same one every time.

    :param data: keys of a definition; schema, uuid and MAC addresses may be missing.
    :param host: inventory name of the host; goes into the derived UUID.
    :raises DefinitionError: with the VM's name before the path.
    """
    name = check_name(data.get("name") if isinstance(data, Mapping) else None)
    filled: dict[str, Any] = {"schema": SCHEMA, **data}
    if filled.get("uuid") is None:
        filled["uuid"] = str(uuid_module.uuid5(_NAMESPACE, f"{host}/{name}"))
    try:
        result = parse(filled).to_dict()
    except DefinitionError as exc:
        raise DefinitionError(f"{name}: {exc}") from exc
    for index, network in enumerate(result["networks"]):
        if network["mac"] is None:
            digest = hashlib.sha256(f"{result['uuid']}/{index}".encode()).hexdigest()
            network["mac"] = f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"
    return result


def _uuid(reader: Reader) -> Optional[str]:
    value = reader.text("uuid")
    if value is None:
        return None
    try:
        return str(uuid_module.UUID(value))
    except ValueError:
        raise reader.fail("uuid", f"{show(value)} is not a UUID") from None


def _disk(data: Any, path: str) -> Disk:
    reader = Reader(data, path)
    disk = Disk(
        file=reader.text("file", required=True, pattern=r".+", what="a file name") or "",
        format=reader.choice("format", DISK_FORMATS, "qcow2"),
        size=reader.text("size", pattern=r"[1-9][0-9]*[KMGT]", what="a size such as '10G'"),
        bus=reader.choice("bus", DISK_BUSES, "virtio"),
        readonly=reader.flag("readonly"),
    )
    reader.finish()
    if disk.readonly and disk.bus == "ide":
        raise reader.fail("readonly", "an IDE disk cannot be read-only, use bus 'virtio' or 'scsi'")
    return disk


def _network(data: Any, path: str) -> Network:
    reader = Reader(data, path)
    kind = reader.choice("type", NETWORK_TYPES)
    mac = reader.text("mac", pattern=_MAC, what="the MAC address of one card, such as '52:54:00:12:34:56'")
    network = Network(
        type=kind,
        mac=mac.lower() if mac else None,
        model=reader.choice("model", NETWORK_MODELS, "virtio-net-pci"),
        ifname=reader.text("ifname", pattern=r"[^\s/]{1,15}", what="a network device name", required=kind == "tap"),
        hostfwd=tuple(reader.texts("hostfwd", 32, pattern=_HOSTFWD, what="a forwarding such as 'tcp:127.0.0.1:2222-:22'")),
        restrict=reader.flag("restrict"),
    )
    reader.finish()
    if kind == "tap" and (network.hostfwd or network.restrict):
        raise reader.fail("hostfwd" if network.hostfwd else "restrict", "is only for type 'user'")
    if kind == "user" and network.ifname:
        raise reader.fail("ifname", "is only for type 'tap'")
    return network


def _check_together(vm: Vm) -> None:
    """Check what single values cannot show."""
    if vm.accel != "hybrid":
        for key, mode in (("start_mode", vm.start_mode), ("expected_mode", vm.expected_mode)):
            if mode != vm.accel:
                raise DefinitionError(f"{key}: '{mode}' is not possible with accel '{vm.accel}', only with 'hybrid'")
    for key, value in (("initrd", vm.initrd), ("cmdline", vm.cmdline)):
        if value is not None and vm.kernel is None:
            raise DefinitionError(f"{key}: has no meaning without kernel")
    ide = [index for index, disk in enumerate(vm.disks) if disk.bus == "ide"]
    if len(ide) > MAX_IDE[vm.machine]:
        where = f"disks[{ide[MAX_IDE[vm.machine]]}].bus"
        raise DefinitionError(f"{where}: machine '{vm.machine}' has room for {MAX_IDE[vm.machine]} IDE disks")
    _check_unique("disks", "file", [disk.file for disk in vm.disks])
    _check_unique("networks", "mac", [network.mac for network in vm.networks])
    _check_unique("networks", "ifname", [network.ifname for network in vm.networks])


def _check_unique(key: str, part: str, values: list[Optional[str]]) -> None:
    for index, value in enumerate(values):
        if value is not None and value in values[:index]:
            raise DefinitionError(f"{key}[{index}].{part}: {show(value)} is the same as in {key}[{values.index(value)}]")
