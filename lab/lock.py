# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between two runs of this package, released by the kernel when a run dies."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabError
from lab.progress import say


@contextlib.contextmanager
def locked(path: Path, what: str, timeout: float) -> Iterator[None]:
    """Hold the lock file at path; wait up to timeout seconds for another run to release it.

    what names the thing in messages. Raises LabError when the other run still holds it then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say(what, f"another run is busy with it, waiting up to {timeout:.0f} s")
                    waiting = True
                if time.monotonic() > deadline:
                    raise LabError(f"{what}: another run has held {path} for {timeout:.0f} s") from None
                time.sleep(0.2)
        yield
