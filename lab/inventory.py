# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ansible reaches lab hosts: the variables of a host, as YAML for one and as JSON for all that run."""

from __future__ import annotations

import json

from lab.config import Lab
from lab.ssh import OPTIONS


def host_variables(lab: Lab) -> dict[str, object]:
    """Return the connection variables of a lab host."""
    options = " ".join([*OPTIONS, "-o", f"UserKnownHostsFile={lab.known_hosts}"])
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": lab.ssh_port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.ssh_key),
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def fragment(lab: Lab) -> str:
    """Return an inventory file with this host alone in the group ``hypervisors`` (JSON, which is YAML)."""
    return json.dumps({"hypervisors": {"hosts": {lab.name: host_variables(lab)}}}, indent=2) + "\n"


def dynamic(labs: list[Lab]) -> str:
    """Return what an Ansible inventory script prints with --list."""
    variables = {lab.name: host_variables(lab) for lab in labs}
    return json.dumps({"hypervisors": {"hosts": list(variables)}, "_meta": {"hostvars": variables}}, indent=2) + "\n"
