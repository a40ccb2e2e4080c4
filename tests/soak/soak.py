# SPDX-License-Identifier: GPL-3.0-or-later
"""Random switches under a Linux guest that verifies its own work, on a lab host, for as long as asked. Writes reports/soak.json.

The guest (tests/soak/guest) runs stress-ng --verify, files with checksums on ext4 on virtio-blk, records with checksums over TCP on
virtio-net, and hybrid-check (registers, JIT code, timers, clocks, fork, the raw disk). In the end its file system is verified and checked by
e2fsck on the lab host. The seed says the sequence of pauses and modes. What went wrong is printed with the seed, the last switches with
their phases and the guest's console, and the exit status is 1. Runs inside the venv: `make soak MINUTES=60 SEED=1 ARGS='--only on-2,split-4'`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "qemu"), str(TOP / "tests" / "soak")]

import harness
from loads import FATAL, LOADS, Loads
from plan import CONFIGURATIONS, Configuration, Step, chosen, steps

from lab.config import cache_root, lab_from
from lab.image import ensure_image
from lab.progress import say
from lab.soakguest import ensure_soak_guest

REPORT = TOP / "reports" / "soak.json"
MINUTES = 20.0
PROGRESS_SECONDS = 15
BOOT_SECONDS = 400
# A load goes on within this time in kvm, even where kvm is emulated and slow; so does ending.
GO_ON_SECONDS = 240
KERNEL_ARGUMENTS = "console=ttyS0 no_timer_check loglevel=4 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_timeout=300"
# Where Debian has the file system tools, for users whose PATH does not say so.
SBIN = "PATH=$PATH:/usr/sbin"
Entry = dict[str, Any]


class Files:
    """What a soak needs on the lab host: paths there of QEMU, the guest and the program that the guest talks to."""

    def __init__(self, host: harness.LabHost, binary: str | None = None) -> None:
        lab = lab_from(os.environ.get("LAB", "0"), os.environ.get("LAB_DISTRO", "bookworm"), cache_root())
        guest = ensure_soak_guest(lab.cache, ensure_image(lab))
        self.binary = binary or host.push(harness.stripped(harness.find_binary()), "qemu")
        self.kernel = host.push(guest.kernel, "vmlinuz")
        self.initrd = host.push(guest.initrd, "soak-initrd")
        self.peer = host.push(guest.peer, "soak-tcp")


def devices(raw: str, filesystem: str, peer: str) -> list[str]:
    """Return QEMU's arguments for two disks and a network in which nobody but the peer answers."""
    return [
        *("-drive", f"file={raw},format=raw,if=virtio,cache=writeback"),
        *("-drive", f"file={filesystem},format=raw,if=virtio,cache=writeback"),
        *("-netdev", f"user,id=net,ipv6=off,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:{peer} serve"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]


class Soak:
    """One guest of one configuration, from its disks to the check of its file system."""

    def __init__(self, host: harness.LabHost, files: Files, configuration: Configuration, seed: int) -> None:
        self.host, self.configuration, self.seed = host, configuration, seed
        self.loads = Loads()
        self.read = 0
        self.same = 0
        self.began = time.monotonic()
        self.disks = [f"{host.folder}/soak-{os.getpid()}-{configuration.name}-{what}.img" for what in ("raw", "files")]
        raw, filesystem = self.disks
        host.run(f"truncate -s 32M {raw} && truncate -s 96M {filesystem} && {SBIN} mke2fs -q -t ext4 -O metadata_csum {filesystem}")
        self.vm = harness.Vm(
            host, files.binary,
            ["-accel", f"hybrid,kernel-irqchip={configuration.irqchip}", "-machine", f"{configuration.machine},smm=off",
             "-cpu", "max", "-smp", str(configuration.vcpus), "-m", "384", "-kernel", files.kernel, "-initrd", files.initrd,
             "-append", f"{KERNEL_ARGUMENTS} soak.seed={seed % (1 << 32)}", *devices(raw, filesystem, files.peer)],
            mode="kvm", seed=seed,
        )  # fmt: skip

    def look(self) -> None:
        """Read what the guest has said since; raises Unexpected when it complains."""
        lines = self.vm.console.lines
        end = len(lines)
        self.loads.feed([text for _, text in lines[self.read : end]])
        self.read = end
        if self.loads.errors:
            raise harness.Unexpected(f"the guest finds {self.loads.errors} errors: {self.loads.complaints[:5]}")

    def go_on(self, seconds: float = GO_ON_SECONDS) -> None:
        """Wait until every load has verified something more; raises Unexpected when one does not."""
        before = dict(self.loads.verified)
        deadline = time.monotonic() + seconds
        while behind := self.loads.behind(before):
            if time.monotonic() > deadline:
                raise harness.Unexpected(f"no progress for {seconds:.0f} s in mode {self.vm.mode}: {', '.join(behind)}")
            self.vm.console.wait(self.read, lambda _: True, 1)
            self.look()
            if self.vm.process.poll() is not None:
                raise harness.Unexpected("QEMU has ended")

    def take(self, step: Step) -> None:
        """Pause, ask for a mode, compare the answer."""
        time.sleep(step.pause_s)
        before = self.vm.mode
        answer = self.vm.set_mode(step.mode)
        if answer["changed"] != (before != step.mode):
            raise harness.Unexpected(f"asked for {step.mode} in {before}, QEMU answers {answer}")
        self.same += not answer["changed"]
        self.look()
        if step.check:
            self.go_on()

    def finish(self) -> None:
        """Stop the loads in kvm, count the switches, and check the file system when QEMU has ended."""
        vm = self.vm
        if vm.mode == "tcg":
            vm.set_mode("kvm")
        self.go_on()
        vm.console.send("stop\n")
        since, _ = vm.wait_line("^STOPPED", GO_ON_SECONDS, self.read, FATAL.pattern)
        # The heartbeat after it has hybrid-check's last count.
        vm.wait_line("^HB ", 60, since, FATAL.pattern)
        self.look()
        counts = vm.qmp.run("query-hybrid")["switches"]
        if counts["failed"] or counts["kvm-to-tcg"] + counts["tcg-to-kvm"] != self.switches:
            raise harness.Unexpected(f"{self.switches} switches were asked for, QEMU counts {counts}")
        vm.qmp.run("quit")
        vm.process.wait(60)
        check_filesystem(self.host, self.disks[1])

    @property
    def switches(self) -> int:
        """How often the guest changed its mode."""
        return len(self.vm.switches) - self.same

    def close(self) -> None:
        """End QEMU and remove the disks."""
        self.vm.kill()
        self.host.run(f"rm -f {' '.join(self.disks)}", check=False)

    def entry(self, failure: str | None) -> Entry:
        """Return what the report says of this guest."""
        changed = [each for each in self.vm.switches if each["changed"]]
        pauses = sorted(each["pause-us"] for each in changed)
        return {
            "name": self.configuration.name,
            **asdict(self.configuration),
            "seconds": round(time.monotonic() - self.began, 1),
            "switches": len(changed),
            "to_tcg": sum(each["after"] == "tcg" for each in changed),
            "requests_for_the_same_mode": self.same,
            "pause_us": {"median": statistics.median(pauses), "max": pauses[-1]} if pauses else {},
            "verified": self.loads.verified,
            "stress_jobs": sorted(self.loads.jobs),
            "errors": self.loads.errors,
            "failure": failure,
        }


def check_filesystem(host: harness.Host, disk: str) -> None:
    """Run e2fsck without changing anything; raises Unexpected with what it says when it finds something."""
    said = host.run(f"{SBIN} e2fsck -fn {disk} 2>&1; echo status $?", timeout=120)
    if not said.endswith("status 0\n"):
        raise harness.Unexpected(f"e2fsck finds errors in the guest's file system:\n{said}")


def soak(host: harness.LabHost, files: Files, configuration: Configuration, seed: int, minutes: float, say_how: Callable[[Soak], None]) -> Entry:
    """Switch a guest until the time is over, return its part of the report; `failure` in it is None if nothing was wrong."""
    guest = Soak(host, files, configuration, seed)
    try:
        try:
            guest.vm.wait_line("^READY", BOOT_SECONDS, 0, FATAL.pattern)
            guest.go_on(BOOT_SECONDS)
            guest.began = time.monotonic()
            until = guest.began + minutes * 60
            next_line = guest.began + PROGRESS_SECONDS
            for step in steps(seed, configuration.name):
                guest.take(step)
                if time.monotonic() > next_line:
                    say_how(guest)
                    next_line += PROGRESS_SECONDS
                if time.monotonic() > until:
                    break
            say_how(guest)
            guest.finish()
        except Exception as error:
            said = str(error) or repr(error)
            return guest.entry(said if "console, last lines:" in said else f"{said}\n{guest.vm.report()}")
        return guest.entry(None)
    finally:
        guest.close()


class Report:
    """reports/soak.json, written after each guest, and the lines of progress."""

    def __init__(self, seed: int, minutes: float, qemu: str, count: int, path: Path = REPORT) -> None:
        self.path = path
        self.began = time.monotonic()
        self.data: dict[str, Any] = {"seed": seed, "minutes": minutes, "qemu": qemu, "wanted": count, "configurations": []}

    @property
    def entries(self) -> list[Entry]:
        """The guests that are done."""
        entries: list[Entry] = self.data["configurations"]
        return entries

    def add(self, entry: Entry) -> None:
        """Add a guest and write the file."""
        self.entries.append(entry)
        self.data["switches"] = sum(each["switches"] for each in self.entries)
        self.data["verified"] = {load: sum(each["verified"][load] for each in self.entries) for load in LOADS}
        self.data["failed"] = [each["name"] for each in self.entries if each["failure"]]
        self.data["errors"] = sum(max(each["errors"], each["failure"] is not None) for each in self.entries)
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self.data, indent=2) + "\n")

    def say_how(self, guest: Soak) -> None:
        """Print how far the soak is."""
        switches = guest.switches + sum(each["switches"] for each in self.entries)
        errors = guest.loads.errors + sum(each["errors"] for each in self.entries)
        minutes = (time.monotonic() - guest.began) / 60
        verified = " ".join(f"{load}={count}" for load, count in guest.loads.verified.items())
        rate = guest.switches / minutes if minutes else 0
        say("soak", f"{guest.configuration.name}: {switches} switches, {rate:.0f} a minute, {errors} errors; verified {verified}")


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    result = argparse.ArgumentParser(prog="soak.py", description=__doc__.splitlines()[0])
    result.add_argument("--minutes", type=float, default=MINUTES, help=f"of switching, shared by all guests (default: {MINUTES:g})")
    result.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of pauses and modes (default: drawn)")
    result.add_argument("--only", metavar="NAME,...", help=f"guests, of: {', '.join(CONFIGURATIONS)} (default: all, one after another)")
    return result


