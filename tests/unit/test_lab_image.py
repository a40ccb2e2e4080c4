# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into images and guests: the machine's apt, cache keys, archives, modules."""

from __future__ import annotations

import lzma
import stat
from pathlib import Path

import pytest

from lab import apt, cpio, modules, rootfs
from lab.errors import LabError
from lab.guest import guest_key
from lab.image import image_key

TARGETS = """\
http://mirror/debian/ bookworm
http://mirror/debian/ bookworm-updates
http://mirror/debian/ bookworm
http://mirror/debian-security/ bookworm-security
http://mirror/debian/ bookworm-backports
https://vendor/apt/ stable
"""
SETTINGS = """\
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy:3128";
Acquire::Check-Valid-Until "false";
Acquire::CompressionTypes::xz "xz";
Acquire::Languages "none";
"""


def test_sources_are_the_distribution_alone() -> None:
    sources = apt.parse_sources(TARGETS, "bookworm")
    assert apt.sources_list(sources) == (
        "deb http://mirror/debian bookworm main\n"
        "deb http://mirror/debian bookworm-updates main\n"
        "deb http://mirror/debian-security bookworm-security main\n"
    )


def test_sources_of_another_release() -> None:
    sources = apt.for_distro(apt.parse_sources(TARGETS, "bookworm"), "bookworm", "trixie")
    assert [source.suite for source in sources] == ["trixie", "trixie-updates", "trixie-security"]


def test_settings_are_those_that_reach_the_mirror() -> None:
    assert apt.parse_settings(SETTINGS) == ['Acquire::http::Proxy "http://proxy:3128";', 'Acquire::Check-Valid-Until "false";']


def test_image_key_depends_on_values_not_on_order() -> None:
    key = image_key({"a": 1, "b": ["x"]})
    assert key == image_key({"b": ["x"], "a": 1})
    assert key != image_key({"a": 1, "b": ["y"]})
    assert len(key) == 16


@pytest.mark.parametrize(
    ("image", "busybox", "texts"),
    [("j", b"busybox", {"a.c": b"x"}), ("i", b"other", {"a.c": b"x"}), ("i", b"busybox", {"b.c": b"x"}), ("i", b"busybox", {"a.c": b"y"})],
)
def test_guest_key_depends_on_everything(image: str, busybox: bytes, texts: dict[str, bytes]) -> None:
    assert guest_key("i", b"busybox", {"a.c": b"x"}) != guest_key(image, busybox, texts)


def test_secrets_are_for_root_alone() -> None:
    files = rootfs.after_second_stage("deb x\n", [], "ssh-ed25519 A\n", "PRIVATE")
    closed = [path for path in files if rootfs.mode_of(path) == 0o600]
    assert sorted(closed) == ["etc/ssh/ssh_host_ed25519_key", "root/.ssh/authorized_keys"]
    assert files["etc/apt/sources.list"] == "deb x\n"


def records(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """Read an archive back the way the kernel does."""
    result, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + 110 + fields[11]
        name = archive[at + 110 : name_end - 1].decode()
        start = (name_end + 3) & ~3
        if name == "TRAILER!!!":
            return result
        result.append((name, fields[1], archive[start : start + fields[6]], (fields[9], fields[10])))
        at = (start + fields[6] + 3) & ~3


def test_archive_reads_back() -> None:
    entries = [
        cpio.folder("dev"),
        cpio.character_device("dev/console", 5, 1),
        cpio.program("init", b"#!/bin/sh\n"),
        cpio.link("bin", "usr/bin"),
        cpio.text("odd", "12345"),
    ]
    found = records(cpio.archive(entries))
    assert found == [(entry.path, entry.mode, entry.content, entry.device) for entry in entries]
    assert stat.S_ISCHR(found[1][1])


DEP = """\
kernel/virtio/virtio.ko:
kernel/virtio/virtio_ring.ko: kernel/virtio/virtio.ko
kernel/block/virtio_blk.ko.xz: kernel/virtio/virtio_ring.ko kernel/virtio/virtio.ko
kernel/kvm/kvm-amd.ko: kernel/kvm/kvm.ko
kernel/kvm/kvm.ko:
"""


def test_modules_load_what_they_need_first() -> None:
    order = modules.load_order(modules.parse_dep(DEP), {"ext4"}, ["virtio_blk", "kvm_amd", "ext4", "virtio"])
    assert [modules.module_name(path) for path in order] == ["virtio", "virtio_ring", "virtio_blk", "kvm", "kvm_amd"]


def test_unknown_module() -> None:
    with pytest.raises(LabError) as error:
        modules.load_order(modules.parse_dep(DEP), set(), ["vfio"])
    assert str(error.value) == "the kernel of the lab image has no module vfio"


def test_packed_modules_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"ELF"))
    (tmp_path / "b.ko").write_bytes(b"ELF")
    assert modules.read_module(tmp_path / "a.ko.xz") == modules.read_module(tmp_path / "b.ko") == b"ELF"
    (tmp_path / "c.ko.zst").write_bytes(b"?")
    with pytest.raises(LabError, match=r"c\.ko\.zst: only \.ko and \.ko\.xz are understood"):
        modules.read_module(tmp_path / "c.ko.zst")
