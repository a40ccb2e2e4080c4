# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies on a host: stored and in force, drift, what is refused, and hybridctl's commands for them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Host

from hybrid_vmm import cli, command, info, launch, mode, policies, policy, policystore, units
from hybrid_vmm.errors import NotHybrid, PolicyError, StoreError, UnknownVm, WrongInterface
from hybrid_vmm.units import Unit

RULE = {"name": "suspicion", "trigger": "event", "alerts": ["ids"], "hold": {"max": "10m"}}
ONE = policy.parse({"rest": "kvm", "rules": [RULE]}).compiled()
TWO = policy.parse({"rest": "tcg"}).compiled()
LOCKED = policy.parse({"rest": "kvm", "lock": "kvm"}).compiled()


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "states", lambda vms, _deadline: {vm: Unit() for vm in vms})


@pytest.fixture
def vm(host: Host) -> Host:
    """A host with the running VM web1."""
    host.define("web1")
    host.fake_qemu("web1")
    os.makedirs(host.paths.policies, exist_ok=True)
    return host


def apply(host: Host, wanted: Any, check: bool = False) -> policies.Outcome:
    return policies.apply(host.paths, "web1", wanted, 10, check)


def facts(host: Host) -> dict[str, Any]:
    return info.collect(host.paths, ["web1"], 5)[0]


def run(host: Host, *words: str) -> int:
    return cli.main([*words, "--config-dir", host.paths.config_dir, "--run-dir", host.paths.run_dir])


def test_stored_and_in_force(vm: Host) -> None:
    predicted = apply(vm, ONE, check=True)
    assert (predicted.changed, policystore.load(vm.paths, "web1"), facts(vm)["policy"]) == (True, None, None)
    assert apply(vm, ONE) == predicted == policies.Outcome(None, None, True, None, False, True)
    assert policystore.load(vm.paths, "web1") == ONE
    assert (facts(vm)["policy"]["hash"], facts(vm)["stored_policy"], facts(vm)["policy_drift"]) == (ONE["hash"], ONE["hash"], False)
    again = apply(vm, ONE)
    assert (again.changed, again.drift, again.running_hash) == (False, False, ONE["hash"])
    assert apply(vm, TWO).before == ONE
    assert facts(vm)["expected_mode"] == "tcg"
    assert apply(vm, None).changed
    assert (policystore.load(vm.paths, "web1"), facts(vm)["policy"]) == (None, None)
    assert not apply(vm, None).changed


def test_drift_is_found_and_mended(vm: Host) -> None:
    apply(vm, ONE)
    policystore.save(vm.paths, "web1", TWO)
    assert facts(vm)["policy_drift"]
    assert "its policy is not the stored one" in facts(vm)["why"]
    found = apply(vm, ONE)
    assert (found.drift, found.changed, found.stored_hash, found.running_hash) == (True, True, TWO["hash"], ONE["hash"])
    assert not facts(vm)["policy_drift"]

    Path(vm.paths.policy("web1")).write_text(json.dumps({**ONE, "rest": "tcg"}))
    assert "the file was changed by hand" in facts(vm)["why"]
    found = apply(vm, ONE)
    assert (found.before, found.drift, found.changed) == (None, True, True)
    assert policystore.load(vm.paths, "web1") == ONE


def test_vm_that_does_not_run(host: Host) -> None:
    host.define("web1")
    os.makedirs(host.paths.policies, exist_ok=True)
    assert apply(host, ONE) == policies.Outcome(None, None, False, None, False, True)
    assert policystore.load(host.paths, "web1") == ONE
    with pytest.raises(UnknownVm):
        policies.apply(host.paths, "web9", ONE, 10)


@pytest.mark.parametrize(
    ("behaviour", "error"), [({"accel": "kvm"}, NotHybrid), ({"accel": "stock"}, NotHybrid), ({"policies": False}, WrongInterface)]
)
def test_qemu_that_cannot(host: Host, behaviour: dict[str, Any], error: type[Exception]) -> None:
    host.define("web1")
    host.fake_qemu("web1", **behaviour)
    os.makedirs(host.paths.policies, exist_ok=True)
    with pytest.raises(error):
        apply(host, ONE)
    assert policystore.load(host.paths, "web1") is None


def test_vm_that_cannot_switch(host: Host) -> None:
    host.define("web1", accel="kvm")
    with pytest.raises(PolicyError, match="VM 'web1': its definition has accel 'kvm', only VMs with accel 'hybrid' can have a policy"):
        apply(host, ONE)
    assert not apply(host, None).changed


def test_store_that_cannot_be_written(vm: Host) -> None:
    """QEMU goes back to what is stored."""
    apply(vm, ONE)
    folder = Path(vm.paths.policies)
    folder.rename(folder.with_name("away"))
    folder.write_text("")
    with pytest.raises(StoreError):
        apply(vm, TWO)
    folder.unlink()
    folder.with_name("away").rename(folder)
    assert facts(vm)["policy"]["hash"] == ONE["hash"]


