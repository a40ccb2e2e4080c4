# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab numbers, cache folders, and what follows from them: command line, inventory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import inventory, outer, tsc
from lab.config import Lab, cache_root, lab_from
from lab.errors import LabError

CACHE = Path("/cache")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HYBRID_VMM_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"HYBRID_VMM_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/hybrid-vmm"),
        ({"HOME": "/c"}, "/c/.cache/hybrid-vmm"),
    ],
)
def test_cache_root(environment: dict[str, str], expected: str) -> None:
    assert cache_root(environment) == Path(expected)


@pytest.mark.parametrize(("number", "port"), [("0", 10022), ("1", 10122), ("99", 19922)])
def test_ports_do_not_meet(number: str, port: int) -> None:
    lab = lab_from(number, "bookworm", CACHE)
    assert lab.ssh_port == port
    assert lab.name == f"lab{number}"
    assert lab.folder == CACHE / "lab" / number


@pytest.mark.parametrize("number", ["", "-1", "100", "one", "1.5", " 1", "²"])
def test_bad_number(number: str) -> None:
    with pytest.raises(LabError) as error:
        lab_from(number, "bookworm", CACHE)
    assert str(error.value) == f"LAB={number!r}: a lab number is 0 to 99"


def test_bad_distro() -> None:
    with pytest.raises(LabError) as error:
        lab_from("0", "sarge", CACHE)
    assert str(error.value) == "LAB_DISTRO='sarge': known are bookworm, trixie"


@pytest.mark.parametrize(("accelerator", "expected"), [("tcg", "max,+svm,+npt"), ("kvm", "host")])
def test_command_line(accelerator: str, expected: str) -> None:
    arguments = outer.command_line(Lab(3, "bookworm", CACHE), "/qemu", accelerator, "/disk", "/kernel", "/initrd")
    assert arguments[arguments.index("-cpu") + 1] == expected
    assert "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:10322-:22" in arguments
    assert "systemd.hostname=lab3" in arguments[arguments.index("-append") + 1]
    drive = arguments[arguments.index("-drive") + 1]
    assert "file=/disk," in drive
    assert "snapshot=on" in drive
    assert arguments[arguments.index("-pidfile") + 1] == "/cache/lab/3/qemu.pid"


def test_inventories_agree() -> None:
    lab = Lab(2, "bookworm", CACHE)
    one = json.loads(inventory.fragment(lab))
    all_running = json.loads(inventory.dynamic([lab]))
    variables = one["hypervisors"]["hosts"]["lab2"]
    assert all_running["_meta"]["hostvars"]["lab2"] == variables
    assert all_running["hypervisors"]["hosts"] == ["lab2"]
    assert variables["ansible_port"] == 10222
    assert variables["ansible_python_interpreter"] == "/usr/bin/python3"
    assert "UserKnownHostsFile=/cache/lab/2/known_hosts" in variables["ansible_ssh_common_args"]


def test_frequency_is_the_median_of_samples() -> None:
    assert tsc.kilohertz([(250_000_000, 100_000_000), (251_000_000, 100_000_000), (10, 100_000_000)]) == 2_500_000
    arguments = outer.command_line(Lab(0, "bookworm", CACHE), "/qemu", "tcg", "/disk", "/kernel", "/initrd", 2_500_000)
    assert " tsc_early_khz=2500000 " in arguments[arguments.index("-append") + 1]
