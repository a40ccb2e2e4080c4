#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories, files, links and unpacked archives of a host, all in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_host_files
short_description: Directories, files, links and unpacked archives of a host, all in one call
description:
  - Brings a list of paths into the wanted state, in the order of the list. One call instead of one task for each path,
    because a call costs seconds on a slow or distant host.
  - Files and links are replaced atomically.
  - Removing things does not belong here.
extends_documentation_fragment:
  - hybrid_attributes.changes
options:
  entries:
    description: What is to be there.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      state:
        description:
          - V(unpacked) is a directory with the contents of O(entries[].archive) and compiled Python files.
            It is built under another name and appears complete or not at all; one that exists is left alone, so its
            name must change with its contents.
        type: str
        choices: [directory, file, link, unpacked]
        required: true
      content:
        description: Contents of a V(file).
        type: str
      src:
        description: Target of a V(link).
        type: str
      archive:
        description: A gzipped tar archive, base64-encoded, for V(unpacked). Small ones only. Hidden in output for its length.
        type: str
      owner:
        description: Owner of a V(directory) or V(file).
        type: str
        default: root
      group:
        description: Group of a V(directory) or V(file).
        type: str
        default: root
      mode:
        description: Permissions of a V(directory) or V(file), octal.
        type: str
author: hybrid VMM toolkit
"""

EXAMPLES = r"""
- name: Files of the host
  hybrid_host_files:
    entries:
      - {path: /etc/hybrid-vmm, state: directory, group: hybrid-vmm, mode: "0750"}
      - {path: /usr/local/bin/hybridctl, state: link, src: /opt/hybrid-vmm/bin/hybridctl}
"""

RETURN = r"""
paths:
  description: The paths that were (or, in check mode, would be) changed.
  type: list
  elements: str
  returned: success
  sample: [/usr/local/bin/hybridctl]
"""

import base64
import compileall
import grp
import io
import os
import pwd
import shutil
import stat
import tarfile
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hybrid_vmm.difference import Difference

SPEC = {
    "entries": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["directory", "file", "link", "unpacked"], "required": True},
            "content": {"type": "str"},
            "src": {"type": "str"},
            "archive": {"type": "str", "no_log": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str"},
        },
        "required_if": [
            ("state", "directory", ["mode"]),
            ("state", "file", ["content", "mode"]),
            ("state", "link", ["src"]),
            ("state", "unpacked", ["archive"]),
        ],
    }
}
KINDS = ((stat.S_ISLNK, "link"), (stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"))


class FilesError(Exception):
    """A path cannot be brought into the wanted state."""


def owner_name(number, table, attribute):
    """Return a user's or group's name, or the number when it has none."""
    try:
        return getattr(table(number), attribute)
    except KeyError:
        return str(number)


def observe(path):
    """Return what is at a path, in the words of the options; an empty dict when nothing is."""
    try:
        found = os.lstat(path)
    except OSError:
        return {}
    kind = next((name for test, name in KINDS if test(found.st_mode)), "other")
    result = {"state": kind}
    if kind == "link":
        result["src"] = os.readlink(path)
        return result
    result["owner"] = owner_name(found.st_uid, pwd.getpwuid, "pw_name")
    result["group"] = owner_name(found.st_gid, grp.getgrgid, "gr_name")
    result["mode"] = "%04o" % stat.S_IMODE(found.st_mode)
    if kind == "file":
        with open(path, encoding="utf-8", errors="replace") as stream:
            result["content"] = stream.read()
    return result


def wish(entry):
    """Return what an entry wants, in the form of observe()."""
    if entry["state"] == "link":
        return {"state": "link", "src": entry["src"]}
    result = {key: entry[key] for key in ("state", "owner", "group", "mode")}
    if entry["state"] == "file":
        result["content"] = entry["content"]
    return result


def ids(entry):
    """Return the numbers of an entry's owner and group."""
    try:
        return pwd.getpwnam(entry["owner"]).pw_uid, grp.getgrnam(entry["group"]).gr_gid
    except KeyError as error:
        raise FilesError("%s: no such owner or group: %s" % (entry["path"], error)) from error


def make_directory(entry):
    os.makedirs(entry["path"], exist_ok=True)
    os.chown(entry["path"], *ids(entry))
    os.chmod(entry["path"], int(entry["mode"], 8))


def make_file(entry):
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(entry["path"]), prefix=".hybrid-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchown(descriptor, *ids(entry))
            os.fchmod(descriptor, int(entry["mode"], 8))
            stream.write(entry["content"])
            stream.flush()
            os.fsync(descriptor)
        os.replace(temporary, entry["path"])
    except BaseException:
        os.unlink(temporary)
        raise


def make_link(entry):
    temporary = entry["path"] + ".new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(entry["src"], temporary)
    os.replace(temporary, entry["path"])


def unpack(entry):
    """Unpack beside the target, compile, then rename."""
    partial = entry["path"] + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.mkdir(partial, 0o755)
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(entry["archive"])), mode="r:gz") as archive:
        for member in archive.getmembers():
            if member.name.startswith("/") or ".." in member.name.split("/") or not (member.isfile() or member.isdir()):
                raise FilesError("%s: '%s' in the archive is not a plain file" % (entry["path"], member.name))
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            archive.extract(member, partial)
    for folder, _folders, _files in os.walk(partial):
        os.chmod(folder, 0o755)
    compileall.compile_dir(partial, quiet=1, stripdir=partial, prependdir=entry["path"])
    os.rename(partial, entry["path"])


MAKE = {"directory": make_directory, "file": make_file, "link": make_link, "unpacked": unpack}


class Files:
    def __init__(self, module):
        self.module = module
        self.changes = Difference()

    def run(self):
        paths = [entry["path"] for entry in self.module.params["entries"] if self.bring(entry)]
        return {"changed": self.changes.changed, "diff": self.changes.as_diff(), "paths": paths}

    def bring(self, entry):
        before = observe(entry["path"])
        if entry["state"] == "unpacked":
            before, after = before.get("state"), "directory"
            if before not in (None, "directory"):
                raise FilesError("%s: is a %s and in the way of a directory" % (entry["path"], before))
        else:
            after = wish(entry)
            if before and before["state"] != after["state"] and "directory" in (before["state"], after["state"]):
                raise FilesError("%s: is a %s and in the way of a %s" % (entry["path"], before["state"], after["state"]))
        changed = self.changes.note(entry["path"], before, after)
        if changed and not self.module.check_mode:
            MAKE[entry["state"]](entry)
        return changed


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(**Files(module).run())
    except FilesError as error:
        module.fail_json(msg=str(error))
    except (OSError, tarfile.TarError) as error:
        module.fail_json(msg="%s: %s" % (getattr(error, "filename", None) or "this host", getattr(error, "strerror", None) or error))


if __name__ == "__main__":
    main()
