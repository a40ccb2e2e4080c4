#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Define, start, change, stop and remove the VMs of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_vm_state
short_description: Define, start, change, stop and remove the VMs of a host
description:
  - Takes the plan that the filter P(hybrid_vm_plan#filter) makes of an inventory's VMs and brings one host to it,
    all VMs in one call.
  - A change that a running VM takes only at its next start is stored and reported, and done with O(allow_restart).
  - Used by role C(hybrid_vm). Which mode a running VM is in, is the business of M(hybrid_vm_mode).
extends_documentation_fragment:
  - hybrid_attributes.changes
options:
  vms:
    description: The plan of the filter P(hybrid_vm_plan#filter).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the VM.
        type: str
        required: true
      state:
        description: Whether it runs, is only defined, or does not exist.
        type: str
        choices: [running, stopped, absent]
        required: true
      autostart:
        description: Whether it starts with the host.
        type: bool
        required: true
      definition:
        description: The complete definition. Required unless O(vms[].state=absent).
        type: dict
      disks:
        description: Where each disk lies and how it is made when it does not exist.
        type: list
        elements: dict
        default: []
      seed:
        description: Contents of the cloud-init seed by file name. May hold secrets and is never shown.
        type: dict
      sandbox:
        description: Lines for the drop-in of the VM's unit.
        type: list
        elements: str
        default: []
  allow_restart:
    description: Consent to restart running VMs for changes that need it.
    type: bool
    default: false
  allow_remove:
    description: Consent to remove VMs whose state is V(absent).
    type: bool
    default: false
  allow_disk_removal:
    description: Consent to remove the disks of those VMs too.
    type: bool
    default: false
author: hybrid VMM toolkit
"""

EXAMPLES = r"""
- name: VMs of this host
  hybrid_vm_state:
    vms: "{{ hybrid_vm_vms | hybrid_vm_plan(host=inventory_hostname) }}"
    allow_restart: "{{ hybrid_vm_allow_restart }}"
"""

RETURN = r"""
vms:
  description: What was done with each VM.
  type: list
  elements: dict
  returned: success
  sample:
    - name: web1
      changed: true
      restarted: false
      restart_needed: [memory_mib]
undeclared:
  description: VMs that are defined on the host and not in the plan. They are left alone.
  type: list
  elements: str
  returned: success
  sample: [old1]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_vmm import definition
from ansible.module_utils.hybrid_vmm.difference import Difference
from ansible.module_utils.hybrid_vmm.errors import HybridError
from ansible.module_utils.hybrid_vmm.provision import Consent, Host, decide, difference

SPEC = {
    "vms": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["running", "stopped", "absent"], "required": True},
            "autostart": {"type": "bool", "required": True},
            "definition": {"type": "dict"},
            "disks": {"type": "list", "elements": "dict", "default": []},
            "seed": {"type": "dict", "no_log": True},
            "sandbox": {"type": "list", "elements": "str", "default": []},
        },
        "required_if": [("state", "running", ["definition"]), ("state", "stopped", ["definition"])],
    },
    "allow_restart": {"type": "bool", "default": False},
    "allow_remove": {"type": "bool", "default": False},
    "allow_disk_removal": {"type": "bool", "default": False},
}


class VmState:
    def __init__(self, module):
        self.module = module
        self.entries = module.params["vms"]
        self.host = Host(module.run_command)
        self.consent = Consent(
            module.params["allow_restart"], module.params["allow_remove"], module.params["allow_disk_removal"]
        )

    def run(self):
        for entry in self.entries:
            if entry["definition"]:
                entry["definition"] = definition.parse(entry["definition"]).to_dict()
        observed = self.host.observe(self.entries)
        decisions = {entry["name"]: decide(entry, observed[entry["name"]], self.consent) for entry in self.entries}
        changes = Difference()
        for entry in self.entries:
            changes.note(entry["name"], *difference(entry, observed[entry["name"]], decisions[entry["name"]]))
        if changes.changed and not self.module.check_mode:
            self.host.act(self.entries, decisions)
        self.warn(decisions)
        return {
            "changed": changes.changed,
            "diff": changes.as_diff(),
            "vms": [
                {
                    "name": name,
                    "changed": decision.changed,
                    "restarted": decision.restart,
                    "restart_needed": decision.restart_needed,
                }
                for name, decision in decisions.items()
            ],
            "undeclared": self.host.undeclared(self.entries),
        }

    def warn(self, decisions):
        for decision in decisions.values():
            if decision.restart_needed:
                self.module.warn(
                    "VM '%s' needs a restart for: %s. It happens at its next start, or now with hybrid_vm_allow_restart"
                    % (decision.name, ", ".join(decision.restart_needed))
                )


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        state = VmState(module)
        with state.host.alone():
            result = state.run()
        module.exit_json(**result)
    except HybridError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or "this host", error.strerror))


if __name__ == "__main__":
    main()
