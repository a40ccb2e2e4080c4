# SPDX-License-Identifier: GPL-3.0-or-later
"""Life of a lab host: up, down, status. One QEMU process per host, found and ended by its process id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from lab import outer, probe, tsc
from lab.config import MEMORY_MIB, Lab
from lab.emulator import emulator
from lab.errors import LabError
from lab.image import Image, ensure_image
from lab.inventory import fragment
from lab.lock import locked
from lab.process import last_lines, need
from lab.progress import say
from lab.ssh import remote

BOOT_TIMEOUT = 600.0
LOCK_TIMEOUT = 2400.0
STOP_TIMEOUT = 15.0


def pid_of(lab: Lab) -> int | None:
    """Return the process id of the running lab host, None when it does not run.

    A process id that now belongs to another program does not count: the command line must name this console.
    """
    try:
        pid = int(lab.pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(lab.console).encode() in arguments else None


def state_of(lab: Lab) -> dict[str, str]:
    """Return what the lab host was started with (distro, image, emulator, accelerator), empty when unknown."""
    try:
        state: dict[str, str] = json.loads(lab.state_file.read_text())
    except (OSError, ValueError):
        return {}
    return state


def panic_in(console_text: str) -> str:
    """Return the line in which a kernel gave up, empty when there is none."""
    for line in console_text.splitlines():
        if "Kernel panic" in line:
            return line.strip()
    return ""


def up(lab: Lab) -> None:
    """Start the lab host and wait until ssh answers; does nothing when it already does.

    Raises LabError: port taken, not enough memory, kernel panic, no answer in time, or it runs another distribution.
    """
    with locked(lab.folder / "lock", lab.name, LOCK_TIMEOUT):
        if pid_of(lab) is not None and _is_usable(lab):
            return
        need("ssh")
        qemu = emulator(lab.cache)
        image = ensure_image(lab)
        accelerator = probe.outer_accelerator(lab, image, qemu)
        started = time.monotonic()
        _start(lab, image, qemu, accelerator)
        try:
            _wait_for_ssh(lab, started)
        except LabError:
            _stop(lab)
            raise
        (lab.folder / "hosts.yml").write_text(fragment(lab))
        say(lab.name, f"up in {time.monotonic() - started:.0f} s: make lab-ssh LAB={lab.number}")


def _is_usable(lab: Lab) -> bool:
    """Tell whether the running lab host answers and is the wanted one; a dead one is stopped."""
    distro = state_of(lab).get("distro", lab.distro)
    if distro != lab.distro:
        raise LabError(f"{lab.name} runs {distro}, not {lab.distro}: make lab-down LAB={lab.number} first, or take another LAB")
    # Seconds since it was started: an interrupted run may have left it in the middle of booting.
    age = max(0.0, time.time() - int(state_of(lab).get("started", "0")))
    try:
        if age < BOOT_TIMEOUT:
            _wait_for_ssh(lab, time.monotonic() - age)
        else:
            remote(lab, "true", timeout=60)
    except LabError as error:
        say(lab.name, f"runs but does not answer, starting it anew ({error})")
        _stop(lab)
        return False
    say(lab.name, f"already up: make lab-ssh LAB={lab.number}")
    return True


def _start(lab: Lab, image: Image, qemu: Path, accelerator: str) -> None:
    """Start the outer QEMU; raises LabError when the machine cannot hold it."""
    _check_machine(lab)
    lab.console.write_bytes(b"")
    algorithm, key = lab.host_key.with_suffix(".pub").read_text().split()[:2]
    lab.known_hosts.write_text(f"[127.0.0.1]:{lab.ssh_port} {algorithm} {key}\n")
    state = {
        "distro": lab.distro,
        "image": image.key,
        "emulator": str(qemu),
        "accelerator": accelerator,
        "started": str(int(time.time())),
    }
    lab.state_file.write_text(json.dumps(state, indent=2) + "\n")
    say(lab.name, f"starting {lab.distro} with {accelerator}")
    tsc_khz = tsc.measure() if accelerator == "tcg" else None
    command = outer.command_line(lab, str(qemu), accelerator, str(image.disk), str(image.kernel), str(image.initrd), tsc_khz)
    lab.pid_file.unlink(missing_ok=True)
    # Not with -daemonize: QEMU would say nothing any more, not even why it ends.
    with lab.emulator_log.open("wb") as log:
        # The disk's changes go to an unlinked file; it belongs into the cache, not into a /tmp that may be memory.
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(lab.folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while pid_of(lab) is None:
        if process.poll() is not None:
            raise LabError(f"{lab.name}: QEMU did not start: {last_lines(lab.emulator_log, 15)}")
        time.sleep(0.05)


def _check_machine(lab: Lab) -> None:
    """Raise LabError when the port is taken or memory is short."""
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", lab.ssh_port))
        except OSError as error:
            raise LabError(f"{lab.name}: another program has port {lab.ssh_port} of 127.0.0.1; take another LAB") from error
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) // 1024 for line in file if line.startswith("MemAvailable:"))
    if available < MEMORY_MIB:
        raise LabError(f"{lab.name} needs {MEMORY_MIB} MiB of memory, {available} MiB are free")


def _wait_for_ssh(lab: Lab, started: float) -> None:
    """Wait until a command works over ssh. Raises LabError when the host panics, ends or takes longer than the limit."""
    next_line = started + 15
    while time.monotonic() - started < BOOT_TIMEOUT:
        if pid_of(lab) is None:
            said = last_lines(lab.emulator_log, 15)
            raise LabError(f"{lab.name}: QEMU ended: {said}\nthe end of its console:\n{last_lines(lab.console, 15)}")
        if panic := panic_in(last_lines(lab.console, 200)):
            raise LabError(f"{lab.name}: {panic}; see {lab.console}")
        if _ssh_banner(lab.ssh_port):
            remote(lab, "true", timeout=60)
            return
        if time.monotonic() > next_line:
            say(lab.name, "... " + last_lines(lab.console, 1))
            next_line += 15
        time.sleep(0.5)
    end = last_lines(lab.console, 15)
    raise LabError(f"{lab.name}: ssh does not answer after {BOOT_TIMEOUT:.0f} s; the end of its console:\n{end}")


def _ssh_banner(port: int) -> bool:
    """Tell whether an ssh server greets on this port (user networking accepts connections before the guest does)."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(5)
        return connection.recv(4) == b"SSH-"
    return False


