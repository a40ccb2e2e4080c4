# SPDX-License-Identifier: GPL-3.0-or-later
"""What policies do to the VMs of a host on which nobody is: seen with hybridctl, QEMU's records and the guests' heartbeats."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NOBODY

#: Seconds in which what must happen has happened; nothing is measured by it.
SOON = 120


def show(hypervisor: Any, vm: str) -> dict[str, Any]:
    return dict(json.loads(hypervisor.output(f"hybridctl show {vm} --json --timeout 60")))


def wait_for(hypervisor: Any, vm: str, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    end = time.monotonic() + SOON
    while True:
        facts = show(hypervisor, vm)
        if condition(facts):
            return facts
        assert time.monotonic() < end, f"{vm}: {what}, not within {SOON} s: {facts}"
        time.sleep(1)


def rules(facts: dict[str, Any]) -> dict[str, bool]:
    return {rule["name"]: rule["active"] for rule in facts["policy"]["rules"]}


@pytest.fixture(autouse=True)
def _as_converged(hypervisor: Any) -> Any:
    """Each test leaves check1 with no active rule and no override, in kvm."""
    yield
    hypervisor.output("hybridctl release check1 --timeout 60")
    for rule in rules(show(hypervisor, "check1")):
        hypervisor.output(f"hybridctl end check1:{rule} --timeout 60")
    wait_for(hypervisor, "check1", lambda facts: facts["mode"] == "kvm", "back in kvm")


def test_alert(hypervisor: Any) -> None:
    assert "check1: triggers suspicion" in hypervisor.output("hybridctl alert ids check1 --reason 'rule 2024897' --timeout 60")
    facts = show(hypervisor, "check1")
    assert (facts["mode"], facts["cause"], facts["rule"], facts["reason"]) == ("tcg", "rule", "suspicion", "rule 2024897")
    assert facts["in_expected_mode"]
    hypervisor.wait_for_beats("check1", 2, 300)
    hypervisor.output("hybridctl end check1:suspicion --timeout 60")
    facts = show(hypervisor, "check1")
    assert (facts["mode"], facts["cause"]) == ("kvm", "rest")
    assert not hypervisor.wait_for_beats("check1", 2, 300).errors


def test_event(hypervisor: Any) -> None:
    code = """
import asyncio
from qemu.qmp import QMPClient
async def main():
    client = QMPClient('test')
    await client.connect('/run/hybrid-vmm/check1/control.sock')
    await client.execute('system_powerdown')
    await client.disconnect()
asyncio.run(main())
"""
    hypervisor.python(code)
    facts = wait_for(hypervisor, "check1", lambda facts: facts["mode"] == "tcg", "in tcg after the power button")
    assert (facts["cause"], facts["rule"], facts["reason"]) == ("rule", "power-button", "POWERDOWN")


def test_schedule(hypervisor: Any) -> None:
    """The host's timer begins the rule and its hold ends it; the controller has no part in it."""
    before = show(hypervisor, "check2")["switches"]
    facts = wait_for(hypervisor, "check2", lambda facts: facts["switches"]["kvm_to_tcg"] >= before["kvm_to_tcg"] + 2, "twice in tcg")
    seen = facts["switches"]["tcg_to_kvm"]
    facts = wait_for(hypervisor, "check2", lambda facts: facts["switches"]["tcg_to_kvm"] > seen, "back in kvm")
    assert facts["last_switch"]["cause"] in ("rule", "rest")
    journal = hypervisor.output("journalctl --no-pager --quiet --unit 'hybrid-begin@check2:tick.service'")
    assert "check2: done" in journal
    assert not hypervisor.wait_for_beats("check2", 2, 300).errors


def test_override(hypervisor: Any) -> None:
    hypervisor.output("hybridctl alert ids check1 --timeout 60")
    hypervisor.output("hybridctl mode kvm check1 --for 5s --timeout 60")
    assert show(hypervisor, "check1")["mode"] == "kvm"
    facts = wait_for(hypervisor, "check1", lambda facts: facts["mode"] == "tcg", "override over")
    assert (facts["cause"], facts["rule"]) == ("rule", "suspicion")


def declare(playbook: Any, tmp_path: Path, policies: dict[str, Any], *arguments: str) -> Any:
    variables = tmp_path / "policies.json"
    variables.write_text(json.dumps({"hybrid_policy_policies": policies}))
    return playbook("playbooks/policy.yml", f"--extra-vars=@{variables}", *arguments)


