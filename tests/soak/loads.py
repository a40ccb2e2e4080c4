# SPDX-License-Identifier: GPL-3.0-or-later
"""What the soak's guest says on its console: how much it verified, and what is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What must go on all the time. ``check`` is hybrid-check (registers, JIT code, timers, clocks, fork, the raw disk); it counts rounds.
LOADS = ("check", "files", "tcp", "stress")
FATAL = re.compile(
    r"\bERR |Kernel panic|BUG:|Oops|general protection|invalid opcode|double fault|Call Trace|I/O error|EXT4-fs (error|warning)"
    r"|blocked for more than|soft lockup|detected stalls"
)
_BEAT = re.compile(r"^HB \d+ .*\biters=(\d+) errors=(\d+)")
_VERIFIED = re.compile(r"^VERIFIED (\S+) n=(\d+)")


class Loads:
    """Counts of what a guest verified, read from its console line by line."""

    def __init__(self) -> None:
        self.verified: dict[str, int] = dict.fromkeys(LOADS, 0)
        self.complaints: list[str] = []
        self.jobs: set[str] = set()
        self._counted = 0

    @property
    def errors(self) -> int:
        """How many errors the guest found: hybrid-check's own count, or the lines about them if there are more."""
        return max(self._counted, len(self.complaints))

    def feed(self, lines: Sequence[str]) -> None:
        """Take in the console's next lines."""
        for line in lines:
            if FATAL.search(line):
                self.complaints.append(line)
            elif beat := _BEAT.match(line):
                self.verified["check"] = int(beat[1])
                self._counted = int(beat[2])
            elif said := _VERIFIED.match(line):
                self.verified[said[1]] = int(said[2])
                self.jobs.update(re.findall(r"\bjob=(\S+)", line))

    def behind(self, before: dict[str, int]) -> list[str]:
        """Return the loads that have not gone on since these counts were taken."""
        return [load for load in LOADS if self.verified[load] <= before[load]]