def main() -> int:
    """Prepare host, binary and guest; soak; return the exit status."""
    options = parser().parse_args()
    try:
        configurations = chosen(options.only)
    except ValueError as error:
        say("soak", f"error: {error}")
        return 2
    say("soak", f"seed {options.seed}, {options.minutes:g} minutes, guests {', '.join(each.name for each in configurations)}")
    host = harness.LabHost(os.environ.get("LAB", "0"))
    try:
        files = Files(host)
        qemu = host.run(f"{files.binary} --version").splitlines()[0]
        report = Report(options.seed, options.minutes, qemu, len(configurations))
        for configuration in configurations:
            say("soak", f"{configuration.name}: booting")
            entry = soak(host, files, configuration, options.seed, options.minutes / len(configurations), report.say_how)
            report.add(entry)
            if entry["failure"]:
                again = f"make soak MINUTES={options.minutes / len(configurations):g} SEED={options.seed} ARGS='--only {configuration.name}'"
                say("soak", f"FAILED: {configuration.name} after {entry['switches']} switches, seed {options.seed}; again: {again}\n{entry['failure']}")
                if lost := host.lost():
                    say("soak", lost)
                    break
    finally:
        host.close()
    passed = len(report.entries) == len(configurations) and not report.data["failed"]
    say("soak", f"{'ended well' if passed else 'FAILED'}: {report.data['switches']} switches, {report.data['errors']} errors; {REPORT}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
