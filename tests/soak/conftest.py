# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak's modules and the harness of the QEMU tests under their own names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "qemu")]