def down(lab: Lab) -> None:
    """Remove the lab host and its state; succeeds when there is none."""
    with locked(lab.folder / "lock", lab.name, LOCK_TIMEOUT):
        running = pid_of(lab) is not None
        _stop(lab)
        for path in lab.folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        say(lab.name, "removed" if running else "is not running")


def _stop(lab: Lab) -> None:
    """End the QEMU process by its id: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = pid_of(lab)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT
        while pid_of(lab) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
    if pid_of(lab) is not None:
        raise LabError(f"{lab.name}: process {pid_of(lab)} cannot be ended")


def status(lab: Lab) -> dict[str, object]:
    """Return what is known about a lab host; ``running`` and ``answers`` are booleans."""
    running = pid_of(lab) is not None
    answers = running and _ssh_banner(lab.ssh_port)
    panic = panic_in(last_lines(lab.console, 500))
    return {"name": lab.name, "running": running, "answers": answers, "port": lab.ssh_port, "panic": panic, **state_of(lab)}


def known_labs(cache: Path, distro: str) -> list[Lab]:
    """Return the lab hosts of this cache that run now."""
    numbers = sorted(int(path.name) for path in (cache / "lab").glob("*") if path.is_dir() and path.name.isdigit())
    labs = [Lab(number, distro, cache) for number in numbers]
    return [lab for lab in labs if pid_of(lab) is not None]


def require_running(lab: Lab) -> None:
    """Raise LabError when the lab host does not run."""
    if pid_of(lab) is None:
        raise LabError(f"{lab.name} is not running: make lab LAB={lab.number}")

