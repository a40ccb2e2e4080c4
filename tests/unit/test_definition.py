# SPDX-License-Identifier: GPL-3.0-or-later
"""VM definitions: what is accepted, and the exact words of every refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_vmm import definition
from hybrid_vmm.errors import DefinitionError

WHOLE = {
    "schema": 1,
    "name": "web1",
    "uuid": "A9A19FAA-82C8-5079-A741-228F71EE19F1",
    "vcpus": 2,
    "memory_mib": 1024,
    "machine": "q35",
    "cpu": "max,-avx512f",
    "accel": "hybrid",
    "start_mode": "tcg",
    "expected_mode": "kvm",
    "irqchip": "off",
    "qemu": "/usr/bin/qemu-system-x86_64",
    "firmware": "/usr/share/seabios/bios-256k.bin",
    "kernel": "/boot/vmlinuz",
    "initrd": "/boot/initrd.img",
    "cmdline": "console=ttyS0",
    "seed": "/var/lib/hybrid-vmm/web1/seed.iso",
    "disks": [
        {"file": "root.qcow2", "size": "10G"},
        {"file": "/dev/vg/data", "format": "raw", "bus": "scsi", "readonly": True},
    ],
    "networks": [
        {"type": "user", "mac": "52:54:00:AB:CD:EF", "hostfwd": ["tcp:127.0.0.1:2222-:22"], "restrict": True},
        {"type": "tap", "ifname": "vm-web1", "model": "e1000"},
    ],
    "extra_args": ["-device", "pvpanic"],
}


def test_a_whole_definition_survives() -> None:
    vm = definition.parse(WHOLE)
    assert vm.uuid == "a9a19faa-82c8-5079-a741-228f71ee19f1"
    assert vm.networks[0].mac == "52:54:00:ab:cd:ef"
    assert vm.networks[1].ifname == "vm-web1"
    assert definition.parse(vm.to_dict()) == vm


def test_defaults() -> None:
    vm = definition.parse({"schema": 1, "name": "a"})
    assert vm == definition.Vm(name="a")
    assert (vm.accel, vm.start_mode, vm.expected_mode, vm.irqchip) == ("hybrid", "kvm", "kvm", "on")


@pytest.mark.parametrize(("given", "irqchip"), [(True, "on"), (False, "off"), ("on", "on"), ("split", "split")])
def test_irqchip_as_yaml_reads_it(given: object, irqchip: str) -> None:
    """An unquoted on or off is a boolean in YAML 1.1."""
    assert definition.parse({"schema": 1, "name": "a", "irqchip": given}).irqchip == irqchip


@pytest.mark.parametrize(("accel", "mode"), [("hybrid", "kvm"), ("kvm", "kvm"), ("tcg", "tcg")])
def test_default_modes_follow_the_accelerator(accel: str, mode: str) -> None:
    vm = definition.parse({"schema": 1, "name": "a", "accel": accel})
    assert (vm.start_mode, vm.expected_mode) == (mode, mode)


def test_expected_mode_follows_start_mode() -> None:
    assert definition.parse({"schema": 1, "name": "a", "start_mode": "tcg"}).expected_mode == "tcg"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"schema": 2}, "schema: 2 is not 1, the only schema that this version reads"),
        ({"schema": "1"}, "schema: '1' is not a whole number"),
        ({"name": None}, "name: is missing"),
        (
            {"name": "a b"},
            "name: 'a b' is not a VM name (1 to 48 of A-Z a-z 0-9 _ . -, beginning with a letter or digit)",
        ),
        (
            {"name": "../x"},
            "name: '../x' is not a VM name (1 to 48 of A-Z a-z 0-9 _ . -, beginning with a letter or digit)",
        ),
        ({"name": 5}, "name: 5 is not a string"),
        ({"name": "all"}, "name: 'all' means every VM of a host and cannot be the name of one"),
        ({"uuid": "x"}, "uuid: 'x' is not a UUID"),
        ({"vcpus": 0}, "vcpus: 0 is not between 1 and 64"),
        ({"vcpus": "2"}, "vcpus: '2' is not a whole number"),
        ({"vcpus": True}, "vcpus: True is not a whole number"),
        ({"memory_mib": 1}, "memory_mib: 1 is not between 16 and 4194304"),
        ({"machine": "microvm"}, "machine: 'microvm' is not one of 'pc', 'q35'"),
        ({"accel": "xen"}, "accel: 'xen' is not one of 'hybrid', 'kvm', 'tcg'"),
        ({"start_mode": "fast"}, "start_mode: 'fast' is not one of 'kvm', 'tcg'"),
        ({"expected_mode": 1}, "expected_mode: 1 is not one of 'kvm', 'tcg'"),
        ({"irqchip": "maybe"}, "irqchip: 'maybe' is not one of 'on', 'split', 'off'"),
        ({"machine": True}, "machine: True is not one of 'pc', 'q35'"),
        (
            {"accel": "kvm", "start_mode": "tcg"},
            "start_mode: 'tcg' is not possible with accel 'kvm', only with 'hybrid'",
        ),
        (
            {"accel": "tcg", "expected_mode": "kvm"},
            "expected_mode: 'kvm' is not possible with accel 'tcg', only with 'hybrid'",
        ),
        ({"qemu": "qemu"}, "qemu: 'qemu' is not an absolute path"),
        ({"kernel": "vmlinuz"}, "kernel: 'vmlinuz' is not an absolute path"),
        ({"initrd": "/i"}, "initrd: has no meaning without kernel"),
        ({"cmdline": "quiet"}, "cmdline: has no meaning without kernel"),
        ({"kernel": "/k", "cmdline": "a\nb"}, "cmdline: control characters are not allowed"),
        ({"cpu": "max, host"}, "cpu: 'max, host' is not a QEMU CPU model"),
        ({"vcpu": 2}, "vcpu: unknown key, did you mean 'vcpus'?"),
        ({"disks": {}}, "disks: {} is not a list"),
        ({"disks": "a"}, "disks: 'a' is not a list"),
        ({"disks": ["a"]}, "disks[0]: 'a' is not a mapping"),
        ({"disks": [{}]}, "disks[0].file: is missing"),
        ({"disks": [{"file": "a"}] * 17}, "disks: 17 items are more than 16"),
        (
            {"disks": [{"file": "a"}, {"file": "b", "bus": "ide9"}]},
            "disks[1].bus: 'ide9' is not one of 'virtio', 'scsi', 'ide'",
        ),
        ({"disks": [{"file": "a", "format": "vmdk"}]}, "disks[0].format: 'vmdk' is not one of 'qcow2', 'raw'"),
        ({"disks": [{"file": "a", "size": "10 GB"}]}, "disks[0].size: '10 GB' is not a size such as '10G'"),
        ({"disks": [{"file": "a", "readonly": "yes"}]}, "disks[0].readonly: 'yes' is not true or false"),
        (
            {"disks": [{"file": "a", "bus": "ide", "readonly": True}]},
            "disks[0].readonly: an IDE disk cannot be read-only, use bus 'virtio' or 'scsi'",
        ),
        ({"disks": [{"file": "a", "fiel": "b"}]}, "disks[0].fiel: unknown key, did you mean 'file'?"),
        (
            {"disks": [{"file": "a", "zzz": "b"}]},
            "disks[0].zzz: unknown key, allowed: file, format, size, bus, readonly",
        ),
        ({"disks": [{"file": "a"}, {"file": "a"}]}, "disks[1].file: 'a' is the same as in disks[0]"),
        (
            {"disks": [{"file": str(i), "bus": "ide"} for i in range(5)]},
            "disks[4].bus: machine 'pc' has room for 4 IDE disks",
        ),
        ({"networks": [{}]}, "networks[0].type: is missing"),
        ({"networks": [{"type": "bridge"}]}, "networks[0].type: 'bridge' is not one of 'user', 'tap'"),
        ({"networks": [{"type": "tap"}]}, "networks[0].ifname: is missing"),
        (
            {"networks": [{"type": "tap", "ifname": "x" * 16}]},
            f"networks[0].ifname: '{'x' * 16}' is not a network device name",
        ),
        (
            {"networks": [{"type": "tap", "ifname": "t0", "restrict": True}]},
            "networks[0].restrict: is only for type 'user'",
        ),
        ({"networks": [{"type": "user", "ifname": "t0"}]}, "networks[0].ifname: is only for type 'tap'"),
        (
            {"networks": [{"type": "user", "mac": "53:54:00:00:00:01"}]},
            "networks[0].mac: '53:54:00:00:00:01' is not the MAC address of one card, such as '52:54:00:12:34:56'",
        ),
        (
            {"networks": [{"type": "user", "mac": "52:54:00:00:00:01"}] * 2},
            "networks[1].mac: '52:54:00:00:00:01' is the same as in networks[0]",
        ),
        (
            {"networks": [{"type": "user", "hostfwd": ["22:22"]}]},
            "networks[0].hostfwd[0]: '22:22' is not a forwarding such as 'tcp:127.0.0.1:2222-:22'",
        ),
        ({"extra_args": [1]}, "extra_args[0]: 1 is not a string"),
        ({"extra_args": "-S"}, "extra_args: '-S' is not a list"),
    ],
)
def test_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        definition.parse({"schema": 1, "name": "a", **keys})
    assert caught.value.message == message


@pytest.mark.parametrize(("data", "message"), [([], "[] is not a mapping"), ("x", "'x' is not a mapping")])
def test_not_even_a_mapping(data: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        definition.parse(data)
    assert caught.value.message == message


def test_complete_derives_the_same_every_time() -> None:
    item = {"name": "web1", "networks": [{"type": "user"}, {"type": "user", "mac": "52:54:00:00:00:01"}]}
    first = definition.complete(item, "lab0")
    assert first == definition.complete(item, "lab0")
    assert first["networks"][0]["mac"].startswith("52:54:00:")
    assert first["networks"][1]["mac"] == "52:54:00:00:00:01"
    assert definition.complete(item, "lab1")["uuid"] != first["uuid"]
    assert definition.complete(first, "lab1") == first


def test_complete_names_the_vm() -> None:
    with pytest.raises(DefinitionError) as caught:
        definition.complete({"name": "web1", "disks": [{"file": "a"}, {"file": "b", "bus": "ide9"}]}, "lab0")
    assert caught.value.message == "web1: disks[1].bus: 'ide9' is not one of 'virtio', 'scsi', 'ide'"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WHOLE, "file", "type", "bus"]), inner),
    max_leaves=20,
)


@given(_JSON)
def test_anything_is_either_accepted_or_refused_with_a_message(data: Any) -> None:
    try:
        vm = definition.parse(data)
    except DefinitionError:
        return
    assert definition.parse(vm.to_dict()) == vm


@given(st.dictionaries(st.sampled_from(list(WHOLE)[2:]), _JSON))
def test_any_value_of_a_known_key_too(keys: dict[str, Any]) -> None:
    try:
        vm = definition.parse({"schema": 1, "name": "a", **keys})
    except DefinitionError:
        return
    assert definition.parse(vm.to_dict()) == vm
