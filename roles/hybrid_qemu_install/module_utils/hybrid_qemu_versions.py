# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU versions of one host: what is installed, what runs, and the one transaction that changes it.

Layout below the prefix: one folder per version, `current` and `previous` as relative links, `.lock`. Nothing is ever changed in
place: a version is unpacked beside, verified, tried out and renamed; a link is replaced by a rename. Python 3.9 and newer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from typing import Any, Iterator

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
CURRENT = "current"
PREVIOUS = "previous"
BINARY = "bin/qemu-system-x86_64"
#: qemu-<version>-h<interface>.<8 hexadecimal digits>
NAME = re.compile(r"^qemu-[0-9][0-9A-Za-z.+~]*-h[0-9]+\.[0-9a-f]{8}$")
#: Unfinished work of a run that died; removed under the lock.
NEW = ".new-"
#: A version that was replaced by another build of the same name while something still ran from it.
REPLACED = ".replaced-"
#: What stays free on the file system, in bytes.
RESERVE = 32 << 20


class VersionError(Exception):
    """The host cannot be brought to the wanted version; it was left as it was."""


def mebibytes(size: int) -> str:
    """Return a size for people."""
    return f"{size / (1 << 20):.0f} MiB"


def sha256_stream(stream: Any) -> str:
    """Return the sha256 of what a stream gives."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def sha256_file(path: str) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as stream:
        return sha256_stream(stream)


def version_name(manifest: dict[str, Any]) -> str:
    """Return the folder name of the version that a manifest describes."""
    return f"qemu-{manifest['qemu_version']}-{manifest['series']}"


def parse_manifest(raw: bytes, where: str) -> dict[str, Any]:
    """Return a manifest, checked as far as its use here needs."""
    try:
        manifest = json.loads(raw)
    except ValueError as exc:
        raise VersionError(f"{where}: not JSON: {exc}") from exc
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != MANIFEST_SCHEMA:
        raise VersionError(f"{where}: manifest schema {schema} is not {MANIFEST_SCHEMA}")
    lacking = [key for key in ("qemu_version", "series", "interface", "files", "run_time_packages") if key not in manifest]
    if lacking:
        raise VersionError(f"{where}: the manifest has no {', '.join(lacking)}")
    if not NAME.match(version_name(manifest)):
        raise VersionError(f"{where}: '{version_name(manifest)}' is not the name of a version")
    return manifest


def members(archive: tarfile.TarFile, where: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield (member, path without the top folder); anything but plain files and folders inside is refused."""
    for member in archive:
        top, _slash, path = member.name.partition("/")
        parts = path.split("/")
        if not (member.isreg() or member.isdir()) or member.name.startswith("/") or ".." in [top, *parts]:
            raise VersionError(f"{where}: '{member.name}' does not belong into an artifact")
        if path:
            yield member, path


def read_artifact(path: str) -> dict[str, Any]:
    """Return what an archive holds: manifest, its sha256, size when unpacked."""
    size = 0
    raw = None
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member, name in members(archive, path):
                size += member.size
                if name == MANIFEST:
                    stream = archive.extractfile(member)
                    raw = stream.read() if stream else None
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise VersionError(f"{path}: not an artifact: {exc}") from exc
    if raw is None:
        raise VersionError(f"{path}: not an artifact: it has no {MANIFEST}")
    manifest = parse_manifest(raw, path)
    return {"manifest": manifest, "manifest_sha256": hashlib.sha256(raw).hexdigest(), "unpacked_size": size, "size": os.path.getsize(path)}


