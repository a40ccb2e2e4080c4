# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/qemu-src and tools/qemu-export: patches to commits and back, byte for byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import qemu_series

PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: hybrid-vmm <hybrid-vmm@localhost>
Subject: [PATCH] docs: say that this is a test

So that the round trip has something to carry.
---
 docs/hybrid-test.txt | 1 +
 1 file changed, 1 insertion(+)
 create mode 100644 docs/hybrid-test.txt

diff --git a/docs/hybrid-test.txt b/docs/hybrid-test.txt
new file mode 100644
index 0000000000000000000000000000000000000000..9daeafb9864cf43055ae93beb0afd6c7d144bfa4
--- /dev/null
+++ b/docs/hybrid-test.txt
@@ -0,0 +1 @@
+test
"""
NAME = "-docs-say-that-this-is-a-test.patch"


def run_tool(name: str, tree: Path, patches: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool on a tree and a series of the test's own."""
    environment = {**os.environ, "QEMU_SRC": str(tree), "QEMU_PATCHES": str(patches)}
    return subprocess.run([qemu_series.TOP / "tools" / name], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return (work tree, patches) after qemu-src with the repository's series and one patch more."""
    patches = tmp_path_factory.mktemp("patches")
    for path in qemu_series.PATCHES.iterdir():
        (patches / path.name).write_bytes(path.read_bytes())
    number = len(list(patches.glob("*.patch"))) + 1
    (patches / f"{number:04d}{NAME}").write_text(PATCH)
    with open(patches / "series", "a", encoding="utf-8") as stream:
        stream.write(f"# a comment that stays\n{number:04d}{NAME}\n")
    tree = tmp_path_factory.mktemp("work") / "qemu"
    result = run_tool("qemu-src", tree, patches)
    assert result.returncode == 0, result.stderr
    return tree, patches


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_export_gives_back_the_same_files(round_trip: tuple[Path, Path]) -> None:
    tree, patches = round_trip
    before = content(patches)

    result = run_tool("qemu-export", tree, patches)

    assert result.returncode == 0, result.stderr
    assert content(patches) == before
    assert "0 files written, 0 removed" in result.stdout


def test_commits_carry_no_names(round_trip: tuple[Path, Path]) -> None:
    tree, _patches = round_trip
    log = qemu_series.git(tree, "log", "--format=%an <%ae> %at%n%cn <%ce> %ct")
    assert set(log.splitlines()) == {"hybrid-vmm <hybrid-vmm@localhost> 1704067200"}


def test_qemu_src_keeps_work(round_trip: tuple[Path, Path]) -> None:
    tree, patches = round_trip
    result = run_tool("qemu-src", tree, patches)
    assert result.returncode == 1
    assert result.stderr == f"qemu-src: {tree} exists and may hold your work: export it (make qemu-export), then remove it\n"


def test_signed_off_by_is_refused(round_trip: tuple[Path, Path]) -> None:
    tree, patches = round_trip
    before = content(patches)
    qemu_series.git(tree, "commit", "--allow-empty", "--signoff", "--message", "docs: sign something\n\nFor the test.")
    (tree / "docs" / "hybrid-test.txt").write_text("changed\n")
    qemu_series.git(tree, "commit", "--all", "--amend", "--no-edit")

    result = run_tool("qemu-export", tree, patches)

    qemu_series.git(tree, "reset", "--hard", "--quiet", "HEAD~1")
    assert result.returncode == 1
    assert "has a Signed-off-by line: the series carries none" in result.stderr
    assert content(patches) == before


def test_export_needs_a_work_tree(tmp_path: Path) -> None:
    result = run_tool("qemu-export", tmp_path, qemu_series.PATCHES)
    assert result.returncode == 1
    assert result.stderr == f"qemu-export: {tmp_path} is not a git work tree: make qemu-src makes one, QEMU_SRC names another\n"
