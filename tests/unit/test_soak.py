# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak: its sequence of pauses and modes, what it reads from a guest, and what it writes."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lab import packages
from lab.soakguest import soak_guest_key

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "qemu"), str(ROOT / "tests" / "soak")]
import harness
import plan
import soak
from loads import LOADS, Loads


def test_a_seed_is_a_sequence() -> None:
    first = list(islice(plan.steps(7, "on-2"), 1000))
    assert first == list(islice(plan.steps(7, "on-2"), 1000))
    assert first != list(islice(plan.steps(8, "on-2"), 1000))
    assert first != list(islice(plan.steps(7, "on-4"), 1000))


def test_the_sequence_goes_both_ways_and_waits_in_kvm() -> None:
    sequence = list(islice(plan.steps(7, "on-2"), 4000))
    modes = ["kvm", *(step.mode for step in sequence)]
    changes = [(before, after) for before, after in zip(modes, modes[1:]) if before != after]
    assert abs(changes.count(("kvm", "tcg")) - changes.count(("tcg", "kvm"))) <= 1
    assert 0.9 < len(changes) / len(sequence) < 0.97
    assert [number for number, step in enumerate(sequence, 1) if step.check] == list(range(200, 4001, 200))
    assert {step.mode for step in sequence if step.check} == {"kvm"}
    pauses = [step.pause_s for step in sequence]
    assert min(pauses) == 0
    assert 1.5 < max(pauses) <= 2


def test_all_interrupt_controllers_with_1_2_and_4_vcpus() -> None:
    wanted = {(irqchip, vcpus) for irqchip in ("on", "split", "off") for vcpus in (1, 2, 4)}
    assert {(each.irqchip, each.vcpus) for each in plan.chosen(None)} == wanted
    assert [each.name for each in plan.chosen("off-4,on-1")] == ["off-4", "on-1"]
    with pytest.raises(ValueError, match="unknown configuration 'on-3'; known are on-1, on-2"):
        plan.chosen("on-3")


LINES = ["HB 3 mono_ms=1 real_ms=2 late_us_max=3 iters=40 errors=0", "VERIFIED files n=5", "VERIFIED tcp n=6", "VERIFIED stress n=7 job=cpu"]


def test_counts_of_a_console() -> None:
    loads = Loads()
    loads.feed(LINES[:2])
    loads.feed(LINES[2:])
    assert loads.verified == {"check": 40, "files": 5, "tcp": 6, "stress": 7}
    assert (loads.errors, loads.jobs) == (0, {"cpu"})
    before = dict(loads.verified)
    loads.feed(["VERIFIED tcp n=8", "VERIFIED files n=5"])
    assert loads.behind(before) == ["check", "files", "stress"]


@pytest.mark.parametrize(
    "line",
    [
        "ERR files slot=1 checksum got=1 want=2",
        "ERR jit offset=0 got=1 want=2",
        "[   12.3] Kernel panic - not syncing: Attempted to kill init!",
        "[   12.3] EXT4-fs error (device vdb): ext4_lookup:1855",
        "[   12.3] blk_update_request: I/O error, dev vda",
        "[   12.3] INFO: task soak-files:72 blocked for more than 120 seconds.",
        "HB 3 mono_ms=1 real_ms=2 late_us_max=3 iters=40 errors=1",
    ],
)
def test_a_complaint_is_an_error(line: str) -> None:
    loads = Loads()
    loads.feed([*LINES, line])
    assert loads.errors == 1


def entry(name: str, switches: int, failure: str | None = None) -> dict[str, Any]:
    return {"name": name, "switches": switches, "verified": dict.fromkeys(LOADS, 2), "errors": 0, "failure": failure}


def test_report_adds_up(tmp_path: Path) -> None:
    report = soak.Report(7, 1.5, "QEMU", 2, tmp_path / "reports" / "soak.json")
    report.add(entry("on-1", 30))
    report.add(entry("on-2", 12, "no progress"))
    data = json.loads(report.path.read_text())
    assert (data["seed"], data["minutes"], data["qemu"], data["wanted"]) == (7, 1.5, "QEMU", 2)
    assert (data["switches"], data["errors"], data["failed"]) == (42, 1, ["on-2"])
    assert data["verified"] == dict.fromkeys(LOADS, 4)


class FakeConsole:
    """Lines as a console has them."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def wait(self, since: int, match: object, seconds: float) -> None:
        """Nothing more comes."""


class FakeVm:
    """A guest that answers what it is told to."""

    def __init__(self) -> None:
        self.console, self.mode, self.switches, self.process = FakeConsole(), "kvm", [], self
        self.changed = True

    def poll(self) -> None:
        """QEMU lives."""

    def set_mode(self, mode: str) -> dict[str, Any]:
        """Answer, truly or not."""
        self.mode = mode
        self.switches.append({"changed": self.changed})
        return self.switches[-1]


@pytest.fixture
def guest() -> soak.Soak:
    """Return a soak of a guest that is not there."""
    made = object.__new__(soak.Soak)
    made.vm, made.loads, made.read, made.same = FakeVm(), Loads(), 0, 0  # type: ignore[assignment]
    return made


def test_a_load_that_stands_still_is_named(guest: soak.Soak) -> None:
    guest.vm.console.lines += [(0.0, line) for line in LINES]
    guest.look()
    with pytest.raises(harness.Unexpected, match="no progress for 0 s in mode kvm: check, files, tcp, stress"):
        guest.go_on(0)


def test_a_complaint_ends_the_soak(guest: soak.Soak) -> None:
    guest.take(plan.Step(0, "tcg", False))
    guest.vm.console.lines.append((0.0, "ERR tcp record=3 the server finds a wrong sum"))
    with pytest.raises(harness.Unexpected, match=r"the guest finds 1 errors.*wrong sum"):
        guest.take(plan.Step(0, "kvm", False))
    assert guest.switches == 2


@pytest.mark.parametrize(("mode", "changed"), [("kvm", True), ("tcg", False)])
def test_a_wrong_answer_ends_the_soak(guest: soak.Soak, mode: str, changed: bool) -> None:
    guest.vm.changed = changed  # type: ignore[attr-defined]
    with pytest.raises(harness.Unexpected, match=f"asked for {mode} in kvm"):
        guest.take(plan.Step(0, mode, False))


def test_packages_of_a_program() -> None:
    said = "stress-ng\n  Depends: libc6\n |Depends: libegl1\n  Depends: <virtual>\nlibc6\nlibc6:i386\n<virtual>\nlibegl1\n"
    assert packages.parse_depends(said) == ["libc6", "libegl1", "stress-ng"]
    uris = "'http://mirror/l/libc6_2_amd64.deb' libc6_2_amd64.deb 12 SHA256:ab12\nN: notice\n"
    assert packages.parse_uris(uris) == {"libc6_2_amd64.deb": "SHA256:ab12"}
    dump = "Dynamic Section:\n  NEEDED               libm.so.6\n  NEEDED               libc.so.6\n  SONAME               x\n"
    assert packages.parse_needed(dump) == ["libm.so.6", "libc.so.6"]


@pytest.mark.parametrize("other", [("h", {"d": "1"}, {"a": b"x"}), ("g", {"d": "2"}, {"a": b"x"}), ("g", {"d": "1"}, {"a": b"y"})])
def test_soak_guest_key_depends_on_everything(other: tuple[str, dict[str, str], dict[str, bytes]]) -> None:
    assert soak_guest_key("g", {"d": "1"}, {"a": b"x"}) != soak_guest_key(*other)
