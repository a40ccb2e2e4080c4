#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host to a QEMU version, forwards or back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_version
short_description: Install a QEMU version and make it the current one
description:
  - Unpacks the artifact beside the other versions, verifies every file against the manifest, starts the binary once, and only then
    turns the link C(current), in one step. A failure leaves the host as it was.
  - Without O(archive) the version must be installed already; so it also goes back.
  - VMs that run keep the version that they were started with. A version that something runs from is never removed.
options:
  prefix:
    description: Where versions are installed.
    type: path
    default: /opt/hybrid-vmm
  version:
    description: Name of the version, or V(previous).
    type: str
    required: true
  archive:
    description: The artifact on the controller. Used if the version is missing, damaged, or another build.
    type: path
  sha256:
    description: What the archive must be.
    type: str
  manifest_sha256:
    description: sha256 of the manifest that the version must have. Without it any build of that version will do.
    type: str
  keep:
    description: How many versions stay besides the current one. Others are removed unless something runs from them. V(-1) keeps all.
    type: int
    default: -1
  lock_timeout:
    description: Seconds to wait for another run that changes the same prefix.
    type: int
    default: 60
extends_documentation_fragment:
  - hybrid_attributes.changes
attributes:
  idempotent:
    details: V(previous) is not; each run goes to the version that was current before.
"""

EXAMPLES = r"""
- name: Install
  hybrid_qemu_version:
    version: qemu-10.0.13-h1.0a1b2c3d
    archive: "{{ artifact.archive }}"
    sha256: "{{ artifact.sha256 }}"
    keep: 2

- name: Go back
  hybrid_qemu_version:
    version: previous
"""

RETURN = r"""
version:
  description: The version that is now current.
  type: str
  returned: success
before:
  description: The version that was current, if any.
  type: str
  returned: success
installed:
  description: Whether the archive was unpacked.
  type: bool
  returned: success
removed:
  description: Versions that were removed.
  type: list
  elements: str
  returned: success
in_use:
  description: Versions that would have been removed, with the processes that run from them.
  type: dict
  returned: success
running:
  description: Processes that run from other versions than the current one, by version.
  type: dict
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_qemu_versions import CURRENT, PREVIOUS, Host, VersionError, damages, process_pids


def resolve(host: Host, version: str) -> str:
    """Return the name that `version` means."""
    if version != PREVIOUS:
        return version
    name = host.target(PREVIOUS)
    if not name:
        raise VersionError(f"{host.prefix} has no previous version; installed: {', '.join(host.versions()) or 'none'}")
    return name


def plan(host: Host, params: dict[str, Any]) -> dict[str, Any]:
    """Compare what is with what is wanted; decides nothing else than check mode does."""
    name = resolve(host, params["version"])
    versions = host.versions()
    wrong: list[str] = ["not installed"] if name not in versions else damages(host.path(name))
    if not wrong and params["manifest_sha256"] not in (None, host.manifest_sha256(name)):
        wrong = ["another build of the same version"]
    if wrong and not params["archive"]:
        if name not in versions:
            raise VersionError(f"{name} is not installed in {host.prefix}; installed: {', '.join(versions) or 'none'}")
        raise VersionError(f"{name} in {host.prefix} is damaged ({'; '.join(wrong)}): install it again")
    before = host.target(CURRENT)
    previous = before if before not in (None, name) else host.target(PREVIOUS)
    after = versions if name in versions else [name, *versions]
    removed, in_use = host.removable(name, previous, after, params["keep"] if params["keep"] >= 0 else len(after))
    return {
        "name": name,
        "before": before,
        "unpack": wrong,
        "removed": removed,
        "in_use": in_use,
        "state_before": host.state(),
        "state_after": {"current": name, "versions": sorted(set(after) - set(removed))},
    }


def act(host: Host, params: dict[str, Any], todo: dict[str, Any]) -> None:
    """Do what was planned."""
    new = todo["name"] not in host.versions()
    if todo["unpack"]:
        host.unpack(params["archive"], params["sha256"], todo["name"])
    try:
        host.activate(todo["name"])
    except OSError:
        if new:
            host.remove([todo["name"]])
        raise
    host.remove(todo["removed"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/hybrid-vmm"},
            "version": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "manifest_sha256": {"type": "str"},
            "keep": {"type": "int", "default": -1},
            "lock_timeout": {"type": "int", "default": 60},
        },
        required_by={"archive": ["sha256"]},
        supports_check_mode=True,
    )
    host = Host(module.params["prefix"])
    try:
        todo = plan(host, module.params)
        changed = bool(todo["unpack"] or todo["removed"] or todo["before"] != todo["name"])
        if changed and not module.check_mode:
            with host.lock(module.params["lock_timeout"]):
                todo = plan(host, module.params)  # another run may just have done it
                act(host, module.params, todo)
        others = {name: process_pids(host.path(name)) for name in host.versions() if name != todo["name"]}
    except (VersionError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=changed,
        diff={"before": todo["state_before"], "after": todo["state_after"]},
        version=todo["name"],
        before=todo["before"],
        installed=bool(todo["unpack"]),
        why=todo["unpack"],
        removed=todo["removed"],
        in_use=todo["in_use"],
        running={name: pids for name, pids in others.items() if pids},
    )


if __name__ == "__main__":
    main()
