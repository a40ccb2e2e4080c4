# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress lines with the time of day, on standard error so that output stays usable in pipes."""

from __future__ import annotations

import sys
import time


def say(who: str, text: str) -> None:
    """Print one line: time of day, who speaks (for example ``lab0`` or ``image``), what happens."""
    print(f"{time.strftime('%H:%M:%S')} {who}: {text}", file=sys.stderr, flush=True)
