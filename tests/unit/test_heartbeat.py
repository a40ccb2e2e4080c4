# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a guest's console."""

from __future__ import annotations

import pytest

from lab.heartbeat import Beat, after, around, clock_shift_ms, lost, missed, read_console


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


def test_lost_and_after() -> None:
    beats = [beat(3, 0), beat(4, 500), beat(6, 1500)]
    assert lost(beats) == 1
    assert lost([]) == 0
    assert [item.sequence for item in after(beats, 4)] == [4, 6]


def test_clock_shift_is_what_stays() -> None:
    times = range(0, 10000, 500)
    assert clock_shift_ms([beat(time, time, time + 7000 + (300 if time == 2500 else 0)) for time in times]) == 0
    assert clock_shift_ms([beat(time, time, time + (40 if time > 4000 else 0)) for time in times]) == 40
    assert clock_shift_ms([]) == 0


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(1200, [2, 3, 4, 5, 6, 7]), (-5, [0, 1, 2, 3, 4]), (4600, [9]), (3900, [7, 8, 9])],
)
def test_around(moment: int, expected: list[int]) -> None:
    beats = [beat(index, index * 500, index * 500) for index in range(10)]
    assert [item.sequence for item in around(beats, moment)] == expected
