# SPDX-License-Identifier: GPL-3.0-or-later
"""Where everything of a VM lies on the host (DESIGN.md, "The host"). Nothing else composes such paths."""

from __future__ import annotations

import os
from dataclasses import dataclass

CONFIG_DIR = "/etc/hybrid-vmm"
RUN_DIR = "/run/hybrid-vmm"
STATE_DIR = "/var/lib/hybrid-vmm"

#: The group whose members may control VMs.
GROUP = "hybrid-vmm"


def unit_name(vm: str) -> str:
    """Return the systemd unit that runs the VM."""
    return f"hybrid-vm@{vm}.service"


@dataclass(frozen=True)
class Paths:
    """The folders of one host; another layout is for tests.

    :param config_dir: holds ``vms/<vm>.json`` and ``policies/<vm>.json``.
    :param run_dir: holds one folder of sockets per VM.
    :param state_dir: holds one folder of disks per VM.
    """

    config_dir: str = CONFIG_DIR
    run_dir: str = RUN_DIR
    state_dir: str = STATE_DIR

    @property
    def definitions(self) -> str:
        """Folder of the VM definitions."""
        return os.path.join(self.config_dir, "vms")

    def definition(self, vm: str) -> str:
        """Definition file of a VM."""
        return os.path.join(self.definitions, f"{vm}.json")

    @property
    def policies(self) -> str:
        """Folder of the policies."""
        return os.path.join(self.config_dir, "policies")

    def policy(self, vm: str) -> str:
        """Policy file of a VM."""
        return os.path.join(self.policies, f"{vm}.json")

    def started_policy(self, vm: str) -> str:
        """Copy of the policy for the VM's start, which its QEMU may read (see hybrid-vm-prepare@.service)."""
        return os.path.join(self.run_dir, f"{vm}.policy.json")

    def run(self, vm: str) -> str:
        """Run-time folder of a VM; also what runs lock (see lock.py)."""
        return os.path.join(self.run_dir, vm)

    def control(self, vm: str) -> str:
        """QMP socket for commands: modules, hybridctl."""
        return os.path.join(self.run(vm), "control.sock")

    def events(self, vm: str) -> str:
        """QMP socket for whoever listens to events."""
        return os.path.join(self.run(vm), "events.sock")

    def console(self, vm: str) -> str:
        """Socket of the serial console."""
        return os.path.join(self.run(vm), "console.sock")

    def state(self, vm: str) -> str:
        """Folder of a VM's disks."""
        return os.path.join(self.state_dir, vm)

    def console_log(self, vm: str) -> str:
        """What the guest wrote to its serial console, appended."""
        return os.path.join(self.state(vm), "console.log")
