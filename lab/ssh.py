# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh and scp command lines that reach a lab host, and a short command run there."""

from __future__ import annotations

import subprocess

from lab.config import Lab
from lab.errors import LabError

# The keys are the lab's own; nothing of the user's ssh configuration or agent is used.
OPTIONS = (
    "-F",
    "/dev/null",
    "-o",
    "BatchMode=yes",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "StrictHostKeyChecking=yes",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "ServerAliveCountMax=8",
    "-o",
    "LogLevel=ERROR",
)


def common_options(lab: Lab) -> list[str]:
    """Return the options that ssh and scp share for this lab host (without the port)."""
    return [*OPTIONS, "-o", f"UserKnownHostsFile={lab.known_hosts}", "-i", str(lab.ssh_key)]


def ssh_command(lab: Lab, *arguments: str, connect_timeout: int = 20) -> list[str]:
    """Return the ssh command line; arguments are the remote command, none means a shell. Timeout in seconds."""
    options = [*common_options(lab), "-o", f"ConnectTimeout={connect_timeout}"]
    return ["ssh", *options, "-p", str(lab.ssh_port), "root@127.0.0.1", *arguments]


def scp_command(lab: Lab, sources: list[str], target: str) -> list[str]:
    """Return the scp command line that copies local files to a path on the lab host."""
    return ["scp", "-q", "-r", "-p", *common_options(lab), "-P", str(lab.ssh_port), *sources, f"root@127.0.0.1:{target}"]


def remote(lab: Lab, command: str, timeout: float = 60) -> str:
    """Run a shell command on the lab host, return its output.

    timeout is in seconds. Raises LabError when ssh or the command fails, or when it takes too long.
    """
    try:
        done = subprocess.run(ssh_command(lab, command), capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise LabError("ssh is not installed; tools/bootstrap installs it (openssh-client)") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{lab.name}: no answer within {timeout:.0f} s to: {command}") from error
    if done.returncode != 0:
        raise LabError(f"{lab.name}: {command!r} failed with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
