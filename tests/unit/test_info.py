# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of VMs, whatever state they are in."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Optional

import pytest
from conftest import Host

from hybrid_vmm import info, mode, units
from hybrid_vmm.errors import UnknownVm
from hybrid_vmm.units import Unit


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "states", lambda vms, _deadline: {vm: Unit() for vm in vms})


def facts(host: Host, name: str, seconds: float = 5.0) -> dict[str, Any]:
    """Return the facts of one VM."""
    return info.collect(host.paths, [name], seconds)[0]


def test_running_hybrid_vm(host: Host) -> None:
    host.define("web1", vcpus=2, uuid="a9a19faa-82c8-5079-a741-228f71ee19f1")
    host.fake_qemu("web1")
    mode.change(host.paths, ["web1"], "tcg", 5, "incident 4711")
    assert facts(host, "web1") == {
        "name": "web1",
        "defined": True,
        "running": True,
        "unit_state": "unknown",
        "sub_state": "unknown",
        "pid": None,
        "accel": "hybrid",
        "mode": "tcg",
        "expected_mode": "kvm",
        "in_expected_mode": False,
        "why": "in mode 'tcg' since 2025-11-23T05:00:00.000000Z by operator ('incident 4711'), expected is 'kvm'",
        "since": "2025-11-23T05:00:00.000000Z",
        "cause": "operator",
        "reason": "incident 4711",
        "rule": None,
        "policy": None,
        "stored_policy": None,
        "policy_drift": False,
        "switches": {"kvm_to_tcg": 1, "tcg_to_kvm": 0, "failed": 0},
        "time": {"kvm_us": 1000, "tcg_us": 0},
        "last_switch": {
            "before": "kvm",
            "after": "tcg",
            "cause": "operator",
            "reason": "incident 4711",
            "pause_us": 2410,
            "phases": [{"name": "stop", "us": 180}, {"name": "save", "us": 2230}],
            "at_us": 1763874000000000,
            "at": "2025-11-23T05:00:00.000000Z",
        },
        "blockers": [],
        "dropped_features": ["avx512f"],
        "irqchip": "on",
        "interface": 1,
        "qemu_version": "10.0.13",
        "series": "h1.0a1b2c3d",
        "uuid": "a9a19faa-82c8-5079-a741-228f71ee19f1",
        "vcpus": 2,
        "memory_mib": 512,
    }


def test_every_vm_has_the_same_keys(host: Host) -> None:
    host.define("good")
    host.fake_qemu("good")
    host.define("off")
    host.define("bad", vcpus=0)
    host.fake_qemu("stray")
    found = info.collect(host.paths, None, 5)
    assert [vm["name"] for vm in found] == ["bad", "good", "off", "stray"]
    assert len({frozenset(vm) for vm in found}) == 1
    assert found == info.collect(host.paths, ["all"], 5)


def test_stopped(host: Host) -> None:
    host.define("web1", accel="tcg")
    found = facts(host, "web1")
    assert (found["running"], found["mode"], found["in_expected_mode"]) == (False, None, None)
    assert (found["accel"], found["expected_mode"]) == ("tcg", "tcg")
    assert found["why"] == "not running: start it with 'systemctl start hybrid-vm@web1.service'"


@pytest.mark.parametrize(
    ("unit", "running", "why"),
    [
        (
            Unit("failed", "failed", "exit-code"),
            False,
            "not running: unit hybrid-vm@web1.service failed (exit-code), see 'journalctl -u hybrid-vm@web1.service'",
        ),
        (Unit("activating", "start", "success"), False, "not running yet: unit hybrid-vm@web1.service is starting"),
        (
            Unit("active", "running", "success", 1),
            True,
            "is not running (no socket {socket}): start it with 'systemctl start hybrid-vm@web1.service'",
        ),
    ],
)
def test_why_from_the_unit(host: Host, monkeypatch: pytest.MonkeyPatch, unit: Unit, running: bool, why: str) -> None:
    monkeypatch.setattr(units, "states", lambda vms, _deadline: dict.fromkeys(vms, unit))
    host.define("web1")
    found = facts(host, "web1")
    assert found["running"] is running
    assert found["why"] == why.format(socket=host.paths.control("web1"))
    assert found["pid"] == unit.pid


