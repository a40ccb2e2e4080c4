#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: see DOCUMENTATION. What it does is in module_utils/hybrid_vmm/mode.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_vm_mode
short_description: Switch running hybrid VMs between hardware and software mode
description:
  - Brings running VMs of a host into a mode and waits until they run in it, all in parallel.
  - It first asks every VM for its mode. If one of them is unknown, not running, not hybrid, blocked, or does not
    answer, no VM is switched. If a VM fails later, while it switches, the others still finish.
  - Only the running mode is changed. What a VM starts in and is expected to be in belongs to its definition.
  - A VM that has a policy is thereby overridden until O(for) is over or O(state=absent) releases it. One that
    rests in the mode already is left to its policy, unless O(for) or O(force) is given.
version_added: "0.1.0"
options:
  name:
    description:
      - VMs to switch. Each must be defined on the host, run, and be hybrid.
      - The single word V(all) takes every defined VM that runs, can switch and is not locked in another mode; the others are returned in
        RV(left_out) with the reason.
    type: list
    elements: str
    required: true
  mode:
    description:
      - V(kvm) runs the VM's vCPUs on the hardware, V(tcg) emulates them.
      - Required unless O(state=absent).
    type: str
    choices: [kvm, tcg]
  state:
    description:
      - V(present) brings the VMs into O(mode).
      - V(absent) ends the overrides of VMs that have a policy, which then decides again. Takes names, not V(all).
    type: str
    choices: [present, absent]
    default: present
  for:
    description:
      - How long the mode overrides the VM's policy, such as V(10m); a whole number with ms, s, m, h or d. Without it, until
        it is released. The VM must have a policy.
    type: str
  force:
    description:
      - Also against the lock of the VM's policy. The VM must have a policy.
    type: bool
    default: false
  timeout:
    description:
      - Seconds for the whole call, however many VMs there are. A VM that has not answered by then is a failure,
        although it may still carry out the switch.
    type: float
    default: 30
  reason:
    description:
      - Why, at most 256 bytes; kept with the switch and shown by M(hybrid_vm_info) and C(hybridctl).
      - It is not compared. A VM that is in the mode already keeps the reason it has.
    type: str
extends_documentation_fragment:
  - hybrid_vmm
  - hybrid_attributes.changes
attributes:
  check_mode:
    details:
      - The VMs are asked as in a real run, so that everything is found that would keep a VM from switching.
  idempotent:
    details:
      - As long as nothing else switches the VM in between. With O(for) or O(force), each run overrides anew and is a change.
seealso:
  - module: hybrid_vm_info
author:
  - Hybrid VMM toolkit
"""

EXAMPLES = r"""
- name: Watch two VMs in software mode
  hybrid_vm_mode:
    name: [web1, web2]
    mode: tcg
    reason: "incident 4711"

- name: Everything on this host back to hardware speed
  hybrid_vm_mode:
    name: all
    mode: kvm
    timeout: 60
  register: fleet_result

- name: Policies aside for an hour
  hybrid_vm_mode:
    name: [web1]
    mode: kvm
    for: 1h
    reason: load test

- name: Let them decide again
  hybrid_vm_mode:
    name: [web1]
    state: absent

- name: Show it
  ansible.builtin.debug:
    msg: "{{ rows | hybrid_switch_table }}"
  vars:
    rows: "{{ hostvars | hybrid_switch_rows(hosts=ansible_play_hosts_all, register='fleet_result') }}"
  run_once: true
"""

RETURN = r"""
vms:
  description: One result for each VM, also when the module fails.
  returned: always, unless the options or definitions are wrong
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
      sample: web1
    ok:
      description: Whether the VM is in the wanted mode (or would be, in check mode).
      type: bool
    before:
      description: Mode at the beginning. Null when it could not be read.
      type: str
      sample: kvm
    after:
      description: Mode at the end, predicted in check mode. Null when it is not known.
      type: str
      sample: tcg
    changed:
      description: Whether the VM was switched (or would be).
      type: bool
    pause_us:
      description: Microseconds in which the guest did not run. 0 without a switch, null in check mode and on failure.
      type: int
      sample: 2410
    phases:
      description: Parts of the switch in their order. Empty without a switch.
      type: list
      elements: dict
      contains:
        name:
          description: What was done.
          type: str
          sample: stop
        us:
          description: Microseconds it took.
          type: int
          sample: 180
    cause:
      description: What brought the VM into the mode it is in.
      type: str
      sample: operator
    reason:
      description: The reason that was given for it, or null.
      type: str
      sample: incident 4711
    error:
      description: Why it failed and what to do, or null.
      type: str
    code:
      description: The failure as one word for programs, such as V(not-running), V(blocked), V(timed-out), or null.
      type: str
