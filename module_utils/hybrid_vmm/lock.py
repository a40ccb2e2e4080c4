# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time per VM: flock(2) on the VM's run-time folder.

A QMP socket serves one client at a time and QEMU keeps only one more in its backlog, so two runs would see hangs
instead of answers. Whoever uses control.sock therefore locks the folder /run/hybrid-vmm/<vm> itself first. No lock
file has to be created (members of the group may read the folder, but not write to it), nobody outside the group can
take the lock, and the kernel drops it when its holder ends. Runs that need several VMs lock them in the order of
their names, so that two of them cannot wait for each other. A shell takes the same lock with ``flock /run/hybrid-
vmm/<vm> COMMAND``.
"""

from __future__ import annotations

import asyncio
import fcntl
import os

from .clock import Deadline

#: Seconds between two tries; a switch takes milliseconds.
_POLL = 0.02


class LockHeld(Exception):
    """The deadline passed while somebody else held the lock.

    :param holder: who, for people, e.g. ``pid 4711, python3 hybridctl mode tcg all``.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def describe_holder(folder: str, locks_file: str = "/proc/locks") -> str:
    """Say which process holds the lock on a folder.

    :param locks_file: the kernel's list of locks (proc(5)); each line ends in ``WRITE <pid> <dev>:<inode> 0 EOF``.
    :return: pid and command, or ``another process`` when the kernel does not tell.
    """
    try:
        inode = os.stat(folder).st_ino
        with open(locks_file, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return "another process"
    for line in lines:
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5].split(":")[-1] == str(inode):
            return f"pid {words[4]}{_command_of(words[4])}"
    return "another process"


def _command_of(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().decode(errors="replace").split("\0")
    except OSError:
        return ""
    command = " ".join(word for word in words if word)[:80]
    return f", {command}" if command else ""


async def acquire(folder: str, deadline: Deadline) -> int:
    """Lock a folder, waiting until the deadline.

    :param folder: an existing folder that the caller may read.
    :return: an open file descriptor; closing it gives the lock back.
    :raises OSError: the folder does not exist or may not be read.
    :raises LockHeld: somebody else has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    locked = False
    try:
        while not locked:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                if deadline.passed:
                    raise LockHeld(describe_holder(folder)) from None
                await asyncio.sleep(min(_POLL, deadline.left()))
        return descriptor
    finally:
        if not locked:
            os.close(descriptor)
