# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for the tests of the QEMU series: the real role unpacks and patches the pinned source."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tools"), str(TOP / "roles" / "hybrid_qemu_build" / "module_utils")]

import qemu_series
from hybrid_qemu_series import Series, read_series

RunRole = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes `patch` one case for each patch of the series."""
    if "patch" in metafunc.fixturenames:
        paths = [Path(path) for path in read_series(str(qemu_series.PATCHES)).paths]
        metafunc.parametrize("patch", paths, ids=[path.name for path in paths])


@pytest.fixture(scope="session")
def series() -> Series:
    """Return the repository's series."""
    return read_series(str(qemu_series.PATCHES))


@pytest.fixture(scope="session")
def run_role() -> RunRole:
    """Return a function that runs an entry of the build role and hands back its output."""

    def run(tasks: str, **variables: object) -> subprocess.CompletedProcess[str]:
        return qemu_series.run_role(tasks, variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return run


@pytest.fixture(scope="session")
def patched_tree(run_role: RunRole, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh source tree with the whole series, made by the role's own tasks."""
    tree = tmp_path_factory.mktemp("patched") / "qemu"
    result = run_role("source", hybrid_qemu_build_tree=str(tree), hybrid_qemu_build_patches=str(qemu_series.PATCHES))
    assert result.returncode == 0, result.stdout
    return tree


@pytest.fixture
def patches_copy(tmp_path: Path) -> Path:
    """Return a copy of the series' folder, to be spoiled."""
    folder = tmp_path / "patches"
    shutil.copytree(qemu_series.PATCHES, folder)
    return folder
