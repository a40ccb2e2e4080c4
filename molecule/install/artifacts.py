#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the scenario's artifacts into a folder: small stand-ins whose QEMU is a script that says a version.

qemu-img is sleep(1), so that a process can run from a version. What is wrong with an artifact is its name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

RELEASES = {"debian-12": ["zlib1g"], "debian-13": ["zlib1g"]}


def write(folder: Path, digit: str, payload: int = 0, says: str | None = None, **manifest: Any) -> Path:
    """Write one artifact with SHA256SUMS beside it."""
    folder.mkdir(parents=True)
    series = f"h1.{digit * 8}"
    files = {
        "bin/qemu-system-x86_64": f"#!/bin/sh\necho 'QEMU emulator version 10.0.13 (hybrid-vmm {says or series})'\n".encode(),
        "bin/qemu-img": Path("/bin/sleep").read_bytes(),
        **({"share/payload": b"\0" * payload} if payload else {}),
    }
    text = {
        "schema": 1, "qemu_version": "10.0.13", "series": series, "interface": 1, "architecture": "x86_64",
        "run_time_packages": RELEASES, "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        **manifest,
    }
    path = folder / f"hybrid-qemu-10.0.13-{series}.tar.gz"
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, data in {**files, "manifest.json": json.dumps(text).encode()}.items():
            info = tarfile.TarInfo(f"top/{name}")
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path


def main() -> None:
    """Write them all."""
    top = Path(sys.argv[1])
    write(top / "one", "1")
    write(top / "two", "2")
    write(top / "three", "3")
    with open(write(top / "tampered", "4"), "ab") as stream:
        stream.write(b"!")
    write(top / "lying", "4", files={"bin/qemu-system-x86_64": "0" * 64})
    write(top / "impostor", "4", says="h1.99999999")
    write(top / "other_interface", "4", interface=2)
    write(top / "other_release", "4", run_time_packages={"debian-99": []})
    write(top / "large", "4", payload=64 << 20)


if __name__ == "__main__":
    main()
