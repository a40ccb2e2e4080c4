# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that the QEMU series adds, for tests that use them without a QEMU tree."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

PATCHES = Path(__file__).resolve().parent.parent / "roles" / "hybrid_qemu_build" / "files" / "patches"


@functools.cache
def added_file(name: str) -> str:
    """Return the text of a file that the series adds, as the last patch leaves it.

    :param name: path in the source, e.g. ``qapi/hybrid.json``.
    :raises LookupError: no patch adds it.
    """
    with tempfile.TemporaryDirectory() as folder:
        # --include leaves all other files of a patch aside; the folder is no work tree, so that nothing else is looked at.
        for patch in sorted(PATCHES.glob("*.patch")):
            subprocess.run(["git", "apply", f"--include={name}", str(patch)], cwd=folder, check=True, timeout=60)
        path = Path(folder) / name
        if not path.exists():
            raise LookupError(f"no patch in {PATCHES} adds {name}")
        return path.read_text(encoding="utf-8")
