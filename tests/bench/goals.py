# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared and what is to be reached: the one place for goals. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Goal:
    """One comparison or a family of them; group names the module that measures it."""

    name: str
    what: str
    group: str
    least: float | None = None
    most: float | None = None

    def met(self, ratio: float) -> bool:
        """Return whether a ratio reaches the goal."""
        return (self.least is None or ratio >= self.least) and (self.most is None or ratio <= self.most)

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


def _family(name: str, parts: Sequence[str], what: str, group: str, least: float | None = None, most: float | None = None) -> list[Goal]:
    return [Goal(f"{name}_{part}", what.format(part), group, least, most) for part in parts]


DIRECTIONS = ("kvm_tcg", "tcg_kvm")
KVM_WORK = ("boot", "syscall", "fork", "blk", "net", "timer")
TCG_WORK = ("boot", "compute", "fork")


def _pause(name: str, what: str, most: float) -> list[Goal]:
    """Return the goal of a switch there and back, and of each way."""
    return [Goal(name, f"{what}, there and back", "pauses", most=most), *_family(name, DIRECTIONS, what + ", {}", "pauses", most=most)]


GOALS = [
    *_family("pause_vs_migration", DIRECTIONS, "pause / downtime of stock QEMU's local migration, {}", "migration", most=0.01),
    *_pause("pause_vs_ram", "pause with the largest RAM the lab host can hold / with 256 MiB", 1.1),
    *_pause("pause_vs_ioctl_floor", "pause / bare cost of the KVM ioctls it cannot avoid", 2),
    *_pause("pause_p99_vs_p50", "99th percentile of pauses / median", 5),
    Goal("warm_late_vs_tcg", "worst lateness of a sleeper in the second after entering tcg again / in steady tcg", "lateness", most=1.5),
    *_family("kvm_mode_vs_stock", KVM_WORK, "{} per second in mode kvm / stock KVM", "kvm_mode", least=0.98),
    *_family("tcg_mode_vs_stock", TCG_WORK, "{} per second in mode tcg / stock TCG", "tcg_mode", least=0.98),
    Goal("memory_overhead", "resident memory after a stay in tcg, back in kvm / stock KVM", "memory", most=1.15),
]


def goal(name: str) -> Goal:
    """Return the goal of a comparison. Raises KeyError for a name that is not in the table."""
    return {each.name: each for each in GOALS}[name]


def chosen(patterns: Sequence[str]) -> list[Goal]:
    """Return the goals that one of the patterns names: a name, a beginning of one, or with wildcards; all if there are none.

    Raises ValueError for a pattern that names nothing.
    """
    if not patterns:
        return list(GOALS)
    found = []
    for pattern in patterns:
        named = [each for each in GOALS if fnmatch(each.name, pattern + "*")]
        if not named:
            raise ValueError(f"--only {pattern}: no such comparison; known are {', '.join(each.name for each in GOALS)}")
        found += [each for each in named if each not in found]
    return [each for each in GOALS if each in found]
