# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules for an initramfs: which ones in which order, and their content uncompressed."""

from __future__ import annotations

import lzma
from pathlib import Path

from lab.errors import LabError

SUFFIXES = (".ko", ".ko.xz")


def parse_dep(text: str) -> dict[str, list[str]]:
    """Parse ``modules.dep``: path of a module to the paths of those it needs."""
    result = {}
    for line in text.splitlines():
        path, _, needs = line.partition(":")
        result[path] = needs.split()
    return result


def module_name(path: str) -> str:
    """Return a module's name as the kernel says it: no folder, no suffix, underscores."""
    return Path(path).name.split(".ko")[0].replace("-", "_")


def load_order(dependencies: dict[str, list[str]], builtin: set[str], wanted: list[str]) -> list[str]:
    """Return the paths to load, needed ones first, each once.

    builtin holds names of what the kernel has inside; those are left out. Raises LabError for an unknown name.
    """
    by_name = {module_name(path): path for path in dependencies}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in dependencies[path]:
            add(needed)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
        elif name not in builtin:
            raise LabError(f"the kernel of the lab image has no module {name}")
    return order


def read_module(path: Path) -> bytes:
    """Return a module's content, unpacked when it is stored as .ko.xz."""
    data = path.read_bytes()
    if path.name.endswith(".xz"):
        return lzma.decompress(data)
    if not path.name.endswith(".ko"):
        raise LabError(f"{path}: only {' and '.join(SUFFIXES)} are understood")
    return data


def select(folder: Path, wanted: list[str]) -> list[tuple[str, bytes]]:
    """Return name and content of the wanted modules and what they need, in the order to load them.

    folder is ``lib/modules/<release>`` of an image.
    """
    dependencies = parse_dep((folder / "modules.dep").read_text())
    builtin = {module_name(line) for line in (folder / "modules.builtin").read_text().splitlines()}
    return [(module_name(path), read_module(folder / path)) for path in load_order(dependencies, builtin, wanted)]
