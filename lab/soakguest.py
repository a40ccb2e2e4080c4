# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest of the soak: Debian's kernel, and an initramfs with Debian's stress-ng, hybrid-check and the programs of tests/soak/guest.

Built once per content into the cache folder ``soak-guests/<key>``: ``vmlinuz``, ``initrd.img``, and
``soak-tcp``, the other end of the guest's connection.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from lab import cpio, packages
from lab.boot import Bootable
from lab.config import TOP
from lab.guest import CHECK_MODULES, Guest, base_entries, compile_static, ensure_guest
from lab.image import Image
from lab.lock import locked
from lab.process import need, run
from lab.progress import say

SOURCES = TOP / "tests" / "soak" / "guest"
PACKAGE = "stress-ng"
TOOLS = ("sh", "mount", "umount", "insmod", "sleep", "uname", "awk", "cat", "head", "ip", "killall", "mkdir", "nproc", "rm", "sed", "sync")
LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
BUILD_TIMEOUT = 900.0


class SoakGuest(Bootable):
    """A built guest, and the program that it talks to."""

    @property
    def peer(self) -> Path:
        """The other end of the guest's TCP connection, for the machine that QEMU runs on; needs no libraries."""
        return self.folder / "soak-tcp"


def soak_guest_key(guest_key: str, hashes: dict[str, str], texts: dict[str, bytes]) -> str:
    """Return the cache key: 16 hex digits over the test guest, the packages' hashes and the sources by name."""
    digest = hashlib.sha256(guest_key.encode())
    for name in sorted(hashes):
        digest.update(f"{name} {hashes[name]}\n".encode())
    for name in sorted(texts):
        digest.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    return digest.hexdigest()[:16]


def ensure_soak_guest(cache: Path, image: Image) -> SoakGuest:
    """Return the guest for this image's kernel, building it when these inputs were never built.

    Raises LabError when apt cannot fetch stress-ng or a program does not compile.
    """
    base = ensure_guest(cache, image)
    names = packages.closure(PACKAGE)
    here = Path(__file__).parent
    inputs = [path for path in sorted(SOURCES.iterdir()) if path.is_file()]
    inputs += [here / name for name in ("soakguest.py", "packages.py", "boot.py", "cpio.py")]
    key = soak_guest_key(base.folder.name, packages.hashes(names), {path.name: path.read_bytes() for path in inputs})
    guest = SoakGuest(cache / "soak-guests" / key)
    with locked(guest.folder.with_suffix(".lock"), "soak guest", BUILD_TIMEOUT):
        if not guest.folder.exists():
            _build(image, base, names, guest)
    return guest


def compile_programs(work: Path) -> list[Path]:
    """Compile our programs into the folder and return them."""
    need("gcc", "objdump")
    programs = [compile_static(f"soak-{name}", [SOURCES / f"{name}.c"], work) for name in ("files", "tcp")]
    fault = work / "fault.so"
    run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(fault), str(SOURCES / "fault.c")])
    return [*programs, fault]


def _build(image: Image, base: Guest, names: list[str], guest: SoakGuest) -> None:
    """Fetch, compile, pack, and move the folder to its place when it is complete."""
    need("dpkg-deb")
    say("soak guest", f"building for {image.key}, {PACKAGE} and {len(names) - 1} packages it depends on")
    with tempfile.TemporaryDirectory(prefix="build-", dir=guest.folder.parent) as name:
        work = Path(name, "guest")
        work.mkdir()
        built = SoakGuest(work)
        programs = [*compile_programs(work), base.check]
        tree = packages.unpack(names, Path(name))
        stress = tree / "usr" / "bin" / PACKAGE
        shutil.copyfile(image.kernel, built.kernel)
        entries = base_entries(image, (SOURCES / "soak-init").read_bytes(), CHECK_MODULES, TOOLS)
        entries += [cpio.folder(path) for path in ("disk", "tmp", "lib", "lib64", LIBRARIES)]
        entries += [cpio.program(f"bin/{path.name}", path.read_bytes()) for path in (*programs, stress)]
        for library, content in packages.with_libraries(stress, tree).items():
            entries.append(cpio.program(f"{'lib64' if library == LOADER else LIBRARIES}/{library}", content))
        built.initrd.write_bytes(cpio.archive(entries))
        work.rename(guest.folder)
    say("soak guest", f"ready: {guest.folder}")
