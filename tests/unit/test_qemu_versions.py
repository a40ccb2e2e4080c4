# SPDX-License-Identifier: GPL-3.0-or-later
"""Role hybrid_qemu_install: the transaction on a host, with artifacts of a few bytes, in a folder."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles" / "hybrid_qemu_install"
sys.path.insert(0, str(ROLE / "module_utils"))

import hybrid_qemu_versions as versions
from hybrid_qemu_versions import Host, VersionError

BINARY = "bin/qemu-system-x86_64"
ONE, TWO, THREE, FOUR = (f"qemu-10.0.13-h1.{digit * 8}" for digit in "1234")


def make_artifact(folder: Path, name: str, extra: dict[str, bytes] | None = None, **manifest: Any) -> tuple[str, str]:
    """Write an artifact whose binary is a script; return (path, sha256)."""
    series = name.rpartition("-")[2]
    files = {
        "bin/qemu-system-x86_64": f"#!/bin/sh\necho 'QEMU emulator version 10.0.13 (hybrid-vmm {series})'\n".encode(),
        "bin/qemu-img": Path("/bin/sleep").read_bytes(),
        **(extra or {}),
    }
    text = {
        "schema": 1, "qemu_version": "10.0.13", "series": series, "interface": 1, "run_time_packages": {"debian-12": []},
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
        **manifest,
    }
    path = folder / f"{name}-{len(list(folder.iterdir()))}.tar.gz"
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for inner, data in {**files, "manifest.json": json.dumps(text).encode()}.items():
            info = tarfile.TarInfo(inner if inner.startswith("/") else f"top/{inner}")
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Return a folder for artifacts."""
    (tmp_path / "artifacts").mkdir()
    return tmp_path / "artifacts"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host with nothing on it."""
    return Host(str(tmp_path / "opt"))


def install(host: Host, artifacts: Path, name: str) -> None:
    """Install a version and make it current."""
    with host.lock(0):
        host.unpack(*make_artifact(artifacts, name), name)
        host.activate(name)


def listing(host: Host) -> list[str]:
    """Return what lies in the prefix."""
    return sorted(path.name for path in Path(host.prefix).iterdir()) if Path(host.prefix).exists() else []


def test_install_and_go_back(host: Host, artifacts: Path) -> None:
    install(host, artifacts, ONE)
    install(host, artifacts, TWO)

    assert host.state() == {"current": TWO, "versions": [ONE, TWO]}
    assert host.target("previous") == ONE
    assert versions.damages(host.path("current")) == []
    assert subprocess.run([host.path("current/bin/qemu-system-x86_64")], capture_output=True, check=True).stdout.endswith(b"h1.22222222)\n")
    host.activate(ONE)
    assert (host.target("current"), host.target("previous")) == (ONE, TWO)
    host.activate(ONE)
    assert (host.target("current"), host.target("previous")) == (ONE, TWO)
    assert listing(host) == [".lock", "current", "previous", ONE, TWO]


def test_wrong_sha256_leaves_nothing(host: Host, artifacts: Path) -> None:
    path, right = make_artifact(artifacts, ONE)
    with pytest.raises(VersionError) as error, host.lock(0):
        host.unpack(path, "0" * 64, ONE)
    assert str(error.value) == f"{path} has sha256 {right}, expected {'0' * 64}: it was not installed"
    assert not Path(host.prefix).exists()


@pytest.mark.parametrize(
    ("extra", "manifest", "message"),
    [
        ({}, {"files": {"bin/qemu-img": "0" * 64}}, r"bin/qemu-img: changed; bin/qemu-system-x86_64: not in the manifest"),
        ({}, {"files": {"bin/absent": "0" * 64}}, r"bin/absent: No such file or directory"),
        ({}, {"schema": 2}, r"manifest schema 2 is not 1"),
        ({}, {"series": "../../etc"}, r"'qemu-10.0.13-\.\./\.\./etc' is not the name of a version"),
        ({}, {"series": "h1.99999999"}, rf"holds qemu-10.0.13-h1.99999999, expected {ONE}"),
        ({"../escape": b"x"}, {}, r"'top/\.\./escape' does not belong into an artifact"),
        ({"/etc/escape": b"x"}, {}, r"'/?etc/escape' does not belong into an artifact|not in the manifest|No such file"),
        ({BINARY: b"#!/bin/sh\necho QEMU emulator version 10.0.13\n"}, {}, r"the binary says 'QEMU .*', without h1.11111111"),
        ({BINARY: b"#!/bin/sh\necho no libslirp.so.0 >&2; exit 127\n"}, {}, r"the binary does not start: no libslirp.so.0"),
    ],
)
def test_bad_artifact_changes_nothing(host: Host, artifacts: Path, extra: dict[str, bytes], manifest: dict[str, Any], message: str) -> None:
    install(host, artifacts, TWO)
    before = listing(host)
    path, sha256 = make_artifact(artifacts, ONE, extra, **manifest)
    with pytest.raises(VersionError, match=message), host.lock(0):
        host.unpack(path, sha256, ONE)
    assert listing(host) == before


def test_disk_full_while_unpacking(host: Host, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: str, folder: str) -> None:
        (Path(folder) / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    path, sha256 = make_artifact(artifacts, ONE)
    monkeypatch.setattr(versions, "extract", full)
    with pytest.raises(VersionError) as error, host.lock(0):
        host.unpack(path, sha256, ONE)
    assert str(error.value) == f"{host.prefix}: no space left while unpacking {ONE}; nothing was changed"
    assert not Path(host.prefix).exists()


def test_too_little_space_is_seen_before(host: Host, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256 = make_artifact(artifacts, ONE)
    monkeypatch.setattr(Host, "free", lambda _self: 5 << 20)
    with pytest.raises(VersionError, match=rf"has 5 MiB left, {ONE} needs 32 MiB: free some space; nothing was changed"), host.lock(0):
        host.unpack(path, sha256, ONE)


def test_two_runs_at_once(host: Host, artifacts: Path) -> None:
    install(host, artifacts, ONE)
    with open(host.path(".lock"), "r+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write("process 4711 since 12:00:00")
        stream.flush()
        with pytest.raises(VersionError) as error, host.lock(0):
            pass
    assert str(error.value) == (
        f"{host.prefix} is being changed by another run (process 4711 since 12:00:00); waited 0 s. Try again when that run has ended."
    )
    with host.lock(0):
        pass


def test_remains_of_a_dead_run_are_removed(host: Host, artifacts: Path) -> None:
    install(host, artifacts, ONE)
    Path(host.path(".new-dead")).mkdir()
    with host.lock(0):
        pass
    assert listing(host) == [".lock", "current", ONE]


@pytest.fixture
def running(host: Host, artifacts: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of version ONE, which is installed."""
    install(host, artifacts, ONE)
    with subprocess.Popen([host.path(f"{ONE}/bin/qemu-img"), "60"]) as process:
        yield process
        process.kill()