def test_overrides(vm: Host) -> None:
    for override in (mode.Override(for_ms=600_000), mode.Override(force=True)):
        outcome = mode.change(vm.paths, ["web1"], "tcg", 5, override=override)
        assert outcome.error == "VM 'web1': has no policy: a time limit and force are for VMs that have one"
    apply(vm, LOCKED)
    outcome = mode.change(vm.paths, ["web1"], "tcg", 5)
    assert outcome.error == "VM 'web1': cannot switch to 'tcg', its policy locks mode 'kvm': change the policy, or use force"
    assert outcome.results[0].code == "locked"
    outcome = mode.change(vm.paths, ["web1"], "tcg", 5, override=mode.Override(600_000, True))
    assert outcome.error is None
    assert outcome.difference().as_diff() == {"before": {"web1": "kvm"}, "after": {"web1": "tcg for 10m forced"}}
    assert facts(vm)["policy"]["override"] == {"mode": "tcg", "forced": True}
    again = mode.change(vm.paths, ["web1"], "tcg", 5)
    assert again.results[0].code == "locked", "without force the lock is asked again"


def test_mode_that_a_vm_is_in_already(vm: Host) -> None:
    """Left to the policy where it rests; where it would not stay, overridden, once."""
    tcg = {"wanted": "tcg", "limited": False}
    brief = {"override": {"mode": "tcg", "until_us": 1}}
    endless = {"override": {"mode": "tcg"}}
    for state, stays in (
        (None, True),
        ({**tcg, "cause": "rest"}, True),
        ({**tcg, "cause": "lock"}, True),
        ({**tcg, "cause": "rule"}, False),
        ({**tcg, "cause": "override", **brief}, False),
        ({**tcg, "cause": "override", **endless}, True),
        ({**tcg, "cause": "rest", "limited": True}, False),
        ({**tcg, "cause": "rest", "wanted": "kvm"}, False),
    ):
        assert mode._stays(state, "tcg") is stays, state
    apply(vm, ONE)
    assert not mode.change(vm.paths, ["web1"], "kvm", 5).difference().changed
    assert "override" not in facts(vm)["policy"]


def test_all_leaves_out_what_is_locked(vm: Host) -> None:
    apply(vm, LOCKED)
    vm.define("web2")
    vm.fake_qemu("web2")
    outcome = mode.change(vm.paths, ["all"], "tcg", 5)
    assert (outcome.error, [(item.name, item.after) for item in outcome.results]) == (None, [("web2", "tcg")])
    assert [item["name"] for item in outcome.left_out] == ["web1"]


def test_hybridctl(vm: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(vm, "alert", "ids", "web1") == cli.FAILED
    assert "there is no policy" in capsys.readouterr().err
    apply(vm, ONE)
    for words, said in (
        (("alert", "ids", "web1", "--reason", "x"), "web1: triggers suspicion"),
        (("alert", "other", "web1"), "web1: triggers no rule"),
        (("begin", "web1:suspicion"), "web1: nothing to change"),
        (("end", "web1:suspicion"), "web1: done"),
        (("mode", "tcg", "web1", "--for", "10m"), "web1  kvm     tcg"),
        (("release", "web1"), "web1: done"),
        (("validate", "--policy", vm.paths.policy("web1")), f"{vm.paths.policy('web1')}: policy is valid"),
    ):
        assert run(vm, *words) == cli.OK, words
        assert said in capsys.readouterr().out, words
    assert run(vm, "show", "web1") == cli.OK
    assert "wants kvm by rest, rests in kvm" in capsys.readouterr().out
    assert run(vm, "begin", "web1:other") == cli.FAILED
    assert "the policy has no rule 'other'; it has: suspicion" in capsys.readouterr().err
    assert run(vm, "alert", "ids", "web1", "--json") == cli.OK
    assert json.loads(capsys.readouterr().out) == [{"vm": "web1", "rules": ["suspicion"]}]
    assert run(vm, "mode", "tcg", "web1", "--for", "soon") == cli.FAILED
    assert "for: 'soon' is not a duration" in capsys.readouterr().err


def test_an_alert_reaches_all_that_can_be_reached(vm: Host, capsys: pytest.CaptureFixture[str]) -> None:
    apply(vm, ONE)
    for name in ("gone", "hung"):
        vm.define(name)
    vm.fake_qemu("hung", greeting="hang")
    assert run(vm, "alert", "ids", "gone", "hung", "web1", "--timeout", "2") == cli.FAILED
    out, err = capsys.readouterr()
    assert out == "web1: triggers suspicion\n"
    assert ("VM 'gone': is not running" in err, "VM 'hung'" in err) == (True, True)
    assert run(vm, "alert", "ids", "gone", "web1", "--json") == cli.FAILED
    rows = json.loads(capsys.readouterr().out)
    assert [(row["vm"], row.get("code"), row.get("rules")) for row in rows] == [("gone", "not-running", None), ("web1", None, ["suspicion"])]


def test_timer_of_a_vm_that_does_not_run(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.define("web1")
    assert run(host, "begin", "web1:night") == cli.FAILED
    assert run(host, "begin", "web1:night", "--if-running") == cli.OK
    assert "web1: nothing to change" in capsys.readouterr().out


def test_start_with_a_policy(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.define("web1")
    words = ["web1", "--print", "--config-dir", host.paths.config_dir, "--run-dir", host.paths.run_dir]
    assert launch.main(words) == 0
    assert "policy-file" not in capsys.readouterr().out
    path = Path(host.paths.started_policy("web1"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    assert launch.main(words) == 0
    assert f",policy-file={command.escape(str(path))}" in capsys.readouterr().out
