#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack the Python tree of a host: hybrid_vmm, qemu.qmp out of its wheel, and the launchers, into one archive.

Runs on the controller and writes nothing. The hash of the contents becomes part of the tree's name on the host, so that
an unchanged host is left alone. Prints one JSON object: hash, archive (gzipped tar, base64).
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile
import zipfile


def tree(package, wheel, scripts):
    """Return {path in the archive: (mode, contents)}."""
    files = {}
    for source in sorted(package.rglob("*.py")):
        files["hybrid_vmm/%s" % source.relative_to(package).as_posix()] = (0o644, source.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                files[name] = (0o644, archive.read(name))
    for source in sorted(scripts.iterdir()):
        files["bin/%s" % source.name] = (0o755, source.read_bytes())
    for name, module in ENTRIES.items():
        files["bin/%s" % name] = (0o755, (ENTRY % module).encode())
    return files


def digest(files):
    """Hash names, modes and contents."""
    state = hashlib.sha256()
    for name in sorted(files):
        mode, contents = files[name]
        state.update(b"%s\0%o\0%d\0" % (name.encode(), mode, len(contents)))
        state.update(contents)
    return state.hexdigest()[:12]


def pack(files):
    """Return the archive: the same files give the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in sorted(files):
            mode, contents = files[name]
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return gzip.compress(plain.getvalue(), mtime=0)


# Isolated (-I): the current directory of whoever calls must not decide which code runs as root.
ENTRY = """#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

sys.path.insert(0, "/opt/hybrid-vmm/python")

from hybrid_vmm.%s import main

sys.exit(main())
"""
ENTRIES = {"hybridctl": "cli", "hybrid-vm-run": "launch", "hybrid-vm-ready": "ready"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=pathlib.Path, required=True)
    parser.add_argument("--wheel", type=pathlib.Path, required=True)
    parser.add_argument("--wheel-sha256", required=True)
    parser.add_argument("--scripts", type=pathlib.Path, required=True)
    options = parser.parse_args()

    found = hashlib.sha256(options.wheel.read_bytes()).hexdigest()
    if found != options.wheel_sha256:
        sys.exit("%s: sha256 is %s, expected %s" % (options.wheel, found, options.wheel_sha256))
    files = tree(options.package, options.wheel, options.scripts)
    json.dump({"hash": digest(files), "archive": base64.b64encode(pack(files)).decode()}, sys.stdout)


if __name__ == "__main__":
    main()
