# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guest of tests and demo says on its console (tests/guest/hybrid-check.c), and what of it is missing. Pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PERIOD_MS = 500
_BEAT = re.compile(r"HB (\d+) mono_ms=(\d+) real_ms=(\d+) late_us_max=(\d+) iters=(\d+) errors=(\d+)")
_READY = re.compile(r"READY vcpus=(\d+)")


@dataclass(frozen=True)
class Beat:
    """One heartbeat; times are the guest's own."""

    sequence: int
    mono_ms: int
    real_ms: int
    late_us_max: int
    iters: int
    errors: int


@dataclass(frozen=True)
class Console:
    """A guest's console since it last said READY.

    :param vcpus: None before it is ready.
    :param complaints: lines with which it reports a discrepancy, and a kernel's last words.
    """

    vcpus: int | None
    beats: tuple[Beat, ...]
    complaints: tuple[str, ...]

    @property
    def errors(self) -> int:
        """How many errors the guest found: its own count, or the lines on its console if there are more of them."""
        counted = self.beats[-1].errors if self.beats else 0
        return max(counted, len(self.complaints))


def read_console(text: str) -> Console:
    """Read a console log. A last line without its end is still being written and does not count."""
    vcpus: int | None = None
    beats: list[Beat] = []
    complaints: list[str] = []
    for line in text.replace("\r", "").split("\n")[:-1]:
        if ready := _READY.search(line):
            vcpus, beats = int(ready[1]), []
        elif beat := _BEAT.search(line):
            beats.append(Beat(*(int(number) for number in beat.groups())))
        elif "ERR " in line or "Kernel panic" in line:
            complaints.append(line.strip())
    return Console(vcpus, tuple(beats), tuple(complaints))


def after(beats: Sequence[Beat], sequence: int) -> list[Beat]:
    """Return the beat with this sequence number and all that came later."""
    return [beat for beat in beats if beat.sequence >= sequence]


def around(beats: Sequence[Beat], real_ms: float, after_ms: float = 2000) -> list[Beat]:
    """Return the beats from the last one before a moment (by the guest's clock) to the first one some time after it."""
    before = [beat for beat in beats if beat.real_ms < real_ms]
    later = [beat for beat in beats if beat.real_ms >= real_ms]
    count = next((index for index, beat in enumerate(later) if beat.real_ms >= real_ms + after_ms), len(later)) + 1
    return before[-1:] + later[:count]


def missed(beats: Sequence[Beat], period_ms: int = PERIOD_MS) -> int:
    """Return how many heartbeats did not come in time between the first and the last of these, by the guest's clock."""
    pairs = zip(beats, beats[1:])
    return sum(max(0, round((later.mono_ms - earlier.mono_ms) / period_ms) - 1) for earlier, later in pairs)


def lost(beats: Sequence[Beat]) -> int:
    """Return how many heartbeats the guest sent that are not there."""
    return beats[-1].sequence - beats[0].sequence + 1 - len(beats) if beats else 0


def clock_shift_ms(beats: Sequence[Beat], window: int = 5) -> float:
    """Return by how much the guest's two clocks moved against each other from the first beats to the last ones.

    A single beat proves nothing: its thread may be held up between reading one clock and the other.
    """
    offsets = [beat.real_ms - beat.mono_ms for beat in beats]
    return statistics.median(offsets[-window:]) - statistics.median(offsets[:window]) if offsets else 0.0
