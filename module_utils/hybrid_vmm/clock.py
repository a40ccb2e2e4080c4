# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that asks what time it is, so that tests can stop the clock."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Callable, Optional

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def iso_utc(microseconds: int) -> str:
    """Format a moment for people and machines.

    :param microseconds: since 1970-01-01 UTC, as QEMU's query-hybrid gives it.
    :return: ISO 8601 in UTC with microseconds, e.g. ``2026-11-23T05:00:00.000000Z``.
    """
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def realtime_us() -> int:
    """Return microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class Deadline:
    """One time limit for a whole call, however many steps the call has.

    :param seconds: time limit in seconds, more than 0.
    :param monotonic: the clock, in seconds; tests give their own.
    """

    def __init__(self, seconds: float, monotonic: Optional[Callable[[], float]] = None) -> None:
        self.seconds = float(seconds)
        self._monotonic = monotonic or time.monotonic
        self._end = self._monotonic() + self.seconds

    def left(self) -> float:
        """Return the seconds that are left, never less than 0."""
        return max(0.0, self._end - self._monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self.left() <= 0.0

    def __str__(self) -> str:
        return f"{self.seconds:g} s"
