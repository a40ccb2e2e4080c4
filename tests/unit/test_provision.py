# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided for a VM: a table of situations. Acting is shown on a real host by molecule."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from hybrid_vmm.items import plan
from hybrid_vmm.paths import Paths
from hybrid_vmm.provision import Consent, ConsentMissing, Host, Observed, ProvisionError, decide, difference, sandbox_text

ALL = Consent(restart=True, remove=True, disk_removal=True)
DISK = "/var/lib/hybrid-vmm/web1/root.qcow2"
QEMU = "/opt/hybrid-vmm/qemu-1/bin/qemu-system-x86_64"


def entry(**keys: Any) -> dict[str, Any]:
    return plan([{"name": "web1", "disks": [{"file": "root.qcow2", "size": "1G"}], **keys}], "hv1")[0]


def as_wanted(item: dict[str, Any], **keys: Any) -> Observed:
    """A host on which this VM is exactly as wanted."""
    observed = Observed(
        stored=copy.deepcopy(item["definition"]),
        started=copy.deepcopy(item["definition"]),
        active=item["state"] == "running",
        enabled=item["autostart"],
        running_qemu=QEMU,
        installed_qemu=QEMU,
        sandbox=sandbox_text(item["sandbox"]),
        folder=True,
        seed_exists=True,
        disks={DISK: 1 << 30},
    )
    for key, value in keys.items():
        setattr(observed, key, value)
    return observed


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_as_wanted_is_left_alone(state: str) -> None:
    item = entry(state=state)
    decision = decide(item, as_wanted(item), ALL)
    assert not decision.changed
    assert difference(item, as_wanted(item), decision) == ({}, {})


def test_new_vm() -> None:
    item = entry()
    decision = decide(item, Observed(), Consent())
    assert (decision.write, decision.start, decision.enable) == (True, True, True)
    assert [disk["file"] for disk in decision.create] == [DISK]
    before, after = difference(item, Observed(), decision)
    assert before["definition"] is None
    assert after["definition"]["name"] == "web1"
    assert (before["state"], after["state"]) == ("stopped", "running")


@pytest.mark.parametrize(
    ("keys", "reasons"),
    [
        ({"vcpus": 2}, ["vcpus"]),
        ({"vcpus": 2, "memory_mib": 1024}, ["memory_mib", "vcpus"]),
        ({"expected_mode": "tcg"}, []),
    ],
)
def test_change_of_a_running_vm(keys: dict[str, Any], reasons: list[str]) -> None:
    observed = as_wanted(entry())
    without = decide(entry(**keys), observed, Consent())
    assert (without.write, without.restart, without.restart_needed) == (True, False, reasons)
    consented = decide(entry(**keys), observed, Consent(restart=True))
    assert (consented.restart, consented.restart_needed) == (bool(reasons), [])


def test_change_stays_reported_until_the_restart() -> None:
    item = entry(vcpus=2)
    observed = as_wanted(item, started=entry()["definition"])
    decision = decide(item, observed, Consent())
    assert not decision.changed
    assert decision.restart_needed == ["vcpus"]


def test_newer_qemu_needs_a_restart() -> None:
    item = entry()
    newer = "/opt/hybrid-vmm/qemu-2/bin/qemu-system-x86_64"
    decision = decide(item, as_wanted(item, installed_qemu=newer), Consent())
    assert decision.restart_needed == [f"QEMU ({QEMU} runs, {newer} is installed)"]


def test_disk_grows_only_when_the_vm_may_stop() -> None:
    item = entry(disks=[{"file": "root.qcow2", "size": "2G"}])
    running = as_wanted(item, disks={DISK: 1 << 30})
    without = decide(item, running, Consent())
    assert (without.grow, without.restart_needed) == ([], ["disks that grow"])
    consented = decide(item, running, Consent(restart=True))
    assert (len(consented.grow), consented.restart) == (1, True)
    assert len(decide(item, as_wanted(item, active=False, disks={DISK: 1 << 30}), Consent()).grow) == 1


@pytest.mark.parametrize(
    ("item", "observed", "message"),
    [
        (
            entry(),
            {"disks": {DISK: 2 << 30}},
            f"web1: disk '{DISK}' has 2147483648 bytes, size '1G' is less; disks do not shrink",
        ),
        (
            entry(disks=[{"file": "root.qcow2"}]),
            {"disks": {}},
            f"web1: disk '{DISK}' does not exist, and neither 'size' nor 'source' says how to create it",
        ),
        (
            entry(disks=[{"file": "/dev/vg0/a", "format": "raw", "size": "1G"}]),
            {"disks": {}},
            "web1: block device '/dev/vg0/a' does not exist on this host",
        ),
    ],
)
def test_disk_that_cannot_be(item: dict[str, Any], observed: dict[str, Any], message: str) -> None:
    with pytest.raises(ProvisionError) as caught:
        decide(item, as_wanted(item, **observed), ALL)
    assert str(caught.value) == message


def test_removal_needs_consent() -> None:
    gone = plan([{"name": "web1", "state": "absent"}], "hv1")[0]
    there = as_wanted(entry())
    with pytest.raises(ConsentMissing) as caught:
        decide(gone, there, Consent())
    assert str(caught.value) == (
        "web1: state 'absent' would remove this VM, which needs consent: hybrid_vm_allow_remove: true"
    )
    kept = decide(gone, there, Consent(remove=True))
    assert (kept.remove, kept.stop, kept.remove_disks) == (True, True, False)
    assert decide(gone, there, ALL).remove_disks
    assert not decide(gone, Observed(), Consent()).changed
    assert not decide(gone, Observed(folder=True), Consent(remove=True)).changed


def test_seed_that_is_not_there_is_built() -> None:
    item = entry(seed={"user_data": {}})
    assert decide(item, as_wanted(item, seed_exists=False), Consent()).seed
    assert not decide(item, as_wanted(item), Consent()).changed


def nothing(*_words: Any, **_options: Any) -> tuple[int, str, str]:
    raise AssertionError("no program is to be run")


def test_two_runs_at_once(tmp_path: Path) -> None:
    (tmp_path / "vms").mkdir()
    paths = Paths(config_dir=str(tmp_path))
    with Host(nothing, paths).alone():
        with pytest.raises(ProvisionError) as caught, Host(nothing, paths).alone(0.3):
            pass
        assert str(caught.value) == (
            "another run has been changing the VMs of this host for more than 0.3 s: try again when it has ended"
        )
    with Host(nothing, paths).alone(0.3):
        pass


def test_host_that_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError) as caught, Host(nothing, Paths(config_dir=str(tmp_path))).alone():
        pass
    assert str(caught.value) == f"{tmp_path}/vms does not exist: role hybrid_host prepares a host for VMs"
