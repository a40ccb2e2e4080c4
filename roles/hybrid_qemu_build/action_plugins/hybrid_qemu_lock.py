# SPDX-License-Identifier: GPL-3.0-or-later
"""One build at a time per cache: a lock that is held from one task to another.

The holder is the ansible-playbook process: when it is gone, so is the lock, whatever happened. Who has to wait sees who holds it
and since when. An action without a module: the lock belongs to the controller.

Arguments: path, state (acquired, released), timeout (seconds to wait, 0 refuses at once).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

#: How often a waiting run looks, and how often it says so.
POLL = 1.0
SAY = 30.0

display = Display()


def process_start(pid: int) -> str | None:
    """Return when a process started (kernel ticks), or None when there is none; tells a reused pid from the holder."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


def command_line(pid: int) -> str:
    """Return the command line of a process, for people."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return " ".join(os.path.basename(word) for word in stream.read().decode(errors="replace").split("\0")[1:] if word)
    except OSError:
        return "?"


def take(path: str, pid: int) -> dict[str, Any] | None:
    """Take the lock for process `pid`; return the holder when another living process has it."""
    with open(path, "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        try:
            holder = json.loads(stream.read() or "{}")
        except ValueError:
            holder = {}
        alive = bool(holder) and process_start(holder["pid"]) == holder["start"]
        if alive and holder["pid"] != pid:
            return dict(holder)
        stream.truncate(0)
        json.dump({"pid": pid, "start": process_start(pid), "since": time.strftime("%H:%M:%S"), "command": command_line(pid)}, stream)
    return None


def release(path: str, pid: int) -> bool:
    """Give the lock back; say whether `pid` held it."""
    if not os.path.exists(path):
        return False
    with open(path, "r+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            holder = json.loads(stream.read() or "{}")
        except ValueError:
            holder = {}
        if holder.get("pid") != pid:
            return False
        stream.truncate(0)
    return True


def describe(holder: dict[str, Any]) -> str:
    """Return the holder in words."""
    return f"process {holder['pid']} ({holder['command']}) since {holder['since']}"


class ActionModule(ActionBase):
    """See the module's documentation above."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("path", "state", "timeout"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take or give back the lock."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        path = self._task.args["path"]
        pid = os.getppid()  # this code runs in a short-lived worker of ansible-playbook
        if self._task.check_mode:
            return {**result, "changed": False}
        if self._task.args["state"] == "released":
            release(path, pid)
            return {**result, "changed": False}

        os.makedirs(os.path.dirname(path), exist_ok=True)
        began = time.monotonic()
        timeout = float(self._task.args.get("timeout", 0))
        said = -SAY
        while (holder := take(path, pid)) is not None:
            waited = time.monotonic() - began
            if waited >= timeout:
                raise AnsibleActionFail(
                    f"the build lock {path} is held by {describe(holder)}; waited {waited:.0f} s. Let that run end, or stop it."
                )
            if waited - said >= SAY:
                said = waited
                display.display(f"  {time.strftime('%H:%M:%S')} waiting for the build lock, held by {describe(holder)}")
            time.sleep(POLL)
        return {**result, "changed": False, "waited": round(time.monotonic() - began, 1)}
