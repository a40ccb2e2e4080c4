# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests share: the lab host as tests see it, and its journal when one of them fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.heartbeat import Console, read_console

TOP = Path(__file__).resolve().parent.parent
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups --"


class Hypervisor:
    """The lab host."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def output(self, command: str, *arguments: str) -> str:
        """Run a command that must succeed, return what it printed."""
        done = self.host.run(command, *arguments)
        assert done.rc == 0, f"{command}: {done.rc}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def python(self, code: str) -> str:
        """Run Python with the toolkit's package on the host, return what it printed."""
        head = "import sys; sys.path.insert(0, '/opt/hybrid-vmm/python')\n"
        return self.output("python3 -I -c %s", head + code)

    def unit(self, vm: str, *names: str) -> dict[str, str]:
        """Return properties of a VM's unit."""
        text = self.output(f"systemctl show hybrid-vm@{vm}.service --property={','.join(names)}")
        return dict(line.split("=", 1) for line in text.splitlines())

    def pid(self, vm: str) -> str:
        """Return the process id of a VM's QEMU."""
        return self.unit(vm, "MainPID")["MainPID"]

    def modes(self) -> dict[str, str]:
        """Return the mode of each VM that can switch."""
        vms = json.loads(self.output("hybridctl list --json --timeout 60"))
        return {vm["name"]: vm["mode"] for vm in vms if vm["accel"] == "hybrid" and vm["running"]}

    def console(self, vm: str) -> Console:
        """Read what a guest has said since it last started."""
        return read_console(self.output(f"cat /var/lib/hybrid-vmm/{vm}/console.log"))

    def clocks(self, vm: str) -> tuple[float, float]:
        """Return a guest's clock in its last heartbeat and the host's when it was written, in seconds."""
        log = f"/var/lib/hybrid-vmm/{vm}/console.log"
        written, text = self.output(f"stat -c %.Y {log}; tail -c 2000 {log}").split("\n", 1)
        return read_console(text).beats[-1].real_ms / 1000, float(written)

    def wait_for_beats(self, vm: str, count: int, seconds: float) -> Console:
        """Wait until a guest has sent this many more heartbeats, return all that it said."""
        first = self.console(vm)
        wanted = (first.beats[-1].sequence if first.beats else -1) + count
        end = time.monotonic() + seconds
        while True:
            console = self.console(vm)
            if console.beats and console.beats[-1].sequence >= wanted:
                return console
            assert time.monotonic() < end, f"{vm}: not {count} heartbeats within {seconds} s: {console.beats[-1:]}"
            time.sleep(2)


@pytest.fixture
def hypervisor(host: Any) -> Hypervisor:
    """The lab host."""
    return Hypervisor(host)


def playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook on the lab host, as a user would."""
    # molecule forces colours, and that would win over ANSIBLE_NOCOLOR
    environment = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    limit = f"--limit=lab{os.environ.get('LAB') or '0'},localhost"
    words = ["ansible-playbook", f"--inventory={TOP}/inventories/lab", limit, *arguments, name]
    return subprocess.run(words, cwd=TOP, env=environment, capture_output=True, text=True, check=False)


def recap(output: str) -> dict[str, dict[str, int]]:
    """Return the numbers of ansible-playbook's recap by host."""
    lines = re.findall(r"^(\S+)\s+: (ok=.*)$", output.partition("PLAY RECAP")[2], re.MULTILINE)
    return {host: {key: int(value) for key, value in (word.split("=") for word in rest.split())} for host, rest in lines}


@pytest.fixture(name="playbook")
def playbook_fixture() -> Any:
    """Run a playbook on the lab host."""
    return playbook


@pytest.fixture(name="recap")
def recap_fixture() -> Any:
    """Read the numbers of a playbook's recap."""
    return recap


@pytest.fixture
def lab_variables() -> dict[str, Any]:
    """How Ansible reaches the lab host."""
    name = f"lab{os.environ.get('LAB') or '0'}"
    words = ["ansible-inventory", f"--inventory={TOP}/inventories/lab", "--host", name]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=True)
    variables = {key: value for key, value in json.loads(done.stdout).items() if key.startswith("ansible_")}
    return {**variables, "inventory_hostname": name}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the journal and the ends of the consoles to a failed test: its log must suffice."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host is not None:
        script = (
            "journalctl --no-pager --quiet --lines 60 --unit 'hybrid-vm@*';"
            " for log in /var/lib/hybrid-vmm/*/console.log; do echo \"== $log\"; tail -n 8 $log; done; hybridctl list"
        )
        try:
            done = host.run(script)
        except RuntimeError as error:
            # The connection is what failed: the test's own report must not be lost for it.
            report.sections.append(("lab host", f"does not answer: {error}"))
        else:
            report.sections.append(("lab host", f"{done.stdout}\n{done.stderr}"))


@pytest.fixture(scope="session")
def manifest() -> dict[str, Any]:
    """The manifest of the artifact that was installed."""
    cache = os.environ.get("HYBRID_VMM_CACHE") or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybrid-vmm")
    result: dict[str, Any] = json.loads((Path(cache) / "artifacts" / "latest" / "manifest.json").read_text())
    return result
