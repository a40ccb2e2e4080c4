# SPDX-License-Identifier: GPL-3.0-or-later
"""The artifact that lies in the cache: complete, what its manifest says, relocatable, and a QEMU that runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[3]
ROLE = TOP / "roles" / "hybrid_qemu_build"
sys.path.insert(0, str(ROLE / "module_utils"))

from hybrid_qemu_series import read_series  # noqa: E402


def cache() -> Path:
    """Return the toolkit's cache."""
    if found := os.environ.get("HYBRID_VMM_CACHE"):
        return Path(found)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybrid-vmm"


@pytest.fixture(scope="module")
def artifact() -> Path:
    """Return the folder of the newest artifact."""
    return (cache() / "artifacts" / "latest").resolve()


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> dict[str, Any]:
    """Return its manifest."""
    return dict(json.loads((artifact / "manifest.json").read_text()))


@pytest.fixture(scope="module")
def archive(artifact: Path, manifest: dict[str, Any]) -> Path:
    """Return its archive."""
    return artifact / f"hybrid-qemu-{manifest['qemu_version']}-{manifest['series']}.tar.gz"


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the artifact, unpacked somewhere that it was not configured for."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run(["tar", "-xzf", archive, "-C", folder, "--strip-components=1"], check=True)
    return folder


def run(*argv: object) -> str:
    """Return what a program prints."""
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True, timeout=120).stdout


def test_folder(host: Any, artifact: Path, archive: Path) -> None:
    assert sorted(host.file(str(artifact)).listdir()) == sorted([archive.name, "SHA256SUMS", "manifest.json"])
    assert host.run(f"cd {artifact} && sha256sum --check --strict SHA256SUMS").rc == 0
    assert not [name for name in os.listdir(artifact.parent) if name.startswith(".new-")]


def test_no_work_is_left(host: Any, manifest: dict[str, Any]) -> None:
    assert not host.file(str(cache() / "build" / manifest["key"])).exists


def test_manifest(manifest: dict[str, Any]) -> None:
    series = read_series(str(ROLE / "files" / "patches"))
    assert manifest["schema"] == 1
    assert (manifest["series"], manifest["series_sha256"], manifest["interface"]) == (series.identity, series.sha256, series.interface)
    assert manifest["patches"] == list(series.patches)
    assert all(len(digest) == 64 for digest in manifest["source"].values())
    assert {"seabios", "qemu-system-data", "libslirp0"} <= set(manifest["run_time_packages"][manifest["built_on"]])
    assert manifest["configure"]


def test_every_file_is_in_the_manifest(unpacked: Path, manifest: dict[str, Any]) -> None:
    found = {
        str(path.relative_to(unpacked)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in unpacked.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found == manifest["files"]
    assert json.loads((unpacked / "manifest.json").read_text()) == manifest


def test_archive_is_reproducible_in_form(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    files = [member.name for member in members if member.isfile()]
    assert files == sorted(files)
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(1704067200, 0, 0, "root")}
    assert all(member.isfile() or member.isdir() for member in members)


def test_binary_says_who_it_is(unpacked: Path, manifest: dict[str, Any]) -> None:
    text = run(unpacked / "bin/qemu-system-x86_64", "--version")
    assert f"version {manifest['qemu_version']} (hybrid-vmm {manifest['series']})" in text
    assert f"version {manifest['qemu_version']}" in run(unpacked / "bin/qemu-img", "--version")


def test_accelerators(unpacked: Path, manifest: dict[str, Any]) -> None:
    offered = run(unpacked / "bin/qemu-system-x86_64", "-accel", "help").split("\n")
    assert {"kvm", "tcg"} <= set(offered)
    assert set(manifest["accelerators"]) <= set(offered)


def test_no_path_of_the_build_is_in_it(unpacked: Path) -> None:
    for name in ("bin/qemu-system-x86_64", "bin/qemu-img"):
        assert str(cache()).encode() not in (unpacked / name).read_bytes()


def test_firmware_is_found(unpacked: Path) -> None:
    folders = run(unpacked / "bin/qemu-system-x86_64", "-L", "help")
    assert "/usr/share/seabios" in folders
    assert "/usr/share/qemu" in folders
