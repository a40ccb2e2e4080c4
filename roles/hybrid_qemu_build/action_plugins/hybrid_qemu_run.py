# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a long command on the controller and show how far it is.

Ansible shows a task's output only when the task ends. This action writes the command's output to a log file and displays, every
few seconds, the newest `[done/total]` of ninja with the time that has passed. When the command fails, its last lines are the error.
The command dies with Ansible. An action without a module: it runs on the controller only.

Arguments: argv (list), chdir (path), log (path), what (shown), every (seconds, 15), nice (10), environment comes from the task.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

PROGRESS = re.compile(rb"^\[\s*(\d+)\s*/\s*(\d+)\s*\]", re.MULTILINE)
#: How much of the log's end is looked at: progress, and the error's last lines.
TAIL = 16384
SHOWN_LINES = 25

display = Display()


def clock(seconds: float) -> str:
    """Return 3m12s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s"


def tail(path: str) -> bytes:
    """Return the end of a file."""
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - TAIL))
        return stream.read()


def progress(end: bytes) -> str:
    """Return the newest [ done/total ] of ninja's output, or nothing."""
    found = PROGRESS.findall(end)
    if not found:
        return ""
    done, total = found[-1]
    return f"[ {int(done):>{len(total)}}/{int(total)} ]"


def failure(end: bytes) -> str:
    """Return the lines that say why: from ninja's FAILED: on, otherwise the last ones."""
    lines = end.decode(errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("FAILED:")]
    return "\n".join(lines[starts[0] :][:SHOWN_LINES] if starts else lines[-SHOWN_LINES:])


def say(what: str, *words: str) -> None:
    """Show one line on the console at once."""
    display.display(f"  {time.strftime('%H:%M:%S')} {what}: {' '.join(word for word in words if word)}")


class ActionModule(ActionBase):
    """See the module's documentation above."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("argv", "chdir", "log", "what", "every", "nice"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the command and watch its log."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        what = args.get("what", os.path.basename(args["argv"][0]))
        if self._task.check_mode:
            return {**result, "changed": True, "msg": f"would run: {what}"}

        environment = dict(os.environ)
        for item in self._task.environment or []:
            environment.update({name: str(value) for name, value in self._templar.template(item).items()})
        # The command must not outlive Ansible: another run would find a tree that still changes.
        argv = ["setpriv", "--pdeathsig", "TERM", "nice", "-n", str(args.get("nice", 10)), *map(str, args["argv"])]
        began = time.monotonic()
        with open(args["log"], "wb") as log:
            try:
                process = subprocess.Popen(  # pylint: disable=consider-using-with
                    argv, cwd=args["chdir"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            except OSError as exc:
                raise AnsibleActionFail(f"{what}: {exc}") from exc
        self._watch(process, what, args["log"], float(args.get("every", 15)), began)
        seconds = time.monotonic() - began
        if process.returncode:
            raise AnsibleActionFail(
                f"{what} failed after {clock(seconds)} (status {process.returncode}), log {args['log']}:\n{failure(tail(args['log']))}"
            )
        say(what, progress(tail(args["log"])), f"done in {clock(seconds)}")
        return {**result, "changed": True, "log": args["log"], "seconds": round(seconds, 1)}

    @staticmethod
    def _watch(process: subprocess.Popen[bytes], what: str, log: str, every: float, began: float) -> None:
        """Display a line every `every` seconds until the process ends."""
        while True:
            try:
                process.wait(timeout=every)
                return
            except subprocess.TimeoutExpired:
                now = time.monotonic() - began
                say(what, progress(tail(log)), clock(now))
