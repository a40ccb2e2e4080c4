#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which QEMU versions does this host have?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_version_info
short_description: List the QEMU versions of a host
options:
  prefix:
    description: Where versions are installed.
    type: path
    default: /opt/hybrid-vmm
  verify:
    description: Versions whose files are compared with their manifest.
    type: list
    elements: str
    default: []
  packages:
    description: Debian packages to look for.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - hybrid_attributes.reads
"""

EXAMPLES = r"""
- name: See what is installed
  hybrid_qemu_version_info:
  register: versions
"""

RETURN = r"""
current:
  description: The version that new VMs are started with, if any.
  type: str
  returned: success
previous:
  description: The version that was current before, if any.
  type: str
  returned: success
versions:
  description: By name, all installed versions.
  type: dict
  returned: success
  contains:
    manifest_sha256:
      description: sha256 of the manifest.
      type: str
    pids:
      description: Processes that run this version.
      type: list
      elements: int
    damages:
      description: What differs from the manifest. Only for versions in O(verify).
      type: list
      elements: str
missing_packages:
  description: Which of O(packages) are not installed.
  type: list
  elements: str
  returned: success
free:
  description: Free bytes where the prefix is.
  type: int
  returned: success
"""

import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_qemu_versions import CURRENT, PREVIOUS, Host, damages, process_pids


def describe(host: Host, name: str, verify: bool) -> dict[str, Any]:
    """Return what is known of one version."""
    found = {"manifest_sha256": host.manifest_sha256(name), "pids": process_pids(host.path(name))}
    if verify:
        found["damages"] = damages(host.path(name))
    return found


def missing_packages(names: list[str]) -> list[str]:
    """Return which Debian packages are not installed."""
    if not names:
        return []
    # ends with an error when a name is unknown; the others are listed all the same
    argv = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *names]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    installed = {line.split()[0] for line in result.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/hybrid-vmm"},
            "verify": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    host = Host(module.params["prefix"])
    try:
        module.exit_json(
            changed=False,
            current=host.target(CURRENT),
            previous=host.target(PREVIOUS),
            versions={name: describe(host, name, name in module.params["verify"]) for name in host.versions()},
            missing_packages=missing_packages(module.params["packages"]),
            free=host.free(),
        )
    except OSError as exc:
        module.fail_json(msg=f"{module.params['prefix']}: {exc}")


if __name__ == "__main__":
    main()