def test_old_versions_go_unless_they_run(host: Host, artifacts: Path, running: subprocess.Popen[bytes]) -> None:
    for name in (TWO, THREE, FOUR):
        install(host, artifacts, name)
    assert host.removable(FOUR, THREE, host.versions(), 1) == ([TWO], {ONE: [running.pid]})
    assert host.removable(FOUR, THREE, host.versions(), 0) == ([THREE, TWO], {ONE: [running.pid]})
    assert host.removable(FOUR, THREE, host.versions(), 3) == ([], {})
    host.remove([TWO])
    assert host.versions() == [FOUR, THREE, ONE]


def test_replaced_build_stays_while_it_runs(host: Host, artifacts: Path, running: subprocess.Popen[bytes]) -> None:
    Path(host.path(f"{ONE}/bin/qemu-img")).chmod(0o700)
    install(host, artifacts, ONE)  # another build of the same name
    assert [name for name in listing(host) if name.startswith(".replaced-")] != []
    assert versions.process_pids(host.prefix) == [running.pid]
    running.kill()
    running.wait()
    with host.lock(0):
        pass
    assert listing(host) == [".lock", "current", ONE]


def test_damages_are_named(host: Host, artifacts: Path) -> None:
    install(host, artifacts, ONE)
    with open(host.path(f"{ONE}/bin/qemu-img"), "ab") as stream:
        stream.write(b"!")
    Path(host.path(f"{ONE}/bin/stranger")).write_text("x")
    assert versions.damages(host.path(ONE)) == ["bin/qemu-img: changed", "bin/stranger: not in the manifest"]
    shutil.rmtree(host.path(ONE))
    assert versions.damages(host.path(ONE)) == ["manifest.json: No such file or directory"]
