# SPDX-License-Identifier: GPL-3.0-or-later
"""Which QEMU runs a lab host."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from lab.emulator import emulator
from lab.errors import LabError


def artifact(cache: Path, key: str, member: str, content: bytes) -> None:
    """Put an artifact with one member into the cache and make it the latest."""
    folder = cache / "artifacts" / key
    folder.mkdir(parents=True)
    with tarfile.open(folder / "hybrid-qemu-10.0.13-h1.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    latest = cache / "artifacts" / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(key)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own choice does not matter here."""
    monkeypatch.delenv("HYBRID_LAB_QEMU", raising=False)


def test_the_one_that_was_built_last(tmp_path: Path) -> None:
    artifact(tmp_path, "aa", "qemu-1/bin/qemu-system-x86_64", b"old")
    assert emulator(tmp_path).read_bytes() == b"old"
    artifact(tmp_path, "bb", "qemu-1/bin/qemu-system-x86_64", b"new")
    path = emulator(tmp_path)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o755
    assert emulator(tmp_path) == path


def test_nothing_built(tmp_path: Path) -> None:
    with pytest.raises(LabError) as error:
        emulator(tmp_path)
    assert str(error.value) == f"no QEMU in {tmp_path}/artifacts/latest: make build first"


def test_archive_without_a_binary(tmp_path: Path) -> None:
    artifact(tmp_path, "aa", "qemu-1/README", b"")
    with pytest.raises(LabError, match=r"no bin/qemu-system-x86_64 in it"):
        emulator(tmp_path)


def test_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_LAB_QEMU", "/bin/true")
    assert emulator(tmp_path) == Path("/bin/true")
    monkeypatch.setenv("HYBRID_LAB_QEMU", "/nowhere")
    with pytest.raises(LabError) as error:
        emulator(tmp_path)
    assert str(error.value) == "HYBRID_LAB_QEMU='/nowhere': there is no program"
