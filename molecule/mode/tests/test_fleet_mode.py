# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/fleet_mode.yml as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FLEET = "playbooks/fleet_mode.yml"
# A second name for the lab host, whose Python is gone when switching begins: it passes the preflight and then fails.
BROKEN = {
    "hypervisors": {
        "hosts": {
            "labx": {
                "ansible_python_interpreter": "{{ '/usr/bin/python3' if __fleet_ok is not defined else '/nonexistent' }}",
            }
        }
    }
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-efleet_mode=fast"], "fleet_mode: 'fast' is not one of 'kvm', 'tcg'"),
        (["-efleet_mode=tcg", "-efleet_vms=check1"], "fleet_vms: 'check1' is not a list of names"),
        (["-efleet_mode=tcg", '-e{"fleet_vms": ["check1", "check9"]}'], "fleet_vms: check9 not defined on any of these hosts"),
        (["-efleet_mode=tcg", '-e{"fleet_vms": ["check1", "plain"]}'], "VM 'plain'"),
    ],
)
def test_nothing_switches_when_the_preflight_fails(playbook: Any, hypervisor: Any, arguments: list[str], message: str) -> None:
    before = hypervisor.modes()
    done = playbook(FLEET, *arguments)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert hypervisor.modes() == before


def test_there_and_back(playbook: Any, hypervisor: Any, tmp_path: Path) -> None:
    for mode in ("tcg", "kvm"):
        report = tmp_path / f"{mode}.json"
        done = playbook(FLEET, f"-efleet_mode={mode}", f"-efleet_report={report}", '-e{"fleet_vms": ["check1", "check2"]}')
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PAUSE" in done.stdout
        rows = json.loads(report.read_text())["rows"]
        assert [(row["vm"], row["after"], row["ok"]) for row in rows] == [("check1", mode, True), ("check2", mode, True)]
        assert hypervisor.modes() == {"check1": mode, "check2": mode}


def test_host_that_fails_stops_the_next_batch(playbook: Any, hypervisor: Any, lab_variables: Any, tmp_path: Path) -> None:
    BROKEN["hypervisors"]["hosts"]["labx"] = {**lab_variables, **BROKEN["hypervisors"]["hosts"]["labx"]}
    inventory = tmp_path / "broken.json"
    inventory.write_text(json.dumps(BROKEN))
    report = tmp_path / "report.json"
    before = hypervisor.modes()
    done = playbook(
        FLEET,
        f"--inventory={inventory}",
        "--limit=all",
        f"-efleet_hosts=labx,{lab_variables['inventory_hostname']}",
        "-efleet_serial=1",
        "-efleet_mode=tcg",
        f"-efleet_report={report}",
    )
    assert done.returncode != 0
    result = json.loads(report.read_text())
    assert result["failed"] == ["labx"]
    assert result["not_tried"] == [lab_variables["inventory_hostname"]]
    assert hypervisor.modes() == before
