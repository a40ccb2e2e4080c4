# SPDX-License-Identifier: GPL-3.0-or-later
"""State of the VMs' systemd units, through one ``systemctl show`` for all of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from .clock import Deadline
from .paths import unit_name

_PROPERTIES = ("Id", "ActiveState", "SubState", "Result", "MainPID")


@dataclass(frozen=True)
class Unit:
    """What systemd says about one VM.

    :param active: ``active``, ``inactive``, ``failed``, ``activating``, ...; ``unknown`` without systemd.
    :param sub: systemd's finer state, e.g. ``running``, ``dead``.
    :param result: ``success``, or why it failed, e.g. ``exit-code``.
    :param pid: of the main process (QEMU), None when there is none.
    """

    active: str = "unknown"
    sub: str = "unknown"
    result: str = "unknown"
    pid: Optional[int] = None

    @property
    def up(self) -> bool:
        """Whether systemd counts the VM as running."""
        return self.active in ("active", "reloading", "deactivating")


def states(vms: list[str], deadline: Deadline, systemctl: Optional[str] = None) -> dict[str, Unit]:
    """Return the unit state of each VM; never raises.

    :param deadline: half of what is left of it may be used; the VMs are to be asked too.
    :param systemctl: path of the program; found in PATH by default.
    """
    program = systemctl or shutil.which("systemctl")
    if not vms or not program:
        return {vm: Unit() for vm in vms}
    command = [program, "show", "--no-pager", f"--property={','.join(_PROPERTIES)}", *map(unit_name, vms)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(0.1, deadline.left() / 2), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {vm: Unit() for vm in vms}
    found = parse(done.stdout)
    return {vm: found.get(unit_name(vm), Unit()) for vm in vms}


def parse(text: str) -> dict[str, Unit]:
    """Read the output of systemctl show: blocks of key=value lines with an empty line between.

    :return: units by their Id.
    """
    result: dict[str, Unit] = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            result[values["Id"]] = _unit(values)
    return result


def _unit(values: Mapping[str, str]) -> Unit:
    pid = values.get("MainPID", "0")
    return Unit(
        active=values.get("ActiveState") or "unknown",
        sub=values.get("SubState") or "unknown",
        result=values.get("Result") or "unknown",
        pid=int(pid) if pid.isdigit() and pid != "0" else None,
    )
