# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh QEMU source tree: archives verified and unpacked, the packager's patches and the series applied without fuzz.

Knows neither Ansible nor where archives come from. Whoever calls it gives an empty destination.
"""

from __future__ import annotations

import hashlib
import os
import subprocess

#: An archive of this name holds a `debian/` folder whose patches belong under the series.
PACKAGING = ".debian.tar."


class TreeError(Exception):
    """The source tree could not be made."""


class ChecksumError(TreeError):
    """An archive is not the one that was asked for."""


class PatchError(TreeError):
    """A patch does not apply.

    :param patch: its file name.
    :param output: what patch(1) said.
    """

    def __init__(self, patch: str, output: str) -> None:
        super().__init__(f"{patch} does not apply: {output.strip()}")
        self.patch = patch
        self.output = output


def sha256_file(path: str) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def verify(path: str, sha256: str) -> None:
    """Refuse a file whose sha256 is another."""
    try:
        found = sha256_file(path)
    except OSError as exc:
        raise TreeError(f"{path}: {exc.strerror}") from exc
    if found != sha256.lower():
        raise ChecksumError(f"{path} has sha256 {found}, expected {sha256}")


def extract(archive: str, dest: str, strip: int = 0) -> None:
    """Unpack an archive into `dest`, without the first `strip` folders of each path."""
    os.makedirs(dest, exist_ok=True)
    result = subprocess.run(
        ["tar", "--extract", "--file", archive, "--directory", dest, f"--strip-components={strip}", "--no-same-owner"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise TreeError(f"{archive} cannot be unpacked: {result.stderr.strip() or f'tar ended with {result.returncode}'}")


def apply_patch(patch: str, tree: str) -> None:
    """Apply one patch; a hunk that fits only approximately does not apply."""
    # --fuzz=0: context must match exactly. No .orig files. --batch: never ask, never guess that a patch is reversed.
    result = subprocess.run(
        ["patch", "--strip=1", "--fuzz=0", "--batch", "--forward", "--no-backup-if-mismatch", "--silent", "--input", patch],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise PatchError(os.path.basename(patch), (result.stdout + result.stderr).replace("\n", "; "))


def packaging_patches(folder: str) -> list[str]:
    """Return the patches of an unpacked `debian/` folder in order."""
    patches = os.path.join(folder, "debian", "patches")
    series = os.path.join(patches, "series")
    if not os.path.exists(series):
        return []
    with open(series, encoding="utf-8") as stream:
        names = [line.split("#", 1)[0].split() for line in stream]
    return [os.path.join(patches, name[0]) for name in names if name]


def unpack(archives: list[tuple[str, str]], tree: str, scratch: str) -> list[str]:
    """Make the unpatched-by-us tree.

    :param archives: (path, sha256) of the source archive and, optionally, of a packaging archive (*.debian.tar.*).
    :param tree: where the source goes; must not exist.
    :param scratch: folder for the packaging archive.
    :returns: the names of the packager's patches that were applied.
    """
    if os.path.exists(tree):
        raise TreeError(f"{tree} exists; a source tree is unpacked fresh")
    for path, sha256 in archives:
        verify(path, sha256)
    sources = [path for path, _sha256 in archives if PACKAGING not in os.path.basename(path)]
    if len(sources) != 1:
        raise TreeError(f"exactly one source archive is needed, found {len(sources)}: {', '.join(sources) or 'none'}")
    extract(sources[0], tree, strip=1)
    applied = []
    for path, _sha256 in archives:
        if path in sources:
            continue
        extract(path, scratch)
        for patch in packaging_patches(scratch):
            apply_patch(patch, tree)
            applied.append(os.path.basename(patch))
    return applied


def source_version(tree: str) -> str:
    """Return the QEMU version of a source tree."""
    try:
        with open(os.path.join(tree, "VERSION"), encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError as exc:
        raise TreeError(f"{tree} is not a QEMU source tree: VERSION: {exc.strerror}") from exc


