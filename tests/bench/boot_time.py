# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the lab host: start QEMU, print the seconds until its guest prints READY, end it.

usage: boot_time.py LIMIT-SECONDS COMMAND...; the guest's console is the command's standard output.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time


def main() -> int:
    """Return the exit status: 0 when the guest was ready in time."""
    limit, command = float(sys.argv[1]), sys.argv[2:]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    timer = threading.Timer(limit, process.kill)
    timer.start()
    seen = []
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith(b"READY"):
                print(time.monotonic() - begin)
                return 0
            seen.append(line)
        sys.stderr.write(f"not ready within {limit} s: {b''.join(seen[-20:])!r}")
        return 1
    finally:
        timer.cancel()
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
