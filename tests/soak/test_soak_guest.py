# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak's guest under the distribution's QEMU, without a switch: silent on a sound machine, and every load can fail."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import harness
import pytest
import soak
from loads import LOADS, Loads

from lab.config import cache_root, lab_from
from lab.image import ensure_image
from lab.soakguest import SoakGuest, ensure_soak_guest

QEMU = "qemu-system-x86_64"
LIMIT_S = 240


@pytest.fixture(scope="session")
def guest() -> SoakGuest:
    """Return the guest, built from the sources as they are."""
    lab = lab_from("0", "bookworm", cache_root())
    return ensure_soak_guest(lab.cache, ensure_image(lab))


@pytest.fixture
def disks(tmp_path: Path) -> list[str]:
    """Return a disk with nothing and one with a file system."""
    raw, filesystem = (str(tmp_path / name) for name in ("raw.img", "files.img"))
    script = f"truncate -s 32M {raw} && truncate -s 96M {filesystem} && PATH=$PATH:/usr/sbin mke2fs -q -t ext4 -O metadata_csum {filesystem}"
    subprocess.run(["sh", "-c", script], check=True)
    return [raw, filesystem]


def run(guest: SoakGuest, disks: list[str], inject: str, wanted: dict[str, int]) -> tuple[Loads, list[str]]:
    """Boot the guest, stop it when every load has verified so much and so many complaints are there, return what it said."""
    command = [
        *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "384", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(guest.kernel), "-initrd", str(guest.initrd)),
        *("-append", f"console=ttyS0 no_timer_check loglevel=4 panic=-1 soak.seed=5 {inject}", *soak.devices(*disks, str(guest.peer))),
    ]
    loads, lines, told = Loads(), [], False
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        # A guest that says nothing more ends the test, too.
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            assert process.stdin
            assert process.stdout
            for line in process.stdout:
                lines.append(line.strip())
                loads.feed(lines[-1:])
                if not told and all(loads.verified[load] >= wanted[load] for load in wanted):
                    process.stdin.write("stop\n")
                    process.stdin.flush()
                    told = True
                if lines[-1] == "STOPPED":
                    break
        finally:
            watchdog.cancel()
            process.kill()
    return loads, lines


def test_silent_on_a_sound_machine(guest: SoakGuest, disks: list[str]) -> None:
    loads, lines = run(guest, disks, "", dict.fromkeys(LOADS, 20))
    assert loads.complaints == []
    assert loads.errors == 0
    assert "STOPPED" in lines
    assert loads.verified["files-remounted"] > 3
    host = harness.LocalHost()
    try:
        soak.check_filesystem(host, disks[1])
    finally:
        host.close()


def test_every_load_can_fail(guest: SoakGuest, disks: list[str]) -> None:
    """A wrong byte in a file and in a record, a wrong C library under stress-ng, and wrong code for the check of JIT code."""
    _, lines = run(guest, disks, "soak.inject=files,tcp,stress hc.inject=jit", {"check": 20})
    complaints = [line for line in lines if line.startswith("ERR ")]
    others = [line for line in complaints if not line.startswith("ERR jit ")]
    assert {line.split()[1] for line in complaints} == {"files", "tcp", "stress", "jit"}
    assert any("the server finds a wrong sum" in line for line in others), others
    assert any(line.startswith("ERR stress tsearch ended with status 2") for line in complaints)
    assert any("checksum" in line for line in complaints)
