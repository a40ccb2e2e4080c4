# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory's VMs to a plan: exact errors, derived values."""

from __future__ import annotations

from typing import Any

import pytest

from hybrid_vmm.errors import DefinitionError
from hybrid_vmm.items import plan

FOLDER = "/var/lib/hybrid-vmm/web1/"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("web1", "hybrid_vm_vms[0]: not a mapping with at least the key 'name'"),
        ({}, "hybrid_vm_vms[0]: name: is missing"),
        (
            {"name": "a/b"},
            "hybrid_vm_vms[0] (a/b): name: 'a/b' is not a VM name (1 to 48 of A-Z a-z 0-9 _ . -, beginning with a letter or digit)",
        ),
        (
            {"name": "web1", "state": "gone"},
            "hybrid_vm_vms[0] (web1): state: 'gone' is not one of 'running', 'stopped', 'absent'",
        ),
        ({"name": "web1", "autostart": "yes"}, "hybrid_vm_vms[0] (web1): autostart: 'yes' is not true or false"),
        ({"name": "web1", "vcpus": 0}, "hybrid_vm_vms[0] (web1): vcpus: 0 is not between 1 and 64"),
        ({"name": "web1", "vcpu": 1}, "hybrid_vm_vms[0] (web1): vcpu: unknown key, did you mean 'vcpus'?"),
        (
            {"name": "web1", "disks": [{"file": "a", "size": "1G"}, {"file": "b", "bus": "ide9"}]},
            "hybrid_vm_vms[0] (web1): disks[1].bus: 'ide9' is not one of 'virtio', 'scsi', 'ide'",
        ),
        (
            {"name": "web1", "disks": [{"file": "a", "source": 1}]},
            "hybrid_vm_vms[0] (web1): disks[0].source: 1 is not a string",
        ),
        (
            {"name": "web1", "seed": 1},
            "hybrid_vm_vms[0] (web1): seed: neither the path of an image nor a mapping with user_data, meta_data, network_config",
        ),
        (
            {"name": "web1", "seed": {"userdata": {}}},
            "hybrid_vm_vms[0] (web1): seed.userdata: unknown key; known are meta_data, network_config, user_data",
        ),
        (
            {"name": "web1", "seed": {"user_data": 1}},
            "hybrid_vm_vms[0] (web1): seed.user_data: neither text nor a mapping",
        ),
        (
            {"name": "web1", "disks": [{"file": "/srv/a b", "size": "1G"}]},
            "hybrid_vm_vms[0] (web1): disks[0].file: '/srv/a b' has a space, a quote or a percent sign, which units cannot name",
        ),
    ],
)
def test_error_names_item_and_path(item: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        plan([item], "hv1")
    assert str(caught.value) == message


def test_two_vms_of_one_name() -> None:
    with pytest.raises(DefinitionError) as caught:
        plan([{"name": "web1"}, {"name": "web1"}], "hv1")
    assert str(caught.value) == "hybrid_vm_vms[1] (web1): name: there are two VMs of this name"


def test_absent_needs_no_more_than_a_name() -> None:
    assert plan([{"name": "web1", "state": "absent"}], "hv1") == [
        {"name": "web1", "state": "absent", "autostart": False}
    ]


def test_same_input_same_plan_and_other_host_other_uuid() -> None:
    item = {"name": "web1", "networks": [{"type": "user"}], "seed": {"user_data": {"b": 1, "a": [1, 2]}}}
    first, second, other = plan([item], "hv1"), plan([item], "hv1"), plan([item], "hv2")
    assert first == second
    assert first[0]["definition"]["uuid"] != other[0]["definition"]["uuid"]


def test_names_of_shared_files_and_disks() -> None:
    disks = [{"file": "root.qcow2", "source": "debian.qcow2"}, {"file": "/dev/vg0/data", "format": "raw"}]
    entry = plan([{"name": "web1", "kernel": "vmlinuz", "initrd": "/boot/initrd", "disks": disks}], "hv1")[0]
    assert entry["definition"]["kernel"] == "/var/lib/hybrid-vmm-images/vmlinuz"
    assert entry["definition"]["initrd"] == "/boot/initrd"
    assert [disk["file"] for disk in entry["definition"]["disks"]] == ["root.qcow2", "/dev/vg0/data"]
    assert [disk["file"] for disk in entry["disks"]] == [FOLDER + "root.qcow2", "/dev/vg0/data"]
    assert [disk["source"] for disk in entry["disks"]] == ["/var/lib/hybrid-vmm-images/debian.qcow2", None]


def test_seed_is_named_after_its_contents() -> None:
    def seed(**keys: Any) -> Any:
        entry = plan([{"name": "web1", "seed": keys}], "hv1")[0]
        return entry["definition"]["seed"], entry["seed"]

    path, files = seed(user_data={"users": []})
    assert path.startswith(FOLDER + "seed-")
    assert path != seed(user_data={"users": ["x"]})[0]
    assert files["user-data"].startswith("#cloud-config\n")
    assert '"local-hostname": "web1"' in files["meta-data"]
    assert "network-config" not in files
    assert seed(user_data="#!/bin/sh\n", network_config={"version": 2})[1]["network-config"] == '{\n "version": 2\n}\n'


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ({}, ["PrivateNetwork=yes"]),
        ({"networks": [{"type": "user"}]}, []),
        ({"networks": [{"type": "tap", "ifname": "t0"}]}, ["DeviceAllow=/dev/net/tun rw"]),
        (
            {
                "networks": [{"type": "user"}],
                "disks": [{"file": "/dev/vg0/a", "format": "raw"}, {"file": "/srv/b", "size": "1G"}],
            },
            ["DeviceAllow=/dev/vg0/a rw", "ReadWritePaths=/srv/b"],
        ),
        ({"networks": [{"type": "user"}], "disks": [{"file": "/srv/b", "readonly": True}]}, []),
        (
            {"networks": [{"type": "user"}], "disks": [{"file": "../other/b", "size": "1G"}]},
            ["ReadWritePaths=/var/lib/hybrid-vmm/other/b"],
        ),
    ],
)
def test_sandbox_has_what_this_vm_needs(keys: Any, lines: list[str]) -> None:
    assert plan([{"name": "web1", **keys}], "hv1")[0]["sandbox"] == lines
