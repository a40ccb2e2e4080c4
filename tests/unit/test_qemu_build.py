# SPDX-License-Identifier: GPL-3.0-or-later
"""Role hybrid_qemu_build: key, lock, progress and archive, without building anything."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles" / "hybrid_qemu_build"
if str(ROLE / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(ROLE / "module_utils"))


def load(folder: str, name: str) -> ModuleType:
    """Import a plugin of the role."""
    spec = importlib.util.spec_from_file_location(f"hybrid_qemu_build_{name}", ROLE / folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


inputs = load("library", "hybrid_qemu_inputs")
pack = load("library", "hybrid_qemu_pack")
lock = load("action_plugins", "hybrid_qemu_lock")
runner = load("action_plugins", "hybrid_qemu_run")


def test_key_depends_on_content_only() -> None:
    key = inputs.build_key({"a": 1, "b": [1, 2]})
    assert key == inputs.build_key({"b": [1, 2], "a": 1})
    assert key != inputs.build_key({"a": 1, "b": [2, 1]})
    assert len(key) == 16


def test_recipe_ignores_what_python_and_editors_write(tmp_path: Path) -> None:
    (tmp_path / "tasks" / "__pycache__").mkdir(parents=True)
    (tmp_path / "tasks" / "main.yml").write_text("a")
    before = inputs.hash_tree(str(tmp_path / "tasks"))
    (tmp_path / "tasks" / "__pycache__" / "x.pyc").write_text("b")
    (tmp_path / "tasks" / ".main.yml.swp").write_text("b")
    assert inputs.hash_tree(str(tmp_path / "tasks")) == before
    assert list(before) == ["tasks/main.yml"]


def test_lock_is_held_by_a_living_process(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with subprocess.Popen(["sleep", "60"]) as holder:
        assert lock.take(path, holder.pid) is None
        found = lock.take(path, os.getpid())
        assert found["pid"] == holder.pid
        assert lock.describe(found).startswith(f"process {holder.pid} (")
        assert lock.release(path, os.getpid()) is False
        holder.kill()
    assert lock.take(path, os.getpid()) is None
    assert lock.take(path, os.getpid()) is None
    assert lock.release(path, os.getpid()) is True
    assert lock.release(str(tmp_path / "none"), 1) is False


def test_lock_survives_rubbish_and_reused_pids(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("not JSON")
    assert lock.take(str(path), os.getpid()) is None
    path.write_text(json.dumps({"pid": os.getppid(), "start": "1", "since": "?", "command": "?"}))
    assert lock.take(str(path), os.getpid()) is None


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (b"", ""),
        (b"configuring\n", ""),
        (b"[1/1650] one\n[734/1650] two\nwarning: [x]\n", "[  734/1650 ]"),
        (b"[ 734/1650 ] two\n", "[  734/1650 ]"),
    ],
)
def test_progress(log: bytes, shown: str) -> None:
    assert runner.progress(log) == shown


def test_clock() -> None:
    assert [runner.clock(seconds) for seconds in (0.4, 59, 192)] == ["0m00s", "0m59s", "3m12s"]


def test_failure_starts_where_ninja_says_so() -> None:
    log = b"[1/9] cc a.c\n[2/9] cc b.c\nFAILED: b.o\ncc b.c\nb.c:1: error: no\nninja: build stopped\n"
    assert runner.failure(log) == "FAILED: b.o\ncc b.c\nb.c:1: error: no\nninja: build stopped"
    assert runner.failure(b"\n".join(b"line %d" % number for number in range(99))).splitlines()[0] == "line 74"


LIBRARIES: dict[str, dict[str, str]] = {
    "libc.so.6": {},
    "libslirp.so.0": {"debian-12": "libslirp0", "debian-13": "libslirp0"},
    "liba.so": {"debian-12": "liba"},
}


def test_run_time_packages() -> None:
    found = pack.run_time_packages(["libc.so.6", "libslirp.so.0"], LIBRARIES, ["seabios"], ["debian-12", "debian-13"])
    assert found == {"debian-12": ["libslirp0", "seabios"], "debian-13": ["libslirp0", "seabios"]}


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        ("libnew.so.1", "no package is known for the library libnew.so.1: add it to __hybrid_qemu_build_libraries in vars"),
        ("liba.so", "no package of debian-13 is known for the library liba.so"),
    ],
)
def test_unknown_library(needed: str, message: str) -> None:
    with pytest.raises(pack.PackError) as error:
        pack.run_time_packages([needed], LIBRARIES, [], ["debian-13"])
    assert str(error.value) == message


def pack_tree(folder: Path, modified: int) -> dict[str, Any]:
    """Pack a small tree whose files have a given time."""
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    for name, mode in (("bin/program", 0o700), ("text", 0o600)):
        (tree / name).write_text(name)
        (tree / name).chmod(mode)
        os.utime(tree / name, (modified, modified))
    params = {"tree": str(tree), "name": "thing", "dest": str(folder / "out" / "key"), "latest": str(folder / "out" / "latest")}
    return dict(pack.pack({**params, "manifest": {"schema": 1}, "libraries": {}, "packages": ["seabios"], "releases": ["debian-12"]}))


def test_same_content_same_archive(tmp_path: Path) -> None:
    first = pack_tree(tmp_path / "a", 1)
    second = pack_tree(tmp_path / "b", 1_700_000_000)
    assert first["sha256"] == second["sha256"]
    out = tmp_path / "a" / "out"
    assert os.readlink(out / "latest") == "key"
    assert sorted(path.name for path in (out / "key").iterdir()) == ["SHA256SUMS", "manifest.json", "thing.tar.gz"]
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out / "key", check=False).returncode == 0
    assert sorted(first["manifest"]["files"]) == ["bin/program", "text"]


def test_published_artifact_is_kept(tmp_path: Path) -> None:
    assert pack_tree(tmp_path / "a", 1)["changed"] is True
    folder = tmp_path / "a" / "out" / "key"
    before = (folder / "manifest.json").stat().st_mtime_ns
    os.rename(tmp_path / "a" / "tree", tmp_path / "a" / "old")
    assert pack_tree(tmp_path / "a", 2)["changed"] is False
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["key", "latest"]


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(pack.PackError, match="link is a symbolic link"):
        pack.list_files(str(tmp_path))
