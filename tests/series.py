# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that the QEMU series adds, for tests that use them without a QEMU tree."""

from __future__ import annotations

from pathlib import Path

PATCHES = Path(__file__).resolve().parent.parent / "roles" / "hybrid_qemu_build" / "files" / "patches"


def added_file(name: str) -> str:
    """Return the text of a file that a patch of the series adds and no later one changes.

    :param name: path in the source, e.g. ``accel/hybrid/hybrid-decision.c``.
    :raises LookupError: no patch adds it, or a later one changes it.
    """
    found = ""
    for patch in sorted(PATCHES.glob("*.patch")):
        head, mark, rest = patch.read_text(encoding="utf-8").partition(f"\ndiff --git a/{name} b/{name}\n")
        if not mark:
            continue
        if found or not rest.startswith("new file mode"):
            raise LookupError(f"{patch.name} changes {name}, which another patch adds; this reader cannot follow that")
        section = rest.split("\ndiff --git ", 1)[0].split("\n-- \n", 1)[0]
        found = "".join(f"{line[1:]}\n" for line in section.splitlines()[4:] if line.startswith("+"))
    if not found:
        raise LookupError(f"no patch in {PATCHES} adds {name}")
    return found
