# SPDX-License-Identifier: GPL-3.0-or-later
"""Definitions on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from conftest import Host

from hybrid_vmm import definition, store
from hybrid_vmm.errors import DefinitionError, StoreError, UnknownVm
from hybrid_vmm.paths import Paths


def test_save_and_load(host: Host) -> None:
    vm = definition.Vm(name="web1", vcpus=2, disks=(definition.Disk("a"),))
    assert store.save(host.paths, vm) is True
    assert store.save(host.paths, vm) is False
    assert store.load(host.paths, "web1") == vm
    assert stat.S_IMODE(os.stat(host.paths.definition("web1")).st_mode) == 0o640
    assert os.listdir(host.paths.definitions) == ["web1.json"]


def test_names(host: Host) -> None:
    for name in ("web2", "web10", "db1"):
        host.define(name)
    Path(host.paths.definitions, ".web3.json.tmp").touch()
    Path(host.paths.definitions, "README").touch()
    assert store.names(host.paths) == ["db1", "web10", "web2"]


def test_nothing_was_ever_defined(tmp_path: Path) -> None:
    assert store.names(Paths(config_dir=str(tmp_path))) == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["x"], "VM 'x' is not defined in {folder}; defined are: db1, web1"),
        (["x", "web1", "y"], "VMs 'x', 'y' are not defined in {folder}; defined are: db1, web1"),
    ],
)
def test_unknown(host: Host, wanted: list[str], message: str) -> None:
    host.define("web1")
    host.define("db1")
    with pytest.raises(UnknownVm) as caught:
        store.known(host.paths, wanted)
    assert caught.value.message == message.format(folder=host.paths.definitions)


def test_known_once_each_in_order(host: Host) -> None:
    host.define("web1")
    host.define("db1")
    assert store.known(host.paths, ["web1", "db1", "web1"]) == ["web1", "db1"]


def test_a_path_is_no_name(host: Host) -> None:
    with pytest.raises(UnknownVm):
        store.load(host.paths, "../vms/web1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "{path}: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "{path}: [] is not a mapping"),
        ('{"schema": 1, "name": "other"}', "{path}: name: 'other' is not the file's name 'web1'"),
        ('{"schema": 1, "name": "web1", "vcpus": 0}', "{path}: vcpus: 0 is not between 1 and 64"),
        ("[" * 100000, "{path}: not JSON: maximum recursion depth exceeded*"),
        (" " * (1 << 20) + "{}", "{path}: longer than 1048576 bytes, this cannot be a VM definition or a policy"),
    ],
)
def test_bad_file(host: Host, text: str, message: str) -> None:
    path = host.paths.definition("web1")
    Path(path).write_text(text)
    with pytest.raises(DefinitionError) as caught:
        store.load(host.paths, "web1")
    expected = message.replace("{path}", path)
    if expected.endswith("*"):
        assert caught.value.message.startswith(expected[:-1])
    else:
        assert caught.value.message == expected


def test_disk_full_leaves_the_old_file(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(host.paths, definition.Vm(name="web1"))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        store.save(host.paths, definition.Vm(name="web1", vcpus=2))
    path = host.paths.definition("web1")
    assert caught.value.message == f"cannot write {path}: No space left on device; it was left as it was"
    assert store.load(host.paths, "web1").vcpus == 1
    assert os.listdir(host.paths.definitions) == ["web1.json"]


def test_a_crash_before_the_rename_leaves_the_old_file(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(host.paths, definition.Vm(name="web1"))

    def crash(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        store.save(host.paths, definition.Vm(name="web1", vcpus=2))
    assert store.load(host.paths, "web1").vcpus == 1
