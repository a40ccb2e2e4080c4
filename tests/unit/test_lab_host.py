# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab hosts that are not there, not answering or not possible: each gets an error that says what to do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import host, probe, process
from lab.config import TOP, Lab
from lab.errors import LabError
from lab.lock import locked


def run_lab(cache: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a cache of its own."""
    own = {**os.environ, "HYBRID_VMM_CACHE": str(cache), "LAB": "7", "LAB_DISTRO": "bookworm", **environment}
    command = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(command, cwd=TOP, env=own, capture_output=True, text=True, timeout=60, check=False)


def test_down_when_there_is_none(tmp_path: Path) -> None:
    done = run_lab(tmp_path, "down")
    assert done.returncode == 0
    assert "lab7: is not running" in done.stderr


def test_status_when_there_is_none(tmp_path: Path) -> None:
    done = run_lab(tmp_path, "status")
    assert done.returncode == 3
    assert '"running": false' in done.stdout


@pytest.mark.parametrize("arguments", [("ssh", "true"), ("push", "Makefile", "/tmp")])
def test_commands_that_need_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_lab(tmp_path, *arguments)
    assert done.returncode == 1
    assert "error: lab7 is not running: make lab LAB=7" in done.stderr


def test_bad_number_on_the_command_line(tmp_path: Path) -> None:
    done = run_lab(tmp_path, "up", LAB="many")
    assert done.returncode == 1
    assert "error: LAB='many': a lab number is 0 to 99" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stale_process_id_is_not_believed(tmp_path: Path) -> None:
    lab = Lab(7, "bookworm", tmp_path)
    lab.folder.mkdir(parents=True)
    lab.pid_file.write_text(str(os.getpid()))
    assert host.pid_of(lab) is None
    host.down(lab)
    assert not lab.pid_file.exists()


def test_a_dead_lab_host_is_found_by_its_process(tmp_path: Path) -> None:
    lab = Lab(7, "bookworm", tmp_path)
    lab.folder.mkdir(parents=True)
    stand_in = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(lab.console)])
    try:
        lab.pid_file.write_text(str(stand_in.pid))
        # The command line shows only some time after exec has succeeded.
        deadline = time.monotonic() + 10
        while host.pid_of(lab) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert host.pid_of(lab) == stand_in.pid
        assert host.status(lab)["answers"] is False
    finally:
        stand_in.kill()
        stand_in.wait()
    assert host.pid_of(lab) is None


def test_port_taken(tmp_path: Path) -> None:
    lab = Lab(98, "bookworm", tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", lab.ssh_port))
        other.listen()
        with pytest.raises(LabError) as error:
            host._check_machine(lab)
    assert str(error.value) == "lab98: another program has port 19822 of 127.0.0.1; take another LAB"


def test_two_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LabError) as error, locked(path, "lab7", 0.1):
            pass
    assert str(error.value) == f"lab7: another run has held {path} for 0 s"
    with locked(path, "lab7", 0.1):
        pass


def test_panic_is_found() -> None:
    assert host.panic_in("a\n[ 1.0] Kernel panic - not syncing: x\nb") == "[ 1.0] Kernel panic - not syncing: x"
    assert host.panic_in("all is well") == ""


def test_missing_programs_are_all_named() -> None:
    with pytest.raises(LabError) as error:
        process.need("sh", "no-such-a", "no-such-b")
    assert str(error.value).startswith("not installed: no-such-a, no-such-b; ")


def test_failure_shows_what_was_said() -> None:
    with pytest.raises(LabError) as error:
        process.run(["sh", "-c", "echo first; echo second >&2; exit 3"])
    assert str(error.value).endswith("failed with 3:\nfirst\nsecond")


def test_time_limit(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(LabError, match="sleep did not finish within 0 s"):
        process.run_logged("test", ["sleep", "30"], log, timeout=0.2)


def cpuid(*entries: tuple[int, int, int]) -> bytes:
    """Return a struct kvm_cpuid2 with entries of function, index, ecx."""
    packed = [probe.ENTRY.pack(function, index, 0, 0, 0, ecx, 0) for function, index, ecx in entries]
    return probe.HEADER.pack(len(packed), 0) + b"".join(packed) + bytes(probe.ENTRY.size)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(1, 0, 1 << 5)], True),
        ([(0x80000001, 0, 1 << 2)], True),
        ([(1, 0, 1 << 2), (0x80000001, 0, 1 << 5)], False),
        ([(1, 1, 1 << 5)], False),
        ([], False),
    ],
)
def test_offers_virtualization(entries: list[tuple[int, int, int]], expected: bool) -> None:
    assert probe.offers_virtualization(cpuid(*entries)) is expected


def test_no_kvm_device(tmp_path: Path) -> None:
    assert probe.refusal(tmp_path / "kvm") == f"{tmp_path}/kvm: No such file or directory"


def test_a_device_that_is_no_kvm(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    assert probe.refusal(device) == f"{device}: Inappropriate ioctl for device"


def commands() -> list[str]:
    """Return the command lines of all processes that still run."""
    result = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            result.append(path.read_text(errors="replace"))
    return result


def test_nothing_stays_behind_after_the_time_limit(tmp_path: Path) -> None:
    mark = f"{os.getpid()}.25"
    with pytest.raises(LabError):
        process.run_logged("test", ["sh", "-c", f"sleep {mark} & sleep {mark}"], tmp_path / "log", timeout=0.5)
    # Both were told to end; the one that nobody waits for ends a moment later.
    deadline = time.monotonic() + 20
    while any(command.startswith(f"sleep\0{mark}") for command in commands()):
        assert time.monotonic() < deadline
