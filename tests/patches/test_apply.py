# SPDX-License-Identifier: GPL-3.0-or-later
"""The series against the pinned source, with the build role's own tasks: zero fuzz, checkpatch, errors that name the patch."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from conftest import RunRole
from hybrid_qemu_series import Series
from hybrid_qemu_tree import PatchError, apply_patch

#: checkpatch asks this of every patch that adds a file; this series stays downstream and has no entry in MAINTAINERS.
ACCEPTED = ("does MAINTAINERS need updating",)


def spoil(folder: Path, series: Series, patch: str) -> str:
    """Append a patch to a copy of the series; return its name."""
    name = f"{len(series.patches) + 1:04d}-test-does-not-apply.patch"
    (folder / name).write_text(patch)
    with open(folder / "series", "a", encoding="utf-8") as stream:
        stream.write(f"{name}\n")
    return name


def test_series_applies_without_fuzz(patched_tree: Path) -> None:
    # the role's tasks use patch --fuzz=0 and the run ended well; see what they left
    assert (patched_tree / "VERSION").read_text().strip() == "10.0.13"
    assert list(patched_tree.rglob("*.rej")) == []
    assert list(patched_tree.rglob("*.orig")) == []


def test_checkpatch(patched_tree: Path, patch: Path) -> None:
    result = subprocess.run(
        ["perl", "scripts/checkpatch.pl", "--no-signoff", "--terse", "--no-summary", str(patch)],
        cwd=patched_tree,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    complaints = [line for line in lines if not any(text in line for text in ACCEPTED)]
    assert not complaints, "\n".join(complaints)


def test_broken_patch_is_named(run_role: RunRole, series: Series, patches_copy: Path, tmp_path: Path) -> None:
    name = spoil(patches_copy, series, "--- a/VERSION\n+++ b/VERSION\n@@ -1 +1 @@\n-9.9.99\n+10.0.13\n")

    result = run_role("source", hybrid_qemu_build_tree=str(tmp_path / "tree"), hybrid_qemu_build_patches=str(patches_copy))

    assert result.returncode != 0
    # Ansible folds long messages
    text = re.sub(r"\s+", " ", result.stdout)
    assert f"patch {name} ({len(series.patches) + 1} of {len(series.patches) + 1}) does not apply to QEMU 10.0.13 without fuzz" in text
    assert "make qemu-src" in text


def test_fuzz_is_refused(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(1, 11)]
    (tmp_path / "file").write_text("\n".join(lines) + "\n")
    exact = "--- a/file\n+++ b/file\n@@ -2,7 +2,7 @@\n line 2\n line 3\n line 4\n-line 5\n+LINE 5\n line 6\n line 7\n line 8\n"
    (tmp_path / "fuzzy.patch").write_text(exact.replace(" line 2\n", " line two\n"))
    (tmp_path / "exact.patch").write_text(exact)

    with pytest.raises(PatchError, match=r"fuzzy\.patch does not apply"):
        apply_patch(str(tmp_path / "fuzzy.patch"), str(tmp_path))
    apply_patch(str(tmp_path / "exact.patch"), str(tmp_path))
    assert "LINE 5" in (tmp_path / "file").read_text()


def test_wrong_sha256_is_refused(run_role: RunRole, tmp_path: Path) -> None:
    sources = tmp_path / "mirror"
    sources.mkdir()
    (sources / "qemu.tar.xz").write_bytes(b"not what you asked for")
    found = hashlib.sha256(b"not what you asked for").hexdigest()
    wanted = "0" * 64

    result = run_role(
        "fetch",
        hybrid_qemu_build_cache_dir=str(tmp_path / "cache"),
        hybrid_qemu_build_source="file",
        hybrid_qemu_build_directory=str(sources),
        hybrid_qemu_build_archives=[{"name": "qemu.tar.xz", "sha256": wanted}],
    )

    assert result.returncode != 0
    text = re.sub(r"\s+", " ", result.stdout)
    assert f"qemu.tar.xz from source file has sha256 {found}, expected {wanted}: it is not the pinned archive and was not kept" in text
    assert list((tmp_path / "cache" / "src").iterdir()) == []


def test_missing_archive_says_what_to_do(run_role: RunRole, tmp_path: Path) -> None:
    result = run_role(
        "fetch",
        hybrid_qemu_build_cache_dir=str(tmp_path / "cache"),
        hybrid_qemu_build_source="tarball",
        hybrid_qemu_build_urls=[f"file://{tmp_path}/nowhere", f"file://{tmp_path}/elsewhere"],
        hybrid_qemu_build_archives=[{"name": "qemu.tar.xz", "sha256": "0" * 64}],
    )

    assert result.returncode != 0
    text = re.sub(r"\s+", " ", result.stdout)
    assert "source tarball does not give qemu.tar.xz" in text
    assert f"into {tmp_path}/cache/src, or choose another hybrid_qemu_build_source" in text


def test_second_place_is_tried(run_role: RunRole, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "qemu.tar.xz").write_bytes(b"right")
    wanted = hashlib.sha256(b"right").hexdigest()

    result = run_role(
        "fetch",
        hybrid_qemu_build_cache_dir=str(tmp_path / "cache"),
        hybrid_qemu_build_source="tarball",
        hybrid_qemu_build_urls=[f"file://{tmp_path}/nowhere", f"file://{mirror}/"],
        hybrid_qemu_build_archives=[{"name": "qemu.tar.xz", "sha256": wanted}],
    )

    assert result.returncode == 0, result.stdout
    assert (tmp_path / "cache" / "src" / "qemu.tar.xz").read_bytes() == b"right"
