# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast this machine's time stamp counter runs: an emulated lab host sees the same one, and measures it badly itself."""

from __future__ import annotations

import ctypes
import mmap
import platform
import time

# rdtsc; shl rdx, 32; or rax, rdx; ret
READ = bytes.fromhex("0f31 48c1e220 4809d0 c3")
SECONDS = 0.1
ROUNDS = 3


def kilohertz(samples: list[tuple[int, int]]) -> int:
    """Return the frequency from pairs of ticks and nanoseconds: the median, since a sample may have been interrupted."""
    rates = sorted(ticks * 1_000_000 // nanoseconds for ticks, nanoseconds in samples)
    return rates[len(rates) // 2]


def measure() -> int | None:
    """Return the frequency in kHz; None on a machine without this counter, or where code may not be made."""
    if platform.machine() != "x86_64":
        return None
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    memory.write(READ)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    samples = []
    for _ in range(ROUNDS):
        ticks, start = read(), time.monotonic_ns()
        time.sleep(SECONDS)
        samples.append((read() - ticks, time.monotonic_ns() - start))
    return kilohertz(samples)
