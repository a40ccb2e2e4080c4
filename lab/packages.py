# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of a Debian package with the libraries it needs, without installing anything on this machine.

The packages come from where the machine's own apt takes them; apt checks their hashes.
"""

from __future__ import annotations

import re
from pathlib import Path

from lab.errors import LabError
from lab.process import run

DOWNLOAD_TIMEOUT = 600.0
_URI = re.compile(r"^'[^']+' (?P<file>\S+\.deb) \d+ (?P<hash>\w+:[0-9a-f]+)$", re.MULTILINE)


def parse_depends(text: str) -> list[str]:
    """Return the packages in what ``apt-cache depends --recurse`` printed, sorted.

    Virtual packages and those of other architectures are left out.
    """
    return sorted({line for line in text.splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", line)})


def parse_uris(text: str) -> dict[str, str]:
    """Return file name and hash of each package in what ``apt-get download --print-uris`` printed."""
    return {match["file"]: match["hash"] for match in _URI.finditer(text)}


def parse_needed(text: str) -> list[str]:
    """Return the libraries that a program names, as ``objdump -p`` prints them."""
    return re.findall(r"^\s+NEEDED\s+(\S+)$", text, re.MULTILINE)


def closure(package: str) -> list[str]:
    """Return a package and all that it depends on. Raises LabError when apt does not know it."""
    names = parse_depends(run(["apt-cache", "depends", "--recurse", "--important", package]))
    if package not in names:
        raise LabError(f"apt knows no package {package}; apt-get update fetches its lists")
    return names


def hashes(names: list[str]) -> dict[str, str]:
    """Return file name and hash of the packages' versions that would be downloaded now."""
    found = parse_uris(run(["apt-get", "-q", "download", "--print-uris", *names]))
    if not found:
        raise LabError(f"apt has no files of {' '.join(names)}; apt-get update fetches its lists")
    return found


def unpack(names: list[str], folder: Path) -> Path:
    """Download packages into a folder and unpack them, return the tree."""
    tree = folder / "tree"
    tree.mkdir()
    script = 'cd "$1" && shift && apt-get -q -o Acquire::Retries=3 download "$@"'
    run(["sh", "-c", script, "sh", str(folder), *names], timeout=DOWNLOAD_TIMEOUT)
    for package in sorted(folder.glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(tree)])
    return tree


def with_libraries(program: Path, tree: Path) -> dict[str, bytes]:
    """Return the libraries that a program of this tree needs, and those that they need: name and content.

    Raises LabError for a library that is not in the tree.
    """
    there: dict[str, Path] = {}
    for path in sorted(tree.rglob("*.so*")):
        # A link may lead out of the tree, to where it would lead on a machine.
        target = tree / str(path.readlink()).lstrip("/") if path.is_symlink() and path.readlink().is_absolute() else path
        if target.is_file():
            there.setdefault(path.name, target)
    found: dict[str, bytes] = {}
    waiting = [program]
    while waiting:
        for name in parse_needed(run(["objdump", "-p", str(waiting.pop())])):
            if name in found:
                continue
            if name not in there:
                raise LabError(f"{program.name} needs {name}, which is in none of its packages")
            found[name] = there[name].read_bytes()
            waiting.append(there[name])
    return found
