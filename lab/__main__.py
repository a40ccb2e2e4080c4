# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab: `python -m lab --help`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

from lab import host, inventory, probe
from lab.config import Lab, cache_root, lab_from
from lab.emulator import emulator
from lab.errors import LabError
from lab.guest import ensure_guest
from lab.image import ensure_image
from lab.progress import say
from lab.ssh import scp_command, ssh_command

NOT_RUNNING = 3


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    main_parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="Lab hosts: disposable machines that play KVM hosts. LAB and LAB_DISTRO in the environment choose one.",
    )
    main_parser.add_argument("--lab", default=os.environ.get("LAB", "0"), metavar="N", help="number of the lab host (LAB)")
    main_parser.add_argument(
        "--distro", default=os.environ.get("LAB_DISTRO", "bookworm"), help="bookworm or trixie (LAB_DISTRO)"
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it and wait until ssh answers")
    down = commands.add_parser("down", help="remove it; succeeds when there is none")
    down.add_argument("--all", action="store_true", help="all lab hosts of this cache")
    commands.add_parser("status", help=f"what is known about it, as JSON; exit status {NOT_RUNNING} when it does not run")
    commands.add_parser("probe", help="which accelerator carries lab hosts on this machine and why, as JSON")
    commands.add_parser("guest", help="build the guest of tests and demo, print its folder (vmlinuz, initrd.img)")
    commands.add_parser("inventory", help="running lab hosts as an Ansible inventory script prints them")
    ssh = commands.add_parser("ssh", help="a shell or a command on it")
    ssh.add_argument("arguments", nargs=argparse.REMAINDER)
    push = commands.add_parser("push", help="copy local files to it: push FILE... PATH")
    push.add_argument("sources", nargs="+")
    push.add_argument("target")
    return main_parser


def main(arguments: list[str]) -> int:
    """Run one command, return the exit status."""
    chosen = parser().parse_args(arguments)
    lab = lab_from(chosen.lab, chosen.distro, cache_root())
    if chosen.command == "up":
        host.up(lab)
    elif chosen.command == "down":
        for each in host.known_labs(lab.cache, lab.distro) if chosen.all else [lab]:
            host.down(each)
    elif chosen.command == "status":
        state = host.status(lab)
        print(json.dumps(state, indent=2))
        return 0 if state["running"] else NOT_RUNNING
    elif chosen.command == "probe":
        print(json.dumps(asdict(probe.ask(lab.cache, ensure_image(lab), emulator(lab.cache))), indent=2))
    elif chosen.command == "guest":
        print(ensure_guest(lab.cache, ensure_image(lab)).folder)
    elif chosen.command == "inventory":
        print(inventory.dynamic(host.known_labs(lab.cache, lab.distro)), end="")
    else:
        return _in_running(lab, chosen)
    return 0


def _in_running(lab: Lab, chosen: argparse.Namespace) -> int:
    """Run a command that needs a running lab host, return its exit status."""
    host.require_running(lab)
    if chosen.command == "ssh":
        command = ssh_command(lab, *chosen.arguments)
    else:
        command = scp_command(lab, chosen.sources, chosen.target)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    # Ended from outside: clean up as after an error.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as problem:
        say("lab", f"error: {problem}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
