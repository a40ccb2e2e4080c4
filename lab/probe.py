# SPDX-License-Identifier: GPL-3.0-or-later
"""Which accelerator can carry a lab host on this machine."""

from __future__ import annotations

from pathlib import Path

from lab.image import Image


def outer_accelerator(cache: Path, image: Image) -> str:
    """Return ``kvm`` or ``tcg``."""
    return "tcg"
