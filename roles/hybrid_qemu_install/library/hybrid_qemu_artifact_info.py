#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a QEMU artifact, and is it the right one?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_artifact_info
short_description: Verify a QEMU artifact and read its manifest
description:
  - Runs where the artifact is, normally the controller.
  - The archive must have the sha256 that is given or, if none is given, the one in the file C(SHA256SUMS) beside it.
options:
  path:
    description: The archive (C(*.tar.gz)), or a folder that holds exactly one.
    type: path
    required: true
  sha256:
    description: What the archive must be.
    type: str
    default: ""
extends_documentation_fragment:
  - hybrid_attributes.reads
"""

EXAMPLES = r"""
- name: Read the artifact
  hybrid_qemu_artifact_info:
    path: "{{ lookup('ansible.builtin.env', 'HOME') }}/.cache/hybrid-vmm/artifacts/latest"
  delegate_to: localhost
  register: artifact
"""

RETURN = r"""
archive:
  description: Path of the archive.
  type: str
  returned: success
sha256:
  description: sha256 of the archive.
  type: str
  returned: success
version:
  description: Name of the version's folder on hosts.
  type: str
  returned: success
  sample: qemu-10.0.13-h1.0a1b2c3d
manifest:
  description: The manifest.
  type: dict
  returned: success
manifest_sha256:
  description: sha256 of the manifest; two builds of one version differ in it.
  type: str
  returned: success
size:
  description: Size of the archive in bytes.
  type: int
  returned: success
unpacked_size:
  description: Size of its files in bytes.
  type: int
  returned: success
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_qemu_versions import VersionError, read_artifact, sha256_file, version_name

SUMS = "SHA256SUMS"


def find_archive(path: str) -> str:
    """Return the archive that `path` is or holds."""
    if os.path.isfile(path):
        return path
    if not os.path.isdir(path):
        raise VersionError(f"no QEMU artifact at {path}: build one (make build), or set hybrid_qemu_install_artifact")
    found = sorted(name for name in os.listdir(path) if name.endswith(".tar.gz"))
    if len(found) != 1:
        raise VersionError(f"{path} holds {len(found)} archives (*.tar.gz), one is expected: name it in hybrid_qemu_install_artifact")
    return os.path.join(path, found[0])


def expected_sha256(archive: str) -> str:
    """Return what SHA256SUMS beside the archive says."""
    path = os.path.join(os.path.dirname(archive), SUMS)
    try:
        with open(path, encoding="utf-8") as stream:
            sums = {name: digest for digest, name in (line.split(maxsplit=1) for line in stream.read().splitlines() if line.strip())}
        return sums[os.path.basename(archive)]
    except (OSError, KeyError, ValueError) as exc:
        raise VersionError(f"no sha256 is known for {archive}: set hybrid_qemu_install_sha256, or put {SUMS} beside it") from exc


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "sha256": {"type": "str", "default": ""}},
        supports_check_mode=True,
    )
    try:
        archive = find_archive(module.params["path"])
        expected = (module.params["sha256"] or expected_sha256(archive)).lower()
        found = sha256_file(archive)
        if found != expected:
            raise VersionError(f"{archive} has sha256 {found}, expected {expected}: it was changed or is another build")
        contents = read_artifact(archive)
    except (VersionError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, archive=archive, sha256=found, version=version_name(contents["manifest"]), **contents)


if __name__ == "__main__":
    main()
