#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: see DOCUMENTATION. What it does is in module_utils/hybrid_vmm/info.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_vm_info
short_description: Facts of the VMs of a host, their mode, and why it is not the expected one
description:
  - Returns what is known of each VM, of stopped and broken ones too. A VM that does not answer does not hide the
    others, its RV(vms[].why) says what is wrong.
version_added: "0.1.0"
options:
  name:
    description:
      - VMs to look at. Without it, or with the single word V(all), every VM that is defined or running on the host.
      - A name that is neither defined nor running is an error.
    type: list
    elements: str
  timeout:
    description:
      - Seconds for the whole call.
    type: float
    default: 5
extends_documentation_fragment:
  - hybrid_vmm
  - hybrid_attributes.reads
seealso:
  - module: hybrid_vm_mode
author:
  - Hybrid VMM toolkit
"""

EXAMPLES = r"""
- name: Look at all VMs
  hybrid_vm_info:
  register: seen

- name: Which are not as expected, and why
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.why }}"
  loop: "{{ seen.vms | rejectattr('in_expected_mode', 'true') }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
vms:
  description: Facts of each VM, sorted by name. Every key is always there; what is not known is null.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
      sample: web1
    defined:
      description: Whether there is a definition in O(config_dir).
      type: bool
    running:
      description: Whether QEMU runs, as far as systemd or QMP tell.
      type: bool
    unit_state:
      description: State of the systemd unit C(hybrid-vm@<vm>.service); V(unknown) without systemd.
      type: str
      sample: active
    sub_state:
      description: The unit's finer state.
      type: str
      sample: running
    pid:
      description: QEMU's process.
      type: int
    accel:
      description: Accelerator of the running VM, or of the definition of a stopped one.
      type: str
      sample: hybrid
    mode:
      description: Mode that the VM runs in. Null when it is not running or not known.
      type: str
      sample: tcg
    expected_mode:
      description: Mode that the VM's policy wants now, or, of a VM without one, its definition.
      type: str
      sample: kvm
    in_expected_mode:
      description: Whether these two are the same. Null when the mode is not known.
      type: bool
    why:
      description: Why the VM is not in its expected mode, or what is wrong with it. Null when all is well.
      type: str
      sample: "in mode 'tcg' since 2026-11-23T05:00:00.000000Z by operator ('incident 4711'), expected is 'kvm'"
    since:
      description: When it entered its mode, ISO 8601 in UTC.
      type: str
      sample: "2026-11-23T05:00:00.000000Z"
    cause:
      description: What brought it into its mode.
      type: str
      sample: operator
    reason:
      description: The reason that was given for it.
      type: str
      sample: incident 4711
    rule:
      description: Rule of the policy that brought it into its mode. Null for other causes.
      type: str
      sample: ids
    policy:
      description: What the policy in force is at. Null without one, and for VMs that do not run.
      type: dict
      contains:
        hash:
          description: Identifies the policy.
          type: str
        rest:
          description: Resting mode.
          type: str
        lock:
          description: Mode that is locked, or V(none).
          type: str
        wanted:
          description: Mode that it wants now.
          type: str
        cause:
          description: Why; V(lock), V(override), V(rule) or V(rest).
          type: str
        rule:
          description: Which rule; missing for other causes.
          type: str
        limited:
          description: Whether the limit of switches keeps the VM in tcg.
          type: bool
        error:
          description: Why the wanted mode could not be entered; missing when all is well.
          type: str
        override:
          description: The operator's override with C(mode), C(forced), C(until_us) and C(reason); missing without one.
          type: dict
        rules:
          description: The rules with C(name), C(active), C(since_us), C(until_us) and C(count).
          type: list
          elements: dict
    stored_policy:
      description: Identifies the stored policy. Null without one.
      type: str
    policy_drift:
      description: Whether the policy in force is another one than the stored one. Null for VMs that do not run.
      type: bool
    switches:
      description: Numbers of switches since QEMU started.
      type: dict
      contains:
        kvm_to_tcg:
          description: To software mode.
          type: int
        tcg_to_kvm:
          description: To hardware mode.
          type: int
        failed:
          description: Those that failed, after which the VM ran on in the old mode.
          type: int
    time:
      description: Microseconds spent in each mode since QEMU started.
      type: dict
      contains:
        kvm_us:
          description: In hardware mode.
          type: int
        tcg_us:
          description: In software mode.
          type: int
    last_switch:
      description: The latest switch. Null when there was none.
      type: dict
      contains:
        before:
          description: Mode before it.
          type: str
        after:
          description: Mode after it.
          type: str
        cause:
          description: What caused it.
          type: str
        reason:
          description: The reason that was given; missing when there was none.
          type: str
        pause_us:
          description: Microseconds in which the guest did not run.
          type: int
        phases:
          description: Parts of the switch, each with C(name) and C(us).
          type: list
          elements: dict
        at:
          description: When, ISO 8601 in UTC.
          type: str
        at_us:
          description: When, in microseconds since 1970-01-01 UTC.
          type: int
    blockers:
      description: What keeps the VM from switching now, each with C(name) and C(reason).
      type: list
      elements: dict
    dropped_features:
      description: CPU features that the guest does not see, because not both modes have them.
      type: list
      elements: str
    irqchip:
      description: Where the interrupt controllers are.
      type: str
      sample: "on"
    interface:
      description: Version of the QEMU series' interface.
      type: int
      sample: 1
    qemu_version:
      description: Version of the running QEMU.
      type: str
      sample: 10.0.13
    series:
      description: Identity of the QEMU series it was built with. Null for a stock QEMU.
      type: str
      sample: h1.0a1b2c3d
    uuid:
      description: UUID of the definition.
      type: str
    vcpus:
      description: Number of vCPUs of the definition.
      type: int
    memory_mib:
      description: Memory of the definition in MiB.
      type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.hybrid_vmm import argspec, deps, info
from ansible.module_utils.hybrid_vmm.errors import HybridError, LibraryMissing


def argument_spec() -> dict[str, Any]:
    """Return the module's options."""
    return {"name": {"type": "list", "elements": "str"}, **argspec.host_spec(timeout=5.0)}


def main() -> None:
    """Wire options, work and result together."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    params = module.params
    problem = argspec.timeout_problem(params["timeout"]) or argspec.names_problem(params["name"])
    if problem:
        module.fail_json(msg=problem)
    try:
        vms = info.collect(argspec.paths_of(params), params["name"], params["timeout"])
    except LibraryMissing as exc:
        module.fail_json(msg=missing_required_lib("qemu.qmp", reason=deps.HINT), exception=str(exc))
    except HybridError as exc:
        module.fail_json(msg=exc.message, code=exc.code)
    module.exit_json(changed=False, vms=vms)


if __name__ == "__main__":
    main()
