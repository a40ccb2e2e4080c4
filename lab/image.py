# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file system of a lab host: built by debootstrap without loop devices, cached by the hash of its inputs."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from lab import apt, rootfs
from lab.boot import Bootable
from lab.config import Lab
from lab.lock import locked
from lab.process import as_root, need, run, run_logged
from lab.progress import say

DISK_SIZE = "4G"
BUILD_TIMEOUT = 1800.0
# Counts changes of this module that change what is in an image (rootfs.py is hashed as it is).
RECIPE = 1


class Image(Bootable):
    """A built image: kernel, the distribution's initrd, and beside them the disk and the kernel's modules."""

    @property
    def key(self) -> str:
        """Hash of everything that went into it."""
        return self.folder.name

    @property
    def disk(self) -> Path:
        """Raw ext4 file system (sparse)."""
        return self.folder / "root.img"

    @property
    def modules(self) -> Path:
        """The kernel's modules folder (``lib/modules/<release>`` of the image)."""
        return self.folder / "modules"


def image_key(inputs: dict[str, object]) -> str:
    """Return the cache key of a set of inputs: 16 hex digits, the same for the same inputs in any order."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def ensure_keys(lab: Lab) -> None:
    """Create the lab's own ssh keys (login and host) when there are none yet."""
    with locked(lab.cache / "lab" / "keys.lock", "ssh keys", 60):
        for path in (lab.ssh_key, lab.host_key):
            if not path.exists():
                need("ssh-keygen")
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"hybrid-vmm {path.name}", "-f", str(path)])


def ensure_image(lab: Lab) -> Image:
    """Return the image for this lab host's distribution, building it when these inputs were never built.

    Raises LabError when a tool is missing, the mirror does not answer or the build fails.
    """
    ensure_keys(lab)
    sources = apt.machine_sources(lab.distro)
    settings = apt.machine_settings()
    inputs: dict[str, object] = {
        "distro": lab.distro,
        "sources": apt.sources_list(sources),
        "settings": settings,
        "keys": [path.with_suffix(".pub").read_text() for path in (lab.ssh_key, lab.host_key)],
        "recipe": RECIPE,
        # Without comments and layout: those build no other image.
        "files": ast.unparse(ast.parse(Path(rootfs.__file__).read_text())),
        "size": DISK_SIZE,
    }
    image = Image(lab.cache / "images" / f"{lab.distro}-{image_key(inputs)}")
    with locked(image.folder.with_suffix(".lock"), "image", BUILD_TIMEOUT):
        if not image.folder.exists():
            _build(lab, image, sources, settings)
    return image


def _build(lab: Lab, image: Image, sources: list[apt.Source], settings: list[str]) -> None:
    """Build an image beside its place and move it there when it is complete."""
    need("debootstrap", "mke2fs", "chroot")
    started = time.monotonic()
    say("image", f"building {lab.distro} from {sources[0].uri} (about 2 minutes, once)")
    image.folder.parent.mkdir(parents=True, exist_ok=True)
    log = image.folder.with_suffix(".log")
    log.write_bytes(b"")
    # Under this image's lock nobody else builds it: what is left of an interrupted build can go.
    for stale in image.folder.parent.glob(f"build-{image.key}-*"):
        _remove(stale)
    work = Path(tempfile.mkdtemp(prefix=f"build-{image.key}-", dir=image.folder.parent))
    tree = work / "tree"
    try:
        _bootstrap(lab, tree, sources, log)
        _configure(lab, tree, sources, settings, log)
        _pack(tree, work, log)
        _remove(tree)
        os.rename(work, image.folder)
    finally:
        if work.exists():
            _remove(work)
    say("image", f"ready in {time.monotonic() - started:.0f} s: {image.folder}")


def _remove(tree: Path) -> None:
    """Remove a folder with root's files in it; tens of thousands of files take long on a busy disk."""
    run(as_root(["rm", "-rf", "--one-file-system", str(tree)]), timeout=BUILD_TIMEOUT)


