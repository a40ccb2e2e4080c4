# SPDX-License-Identifier: GPL-3.0-or-later
"""What a built image and a built guest have in common: a cache folder with a kernel and the initrd to boot it with.

The names are part of what lies in the cache: who changes them also changes RECIPE in image.py; a guest's key has this file in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bootable:
    """A folder with Debian's kernel, unmodified, and an initrd."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """Debian's kernel, unmodified."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Initrd to boot it with."""
        return self.folder / "initrd.img"
