# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the hybrid_vm modules share; module_utils/hybrid_vmm/argspec.py has the same options."""

from __future__ import annotations


class ModuleDocFragment:
    """Options and requirements of every module that talks to the VMs of a host."""

    DOCUMENTATION = r"""
options:
  config_dir:
    description:
      - Folder of the VM definitions on the host, C(vms/<vm>.json).
    type: path
    default: /etc/hybrid-vmm
  run_dir:
    description:
      - Folder of the VMs' sockets on the host, C(<vm>/control.sock).
    type: path
    default: /run/hybrid-vmm
attributes:
  platform:
    description: Target systems that the module works on.
    support: full
    platforms: linux
requirements:
  - Python >= 3.9 on the host
  - qemu.qmp on the host; role C(hybrid_host) installs it in C(/opt/hybrid-vmm/python), where the module finds it
notes:
  - Run it as root, or as a member of the group C(hybrid-vmm).
  - Runs on the same VM wait for each other. Each takes C(flock) on the folder C(/run/hybrid-vmm/<vm>) and says who
    holds it when O(timeout) is over.
"""