def _bootstrap(lab: Lab, tree: Path, sources: list[apt.Source], log: Path) -> None:
    """Unpack and configure the packages in the tree."""
    downloads = log.parent / f"debs-{lab.distro}"
    downloads.mkdir(exist_ok=True)
    command = ["debootstrap", "--foreign", "--variant=minbase", "--components=main", f"--cache-dir={downloads}"]
    command += [f"--include={','.join(rootfs.PACKAGES)}", lab.distro, str(tree), sources[0].uri]
    say("image", "fetching and unpacking packages")
    run_logged("image", as_root(command), log, timeout=BUILD_TIMEOUT)
    _write(tree, rootfs.before_second_stage())
    say("image", "configuring packages")
    second = ["chroot", str(tree), "/debootstrap/debootstrap", "--second-stage"]
    run_logged("image", as_root(second), log, timeout=BUILD_TIMEOUT)


def _configure(lab: Lab, tree: Path, sources: list[apt.Source], settings: list[str], log: Path) -> None:
    """Turn the tree into a lab host: network, ssh, apt, no needless units, and apt's lists as of now."""
    run(as_root(["sh", "-c", 'rm -f "$1"/etc/ssh/ssh_host_*', "sh", str(tree)]))
    _write(
        tree,
        rootfs.after_second_stage(
            apt.sources_list(sources), settings, lab.ssh_key.with_suffix(".pub").read_text(), lab.host_key.read_text()
        ),
    )
    chroot = ["chroot", str(tree), "systemctl", "-q"]
    run(as_root([*chroot, "mask", *rootfs.MASKED_UNITS]))
    run(as_root([*chroot, "enable", "systemd-networkd.service", "ssh.service"]))
    say("image", "fetching the lists of the mirror")
    resolver = tree / "etc/resolv.conf"
    own = resolver.read_text()
    _write(tree, {"etc/resolv.conf": Path("/etc/resolv.conf").read_text()})
    run_logged("image", as_root(["chroot", str(tree), "apt-get", "-q", "update"]), log, timeout=BUILD_TIMEOUT)
    run(as_root(["chroot", str(tree), "apt-get", "clean"]))
    _write(tree, {"etc/resolv.conf": own})


def _pack(tree: Path, work: Path, log: Path) -> None:
    """Take kernel, initrd and modules out of the tree and make the disk from it."""
    packed = Image(work)
    me = f"{os.geteuid()}:{os.getegid()}"
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    release = kernels[-1].name.removeprefix("vmlinuz-")
    say("image", f"kernel {release}; writing the disk")
    run(as_root(["cp", "-L", str(kernels[-1]), str(packed.kernel)]))
    run(as_root(["cp", "-L", str(tree / "boot" / f"initrd.img-{release}"), str(packed.initrd)]))
    run(as_root(["cp", "-a", str(tree / "lib/modules" / release), str(packed.modules)]), timeout=BUILD_TIMEOUT)
    options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    make = ["mke2fs", "-q", "-t", "ext4", "-L", "lab", "-E", options, "-d", str(tree), str(packed.disk), DISK_SIZE]
    run_logged("image", as_root(make), log, timeout=BUILD_TIMEOUT)
    run(as_root(["chown", "-R", me, *(str(path) for path in (packed.kernel, packed.initrd, packed.modules, packed.disk))]))
    (work / "release").write_text(release + "\n")


def _write(tree: Path, files: dict[str, str]) -> None:
    """Write files into the tree as root, replacing links that are there (a package may ship resolv.conf as a link)."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            source = Path(folder, "file")
            source.write_text(text)
            target = tree / path
            run(as_root(["rm", "-f", str(target)]))
            owner = ["-o", "root", "-g", "root", "-m", f"{rootfs.mode_of(path):o}"]
            run(as_root(["install", "-D", *owner, str(source), str(target)]))

