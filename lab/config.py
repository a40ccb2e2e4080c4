# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are and which numbers a lab host uses. Pure apart from reading the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

DISTROS = ("bookworm", "trixie")
MAX_NUMBER = 99
FIRST_SSH_PORT = 10022
PORTS_PER_LAB = 100
VCPUS = 2
MEMORY_MIB = 3000
TOP = Path(__file__).resolve().parent.parent


def cache_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder: HYBRID_VMM_CACHE, else XDG_CACHE_HOME/hybrid-vmm, else ~/.cache/hybrid-vmm."""
    if environment.get("HYBRID_VMM_CACHE"):
        return Path(environment["HYBRID_VMM_CACHE"]).absolute()
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", str(Path.home())), ".cache")
    return Path(base).absolute() / "hybrid-vmm"


@dataclass(frozen=True)
class Lab:
    """One lab host: its number, its distribution and the paths and port that follow from the number."""

    number: int
    distro: str
    cache: Path

    @property
    def name(self) -> str:
        """Host name, for example ``lab0``."""
        return f"lab{self.number}"

    @property
    def folder(self) -> Path:
        """State folder of this lab host."""
        return self.cache / "lab" / str(self.number)

    @property
    def ssh_port(self) -> int:
        """TCP port on 127.0.0.1 that leads to the lab host's ssh server."""
        return FIRST_SSH_PORT + PORTS_PER_LAB * self.number

    @property
    def ssh_key(self) -> Path:
        """Private key for root on every lab host of this cache."""
        return self.cache / "lab" / "id_ed25519"

    @property
    def host_key(self) -> Path:
        """Private ssh host key that is put into the images."""
        return self.cache / "lab" / "host_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The host key as ssh wants to read it."""
        return self.folder / "known_hosts"

    @property
    def pid_file(self) -> Path:
        """Process id of the outer QEMU."""
        return self.folder / "qemu.pid"

    @property
    def console(self) -> Path:
        """What the lab host printed on its serial console."""
        return self.folder / "console.log"

    @property
    def emulator_log(self) -> Path:
        """What the outer QEMU said: its last words, if it ends by itself."""
        return self.folder / "emulator.log"

    @property
    def state_file(self) -> Path:
        """JSON: what this lab host was started with."""
        return self.folder / "state.json"


def lab_from(number: str, distro: str, cache: Path) -> Lab:
    """Check a lab number and a distribution as the user gave them.

    Raises LabError when the number is not 0..99 or the distribution is unknown.
    """
    if not (number.isascii() and number.isdigit() and int(number) <= MAX_NUMBER):
        raise LabError(f"LAB={number!r}: a lab number is 0 to {MAX_NUMBER}")
    if distro not in DISTROS:
        raise LabError(f"LAB_DISTRO={distro!r}: known are {', '.join(DISTROS)}")
    return Lab(int(number), distro, cache)
