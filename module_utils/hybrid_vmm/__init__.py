# SPDX-License-Identifier: GPL-3.0-or-later
"""Control of hybrid VMs on one host: definitions, QEMU command lines, QMP, modes and facts.

The same package serves the Ansible modules (as ``ansible.module_utils.hybrid_vmm``) and the host's own commands
``hybridctl``, ``hybrid-vm-run`` and ``hybrid-vm-ready`` (as ``hybrid_vmm`` in /opt/hybrid-vmm/python).  It needs Python
3.9, and ``qemu.qmp`` for whatever talks to a running QEMU.  docs/architecture.md shows who calls whom.

What does not belong here: anything that knows an Ansible module object, or that runs only on the controller.
"""
