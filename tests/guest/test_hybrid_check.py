# SPDX-License-Identifier: GPL-3.0-or-later
"""The test guest itself, under the distribution's QEMU: silent on a sound machine, however slow, and loud on a wrong one."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import probe
from lab.config import TOP, cache_root, lab_from
from lab.guest import Guest, ensure_guest
from lab.image import ensure_image

HEARTBEAT = re.compile(r"HB (\d+) mono_ms=(\d+) real_ms=(\d+) late_us_max=(\d+) iters=(\d+) errors=(\d+)")
CHECKS = re.findall(r'\[HC_\w+\] = "(\w+)"', (TOP / "tests" / "guest" / "report.c").read_text())
QEMU = "qemu-system-x86_64"
SECONDS = 4
BOOT_LIMIT = 240


@pytest.fixture(scope="session")
def guest() -> Guest:
    """Return the guest, built from the sources as they are."""
    lab = lab_from("0", "bookworm", cache_root())
    return ensure_guest(lab.cache, ensure_image(lab))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return an empty disk of 16 MiB."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    return path


def command(guest: Guest, disk: Path, options: str, vcpus: int = 2) -> list[str]:
    """Return the command line that boots the guest; options go to the kernel command line."""
    return [
        *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(vcpus), "-m", "256"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(guest.kernel), "-initrd", str(guest.initrd)),
        *("-append", f"console=ttyS0 no_timer_check loglevel=4 panic=-1 {options}"),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
    ]


def lines_of(guest: Guest, disk: Path, options: str, vcpus: int = 2) -> list[str]:
    """Boot the guest, return what it printed until it powered itself off."""
    done = subprocess.run(
        command(guest, disk, f"hc.seconds={SECONDS} {options}", vcpus),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=BOOT_LIMIT, check=True,
    )  # fmt: skip
    return [line.strip() for line in done.stdout.splitlines()]


def failed_checks(lines: list[str]) -> set[str]:
    """Return the names of the checks that printed an error."""
    return {line.split()[1] for line in lines if line.startswith("ERR ")}


@pytest.mark.parametrize(("vcpus", "options"), [(1, ""), (2, ""), (2, "hc.workers=0"), (2, "hc.workers=5 hc.hb_ms=100 hc.blk=0")])
def test_silent_on_a_sound_machine(guest: Guest, disk: Path, vcpus: int, options: str) -> None:
    lines = lines_of(guest, disk, options, vcpus)
    assert f"READY vcpus={vcpus}" in lines
    assert [line for line in lines if line.startswith(("ERR", "NOTE"))] == []
    assert "DONE errors=0" in lines
    beats = [[int(field) for field in match.groups()] for match in map(HEARTBEAT.fullmatch, lines) if match]
    assert [beat[0] for beat in beats] == list(range(len(beats)))
    assert len(beats) >= 2
    assert beats[-1][1] - beats[0][1] >= SECONDS * 1000
    # Both clocks run at one speed.
    assert abs((beats[-1][2] - beats[0][2]) - (beats[-1][1] - beats[0][1])) <= 2
    if "workers=0" not in options:
        assert beats[-1][4] > beats[0][4]


def test_every_check_can_fail(guest: Guest, disk: Path) -> None:
    """A wrong disk hides wrong code on the disk, so that one is tested apart."""
    rest = set(CHECKS) - {"blk"}
    assert failed_checks(lines_of(guest, disk, "hc.inject=" + ",".join(sorted(rest)))) == rest
    assert failed_checks(lines_of(guest, disk, "hc.inject=blk")) == {"blk"}


def test_failing_checks_accuse_no_other(guest: Guest, disk: Path) -> None:
    lines = lines_of(guest, disk, "hc.inject=int,tsc,fork")
    assert failed_checks(lines) == {"int", "tsc", "fork"}
    assert "DONE errors=0" not in lines


WORKS = ("syscall", "fork", "compute", "timer", "blk", "net")


@pytest.fixture
def bench(guest: Guest) -> Iterator[subprocess.Popen[str]]:
    """Start a guest that works on order, with the disk and the network that it needs."""
    arguments = command(guest, Path("unused"), "hc.bench=1", vcpus=1)
    network = ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
    process = subprocess.Popen(
        [*arguments[:-2], "-drive", "driver=null-co,size=64M,read-zeroes=on,if=virtio", *network],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
    )  # fmt: skip
    yield process
    process.kill()
    process.wait()


def test_work_on_order(bench: subprocess.Popen[str]) -> None:
    """Each kind of work is done and counted, by a clock that is the host's too."""
    assert bench.stdin is not None
    assert bench.stdout is not None

    def order(line: str, answer: str) -> re.Match[str]:
        assert bench.stdin is not None
        assert bench.stdout is not None
        bench.stdin.write(line + "\n")
        bench.stdin.flush()
        for said in bench.stdout:
            assert not said.startswith("ERR"), said
            if match := re.match(answer, said):
                return match
        raise AssertionError(f"no answer to {line}")

    for said in bench.stdout:
        if said.startswith("READY"):
            break
    begin = int(order("clock", r"CLOCK ns=(\d+) source=\w+")[1]), time.monotonic()
    for work in WORKS:
        match = order(f"{work} 500", rf"RESULT {work} n=(\d+) ns=(\d+)")
        assert int(match[1]) > 0
        assert int(match[2]) >= 500_000_000
        if work == "timer":
            # A sleep of 1 ms is never shorter.
            assert int(match[1]) <= int(match[2]) / 1e6
    end = int(order("clock", r"CLOCK ns=(\d+)")[1]), time.monotonic()
    assert (end[0] - begin[0]) / 1e9 == pytest.approx(end[1] - begin[1], rel=0.02)
    assert order("touch 16", r"TOUCHED mib=(\d+)")[1] == "16"


@pytest.fixture
def running(guest: Guest, disk: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a guest that runs until it is ended."""
    process = subprocess.Popen(
        command(guest, disk, ""), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    )
    yield process
    process.kill()
    process.wait()


def test_a_machine_that_stands_still_is_not_wrong(running: subprocess.Popen[str]) -> None:
    """The whole machine stops at random moments, most of the time: late is not wrong."""
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("READY"):
            break
    chance = random.Random(1)
    for _ in range(12):
        time.sleep(chance.uniform(0.01, 0.3))
        running.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, 1.5))
        running.send_signal(signal.SIGCONT)
    lines: list[str] = []
    until = time.monotonic() + 3
    for line in running.stdout:
        lines.append(line.strip())
        if time.monotonic() > until:
            break
    assert [line for line in lines if line.startswith("ERR")] == []
    matches = [match for match in map(HEARTBEAT.fullmatch, lines) if match]
    assert matches
    assert matches[-1].group(6) == "0"
    assert max(int(match.group(4)) for match in matches) > 100_000, "the stops show as lateness"


def test_probe_guest_runs_a_guest(guest: Guest) -> None:
    assert probe.boot(guest, QEMU, "tcg", limit=BOOT_LIMIT) == ""


def test_probe_has_a_time_limit(guest: Guest) -> None:
    assert probe.boot(guest, QEMU, "tcg", limit=0.5) == "a guest that runs a guest was not done after 0.5 s"


def test_probe_on_a_machine_without_svm(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe.ACCELERATORS, "plain", ["-accel", "tcg", "-cpu", "max,-svm"])
    why = probe.boot(guest, QEMU, "plain", limit=BOOT_LIMIT)
    assert why.startswith("a guest in a guest did not run:")
