# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak's own programs, run here: silent when all is right, and loud about one wrong, lost or old byte."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
import pytest
import soak

from lab.soakguest import compile_programs

SEED = "11"
WAIT_S = 60
Change = Callable[[bytes], bytes]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the compiled programs."""
    folder = tmp_path_factory.mktemp("programs")
    compile_programs(folder)
    return folder


def until(process: subprocess.Popen[str], pattern: str) -> str:
    """Return the first line of a program that matches."""
    assert process.stdout
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"{process.args!r} never said {pattern!r}")


def ended(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Return what else a program says and its status."""
    rest = process.communicate(timeout=WAIT_S)[0]
    return rest, process.returncode


# ---------------------------------------------------------------------------------------------------- files
def files(programs: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start soak-files in a folder."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([programs / "soak-files", folder, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def written(programs: Path, tmp_path: Path) -> Path:
    """Return a folder in which soak-files has worked without an error."""
    folder = tmp_path / "files"
    process = files(programs, folder, SEED)
    until(process, r"^VERIFIED files n=[1-9]")
    process.send_signal(signal.SIGTERM)
    rest, status = ended(process)
    assert status == 0
    assert "ERR" not in rest
    assert len(list(folder.iterdir())) > 3
    return folder


def test_files_that_are_right(programs: Path, written: Path) -> None:
    rest, status = ended(files(programs, written))
    assert (rest, status) == (f"VERIFIED files-remounted n={len(list(written.iterdir()))}\n", 0)


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(SEED).randrange(32, len(data))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("spoil", "what"), [(change_a_byte, "checksum"), (cut, "size"), (empty, "header")])
def test_a_file_that_is_wrong(programs: Path, written: Path, spoil: Callable[[Path], None], what: str) -> None:
    victim = max(written.iterdir(), key=lambda path: path.stat().st_size)
    spoil(victim)
    rest, status = ended(files(programs, written))
    assert re.match(rf"ERR files slot={victim.name[1:]} {what} ", rest)
    assert status == 1


def test_a_file_that_is_old(programs: Path, tmp_path: Path) -> None:
    """Whole, but an earlier one came back: a write was lost."""
    folder = tmp_path / "files"
    process = files(programs, folder, SEED)
    until(process, r"^VERIFIED files n=[1-9]")
    kept: dict[Path, bytes] = {}
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        now = {path: path.read_bytes() for path in folder.glob("f?")}
        old = [path for path in now if path in kept and kept[path][:8] == now[path][:8] and kept[path] != now[path]]
        for path in old[:1]:
            path.write_bytes(kept[path])
        process.send_signal(signal.SIGCONT)
        if old:
            break
        kept = now
        time.sleep(0.2)
    line = until(process, "^ERR files")
    assert " generation " in line
    process.send_signal(signal.SIGTERM)
    assert ended(process)[1] == 1


def test_a_fault_on_order(programs: Path, tmp_path: Path) -> None:
    process = files(programs, tmp_path / "files", SEED, "fault")
    assert " checksum " in until(process, "^ERR files")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[1] == 1


def test_a_file_system_that_is_wrong(tmp_path: Path) -> None:
    """One byte of the table of inodes."""
    disk = tmp_path / "disk.img"
    host = harness.LocalHost()
    try:
        host.run(f"truncate -s 32M {disk} && PATH=$PATH:/usr/sbin mke2fs -q -t ext4 -O metadata_csum {disk}")
        soak.check_filesystem(host, str(disk))
        said = host.run(f"PATH=$PATH:/usr/sbin dumpe2fs {disk} 2>&1")
        table = int(re.search(r"Inode table at (\d+)", said)[1]) * int(re.search(r"Block size:\s+(\d+)", said)[1])
        with disk.open("r+b") as file:
            file.seek(table + 256 + 8)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
        with pytest.raises(harness.Unexpected, match="e2fsck finds errors"):
            soak.check_filesystem(host, str(disk))
    finally:
        host.close()


# ---------------------------------------------------------------------------------------------------- TCP
class Relay:
    """Stands between client and server and may change what passes, once, in one direction."""

    def __init__(self, programs: Path, change: Change | None = None, to_server: bool = True) -> None:
        self.change, self.to_server = change, to_server
        self.listener = socket.create_server(("127.0.0.1", 0))
        mine, its = socket.socketpair()
        self.server = subprocess.Popen([programs / "soak-tcp", "serve"], stdin=its, stdout=subprocess.DEVNULL)
        its.close()
        port = str(self.listener.getsockname()[1])
        self.client = subprocess.Popen(
            [programs / "soak-tcp", "client", "127.0.0.1", port, SEED], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        connection, _ = self.listener.accept()
        self.threads = [
            threading.Thread(target=self.relay, args=arguments, daemon=True)
            for arguments in ((connection, mine, to_server), (mine, connection, not to_server))
        ]
        for thread in self.threads:
            thread.start()

    def relay(self, source: socket.socket, target: socket.socket, tamper: bool) -> None:
        """Pass on until the end, and the end too."""
        passed = 0
        while True:
            try:
                data = source.recv(65536)
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                passed += len(data)
                if tamper and self.change and passed > 200_000 and len(data) > 1000:
                    data, self.change = self.change(data), None
                target.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        """End both programs."""
        for process in (self.client, self.server):
            process.kill()
            process.wait()
        self.listener.close()


@pytest.fixture
def relay(programs: Path) -> Iterator[Callable[..., Relay]]:
    """Return what starts client and server with a relay between them."""
    made: list[Relay] = []

    def start(*arguments: object) -> Relay:
        made.append(Relay(programs, *arguments))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_records_that_are_right(relay: Callable[..., Relay]) -> None:
    both = relay()
    until(both.client, r"^VERIFIED tcp n=[1-9]\d")
    both.client.send_signal(signal.SIGTERM)
    rest, status = ended(both.client)
    assert re.fullmatch(r"(VERIFIED tcp n=\d+\n)+", rest)
    assert status == 0
    assert both.server.wait(WAIT_S) == 0


def flip(data: bytes) -> bytes:
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


def drop(data: bytes) -> bytes:
    return data[:500] + data[501:]


def repeat(data: bytes) -> bytes:
    return data[:501] + data[500:]


@pytest.mark.parametrize("to_server", [True, False])
@pytest.mark.parametrize("change", [flip, drop, repeat])
def test_a_byte_that_is_wrong(relay: Callable[..., Relay], change: Change, to_server: bool) -> None:
    both = relay(change, to_server)
    line = until(both.client, "^ERR tcp")
    assert ("the server finds" in line) == to_server
    assert ended(both.client)[1] == 1


def test_a_connection_that_ends(relay: Callable[..., Relay]) -> None:
    both = relay()
    until(both.client, r"^VERIFIED tcp n=[1-9]")
    both.server.kill()
    assert re.search("connection ended|answer was cut", until(both.client, "^ERR tcp"))
    assert ended(both.client)[1] == 1
