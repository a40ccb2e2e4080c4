# SPDX-License-Identifier: GPL-3.0-or-later
"""Which accelerator can carry a lab host on this machine: ``kvm`` only if guests of guests really run.

A /dev/kvm that exists, opens and answers proves nothing: there are hosts whose KVM offers guests no virtualization, and
hosts on which an unmodified kernel runs hundreds of times too slowly. So after cheap questions a tiny guest is booted that
runs a guest itself, with a time limit. The answer is kept until the machine boots again.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.config import Lab
from lab.errors import LabError
from lab.guest import Guest, ensure_guest
from lab.image import Image
from lab.lock import locked
from lab.outer import ACCELERATORS
from lab.process import need
from lab.progress import say

BOOT_LIMIT = 30.0
NESTED_OK = "PROBE nested ok"
KVM_GET_API_VERSION = 0xAE00
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
API_VERSION = 12
MAX_ENTRIES = 256
HEADER = struct.Struct("II")
ENTRY = struct.Struct("IIIIIII12x")


@dataclass(frozen=True)
class Answer:
    """The accelerator to use, why, and for which boot of the machine and which guest this was found out."""

    accelerator: str
    why: str
    boot_id: str
    guest: str


def offers_virtualization(cpuid: bytes) -> bool:
    """Tell from a ``struct kvm_cpuid2`` whether a KVM offers SVM or VMX to its guests."""
    count, _ = HEADER.unpack_from(cpuid)
    for number in range(min(count, (len(cpuid) - HEADER.size) // ENTRY.size)):
        function, index, _, _, _, ecx, _ = ENTRY.unpack_from(cpuid, HEADER.size + number * ENTRY.size)
        if index == 0 and ((function == 1 and ecx >> 5 & 1) or (function == 0x80000001 and ecx >> 2 & 1)):
            return True
    return False


def refusal(device: Path = Path("/dev/kvm")) -> str:
    """Return why this machine's KVM cannot carry a lab host as far as it says itself, empty when it may."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{device}: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, KVM_GET_API_VERSION, 0)
        if version != API_VERSION:
            return f"{device} has API version {version}, not {API_VERSION}"
        cpuid = bytearray(HEADER.pack(MAX_ENTRIES, 0) + bytes(MAX_ENTRIES * ENTRY.size))
        fcntl.ioctl(descriptor, KVM_GET_SUPPORTED_CPUID, cpuid)
    except OSError as error:
        return f"{device}: {error.strerror}"
    finally:
        os.close(descriptor)
    return "" if offers_virtualization(bytes(cpuid)) else "this machine's KVM offers its guests neither SVM nor VMX"


def boot(guest: Guest, qemu: str, accelerator: str, limit: float = BOOT_LIMIT) -> str:
    """Boot the probe guest, return empty when a guest inside it ran, else why not.

    qemu is the path or name of the emulator, limit is in seconds.
    """
    need(qemu)
    command = [qemu, *ACCELERATORS[accelerator], "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-display", "none", "-kernel", str(guest.kernel), "-initrd", str(guest.probe_initrd)]
    command += ["-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"a guest that runs a guest was not done after {limit:g} s"
    if NESTED_OK in done.stdout:
        return ""
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"a guest in a guest did not run: {said[-1].strip() if said else 'no output'}"


def ask(cache: Path, image: Image, qemu: Path) -> Answer:
    """Return which accelerator to use, from the cache when this boot of the machine was asked before."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    kept = cache / "lab" / "probe.json"
    with locked(cache / "lab" / "probe.lock", "probe", 120):
        guest = ensure_guest(cache, image)
        try:
            answer = Answer(**json.loads(kept.read_text()))
            if (answer.boot_id, answer.guest) == (boot_id, guest.folder.name):
                return answer
        except (OSError, ValueError, TypeError):
            pass
        say("probe", "can this machine's KVM carry a lab host?")
        why = refusal() or boot(guest, str(qemu), "kvm")
        answer = Answer("tcg" if why else "kvm", why or "a guest in a guest ran", boot_id, guest.folder.name)
        kept.write_text(json.dumps(asdict(answer), indent=2) + "\n")
        say("probe", f"{answer.accelerator}: {answer.why}")
    return answer


def outer_accelerator(lab: Lab, image: Image, qemu: Path, forced: str | None = None) -> str:
    """Return ``kvm`` or ``tcg`` for this lab host; LAB_ACCEL (forced) decides without asking.

    Raises LabError when LAB_ACCEL is neither.
    """
    forced = os.environ.get("LAB_ACCEL") if forced is None else forced
    if not forced:
        return ask(lab.cache, image, qemu).accelerator
    if forced not in ACCELERATORS:
        raise LabError(f"LAB_ACCEL={forced!r}: known are {', '.join(sorted(ACCELERATORS))}")
    return forced
