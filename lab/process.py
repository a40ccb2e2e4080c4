# SPDX-License-Identifier: GPL-3.0-or-later
"""Running other programs, with errors that say which one failed and what it said last."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.progress import say

TAIL_LINES = 15


def need(*programs: str) -> None:
    """Raise LabError when a program is not installed; names all that are missing."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [program for program in programs if not shutil.which(program, path=search)]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}; `make env` or tools/bootstrap installs what is missing")


def as_root(command: Sequence[str]) -> list[str]:
    """Return the command such that root runs it: as it is for root, else through sudo.

    Raises LabError without root and without sudo.
    """
    if os.geteuid() == 0:
        return list(command)
    if not shutil.which("sudo"):
        raise LabError(f"{command[0]} needs root: run as root, or install sudo")
    return ["sudo", "--", *command]


def environment_with_sbin() -> dict[str, str]:
    """Return the environment with the administrators' programs on PATH (a plain user has them not)."""
    return {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def run(command: Sequence[str], *, timeout: float = 120, stdin: str | None = None) -> str:
    """Run a program, return its standard output.

    timeout is in seconds. Raises LabError with the last lines it printed when it fails or takes too long.
    """
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment_with_sbin(), check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed; tools/bootstrap installs what is missing") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command[0]} did not finish within {timeout:.0f} s: {' '.join(command)}") from error
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise LabError(f"{' '.join(command)} failed with {done.returncode}:\n{said}")
    return done.stdout


def run_logged(who: str, command: Sequence[str], log: Path, *, timeout: float, every: float = 15) -> None:
    """Run a long program with its output in a log file, and say its last line every few seconds.

    timeout and every are in seconds. Raises LabError with the end of the log when it fails or takes too long.
    """
    deadline = time.monotonic() + timeout
    next_line = time.monotonic() + every
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment_with_sbin(),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise LabError(f"{command[0]} is not installed; tools/bootstrap installs what is missing") from error
        try:
            while (code := process.poll()) is None:
                time.sleep(0.1)
                if time.monotonic() > deadline:
                    raise LabError(f"{command[0]} did not finish within {timeout:.0f} s; see {log}")
                if time.monotonic() > next_line:
                    say(who, "... " + last_lines(log, 1))
                    next_line += every
        finally:
            if process.poll() is None:
                # With all that it started: debootstrap is a tree of shells.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    if code != 0:
        raise LabError(f"{' '.join(command)} failed with {code}; the end of {log}:\n{last_lines(log, TAIL_LINES)}")


def last_lines(path: Path, count: int) -> str:
    """Return the last lines of a text file, empty when there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        text = file.read().decode(errors="replace")
    return "\n".join(text.replace("\r", "").strip().splitlines()[-count:])