def test_broken_definition_of_a_running_vm(host: Host) -> None:
    host.define("web1", vcpus=0)
    host.fake_qemu("web1")
    found = facts(host, "web1")
    assert (found["running"], found["mode"]) == (True, "kvm")
    assert found["why"] == f"{host.paths.definition('web1')}: vcpus: 0 is not between 1 and 64"


def test_running_but_not_defined(host: Host) -> None:
    host.fake_qemu("stray")
    found = facts(host, "stray")
    assert (found["defined"], found["running"], found["mode"], found["in_expected_mode"]) == (False, True, "kvm", None)
    assert found["why"] == "running, but not defined on this host"


def test_a_hanging_vm_does_not_hide_the_others(host: Host) -> None:
    host.define("hung")
    host.stock_qemu("hung").send_signal(signal.SIGSTOP)
    host.define("web1")
    host.fake_qemu("web1")
    hung, web1 = info.collect(host.paths, None, 1)
    assert (hung["running"], hung["mode"], hung["in_expected_mode"]) == (True, None, None)
    assert hung["why"].startswith(f"no QMP greeting on {host.paths.control('hung')} within 1 s: QEMU hangs")
    assert web1["in_expected_mode"] is True


@pytest.mark.parametrize(
    ("accel", "keys", "in_mode", "why"),
    [
        ("stock", {"accel": "tcg"}, True, None),
        ("kvm", {"accel": "kvm"}, True, None),
        (
            "kvm",
            {"accel": "hybrid", "expected_mode": "tcg"},
            False,
            "runs with accelerator 'kvm', which cannot switch; expected mode is 'tcg'",
        ),
    ],
)
def test_vm_that_is_not_hybrid(host: Host, accel: str, keys: dict[str, str], in_mode: bool, why: Optional[str]) -> None:
    host.define("web1", **keys)
    host.fake_qemu("web1", accel=accel)
    found = facts(host, "web1")
    assert found["accel"] == found["mode"] == ("kvm" if accel == "kvm" else "tcg")
    assert (found["in_expected_mode"], found["why"]) == (in_mode, why)


def test_real_stock_qemu(host: Host) -> None:
    host.define("web1", accel="tcg")
    host.stock_qemu("web1")
    found = facts(host, "web1")
    assert (found["accel"], found["mode"], found["series"], found["why"]) == ("tcg", "tcg", None, None)


def test_wrong_interface(host: Host) -> None:
    host.define("web1")
    host.fake_qemu("web1", interface=2)
    assert str(facts(host, "web1")["why"]).startswith(
        "its QEMU (h1.0a1b2c3d) speaks hybrid interface 2, this toolkit speaks 1: install the matching series"
    )


def test_blockers_are_part_of_why(host: Host) -> None:
    host.define("web1", expected_mode="tcg")
    host.fake_qemu("web1", blockers=[{"name": "vfio", "reason": "0000:01:00.0"}])
    assert facts(host, "web1")["why"] == (
        "in mode 'kvm' since 2025-11-23T05:00:00.000000Z by start, expected is 'tcg'; blocked by 'vfio': 0000:01:00.0"
    )


def test_unknown(host: Host) -> None:
    host.define("web1")
    host.fake_qemu("stray")
    with pytest.raises(UnknownVm) as caught:
        info.collect(host.paths, ["web1", "stray", "web9"], 5)
    assert caught.value.message == f"VM 'web9' is not defined in {host.paths.definitions}; defined are: web1"


def test_nothing_there(host: Host) -> None:
    Path(host.paths.run_dir).rmdir()
    assert info.collect(host.paths, None, 5) == []
