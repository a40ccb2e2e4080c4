# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/qemu-src, tools/qemu-export and tools/patches-build share: where things are, and git without the user's settings.

What a series is and how a tree is made belongs to the role (roles/hybrid_qemu_build/module_utils); it is used from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parent.parent
ROLE = TOP / "roles" / "hybrid_qemu_build"
#: $QEMU_PATCHES names another folder, for tests.
PATCHES = Path(os.environ.get("QEMU_PATCHES") or ROLE / "files" / "patches")

sys.path.insert(0, str(ROLE / "module_utils"))

# Handed on, so that the tools need not know where it comes from.
from hybrid_qemu_series import INTERFACE as INTERFACE  # noqa: E402
from hybrid_qemu_series import SERIES as SERIES  # noqa: E402
from hybrid_qemu_series import SeriesError as SeriesError  # noqa: E402
from hybrid_qemu_series import read_series as read_series  # noqa: E402
from hybrid_qemu_tree import PatchError as PatchError  # noqa: E402
from hybrid_qemu_tree import TreeError as TreeError  # noqa: E402
from hybrid_qemu_tree import apply_patch as apply_patch  # noqa: E402
from hybrid_qemu_tree import source_version as source_version  # noqa: E402
from hybrid_qemu_tree import unpack as unpack  # noqa: E402

#: A role, not a person: the series carries no names.
IDENTITY = "hybrid-vmm"
EMAIL = "hybrid-vmm@localhost"
#: All commits that the tools make have this time, so that the same series gives the same commits.
DATE = "2024-01-01T00:00:00Z"
#: The commit below the series.
BASE_TAG = "hybrid-base"


class ToolError(Exception):
    """What went wrong, for the person who typed the command."""


def cache_dir() -> Path:
    """Return the toolkit's cache."""
    if found := os.environ.get("HYBRID_VMM_CACHE"):
        return Path(found)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybrid-vmm"


def work_tree() -> Path:
    """Return the git work tree of QEMU: $QEMU_SRC, otherwise in the cache."""
    return Path(os.environ.get("QEMU_SRC") or cache_dir() / "qemu-src")


def say(text: str) -> None:
    """Show a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {Path(sys.argv[0]).name}: {text}", flush=True)


def role_defaults() -> dict[str, Any]:
    """Return the defaults of the build role: which source is pinned."""
    with open(ROLE / "defaults" / "main.yml", encoding="utf-8") as stream:
        return dict(yaml.safe_load(stream))


def pinned_archives(pins: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """Return (path in the cache, sha256) of the source archives that these variables of the role pin; its defaults without them."""
    folder = cache_dir() / "src"
    return [(str(folder / item["name"]), item["sha256"]) for item in (pins or role_defaults())["hybrid_qemu_build_archives"]]


def fetch(pins: dict[str, Any] | None = None) -> None:
    """Let the role fetch the pinned archives, unless they are all there. Raises ToolError when it cannot."""
    if all(os.path.exists(path) for path, _sha256 in pinned_archives(pins)):
        return
    say("fetching the source")
    try:
        run_role("fetch", pins)
    except subprocess.CalledProcessError as exc:
        raise ToolError("the source was not fetched: the role says why above") from exc


def run_role(tasks: str, variables: dict[str, Any] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one entry of the build role on this machine."""
    argv = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "ansible.builtin.include_role"]
    argv += ["-a", f"name=hybrid_qemu_build tasks_from={tasks}"]
    argv += ["-e", json.dumps(variables or {})]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg")}
    return subprocess.run(argv, cwd=TOP, env=environment, check=not options, text=True, **options)


def git(tree: Path, *argv: str, **options: Any) -> str:
    """Run git in `tree` without the user's settings, as the role identity, at the fixed time."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
        "GIT_AUTHOR_NAME": IDENTITY, "GIT_AUTHOR_EMAIL": EMAIL, "GIT_AUTHOR_DATE": DATE,
        "GIT_COMMITTER_NAME": IDENTITY, "GIT_COMMITTER_EMAIL": EMAIL, "GIT_COMMITTER_DATE": DATE,
    }
    words = argv
    # No repacking in the background of a tree of 10,000 files, and no time spent on compressing it well.
    settings = ("core.hooksPath=/dev/null", f"safe.directory={tree}", "gc.auto=0", "maintenance.auto=false", "core.compression=1")
    argv = (*(word for setting in settings for word in ("-c", setting)), *words)
    result = subprocess.run(["git", *argv], cwd=tree, env=environment, capture_output=True, text=True, check=False, **options)
    if result.returncode:
        raise ToolError(f"git {' '.join(words)}: {(result.stderr or result.stdout).strip()}")
    return result.stdout


def main(run: Any) -> None:
    """Run a tool; an expected error is one line."""
    try:
        run()
    except (ToolError, OSError) as exc:
        sys.exit(f"{Path(sys.argv[0]).name}: {exc}")