released:
  description: VMs whose override was ended (or would be).
  returned: with O(state=absent)
  type: list
  elements: str
  sample: [web1]
left_out:
  description: VMs that V(all) did not take. Not named C(skipped), which Ansible takes for a skipped task.
  returned: always, unless the options or definitions are wrong
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
      sample: db1
    reason:
      description: Why not.
      type: str
      sample: "VM 'db1': is not running (no socket /run/hybrid-vmm/db1/control.sock): start it with ..."
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.hybrid_vmm import argspec, deps, difference, hybrid, info, mode, policies
from ansible.module_utils.hybrid_vmm.errors import HybridError, LibraryMissing


def argument_spec() -> dict[str, Any]:
    """Return the module's options."""
    return {
        "name": {"type": "list", "elements": "str", "required": True},
        "mode": {"type": "str", "choices": list(mode.MODES)},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "for": {"type": "str"},
        "force": {"type": "bool", "default": False},
        "reason": {"type": "str"},
        **argspec.host_spec(timeout=30.0),
    }


def release(module: AnsibleModule) -> None:
    """End overrides."""
    params = module.params
    names = params["name"]
    if params["mode"] or params["for"] or params["force"] or names == ["all"]:
        module.fail_json(msg="state 'absent' takes names of VMs, and neither mode, for nor force")
    paths = argspec.paths_of(params)
    found = {facts["name"]: facts for facts in info.collect(paths, names, params["timeout"])}
    unable = [name for name, facts in found.items() if not facts["policy"]]
    if unable:
        why = "; ".join(f"VM '{name}': {found[name]['why'] or 'has no policy'}" for name in unable)
        module.fail_json(msg=f"no policy is in force, so that there is no override to end: {why}")
    overridden = [name for name, facts in found.items() if facts["policy"].get("override")]
    if overridden and not module.check_mode:
        answers = policies.command(paths, overridden, params["timeout"], hybrid.release)
        failed = [answer.message for _name, answer in answers if isinstance(answer, HybridError)]
        if failed:
            module.fail_json(msg="; ".join(failed))
    changes = difference.Difference()
    for name in overridden:
        changes.note(name, f"overridden with {found[name]['policy']['override']['mode']}", "released")
    result = {"changed": changes.changed, "released": overridden}
    if module._diff:
        result["diff"] = changes.as_diff()
    module.exit_json(**result)


def main() -> None:
    """Wire options, work and result together."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, required_if=[("state", "present", ["mode"])])
    params = module.params
    problem = (
        argspec.timeout_problem(params["timeout"]) or argspec.names_problem(params["name"]) or argspec.reason_problem(params["reason"])
    )
    if problem:
        module.fail_json(msg=problem)
    try:
        if params["state"] == "absent":
            release(module)
        outcome = mode.change(
            argspec.paths_of(params),
            params["name"],
            params["mode"],
            params["timeout"],
            params["reason"],
            module.check_mode,
            mode.Override(argspec.for_ms(params["for"]), params["force"]),
        )
    except LibraryMissing as exc:
        module.fail_json(msg=missing_required_lib("qemu.qmp", reason=deps.HINT), exception=str(exc))
    except HybridError as exc:
        module.fail_json(msg=exc.message, code=exc.code)
    changes = outcome.difference()
    result = {
        "changed": changes.changed,
        "vms": [item.to_dict() for item in outcome.results],
        "left_out": outcome.left_out,
    }
    if module._diff:
        result["diff"] = changes.as_diff()
    if outcome.error is not None:
        module.fail_json(msg=outcome.error, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
