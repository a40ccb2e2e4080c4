# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tools compile QEMU apart from the role: same configuration, same compiler cache, progress while it lasts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import yaml
from qemu_series import ROLE, ToolError, apply_patch, cache_dir, pinned_archives, say, unpack

PROGRESS = re.compile(r"^\[\s*(\d+)\s*/\s*(\d+)\s*\]")
#: Seconds between two lines of progress.
EVERY = 15
#: In the folder of a tree: what it was made of.
COMPLETE = "complete"


def build_tools() -> Path:
    """Return the Python with meson that the build role installed."""
    found = sorted(cache_dir().glob("buildtools-*/bin/python"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ToolError("no build tools in the cache yet: make build")
    return found[-1]


def run(what: str, argv: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a long command and show how far it is; its last lines when it fails."""
    shown = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines = [*lines[-39:], line.rstrip()]
            if (found := PROGRESS.match(line)) and time.monotonic() - shown > EVERY:
                shown = time.monotonic()
                say(f"{what}: [ {found[1]}/{found[2]} ]")
    if process.returncode:
        raise ToolError(f"{what} does not build:\n" + "\n".join(lines))


def environment_for(work: Path) -> dict[str, str]:
    """Return the environment of the compilers: as in the role, with the same compiler cache."""
    return {
        **{"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/lib/ccache:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        **{"CCACHE_DIR": str(cache_dir() / "ccache"), "CCACHE_BASEDIR": str(work), "CCACHE_NOHASHDIR": "1"},
        "LC_ALL": "C.UTF-8",
    }


def recipe() -> dict[str, list[str]]:
    """Return the role's variables: arguments of configure, targets."""
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
    return {
        "configure": variables["__hybrid_qemu_build_configure"],
        "targets": variables["__hybrid_qemu_build_targets"],
    }


def patched_tree(work: Path, patches: list[str]) -> None:
    """Put the source with these patches into work/src, unless it is there.

    Raises SeriesError, TreeError or PatchError.
    """
    mark = work / COMPLETE
    made_of = json.dumps([*(digest for _, digest in pinned_archives()), *(Path(path).read_text(encoding="utf-8") for path in patches)])
    if mark.exists() and mark.read_text(encoding="utf-8") == made_of:
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    say(f"unpacking into {work}")
    with tempfile.TemporaryDirectory() as scratch:
        unpack(pinned_archives(), str(work / "src"), scratch)
    for path in patches:
        apply_patch(path, str(work / "src"))
    mark.write_text(made_of, encoding="utf-8")


def compile_tree(name: str, work: Path, jobs: int, targets: list[str]) -> Path:
    """Configure work/src in work/build if that was not done yet, compile targets, return the build folder."""
    environment = environment_for(work)
    folder = work / "build"
    if not (folder / "build.ninja").exists():
        folder.mkdir(exist_ok=True)
        say(f"{name}: configuring")
        run(name, ["../src/configure", f"--python={build_tools()}", *recipe()["configure"]], folder, environment)
    run(name, ["ninja", "-j", str(jobs), *targets], folder, environment)
    return folder
