# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says about units."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybrid_vmm import units
from hybrid_vmm.clock import Deadline
from hybrid_vmm.units import Unit

SHOW = """Id=hybrid-vm@web1.service
ActiveState=active
SubState=running
Result=success
MainPID=4711

Id=hybrid-vm@db1.service
ActiveState=failed
SubState=failed
Result=exit-code
MainPID=0
"""


@pytest.mark.parametrize(
    ("vm", "unit", "up"),
    [
        ("web1", Unit("active", "running", "success", 4711), True),
        ("db1", Unit("failed", "failed", "exit-code", None), False),
        ("new", Unit(), False),
    ],
)
def test_states(tmp_path: Path, vm: str, unit: Unit, up: bool) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{SHOW}E\n")
    program.chmod(0o755)
    found = units.states(["web1", "db1", "new"], Deadline(5), str(program))
    assert found[vm] == unit
    assert found[vm].up is up


@pytest.mark.parametrize("script", ["exit 1", "sleep 60", "echo rubbish; echo ="])
def test_a_systemctl_that_does_not_help(tmp_path: Path, script: str) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\nexec 2>/dev/null\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    assert units.states(["web1"], Deadline(0.2), str(program)) == {"web1": Unit()}


def test_no_systemctl() -> None:
    assert units.states(["web1"], Deadline(1), "/nonexistent/systemctl") == {"web1": Unit()}


def test_every_vm_is_asked_for_in_one_call(tmp_path: Path) -> None:
    program, log = tmp_path / "systemctl", tmp_path / "log"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    program.chmod(0o755)
    units.states(["web1", "db1"], Deadline(5), str(program))
    assert log.read_text() == (
        "show --no-pager --property=Id,ActiveState,SubState,Result,MainPID hybrid-vm@web1.service hybrid-vm@db1.service\n"
    )