def extract(path: str, folder: str) -> None:
    """Unpack an archive into an empty folder, with modes and owners of our own."""
    with tarfile.open(path, "r:gz") as archive:
        for member, name in members(archive, path):
            dest = os.path.join(folder, name)
            if member.isdir():
                os.makedirs(dest, mode=0o755, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(dest), mode=0o755, exist_ok=True)
            stream = archive.extractfile(member)
            if stream is None:
                raise VersionError(f"{path}: '{member.name}' cannot be read")
            with open(dest, "xb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(dest, 0o755 if member.mode & 0o100 else 0o644)


def damages(folder: str) -> list[str]:
    """Compare a version with its manifest; return what differs."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as stream:
            manifest = parse_manifest(stream.read(), os.path.join(folder, MANIFEST))
    except OSError as exc:
        return [f"{MANIFEST}: {exc.strerror}"]
    except VersionError as exc:
        return [str(exc)]
    found = []
    for name, digest in sorted(manifest["files"].items()):
        try:
            if sha256_file(os.path.join(folder, name)) != digest:
                found.append(f"{name}: changed")
        except OSError as exc:
            found.append(f"{name}: {exc.strerror}")
    known = {*manifest["files"], MANIFEST}
    for parent, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(parent, name), folder)
            if path not in known:
                found.append(f"{path}: not in the manifest")
    return found


def try_out(folder: str, manifest: dict[str, Any]) -> None:
    """Start the binary: shared libraries are there, and it is what the manifest says."""
    argv = [os.path.join(folder, BINARY), "--version"]
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise VersionError(f"{version_name(manifest)}: the binary does not start: {exc}") from exc
    if result.returncode:
        raise VersionError(f"{version_name(manifest)}: the binary does not start: {result.stderr.strip()}")
    if f"hybrid-vmm {manifest['series']}" not in result.stdout:
        raise VersionError(f"{version_name(manifest)}: the binary says '{result.stdout.splitlines()[0]}', without {manifest['series']}")


def process_pids(folder: str, proc: str = "/proc") -> list[int]:
    """Return the processes whose program lies in `folder`, also when that was renamed or removed since."""
    found = []
    start = os.path.realpath(folder) + "/"
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            program = os.readlink(os.path.join(proc, name, "exe"))
        except OSError:
            continue  # gone, or a kernel thread
        if program.startswith(start):
            found.append(int(name))
    return sorted(found)


class Host:
    """The versions below one prefix.

    :param prefix: for example /opt/hybrid-vmm.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def path(self, name: str) -> str:
        """Return the path of an entry of the prefix."""
        return os.path.join(self.prefix, name)

    def versions(self) -> list[str]:
        """Return the installed versions, the newest installation first."""
        if not os.path.isdir(self.prefix):
            return []
        names = [name for name in os.listdir(self.prefix) if NAME.match(name) and os.path.isdir(self.path(name))]
        return sorted(names, key=lambda name: (-os.stat(self.path(name)).st_mtime_ns, name))

    def target(self, link: str) -> str | None:
        """Return the version that a link points to."""
        try:
            return os.path.basename(os.readlink(self.path(link)))
        except OSError:
            return None

    def manifest_sha256(self, name: str) -> str | None:
        """Return the sha256 of an installed version's manifest."""
        try:
            return sha256_file(os.path.join(self.path(name), MANIFEST))
        except OSError:
            return None

    def state(self) -> dict[str, Any]:
        """Return what a change would show as before and after."""
        return {"current": self.target(CURRENT), "versions": sorted(self.versions())}

    def free(self) -> int:
        """Return the free space where the prefix is or would be."""
        path = self.prefix
        while not os.path.exists(path):
            path = os.path.dirname(path) or "/"
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize

    def removable(self, current: str, previous: str | None, versions: list[str], keep: int) -> tuple[list[str], dict[str, list[int]]]:
        """Choose which versions go.

        :param versions: newest first.
        :param keep: how many stay besides the current one; the previous one is the first of them.
        :returns: what goes, and what would go but runs (version to pids).
        """
        order = [name for name in [previous, *versions] if name and name in versions and name != current]
        surplus = list(dict.fromkeys(order))[max(keep, 0) :]
        running = {name: process_pids(self.path(name)) for name in surplus}
        return [name for name in surplus if not running[name]], {name: pids for name, pids in running.items() if pids}

    @contextlib.contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """One change at a time; who has to give up says who is at it."""
        made = not os.path.isdir(self.prefix)
        os.makedirs(self.prefix, mode=0o755, exist_ok=True)
        began = time.monotonic()
        try:
            with open(self.path(".lock"), "a+", encoding="utf-8") as stream:
                while True:
                    try:
                        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except OSError as exc:
                        if exc.errno not in (errno.EAGAIN, errno.EACCES):
                            raise
                        if time.monotonic() - began >= timeout:
                            stream.seek(0)
                            raise VersionError(
                                f"{self.prefix} is being changed by another run ({stream.read().strip() or 'unknown'}); "
                                f"waited {timeout:.0f} s. Try again when that run has ended."
                            ) from exc
                        time.sleep(0.2)
                with contextlib.suppress(OSError):  # a full disk must not keep a link from being turned
                    stream.truncate(0)
                    stream.write(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")
                    stream.flush()
                try:
                    self._clean()
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        stream.truncate(0)
        except BaseException:
            if made:
                self._remove_empty_prefix()
            raise

    def _remove_empty_prefix(self) -> None:
        """Take back the prefix that this run made."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(".lock"))
            os.rmdir(self.prefix)

    def _clean(self) -> None:
        """Remove what earlier runs left and nothing uses."""
        for name in os.listdir(self.prefix):
            if name.startswith(NEW) or (name.startswith(REPLACED) and not process_pids(self.path(name))):
                shutil.rmtree(self.path(name), ignore_errors=True)

    def unpack(self, archive: str, sha256: str, name: str) -> None:
        """Unpack, verify and try out a version; then it is there, complete, under its name."""
        found = sha256_file(archive)
        if found != sha256.lower():
            raise VersionError(f"{archive} has sha256 {found}, expected {sha256}: it was not installed")
        contents = read_artifact(archive)
        if version_name(contents["manifest"]) != name:
            raise VersionError(f"{archive} holds {version_name(contents['manifest'])}, expected {name}")
        need = contents["unpacked_size"] + RESERVE
        if self.free() < need:
            raise VersionError(
                f"{self.prefix} has {mebibytes(self.free())} left, {name} needs {mebibytes(need)}: free some space; nothing was changed"
            )
        folder = tempfile.mkdtemp(prefix=NEW, dir=self.prefix)
        try:
            extract(archive, folder)
            if wrong := damages(folder):
                raise VersionError(f"{name}: unpacked files are not what the manifest says: {'; '.join(wrong)}")
            try_out(folder, contents["manifest"])
            os.chmod(folder, 0o755)
            self._replace(folder, name)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise VersionError(f"{self.prefix}: no space left while unpacking {name}; nothing was changed") from exc
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _replace(self, folder: str, name: str) -> None:
        """Rename `folder` to the version's name; a version of that name steps aside, for what still runs from it."""
        aside = None
        if os.path.lexists(self.path(name)):
            aside = tempfile.mkdtemp(prefix=REPLACED, dir=self.prefix)
            os.rename(self.path(name), os.path.join(aside, name))
        try:
            os.rename(folder, self.path(name))
        except OSError:
            if aside:
                os.rename(os.path.join(aside, name), self.path(name))
                os.rmdir(aside)
            raise
        if aside and not process_pids(aside):
            shutil.rmtree(aside, ignore_errors=True)

    def point(self, link: str, name: str) -> None:
        """Turn a link in one step."""
        temporary = self.path(f".{link}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(name, temporary)
        os.replace(temporary, self.path(link))

    def activate(self, name: str) -> None:
        """Make a version the current one."""
        before = self.target(CURRENT)
        if before == name:
            return
        if before:
            self.point(PREVIOUS, before)
        self.point(CURRENT, name)

    def remove(self, names: list[str]) -> None:
        """Remove versions."""
        for name in names:
            if self.target(PREVIOUS) == name:
                os.unlink(self.path(PREVIOUS))
            # Renamed first, so that a version is there completely or not at all.
            gone = tempfile.mkdtemp(prefix=NEW, dir=self.prefix)
            os.rename(self.path(name), os.path.join(gone, name))
            shutil.rmtree(gone, ignore_errors=True)
