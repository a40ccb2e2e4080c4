#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: see DOCUMENTATION. What it does is in module_utils/hybrid_vmm/policies.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_vm_policy
short_description: Declare when a hybrid VM is in which mode
description:
  - Stores the policy of a VM on its host and, if the VM runs, puts it into force in one step. The VM is neither restarted
    nor paused; it switches if the policy wants another mode than the one it is in.
  - The policy acts inside QEMU, whether or not a controller is there, and is loaded again at each start of the VM.
  - Timers for rules with trigger V(schedule) are the business of role C(hybrid_policy).
version_added: "0.2.0"
options:
  name:
    description: The VM. It must be defined on the host.
    type: str
    required: true
  state:
    description:
      - V(present) declares O(policy).
      - V(absent) removes the VM's policy. It stays in the mode it is in.
    type: str
    choices: [present, absent]
    default: present
  policy:
    description:
      - The policy as a whole; what an earlier one said is gone. Keys are in C(docs/policies.md), and in the form of a JSON
        schema in C(docs/policy.schema.json).
      - Rules of the old policy that are active stay so, if the new one has rules of the same names.
      - Required with O(state=present).
    type: dict
  timeout:
    description:
      - Seconds for the whole call.
    type: float
    default: 30
extends_documentation_fragment:
  - hybrid_vmm
  - hybrid_attributes.changes
attributes:
  check_mode:
    details:
      - The VM is asked as in a real run. What only QEMU can refuse, the name of an event that it does not know, is found in
        a real run, which then changes nothing.
seealso:
  - module: hybrid_vm_mode
  - module: hybrid_vm_info
author:
  - Hybrid VMM toolkit
"""

EXAMPLES = r"""
- name: In software mode for ten minutes after each alert
  hybrid_vm_policy:
    name: web1
    policy:
      rest: kvm
      rules:
        - name: suspicion
          trigger: event
          alerts: [ids]
          hold: {min: 1m, max: 10m}

- name: Never leave software mode
  hybrid_vm_policy:
    name: signer
    policy: {rest: tcg, lock: tcg}

- name: No policy any more
  hybrid_vm_policy:
    name: web1
    state: absent
"""

RETURN = r"""
hash:
  description: Identifies the policy that is declared now. Null without one.
  returned: success
  type: str
  sample: 6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
stored_hash:
  description: Identifies the policy that was stored before. Null without one.
  returned: success
  type: str
running:
  description: Whether the VM runs.
  returned: success
  type: bool
running_hash:
  description: Identifies the policy that was in force before. Null without one, or when the VM does not run.
  returned: success
  type: str
drift:
  description: Whether the policy in force was not the stored one, or the stored one was damaged.
  returned: success
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.hybrid_vmm import argspec, deps, policies, policy
from ansible.module_utils.hybrid_vmm.difference import Difference
from ansible.module_utils.hybrid_vmm.errors import HybridError, LibraryMissing


def argument_spec() -> dict[str, Any]:
    """Return the module's options."""
    return {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "policy": {"type": "dict"},
        **argspec.host_spec(timeout=30.0),
    }


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work and return the result."""
    params = module.params
    wanted = policy.parse(params["policy"]).compiled() if params["state"] == "present" else None
    outcome = policies.apply(argspec.paths_of(params), params["name"], wanted, params["timeout"], module.check_mode)
    stored, force = Difference(), Difference()
    stored.note(f"{params['name']}: stored", outcome.before, wanted)
    if outcome.running:
        force.note(f"{params['name']}: in force", outcome.running_hash, wanted["hash"] if wanted else None)
    result: dict[str, Any] = {
        "changed": outcome.changed,
        "hash": wanted["hash"] if wanted else None,
        "stored_hash": outcome.stored_hash,
        "running": outcome.running,
        "running_hash": outcome.running_hash,
        "drift": outcome.drift,
    }
    if module._diff:
        result["diff"] = [change.as_diff() for change in (stored, force) if change.changed]
    return result


def main() -> None:
    """Wire options, work and result together."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, required_if=[("state", "present", ["policy"])])
    problem = argspec.timeout_problem(module.params["timeout"])
    if problem:
        module.fail_json(msg=problem)
    try:
        result = run(module)
    except LibraryMissing as exc:
        module.fail_json(msg=missing_required_lib("qemu.qmp", reason=deps.HINT), exception=str(exc))
    except HybridError as exc:
        module.fail_json(msg=exc.message, code=exc.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
