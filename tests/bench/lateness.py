# SPDX-License-Identifier: GPL-3.0-or-later
"""How late a guest's sleeper wakes right after it has entered tcg once more, and when it has been there for long."""

from __future__ import annotations

import re
from collections.abc import Sequence

from comparison import Entry, comparison
from guests import Bench, Guest
from test_linux import FATAL

HEARTBEAT = r"^HB \d+ mono_ms=(\d+) real_ms=\d+ late_us_max=(\d+) "
HEARTBEAT_MS = 200
WINDOW_MS = 1000
# In kvm between two stays: short, so that the guest's code is the same.
KVM_BEATS = 3
WARM_UP_MS = 5000
Beat = tuple[int, int]  # the guest's clock in ms, worst lateness since the last beat in us


def beat(match: re.Match[str]) -> Beat:
    """Return what a heartbeat says."""
    return int(match[1]), int(match[2])


def worst(beats: Sequence[Beat]) -> int:
    """Return the worst lateness of some beats, in microseconds."""
    return max(late for _, late in beats)


def beats_for(guest: Guest, ms: int) -> list[Beat]:
    """Return the beats from now on until the guest's clock has gone on by ms since the first of them."""
    since = len(guest.console.lines)
    beats: list[Beat] = []
    while not beats or beats[-1][0] - beats[0][0] < ms:
        since, match = guest.wait_line(HEARTBEAT, 120, since, fatal=FATAL)
        since += 1
        beats.append(beat(match))
    return beats


def measure(bench: Bench) -> list[Entry]:
    """Return the comparison of this group."""
    entered, steady = [], []
    guest = Guest(bench, "hybrid", options=f"hc.workers=1 hc.hb_ms={HEARTBEAT_MS} hc.blk=0")
    try:
        guest.set_mode("tcg")
        beats_for(guest, WARM_UP_MS)
        for _ in bench.each_run("lateness"):
            guest.set_mode("kvm")
            beats_for(guest, KVM_BEATS * HEARTBEAT_MS)
            guest.set_mode("tcg")
            # The first beat tells of the switch itself and of what came after it.
            entered.append(worst(beats_for(guest, WINDOW_MS)))
            beats_for(guest, WARM_UP_MS)
            steady.append(worst(beats_for(guest, WINDOW_MS)))
    finally:
        guest.kill()
    return [comparison("warm_late_vs_tcg", entered, steady, "us")]
