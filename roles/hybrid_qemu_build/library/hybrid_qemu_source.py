#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh, patched QEMU source tree."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_source
short_description: Unpack a QEMU source tree and apply patches without fuzz
description:
  - Verifies the archives, unpacks them into a folder that must not exist yet, applies the packager's patches if a packaging
    archive (C(*.debian.tar.*)) is among the archives, then the series in order.
  - A patch that does not apply exactly ends the run. The error names it.
options:
  folder:
    description: Where the archives are.
    type: path
    required: true
  archives:
    description: The source archive and, optionally, a packaging archive.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: File name of the archive.
        type: str
        required: true
      sha256:
        description: What it must be.
        type: str
        required: true
  dest:
    description: The new source tree.
    type: path
    required: true
  scratch:
    description: Folder for the packaging archive's content.
    type: path
    required: true
  series:
    description: Folder of the series.
    type: path
    required: true
  series_sha256:
    description: What the series must be. A series that was changed since the build was identified is an error.
    type: str
    required: true
  version:
    description: The QEMU version that the source must have. Empty accepts any.
    type: str
    default: ""
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Make the source tree
  hybrid_qemu_source:
    folder: /var/cache/hybrid-vmm/src
    archives:
      - {name: qemu-10.0.13.tar.xz, sha256: "{{ qemu_sha256 }}"}
    dest: /var/tmp/build/src
    scratch: /var/tmp/build
    series: "{{ role_path }}/files/patches"
    series_sha256: "{{ inputs.series_sha256 }}"
"""

RETURN = r"""
version:
  description: QEMU version of the source tree.
  type: str
  returned: success
  sample: 10.0.13
packaging_patches:
  description: Names of the packager's patches that were applied.
  type: list
  elements: str
  returned: success
patch:
  description: Name of the patch that does not apply.
  type: str
  returned: when a patch does not apply
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_qemu_series import SeriesError, read_series
from ansible.module_utils.hybrid_qemu_tree import PatchError, TreeError, apply_patch, source_version, unpack


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "archives": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"name": {"type": "str", "required": True}, "sha256": {"type": "str", "required": True}},
            },
            "dest": {"type": "path", "required": True},
            "scratch": {"type": "path", "required": True},
            "series": {"type": "path", "required": True},
            "series_sha256": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
        },
    )
    params = module.params
    try:
        series = read_series(params["series"])
        if series.sha256 != params["series_sha256"]:
            module.fail_json(msg=f"{params['series']} was changed while the build began: run it again")
        archives = [(os.path.join(params["folder"], item["name"]), item["sha256"]) for item in params["archives"]]
        applied = unpack(archives, params["dest"], params["scratch"])
        version = source_version(params["dest"])
        if params["version"] and version != params["version"]:
            module.fail_json(
                msg=f"{params['archives'][0]['name']} holds QEMU {version}, but hybrid_qemu_build_version is {params['version']}"
            )
        for number, patch in enumerate(series.paths, 1):
            try:
                apply_patch(patch, params["dest"])
            except PatchError as exc:
                module.fail_json(
                    msg=f"patch {exc.patch} ({number} of {len(series.patches)}) does not apply to QEMU {version} without fuzz: "
                    f"{exc.output.strip('; ')}. Rebase the series: make qemu-src, git rebase, make qemu-export.",
                    patch=exc.patch,
                )
    except PatchError as exc:
        module.fail_json(
            msg=f"the packager's patch {exc.patch} does not apply to {params['archives'][0]['name']}: {exc.output}",
            patch=exc.patch,
        )
    except (TreeError, SeriesError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=True, version=version, packaging_patches=applied)


if __name__ == "__main__":
    main()