CHECK1 = {
    "rest": "kvm",
    "limits": {"switches": 100, "per": "1m"},
    "rules": [
        {"name": "suspicion", "trigger": "event", "alerts": ["ids"], "hold": {"max": "1h"}},
        {"name": "power-button", "trigger": "event", "events": ["POWERDOWN"], "hold": {"max": "1h"}, "priority": 50},
    ],
}


def test_changed_while_the_vm_runs(hypervisor: Any, playbook: Any, recap: Any, lab_variables: Any, tmp_path: Path) -> None:
    """Locked, then as before: the same QEMU, no VM restarted, a lock that holds, check mode that tells the truth."""
    name = lab_variables["inventory_hostname"]
    pid, hash_before = hypervisor.pid("check1"), show(hypervisor, "check1")["policy"]["hash"]
    locked = {"check1": {**CHECK1, "lock": "kvm"}}
    for words, changed in ((("--check", "--diff"), 1), ((), 1), ((), 0), (("--check",), 0)):
        done = declare(playbook, tmp_path, locked, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert recap(done.stdout)[name]["changed"] == changed, done.stdout
        if "--diff" in words:
            assert "lock: kvm" in done.stdout
            assert show(hypervisor, "check1")["policy"]["hash"] == hash_before
    refused = hypervisor.host.run("hybridctl mode tcg check1 --timeout 60")
    assert refused.rc == 1
    assert "its policy locks mode 'kvm'" in refused.stderr
    hypervisor.output("hybridctl mode tcg check1 --force --timeout 60")
    assert show(hypervisor, "check1")["mode"] == "tcg"
    hypervisor.output("hybridctl release check1 --timeout 60")
    assert show(hypervisor, "check1")["cause"] == "lock"
    done = declare(playbook, tmp_path, {"check1": CHECK1})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (hypervisor.pid("check1"), show(hypervisor, "check1")["policy"]["hash"]) == (pid, hash_before)


def test_drift_is_found_and_repaired(hypervisor: Any, playbook: Any, tmp_path: Path) -> None:
    hypervisor.output("rm /etc/hybrid-vmm/policies/check1.json")
    facts = show(hypervisor, "check1")
    assert facts["policy_drift"]
    assert "its policy is not the stored one" in facts["why"]
    done = declare(playbook, tmp_path, {"check1": CHECK1})
    assert done.returncode == 0, done.stdout + done.stderr
    assert not show(hypervisor, "check1")["policy_drift"]


def test_policy_survives_a_restart(hypervisor: Any) -> None:
    before = show(hypervisor, "check1")["policy"]["hash"]
    pid = hypervisor.pid("check1")
    hypervisor.output("systemctl restart hybrid-vm@check1.service")
    assert hypervisor.pid("check1") != pid
    facts = show(hypervisor, "check1")
    assert (facts["policy"]["hash"], facts["policy_drift"]) == (before, False)


def test_nothing_is_written_for_a_policy_that_is_wrong(hypervisor: Any, playbook: Any, tmp_path: Path) -> None:
    before = hypervisor.output("ls -l --time-style=full-iso /etc/hybrid-vmm/policies /etc/systemd/system")
    night = {"name": "night", "trigger": "schedule", "calendar": "at noon", "hold": {"max": "1h"}}
    for policies, message in (
        ({"check1": {"rest": "fast"}}, "hybrid_policy_policies.check1.rest: 'fast' is not one of 'kvm', 'tcg'"),
        ({"check1": CHECK1, "check9": CHECK1}, "VM 'check9' is not defined"),
        ({"check1": {**CHECK1, "rules": [night]}}, "hybrid_policy_policies.check1.rules[0].calendar: not a calendar expression"),
    ):
        done = declare(playbook, tmp_path, policies)
        assert done.returncode != 0
        assert message in " ".join((done.stdout + done.stderr).split())
    assert hypervisor.output("ls -l --time-style=full-iso /etc/hybrid-vmm/policies /etc/systemd/system") == before


def test_third_party_reports_no_alert(hypervisor: Any) -> None:
    done = hypervisor.host.run(f"{NOBODY} hybridctl alert ids check1 --timeout 30")
    assert done.rc == 4
    assert show(hypervisor, "check1")["mode"] == "kvm"
    stored = hypervisor.host.file("/etc/hybrid-vmm/policies/check1.json")
    assert (stored.user, stored.group, oct(stored.mode)) == ("root", "hybrid-vmm", oct(0o640))
