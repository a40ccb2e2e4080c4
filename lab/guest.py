# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest of tests and demo: Debian's kernel, unmodified, and an initramfs that runs tests/guest/hybrid-check.

Built once per content into the cache folder ``guests/<key>``: ``vmlinuz``, ``initrd.img``, and
``probe.img``, the initramfs of the guest that lab.probe boots.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from lab import cpio, modules
from lab.boot import Bootable
from lab.config import TOP
from lab.errors import LabError
from lab.image import Image
from lab.lock import locked
from lab.process import need, run
from lab.progress import say

SOURCES = TOP / "tests" / "guest"
BUSYBOX = Path("/bin/busybox")
CHECK_MODULES = ["virtio_pci", "virtio_blk", "virtio_net"]
PROBE_MODULES = ["kvm_amd", "kvm_intel"]
TOOLS = ("sh", "mount", "insmod", "sleep", "poweroff", "uname")
COMPILE = ["gcc", "-O2", "-g0", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]


class Guest(Bootable):
    """A built guest: the image's kernel, an initramfs with hybrid-check, and beside them the one of the probe."""

    @property
    def check(self) -> Path:
        """The program hybrid-check, which needs no libraries."""
        return self.folder / "hybrid-check"

    @property
    def probe_initrd(self) -> Path:
        """Initramfs that tries to run a nested guest."""
        return self.folder / "probe.img"


def guest_key(image_key: str, busybox: bytes, texts: dict[str, bytes]) -> str:
    """Return the cache key of a guest: 16 hex digits over the image, busybox and the sources by name."""
    digest = hashlib.sha256(image_key.encode())
    digest.update(hashlib.sha256(busybox).digest())
    for name in sorted(texts):
        digest.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    return digest.hexdigest()[:16]


def ensure_guest(cache: Path, image: Image) -> Guest:
    """Return the guest for this image's kernel, building it when these inputs were never built.

    Raises LabError when busybox-static or the compiler is missing or the program does not compile.
    """
    if not BUSYBOX.exists():
        raise LabError(f"{BUSYBOX} is missing; tools/bootstrap installs it (busybox-static)")
    here = Path(__file__).parent
    inputs = [*sorted(SOURCES.glob("*.[chS]")), *sorted(SOURCES.glob("*init"))]
    inputs += [here / name for name in ("guest.py", "boot.py", "cpio.py")]
    texts = {path.name: path.read_bytes() for path in inputs}
    guest = Guest(cache / "guests" / guest_key(image.key, BUSYBOX.read_bytes(), texts))
    with locked(guest.folder.with_suffix(".lock"), "guest", 600):
        if not guest.folder.exists():
            _build(image, guest)
    return guest


def _build(image: Image, guest: Guest) -> None:
    """Compile, pack, and move the folder to its place when it is complete."""
    need("gcc")
    say("guest", f"building for {image.key}")
    with tempfile.TemporaryDirectory(prefix="build-", dir=guest.folder.parent) as name:
        work = Path(name, "guest")
        work.mkdir()
        built = Guest(work)
        compile_static("hybrid-check", [path for path in sorted(SOURCES.glob("*.[cS]")) if path.name != "kvm-hello.c"], work)
        compile_static("kvm-hello", [SOURCES / "kvm-hello.c"], work)
        shutil.copyfile(image.kernel, built.kernel)
        built.initrd.write_bytes(_initramfs(image, "check-init", work / "hybrid-check", CHECK_MODULES))
        built.probe_initrd.write_bytes(_initramfs(image, "probe-init", work / "kvm-hello", PROBE_MODULES))
        work.rename(guest.folder)
    say("guest", f"ready: {guest.folder}")


def compile_static(name: str, sources: list[Path], work: Path) -> Path:
    """Compile a program that needs no libraries into the folder and return its path."""
    run([*COMPILE, "-o", str(work / name), *(str(source) for source in sources)])
    return work / name


def base_entries(image: Image, init: bytes, wanted: list[str], tools: tuple[str, ...] = TOOLS) -> list[cpio.Entry]:
    """Return what every initramfs of ours has: busybox as these tools, an init script, and modules in the order to load them."""
    loaded = modules.select(image.modules, wanted)
    entries = [cpio.folder(path) for path in ("bin", "dev", "proc", "sys", "modules")]
    entries += [cpio.character_device("dev/console", 5, 1), cpio.program("bin/busybox", BUSYBOX.read_bytes())]
    entries += [cpio.link(f"bin/{tool}", "busybox") for tool in tools]
    for number, (name, content) in enumerate(loaded):
        entries.append(cpio.program(f"modules/{number:02d}-{name}.ko", content))
    entries.append(cpio.program("init", init))
    return entries


def _initramfs(image: Image, init: str, program: Path, wanted: list[str]) -> bytes:
    """Return an initramfs with one init script and one program."""
    entries = base_entries(image, (SOURCES / init).read_bytes(), wanted)
    return cpio.archive([*entries, cpio.program(program.name, program.read_bytes())])
