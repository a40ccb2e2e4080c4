# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the unit tests: a host in a temporary folder, real QEMU processes, and a stand-in for a hybrid one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import ansible.module_utils
import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE_UTILS = ROOT / "module_utils"

# The package under its name on hosts, and under its name in Ansible modules.
if str(MODULE_UTILS) not in sys.path:
    sys.path.insert(0, str(MODULE_UTILS))
if str(MODULE_UTILS) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(MODULE_UTILS))

from hybrid_vmm.paths import Paths

FAKE_QEMU = Path(__file__).resolve().parent / "fake_qemu.py"


class Host:
    """A host's folders below a temporary one, and the QEMU processes that a test started there."""

    def __init__(self, base: Path) -> None:
        self.paths = Paths(str(base / "etc"), str(base / "run"), str(base / "lib"))
        os.makedirs(self.paths.definitions)
        os.makedirs(self.paths.run_dir)
        self._processes: list[subprocess.Popen[bytes]] = []

    def define(self, name: str, **keys: Any) -> None:
        """Write a definition."""
        Path(self.paths.definition(name)).write_text(json.dumps({"schema": 1, "name": name, **keys}))

    def stock_qemu(self, name: str) -> subprocess.Popen[bytes]:
        """Start Debian's QEMU without a machine, with the VM's control socket."""
        program = shutil.which("qemu-system-x86_64")
        if program is None:
            pytest.skip("no qemu-system-x86_64 here: make env installs it")
        os.makedirs(self.paths.run(name), exist_ok=True)
        words = [program, "-machine", "none", "-nodefaults", "-display", "none"]
        words += ["-qmp", f"unix:{self.paths.control(name)},server=on,wait=off"]
        return self.start(words, name)

    def fake_qemu(self, name: str, **behaviour: Any) -> subprocess.Popen[bytes]:
        """Start the stand-in of a hybrid QEMU, see fake_qemu.py for what it can be told."""
        os.makedirs(self.paths.run(name), exist_ok=True)
        words = [sys.executable, str(FAKE_QEMU), self.paths.control(name), self.paths.events(name)]
        return self.start([*words, json.dumps(behaviour)], name)

    def start(self, words: list[str], name: str) -> subprocess.Popen[bytes]:
        """Start a program that listens on the VM's control socket, and wait until it does."""
        process = subprocess.Popen(words)
        self._processes.append(process)
        wait_for(lambda: listening(self.paths.control(name)), f"socket of {name}")
        return process

    def stop_all(self) -> None:
        """End what was started, stopped processes too."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def listening(path: str) -> bool:
    """Whether somebody listens on a socket; its file is there a moment earlier. Connecting would disturb QEMU."""
    accepting = "00010000"
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(words[-1] == path and words[3] == accepting for words in lines)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with nothing on it. Its path is short, for sockets may have 107 bytes."""
    result = Host(tmp_path_factory.mktemp("h"))
    yield result
    result.stop_all()


def run_as_nobody(words: list[str], env: Optional[dict[str, str]] = None) -> subprocess.CompletedProcess[str]:
    """Run a program as a user in no group of ours."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become somebody else")
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run([*become, *words], capture_output=True, text=True, timeout=60, env=env, check=False)
