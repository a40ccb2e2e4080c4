#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""One relocatable artifact with its manifest, published at once or not at all."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_pack
short_description: Pack a QEMU installation tree into an artifact
description:
  - Adds C(manifest.json) to the tree, packs it into a tar archive that is the same for the same content (sorted, fixed times and
    owners), and publishes archive, manifest and C(SHA256SUMS) in one folder by a rename.
  - The run-time packages in the manifest are found by the shared libraries that the binaries need. A library that no package is
    known for is an error.
options:
  tree:
    description: The installation tree.
    type: path
    required: true
  name:
    description: Name of the archive's top folder, and of the archive.
    type: str
    required: true
  dest:
    description: The new artifact folder. If it exists, it is kept.
    type: path
    required: true
  latest:
    description: Symbolic link that then points to the artifact folder.
    type: path
  manifest:
    description: What the manifest says besides files and run-time packages.
    type: dict
    required: true
  libraries:
    description: Per shared library (soname) the package by release. An empty mapping is a library that every system has.
    type: dict
    required: true
  packages:
    description: Packages needed besides those of shared libraries, for every release.
    type: list
    elements: str
    default: []
  releases:
    description: Releases that the artifact is for.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Pack
  hybrid_qemu_pack:
    tree: /var/tmp/build/stage
    name: hybrid-qemu-10.0.13-h1.0a1b2c3d
    dest: /var/cache/hybrid-vmm/artifacts/0a1b2c3d4e5f6071
    manifest: {schema: 1, qemu_version: 10.0.13}
    libraries: {libc.so.6: {}, libslirp.so.0: {debian-12: libslirp0}}
    releases: [debian-12]
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
manifest:
  description: The manifest.
  type: dict
  returned: success
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_qemu_tree import sha256_file

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
#: The time of every file in the archive: 2024-01-01, the same for everybody.
TIME = 1704067200
ELF = b"\x7fELF"


class PackError(Exception):
    """The tree cannot be packed."""


def list_files(tree: str) -> list[str]:
    """Return the relative paths of all files, sorted; the manifest does not list itself."""
    found = []
    for folder, folders, names in os.walk(tree):
        for name in folders + names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                raise PackError(f"{path} is a symbolic link; an artifact has only files, so that each can be verified")
        found += [os.path.relpath(os.path.join(folder, name), tree) for name in names]
    return sorted(set(found) - {MANIFEST})


def needed_libraries(path: str) -> list[str]:
    """Return the sonames that an ELF file needs; nothing for other files."""
    with open(path, "rb") as stream:
        if stream.read(4) != ELF:
            return []
    result = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=False)
    if result.returncode:
        raise PackError(f"objdump -p {path}: {result.stderr.strip()}")
    return re.findall(r"^\s*NEEDED\s+(\S+)$", result.stdout, re.MULTILINE)


def run_time_packages(
    needed: list[str], libraries: dict[str, dict[str, str]], packages: list[str], releases: list[str]
) -> dict[str, list[str]]:
    """Return the packages per release."""
    found = {}
    for release in releases:
        names = set(packages)
        for soname in needed:
            if soname not in libraries:
                raise PackError(f"no package is known for the library {soname}: add it to __hybrid_qemu_build_libraries in vars")
            if not libraries[soname]:
                continue
            if release not in libraries[soname]:
                raise PackError(f"no package of {release} is known for the library {soname}")
            names.add(libraries[soname][release])
        found[release] = sorted(names)
    return found


def write_archive(tree: str, name: str, archive: str) -> None:
    """Write the tar archive: same content, same bytes."""

    def member(path: str, arcname: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(arcname)
        info.mtime = TIME
        info.uname = info.gname = "root"
        if os.path.isdir(path):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        else:
            info.size = os.path.getsize(path)
            info.mode = 0o755 if os.access(path, os.X_OK) else 0o644
        return info

    files = sorted([*list_files(tree), MANIFEST])
    folders = sorted({os.path.dirname(path) for path in files} | {parent for path in files for parent in parents(path)})
    with open(archive, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=TIME) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for relative in folders:
                tar.addfile(member(os.path.join(tree, relative), os.path.join(name, relative).rstrip("/")))
            for relative in files:
                path = os.path.join(tree, relative)
                with open(path, "rb") as stream:
                    tar.addfile(member(path, os.path.join(name, relative)), stream)
        zipped.flush()


def parents(path: str) -> list[str]:
    """Return the folders above a relative path."""
    found = []
    while path := os.path.dirname(path):
        found.append(path)
    return found


def write_text(path: str, text: str) -> None:
    """Write a file and see it on disk."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def publish(folder: str, dest: str) -> bool:
    """Rename `folder` to `dest`; an artifact that somebody else published meanwhile is kept."""
    os.chmod(folder, 0o755)
    try:
        os.rename(folder, dest)
    except OSError:
        if not os.path.exists(os.path.join(dest, MANIFEST)):
            raise
        shutil.rmtree(folder)
        return False
    return True


def point(link: str, dest: str) -> None:
    """Make `link` point to `dest`, atomically."""
    temporary = f"{link}.{os.getpid()}"
    os.symlink(os.path.relpath(dest, os.path.dirname(link)), temporary)
    os.replace(temporary, link)


def pack(params: dict[str, Any]) -> dict[str, Any]:
    """Make and publish the artifact."""
    tree, name, dest = params["tree"], params["name"], params["dest"]
    files = list_files(tree)
    needed = sorted({soname for path in files for soname in needed_libraries(os.path.join(tree, path))})
    manifest = {
        **params["manifest"],
        "files": {path: sha256_file(os.path.join(tree, path)) for path in files},
        "run_time_packages": run_time_packages(needed, params["libraries"], params["packages"], params["releases"]),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    write_text(os.path.join(tree, MANIFEST), text)

    os.makedirs(os.path.dirname(dest), exist_ok=True)
    folder = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(dest))
    try:
        archive = f"{name}.tar.gz"
        write_archive(tree, name, os.path.join(folder, archive))
        write_text(os.path.join(folder, MANIFEST), text)
        sums = {entry: sha256_file(os.path.join(folder, entry)) for entry in (archive, MANIFEST)}
        write_text(os.path.join(folder, SUMS), "".join(f"{digest}  {entry}\n" for entry, digest in sums.items()))
        changed = publish(folder, dest)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if params["latest"]:
        point(params["latest"], dest)
    return {"changed": changed, "archive": os.path.join(dest, archive), "sha256": sums[archive], "manifest": manifest}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "tree": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "latest": {"type": "path"},
            "manifest": {"type": "dict", "required": True},
            "libraries": {"type": "dict", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "releases": {"type": "list", "elements": "str", "required": True},
        },
    )
    try:
        module.exit_json(**pack(module.params))
    except (PackError, OSError) as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
