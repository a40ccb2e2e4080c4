# SPDX-License-Identifier: GPL-3.0-or-later
"""``hybrid-vm-ready <vm> --timeout 60``: returns when the VM's QEMU answers on QMP.

For the unit: ``ExecStartPost=/opt/hybrid-vmm/bin/hybrid-vm-ready %i --timeout 60``; systemd gives MAINPID, so that a
QEMU that ended is noticed at once.  Exit status: 0 ready, 1 not, with one line on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Optional

from . import aio
from .clock import Deadline
from .errors import HybridError, NotRunning, QemuDied, TimedOut
from .paths import RUN_DIR, Paths, unit_name
from .qmp import Session

_POLL = 0.1


async def wait_ready(name: str, paths: Paths, timeout: float, pid: Optional[int] = None) -> str:
    """Wait until QEMU answers query-status.

    :param timeout: seconds.
    :param pid: QEMU's process; when it ends, so does the waiting.
    :return: QEMU's run state, e.g. ``running``.
    :raises QemuDied: the process ended.
    :raises TimedOut: no answer in time; the message says what was met last.
    :raises PermissionDenied, ProtocolFailure, Busy, LibraryMissing: as their names say.
    """
    deadline = Deadline(timeout)
    while True:
        try:
            async with Session(name, paths.control(name), deadline, paths.run(name)) as session:
                return str((await session.execute("query-status"))["status"])
        except (NotRunning, QemuDied) as exc:
            unit = unit_name(name)
            if pid is not None and not alive(pid):
                raise QemuDied(name, f"QEMU (pid {pid}) ended before it was ready: see 'journalctl -u {unit}'") from exc
            if deadline.passed:
                raise TimedOut(name, f"not ready within {deadline}: {exc.text}") from exc
        await asyncio.sleep(min(_POLL, deadline.left()))


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def main(argv: Optional[list[str]] = None) -> int:
    """Run hybrid-vm-ready.

    :return: exit status.
    """
    parser = argparse.ArgumentParser(prog="hybrid-vm-ready", description="Wait until the QEMU of a VM answers.")
    parser.add_argument("vm", help="name of the VM")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait (%(default)s)")
    parser.add_argument("--run-dir", default=RUN_DIR, help="folder of the sockets (%(default)s)")
    options = parser.parse_args(argv)
    main_pid = os.environ.get("MAINPID", "")
    pid = int(main_pid) if main_pid.isdigit() else None
    try:
        aio.run(wait_ready(options.vm, Paths(run_dir=options.run_dir), options.timeout, pid))
    except HybridError as exc:
        print(f"hybrid-vm-ready: {exc.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
