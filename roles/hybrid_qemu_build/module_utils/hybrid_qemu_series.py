# SPDX-License-Identifier: GPL-3.0-or-later
"""The patch series as it lies in a folder: its order, its rules, its identity. Used by the role, tools/qemu-* and tests/patches.

Nothing here touches a source tree (hybrid_qemu_tree.py) or knows Ansible.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

SERIES = "series"
INTERFACE = "INTERFACE"
#: NNNN-area-subject.patch, as `git format-patch` names it from "area: subject".
NAME = re.compile(r"^(\d{4})-[A-Za-z0-9_.]+-[A-Za-z0-9_.-]+\.patch$")


class SeriesError(Exception):
    """The folder does not hold a well-formed series."""


@dataclass(frozen=True)
class Series:
    """One series.

    :param folder: where it lies.
    :param patches: file names in the order of application.
    :param interface: version of the QMP interface that the patched QEMU speaks.
    :param sha256: over the series file and the patches in order.
    """

    folder: str
    patches: tuple[str, ...]
    interface: int
    sha256: str

    @property
    def identity(self) -> str:
        """What the binary is stamped with, for example h1.0a1b2c3d."""
        return f"h{self.interface}.{self.sha256[:8]}"

    @property
    def paths(self) -> list[str]:
        """Full paths in the order of application."""
        return [os.path.join(self.folder, name) for name in self.patches]


def parse_series(text: str) -> list[str]:
    """Return the patch names of a series file; `#` starts a comment."""
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.split("#", 1)[0].strip()
        if not name:
            continue
        if len(name.split()) != 1:
            raise SeriesError(f"{SERIES} line {number}: one patch name per line, not '{name}'")
        if name in names:
            raise SeriesError(f"{SERIES} line {number}: {name} is listed twice")
        names.append(name)
    return names


def read_series(folder: str) -> Series:
    """Read the series in `folder` and check that the file list and the folder agree."""
    series_file = os.path.join(folder, SERIES)
    try:
        with open(series_file, "rb") as stream:
            raw = stream.read()
    except OSError as exc:
        raise SeriesError(f"no series file: {series_file}: {exc.strerror}") from exc
    names = parse_series(raw.decode())

    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise SeriesError(f"{series_file} lists {', '.join(missing)}, which is not in the folder")
    extra = sorted({entry for entry in os.listdir(folder) if entry.endswith(".patch")} - set(names))
    if extra:
        raise SeriesError(f"{', '.join(extra)} is in {folder} but not listed in its series file")
    for expected, name in enumerate(names, 1):
        match = NAME.match(name)
        if not match:
            raise SeriesError(f"{name}: a patch is named NNNN-area-subject.patch")
        if int(match.group(1)) != expected:
            raise SeriesError(f"{name}: number {expected:04d} is next in the series")

    digest = hashlib.sha256(raw)
    for name in names:
        with open(os.path.join(folder, name), "rb") as stream:
            digest.update(stream.read())
    return Series(folder, tuple(names), read_interface(folder), digest.hexdigest())


def read_interface(folder: str) -> int:
    """Return the version of the QMP interface, kept in the file INTERFACE beside the series."""
    path = os.path.join(folder, INTERFACE)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read().strip()
    except OSError as exc:
        raise SeriesError(f"no interface version: {path}: {exc.strerror}") from exc
    if not text.isdigit():
        raise SeriesError(f"{path}: '{text}' is not an interface version (a whole number)")
    return int(text)
