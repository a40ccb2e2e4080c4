# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a guest's console."""

from __future__ import annotations

import pytest

from lab.heartbeat import Beat, after, clock_error_ms, lost, missed, read_console


def line(sequence: int, mono: int, errors: int = 0) -> str:
    return f"HB {sequence} mono_ms={mono} real_ms={mono + 7000} late_us_max=10 iters={sequence} errors={errors}\r\n"


def beat(sequence: int, mono: int, real: int = 0) -> Beat:
    return Beat(sequence, mono, real, 0, 0, 0)


def test_only_what_came_since_the_last_start_counts() -> None:
    console = read_console("READY vcpus=1\r\n" + line(0, 100) + "reboot\nREADY vcpus=2\n" + line(0, 50) + line(1, 550))
    assert console.vcpus == 2
    assert [item.mono_ms for item in console.beats] == [50, 550]
    assert console.errors == 0


def test_unfinished_line_does_not_count() -> None:
    assert read_console("READY vcpus=1\n" + line(0, 100).rstrip()).beats == ()


def test_errors_are_the_larger_of_lines_and_count() -> None:
    assert read_console("READY vcpus=1\n" + line(0, 1, errors=3)).errors == 3
    text = "READY vcpus=1\nERR x87 expected 1 got 2\n[ 1.0] Kernel panic - not syncing\n" + line(0, 1, errors=1)
    assert read_console(text).errors == 2


@pytest.mark.parametrize(
    ("times", "expected"),
    [([0, 500, 1000], 0), ([0, 740, 1000], 0), ([0, 760, 1000], 1), ([0, 2500], 4), ([0], 0), ([], 0)],
)
def test_missed(times: list[int], expected: int) -> None:
    assert missed([beat(index, time) for index, time in enumerate(times)]) == expected


def test_lost_after_and_clock_error() -> None:
    beats = [beat(3, 0, 50), beat(4, 500, 560), beat(6, 1500, 1550)]
    assert lost(beats) == 1
    assert lost([]) == 0
    assert [item.sequence for item in after(beats, 4)] == [4, 6]
    assert clock_error_ms(beats) == 10
    assert clock_error_ms([]) == 0
