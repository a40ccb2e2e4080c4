#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything a QEMU build depends on, as one key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_inputs
short_description: Identify a QEMU build by everything that goes into it
description:
  - Reads the patch series and checks that it is well formed.
  - Hashes all inputs of a build (source archives, series, configure options, Python build requirements, recipe, plugin sources,
    release and architecture of the build machine) into one key. The same key means the same artifact.
options:
  patches:
    description: Folder of the series.
    type: path
    required: true
  plugins:
    description: Folder of TCG plugin sources (C(*.c)). It may be missing.
    type: path
  recipe:
    description: Files and folders that say how to build (tasks, modules). Their content counts, not their time.
    type: list
    elements: path
    default: []
  values:
    description: Further inputs, any YAML.
    type: dict
    default: {}
extends_documentation_fragment:
  - hybrid_attributes.reads
"""

EXAMPLES = r"""
- name: Identify the build
  hybrid_qemu_inputs:
    patches: "{{ role_path }}/files/patches"
    recipe: ["{{ role_path }}/tasks"]
    values: {configure: [--enable-kvm]}
  register: inputs
"""

RETURN = r"""
key:
  description: sha256 over all inputs, shortened to 16 hexadecimal digits.
  type: str
  returned: success
  sample: 0a1b2c3d4e5f6071
series:
  description: Identity of the series, what the binary is stamped with.
  type: str
  returned: success
  sample: h1.0a1b2c3d
series_sha256:
  description: sha256 over the series file and the patches in order.
  type: str
  returned: success
interface:
  description: Version of the QMP interface that the patched QEMU speaks.
  type: int
  returned: success
patches:
  description: Full paths of the patches in order.
  type: list
  elements: str
  returned: success
plugins:
  description: Full paths of the plugin sources.
  type: list
  elements: str
  returned: success
"""

import hashlib
import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_qemu_series import SeriesError, read_series

# Written by Python or an editor, never part of a recipe.
IGNORED_SUFFIXES = (".pyc", ".pyo", "~", ".swp")
IGNORED_FOLDERS = ("__pycache__",)


def hash_tree(path: str) -> dict[str, str]:
    """Return sha256 by relative path for a file or all files below a folder."""
    if os.path.isfile(path):
        files = [path]
    else:
        files = []
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(set(folders) - set(IGNORED_FOLDERS))
            files += [os.path.join(folder, name) for name in names if not name.endswith(IGNORED_SUFFIXES)]
    base = os.path.dirname(path.rstrip("/"))
    hashes = {}
    for name in sorted(files):
        with open(name, "rb") as stream:
            hashes[os.path.relpath(name, base)] = hashlib.sha256(stream.read()).hexdigest()
    return hashes


def build_key(inputs: dict[str, Any]) -> str:
    """Return the key of a build; equal inputs give equal keys whatever the order of their names."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plugin_sources(folder: str | None) -> list[str]:
    """Return the plugin sources in a folder, sorted."""
    if not folder or not os.path.isdir(folder):
        return []
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".c"))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "patches": {"type": "path", "required": True},
            "plugins": {"type": "path"},
            "recipe": {"type": "list", "elements": "path", "default": []},
            "values": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        series = read_series(module.params["patches"])
        plugins = plugin_sources(module.params["plugins"])
        recipe: dict[str, str] = {}
        for path in module.params["recipe"]:
            recipe.update(hash_tree(path))
        key = build_key(
            {
                "series": series.sha256,
                "interface": series.interface,
                "plugins": hash_tree(module.params["plugins"]) if plugins else {},
                "recipe": recipe,
                "values": module.params["values"],
            }
        )
    except (SeriesError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=False,
        key=key,
        series=series.identity,
        series_sha256=series.sha256,
        interface=series.interface,
        patches=series.paths,
        plugins=plugins,
    )


if __name__ == "__main__":
    main()
