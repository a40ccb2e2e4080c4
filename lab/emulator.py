# SPDX-License-Identifier: GPL-3.0-or-later
"""Which QEMU plays the lab host's hardware: the one that this repository builds.

The series mends faults of QEMU's SVM emulation that bring down the guests of an emulated host, and older releases, which
distributions have, lack more (docs/architecture.md, "Known faults of the lab"). So the lab does not use what the machine has.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from lab.errors import LabError

BINARY = "qemu-system-x86_64"


def binary_in(archive: Path, kept: Path) -> Path:
    """Return the path of the QEMU binary out of an artifact's archive, unpacked once below the folder kept.

    Raises LabError when the archive has none.
    """
    target = kept / BINARY
    if target.exists():
        return target
    kept.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as members:
        member = next((member for member in members if member.name.endswith(f"/bin/{BINARY}")), None)
        source = members.extractfile(member) if member else None
        if source is None:
            raise LabError(f"{archive}: no bin/{BINARY} in it; remove its folder and run make build")
        part = kept / f"{BINARY}.{os.getpid()}"
        part.write_bytes(source.read())
    part.chmod(0o755)
    part.rename(target)
    return target


def built(cache: Path) -> Path:
    """Return the path of the QEMU binary that was built last.

    Raises LabError when none was built yet.
    """
    latest = cache / "artifacts" / "latest"
    archives = sorted(latest.glob("hybrid-qemu-*.tar.gz"))
    if not archives:
        raise LabError(f"no QEMU in {latest}: make build first")
    return binary_in(archives[-1], cache / "unpacked" / latest.resolve().name)


def emulator(cache: Path) -> Path:
    """Return the QEMU that runs lab hosts: HYBRID_LAB_QEMU, else the one that was built last.

    Raises LabError when HYBRID_LAB_QEMU is no file, or nothing was built.
    """
    chosen = os.environ.get("HYBRID_LAB_QEMU")
    if not chosen:
        return built(cache)
    if not os.access(chosen, os.X_OK):
        raise LabError(f"HYBRID_LAB_QEMU={chosen!r}: there is no program")
    return Path(chosen).absolute()
