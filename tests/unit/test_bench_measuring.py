# SPDX-License-Identifier: GPL-3.0-or-later
"""How benchmarks read what QEMU, the kernel and the guest say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

for _folder in ("qemu", "bench"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))
import bench
import guests
import ioctls
import lateness
import memory
import migration
import modes
import pauses
from goals import GOALS, chosen


def test_calls_in_a_trace() -> None:
    trace = "\n".join([
        "kvm_vcpu_ioctl cpu_index 1, type 0x8090ae81, arg 0x7f00aa10",
        "4711@1700000000.123456:kvm_vm_ioctl type 0xc208ae62, arg 0x7ffd0000",
        "hybrid_phase save took 10 us",
        "kvm_vcpu_ioctl cpu_index 0, type 0xae80, arg (nil)",
    ])  # fmt: skip
    assert ioctls.calls(trace) == [(0x8090AE81, 0x7F00AA10), (0xC208AE62, 0x7FFD0000), (0xAE80, 0)]


def test_counts_have_names() -> None:
    assert ioctls.counts([0xAE80, 0x8090AE81, 0xAE80, 0x1234]) == {"KVM_RUN": 2, "KVM_GET_REGS": 1, "0x1234": 1}


def test_names_are_those_of_the_kernel(tmp_path: Path) -> None:
    """The table against the header that ioctl-floor.c is compiled with."""
    import subprocess

    source = "".join(f'    printf("%lu\\n", (unsigned long){name});\n' for name in ioctls.NAMES.values())
    (tmp_path / "names.c").write_text(f"#include <linux/kvm.h>\n#include <stdio.h>\nint main(void)\n{{\n{source}    return 0;\n}}\n")
    subprocess.run(["gcc", "-o", str(tmp_path / "names"), str(tmp_path / "names.c")], check=True)
    said = subprocess.run([str(tmp_path / "names")], capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in said.split()] == list(ioctls.NAMES)


def test_resident_memory() -> None:
    assert memory.rollup_mib("55d0-7ffe ---p 00000000 00:00 0  [rollup]\nRss:              204800 kB\nPss:  1 kB\n") == 200
    with pytest.raises(ValueError, match="no Rss in ''"):
        memory.rollup_mib("")


def test_size_of_translations() -> None:
    """Only what is written and run: of each mapping the first lines of what smaps says."""
    mappings = [("rw-p", 4096), ("rwxp", 10240), ("r-xp", 512), ("rwxs", 1024)]
    text = "".join(
        f"7f{number}00000000-7f{number}40000000 {rights} 00000000 00:00 0 \nSize:  1048576 kB\nKernelPageSize: 4 kB\n"
        f"Rss:   {size} kB\nPss:   7 kB\nVmFlags: rd wr\n"
        for number, (rights, size) in enumerate(mappings)
    )  # fmt: skip
    assert memory.code_mib(text) == 11
    assert memory.code_mib("") == 0


def test_heartbeats() -> None:
    match = re.search(lateness.HEARTBEAT, "HB 7 mono_ms=1500 real_ms=99 late_us_max=320 iters=1 errors=0")
    assert match
    assert lateness.beat(match) == (1500, 320)
    assert lateness.worst([(1, 5), (2, 90), (3, 7)]) == 90


def test_time_of_an_event() -> None:
    assert migration.at_us({"event": "STOP", "timestamp": {"seconds": 2, "microseconds": 30}}) == 2_000_030


def test_largest_guest() -> None:
    assert pauses.largest_mib(pauses.RESERVED_MIB + 2047) == 1920
    assert pauses.largest_mib(pauses.RESERVED_MIB + 2048) == 2048


def test_there_and_back() -> None:
    run = {"kvm_tcg": [10, 30, 20], "tcg_kvm": [1, 2, 3]}
    assert pauses.there_and_back(run) == [11, 32, 23]
    entries = {entry["name"]: entry for entry in pauses.both("pause_vs_ram", [run], [{"kvm_tcg": [10], "tcg_kvm": [1]}])}
    assert {name: entry["ratio_median"] for name, entry in entries.items()} == {
        "pause_vs_ram": 2.0909, "pause_vs_ram_kvm_tcg": 2, "pause_vs_ram_tcg_kvm": 2,
    }  # fmt: skip
    assert {entry["name"]: entry["a"] for entry in pauses.tails([run])} == {
        "pause_p99_vs_p50": 32, "pause_p99_vs_p50_kvm_tcg": 30, "pause_p99_vs_p50_tcg_kvm": 3,
    }  # fmt: skip


def test_a_plan_has_the_groups_of_what_is_asked_for() -> None:
    assert list(bench.plan(chosen(["memory_overhead", "pause_vs_ram"]))) == ["pauses", "memory"]
    assert list(bench.plan(GOALS)) == list(dict.fromkeys(each.group for each in GOALS))
    assert bench.plan(chosen(["*_fork"]))["kvm_mode"].keywords == {"works": ["fork"]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [("root=/dev/vda clocksource=tsc tsc_early_khz=2596138 quiet", "tsc_early_khz=2596138 tsc=reliable"), ("root=/dev/vda tsc=reliable", "")],
)
def test_rate_of_the_tsc(line: str, expected: str) -> None:
    assert guests.tsc_arguments(line) == expected


class Worker:
    """A guest that does a piece of work in a given time, and notes its turn."""

    def __init__(self, name: str, seconds: float, turns: list[str]) -> None:
        self.name, self.seconds, self.turns = name, seconds, turns

    def work(self, kind: str, ms: int) -> tuple[int, float]:
        self.turns.append(self.name)
        count = int(ms / 1000 / self.seconds) + 1
        return count, count * self.seconds


def test_guests_take_turns() -> None:
    turns: list[str] = []
    rates = modes.rates_in_turn([Worker("a", 0.5, turns), Worker("b", 0.25, turns)], "fork", 1000, 3)
    assert rates == [2, 4]
    assert turns == ["a", "b", "b", "a", "a", "b"]
