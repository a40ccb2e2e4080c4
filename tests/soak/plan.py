# SPDX-License-Identifier: GPL-3.0-or-later
"""What a soak does when: a sequence of pauses and modes that follows from a seed alone, and the configurations. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

OTHER = {"kvm": "tcg", "tcg": "kvm"}
#: After so many steps the guest stays in kvm until every load has gone on.
CHECK_EVERY = 200
#: One request of so many is for the mode that the guest is in, which must change nothing.
SAME_MODE_ONE_OF = 16
#: Pauses before a switch: share of all, shortest and longest in milliseconds.
PAUSES = ((0.15, 0, 0), (0.65, 5, 150), (0.15, 150, 500), (0.05, 500, 2000))


@dataclass(frozen=True)
class Configuration:
    """A guest's machine; the name is ``<irqchip>-<vcpus>``."""

    irqchip: str
    vcpus: int
    machine: str

    @property
    def name(self) -> str:
        """Short name, for example ``split-2``."""
        return f"{self.irqchip}-{self.vcpus}"


CONFIGURATIONS = {
    each.name: each
    for each in (
        Configuration("on", 1, "q35"),
        Configuration("on", 2, "pc"),
        Configuration("on", 4, "q35"),
        Configuration("split", 1, "q35"),
        Configuration("split", 2, "pc"),
        Configuration("split", 4, "pc"),
        Configuration("off", 1, "pc"),
        Configuration("off", 2, "q35"),
        Configuration("off", 4, "pc"),
    )
}


@dataclass(frozen=True)
class Step:
    """Wait, then ask for a mode; ``check`` says that the loads are looked at afterwards."""

    pause_s: float
    mode: str
    check: bool


def steps(seed: int, name: str) -> Iterator[Step]:
    """Yield the steps of a configuration without end, the same for the same seed and name; the guest starts in kvm."""
    chance = random.Random(f"{seed}/{name}")
    mode = "kvm"
    number = 0
    while True:
        number += 1
        low, high = chance.choices([pause[1:] for pause in PAUSES], [pause[0] for pause in PAUSES])[0]
        pause = chance.uniform(low, high) / 1000
        same = chance.randrange(SAME_MODE_ONE_OF) == 0
        check = number % CHECK_EVERY == 0
        mode = "kvm" if check else mode if same else OTHER[mode]
        yield Step(pause, mode, check)


def chosen(names: str | None) -> list[Configuration]:
    """Return the configurations of a list of names with commas, all for None. Raises ValueError for an unknown name."""
    wanted = names.split(",") if names else list(CONFIGURATIONS)
    for name in wanted:
        if name not in CONFIGURATIONS:
            raise ValueError(f"unknown configuration {name!r}; known are {', '.join(CONFIGURATIONS)}")
    return [CONFIGURATIONS[name] for name in wanted]
