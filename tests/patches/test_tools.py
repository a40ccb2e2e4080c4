# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/qemu-src, qemu-rebase and qemu-export: patches to commits, onto another QEMU, and back, byte for byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import qemu_series
import yaml

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


def run_tool(name: str, tree: Path, patches: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool on a tree and a series of the test's own."""
    environment = {**os.environ, "QEMU_SRC": str(tree), "QEMU_PATCHES": str(patches)}
    return subprocess.run([qemu_series.TOP / "tools" / name, *arguments], env=environment, capture_output=True, text=True, check=False)


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


PINS = ("hybrid_qemu_build_version", "hybrid_qemu_build_archives", "hybrid_qemu_build_debian_version", "hybrid_qemu_build_debian_suite")


def test_rebase_moves_the_series_to_another_commit(round_trip: tuple[Path, Path], tmp_path: Path) -> None:
    """The source that is pinned already, so that the same patches must come out."""
    tree, patches = round_trip
    before = content(patches)
    defaults = qemu_series.role_defaults()
    pins = tmp_path / "pins.yml"
    pins.write_text(yaml.safe_dump({name: defaults[name] for name in PINS}))

    result = run_tool("qemu-rebase", tree, patches, str(pins))

    assert result.returncode == 0, result.stderr
    moved = qemu_series.git(tree, "rev-list", "hybrid-base-before..hybrid-base").split()
    assert moved == qemu_series.git(tree, "rev-parse", "hybrid-base").split()
    assert qemu_series.git(tree, "merge-base", "hybrid-base", "HEAD").split() == moved
    assert run_tool("qemu-export", tree, patches).returncode == 0
    assert content(patches) == before


@pytest.mark.parametrize(
    ("pins", "says"),
    [
        (None, "No such file or directory"),
        ("[]", "not a mapping of variables"),
        ("{hybrid_qemu_build_version: 10.0.2}", "hybrid_qemu_build_archives is missing"),
    ],
)
def test_rebase_refuses_other_pins(round_trip: tuple[Path, Path], tmp_path: Path, pins: str | None, says: str) -> None:
    tree, patches = round_trip
    path = tmp_path / "pins.yml"
    if pins is not None:
        path.write_text(pins)
    result = run_tool("qemu-rebase", tree, patches, str(path))
    assert result.returncode == 1
    assert result.stderr.startswith("qemu-rebase: ")
    assert str(path) in result.stderr
    assert says in result.stderr


def test_rebase_needs_a_clean_tree(round_trip: tuple[Path, Path], tmp_path: Path) -> None:
    tree, patches = round_trip
    pins = tmp_path / "pins.yml"
    pins.write_text("{hybrid_qemu_build_version: 10.0.2, hybrid_qemu_build_archives: []}")
    (tree / "VERSION").write_text("10.0.99\n")
    result = run_tool("qemu-rebase", tree, patches, str(pins))
    qemu_series.git(tree, "checkout", "VERSION")
    assert result.returncode == 1
    assert result.stderr == f"qemu-rebase: {tree} has changes that are not committed: commit or drop them first\n"


def test_export_needs_a_work_tree(tmp_path: Path) -> None:
    result = run_tool("qemu-export", tmp_path, qemu_series.PATCHES)
    assert result.returncode == 1
    assert result.stderr == f"qemu-export: {tmp_path} is not a git work tree: make qemu-src makes one, QEMU_SRC names another\n"
