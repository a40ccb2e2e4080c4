# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts QEMU on a lab host (or here), talks to it, and explains what went wrong. No test belongs here.

Environment:
  HYBRID_QEMU        the binary to test (default: the latest artifact in the cache)
  HYBRID_TEST_HOST   lab (default) or local
  LAB                number of the lab host (default 1: 0 is the one of `make lab`)
  HYBRID_TEST_SEED   seed of all random choices (default: drawn, and printed on failure)
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from lab import emulator

REPO = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("HYBRID_VMM_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "hybrid-vmm")
OTHER = {"kvm": "tcg", "tcg": "kvm"}
RUN_TIME_PACKAGES = (
    "seabios qemu-system-data ipxe-qemu libglib2.0-0 libslirp0 libpixman-1-0 libfdt1 liburing2 libseccomp2 libcap-ng0 libnuma1 zlib1g libzstd1"
).split()
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
FIRMWARE = "/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu"


class Unexpected(AssertionError):
    """What a test waited for did not come; the message says what, and what was seen instead."""


# ---------------------------------------------------------------------------------------------------- hosts
class LocalHost:
    """This machine. Enough for -accel tcg and for writing tests."""

    name = "local"

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hq-"))

    def lost(self) -> str:
        return ""

    def run(self, command: str, timeout: float = 60, check: bool = True) -> str:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise Unexpected(f"{command!r} failed on {self.name} ({done.returncode}): {done.stderr[-2000:]}")
        return done.stdout

    def push(self, source: pathlib.Path, name: str) -> str:
        return str(source)

    def spawn(self, argv: list[str], stderr: pathlib.Path) -> subprocess.Popen[bytes]:
        with stderr.open("wb") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def socket(self, path: str) -> str:
        return path

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class LabHost:
    """A lab host of `python -m lab`, over one ssh connection that everything shares."""

    def __init__(self, number: str) -> None:
        self.name = f"lab{number}"
        self.local = pathlib.Path(tempfile.mkdtemp(prefix="hq-"))
        self.folder = pathlib.Path("/run/hq")
        state = CACHE / "lab" / number
        self.bring_up(number)
        port = 10022 + 100 * int(number)
        options = {
            "ControlPath": self.local / "ssh",
            "UserKnownHostsFile": state / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "ServerAliveInterval": 20,
            "LogLevel": "ERROR",
            "StreamLocalBindUnlink": "yes",
            "ConnectTimeout": 60,
            "Ciphers": "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",
        }
        self.ssh = ["ssh", "-F", "/dev/null", "-p", str(port), "-i", str(CACHE / "lab" / "id_ed25519")]
        for key, value in options.items():
            self.ssh += ["-o", f"{key}={value}"]
        self.target = "root@127.0.0.1"
        subprocess.run([*self.ssh, "-o", "ControlMaster=yes", "-fN", self.target], check=True, timeout=120, stdin=subprocess.DEVNULL)
        self.run(f"mkdir -p {self.folder} && (modprobe kvm-amd || modprobe kvm-intel)")
        self.install(*RUN_TIME_PACKAGES)
        self.boot_id = self.run(BOOT_ID)
        self.logs = [log for log in (state / "console.log", state / "emulator.log") if log.exists()]

    def lost(self) -> str:
        """Why nothing more can be tested on this host: it hangs, or it has started anew. Empty as long as it lives."""
        try:
            now = self.run(BOOT_ID)
        except Unexpected as error:
            what = str(error)
        else:
            if now == self.boot_id:
                return ""
            what = f"{self.name} has started anew"
        tails = (f"the end of its {log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]) for log in self.logs)
        return "\n".join([f"the lab host is lost: {what}", *tails])

    @staticmethod
    def bring_up(number: str) -> None:
        """A lab host that runs is used as it is; otherwise one is started."""
        lab = [sys.executable, "-m", "lab"]
        environment = dict(os.environ, LAB=number)
        done = subprocess.run([*lab, "status"], cwd=REPO, env=environment, capture_output=True, text=True, timeout=120, check=False)
        try:
            if json.loads(done.stdout)["answers"]:
                return
        except (ValueError, KeyError):
            pass
        subprocess.run([*lab, "up"], cwd=REPO, env=environment, check=True, timeout=1800, stdout=sys.stderr)

    def run(self, command: str, timeout: float = 60, check: bool = True) -> str:
        try:
            done = subprocess.run(
                [*self.ssh, self.target, command],
                capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unexpected(f"{command!r} did not end within {timeout} s on {self.name}") from None
        if check and done.returncode:
            raise Unexpected(f"{command!r} failed on {self.name} ({done.returncode}): {done.stderr[-2000:]}")
        return done.stdout

    def install(self, *packages: str) -> None:
        """Debian packages, installed if they are not there: the libraries and firmware that the binary needs, what a test needs."""
        installed = self.run("dpkg-query -W -f '${Package} ${Status}\\n' | grep ' installed$' | cut -d' ' -f1").split()
        # Debian 13 renamed some for their 64-bit time: either name will do.
        missing = [p for p in packages if p not in installed and f"{p}t64" not in installed]
        if missing:
            install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends " + " ".join(missing)
            self.run(f"({install} || (apt-get update && {install})) >/var/log/hq-apt.log 2>&1", timeout=900)

    def push(self, source: pathlib.Path, name: str) -> str:
        """A file's path on the host; sent only if it is not there yet with the same content."""
        import hashlib

        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        target = f"/var/tmp/{name}-{digest[:16]}"
        if digest not in self.run(f"sha256sum {target} 2>/dev/null || true"):
            with source.open("rb") as data:
                subprocess.run(
                    [*self.ssh, "-C", self.target, f"cat >{target}.part && chmod 755 {target}.part && mv {target}.part {target}"],
                    stdin=data, check=True, timeout=300,
                )  # fmt: skip
        return target

    def spawn(self, argv: list[str], stderr: pathlib.Path) -> subprocess.Popen[bytes]:
        with stderr.open("wb") as log:
            return subprocess.Popen([*self.ssh, self.target, "exec " + shlex.join(argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def socket(self, path: str) -> str:
        """A local socket which is the remote one at path."""
        local = str(self.local / f"s{abs(hash(path)) % 10**9}")
        self._forward("forward", local, path)
        return local

    def forget(self, path: str) -> None:
        self._forward("cancel", str(self.local / f"s{abs(hash(path)) % 10**9}"), path)

    def _forward(self, what: str, local: str, remote: str) -> None:
        subprocess.run(
            [*self.ssh, "-O", what, "-L", f"{local}:{remote}", self.target],
            check=what == "forward", capture_output=True, timeout=60,
        )  # fmt: skip
        if what == "cancel":
            pathlib.Path(local).unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run([*self.ssh, "-O", "exit", self.target], check=False, capture_output=True, timeout=60)
        shutil.rmtree(self.local, ignore_errors=True)


Host = LocalHost | LabHost


def find_binary() -> pathlib.Path:
    """The QEMU under test: HYBRID_QEMU, or the one in the latest artifact of the cache."""
    if os.environ.get("HYBRID_QEMU"):
        return pathlib.Path(os.environ["HYBRID_QEMU"])
    return emulator.built(CACHE)


def stripped(binary: pathlib.Path) -> pathlib.Path:
    """A copy without symbols (25 MB instead of 100), kept until the binary changes."""
    target = CACHE / "tests" / f"stripped-{binary.stat().st_mtime_ns}-{binary.stat().st_size}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob("stripped-*"):
            old.unlink(missing_ok=True)
        part = target.with_suffix(f".part{os.getpid()}")
        subprocess.run(["strip", "-o", str(part), str(binary)], check=True)
        part.rename(target)
    return target


def build_baremetal() -> pathlib.Path:
    """The bare-metal guest, built into the cache."""
    out = CACHE / "tests" / "conformance"
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["make", "-s", "-C", str(pathlib.Path(__file__).parent / "conformance"), f"OUT={out}"],
        capture_output=True, text=True, check=False, env={k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "CC"},
    )  # fmt: skip
    if done.returncode:
        raise Unexpected(f"the bare-metal guest does not build:\n{done.stdout}{done.stderr}")
    return out / "guest.elf"


# ---------------------------------------------------------------------------------------------------- channels
def _connect(path: str, alive: Callable[[], None], deadline: float) -> socket.socket:
    while True:
        alive()
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(10)
        try:
            s.connect(path)
            return s
        except OSError:
            s.close()
        if time.monotonic() > deadline:
            raise Unexpected(f"nobody answers at {path}")
        time.sleep(0.1)


class Console:
    """The guest's serial console as lines with the time at which they came."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self.changed = threading.Condition()
        self.closed = False
        self.part = b""
        self.sock: socket.socket | None = None

    def attach(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.sock
        while True:
            try:
                data = self.sock.recv(65536)
            except OSError:
                data = b""
            with self.changed:
                if not data:
                    self.closed = True
                    self.changed.notify_all()
                    return
                *lines, self.part = (self.part + data).split(b"\n")
                now = time.monotonic()
                for line in lines:
                    self.lines.append((now, line.decode("latin1").strip("\r")))
                self.changed.notify_all()

    def send(self, text: str) -> None:
        assert self.sock
        self.sock.sendall(text.encode())

    def wait(self, since: int, match: Callable[[str], bool], seconds: float) -> tuple[int, str] | None:
        """The first line from number `since` on that matches, with its number."""
        deadline = time.monotonic() + seconds
        with self.changed:
            at = since
            while True:
                for number in range(at, len(self.lines)):
                    if match(self.lines[number][1]):
                        return number, self.lines[number][1]
                at = max(since, len(self.lines))
                left = deadline - time.monotonic()
                if left <= 0 or self.closed:
                    return None
                self.changed.wait(min(left, 1))


class QmpError(Exception):
    def __init__(self, command: str, error: dict[str, str]) -> None:
        super().__init__(f"{command}: {error.get('class')}: {error.get('desc')}")
        self.error_class = error.get("class", "")
        self.desc = error.get("desc", "")


class Qmp:
    """A plain client: one command at a time, events kept in order."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.greeting = self._message(60, "the greeting")
        self.run("qmp_capabilities")

    def _message(self, seconds: float, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                raise Unexpected(f"QMP did not answer within {seconds:.0f} s: {what}") from None
            if not data:
                raise Unexpected(f"QEMU closed its QMP connection while it should answer {what}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def run(self, command: str, arguments: dict[str, Any] | None = None, seconds: float = 60) -> Any:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._message(seconds, command)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(command, message["error"])
            else:
                return message["return"]

    def poll(self, seconds: float = 0) -> None:
        """Take in events that have arrived, waiting up to `seconds` for one."""
        deadline = time.monotonic() + seconds
        count = len(self.events)
        while True:
            while b"\n" in self.buffer:
                self.events.append(self._message(1, "an event"))
            if len(self.events) > count or time.monotonic() > deadline:
                return
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.sock.recv(65536)
            except (TimeoutError, BlockingIOError):
                return
            if not data:
                raise Unexpected("QEMU closed its QMP connection")
            self.buffer += data

    def wait_event(self, name: str, since: int, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            for event in self.events[since:]:
                if event["event"] == name:
                    return event
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unexpected(f"no event {name} within {seconds} s; events: {[e['event'] for e in self.events[since:]]}")
            self.poll(min(left, 1))


# ---------------------------------------------------------------------------------------------------- the VM
class Vm:
    """One QEMU process on a host."""

    numbers = itertools.count()

    def __init__(self, host: Host, binary: str, arguments: list[str], *, mode: str | None, seed: int, serial: bool = True) -> None:
        self.host = host
        self.seed = seed
        self.random = random.Random(seed)
        self.mode = mode  # None: not a hybrid VM
        self.switches: list[dict[str, Any]] = []
        self.console = Console()
        name = f"{os.getpid()}-{next(Vm.numbers)}"
        self.base = str(host.folder / name)
        local = host.local if isinstance(host, LabHost) else host.folder
        self.stderr_path = local / f"{name}.err"
        self.qmp_path, self.serial_path, self.debug_path = (f"{self.base}.{kind}" for kind in ("qmp", "ser", "dbg"))
        self.argv = [
            binary, *arguments, "-display", "none", "-nodefaults", "-no-user-config", "-L", "/usr/share/qemu",
            "-L", "/usr/share/seabios", "-L", "/usr/lib/ipxe/qemu",
            "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
        ]  # fmt: skip
        if serial:
            self.argv += ["-chardev", f"socket,id=ser0,path={self.serial_path},server=on,wait=on", "-serial", "chardev:ser0"]
            self.argv += ["-debugcon", f"file:{self.debug_path}"]
        self.process = host.spawn(self.argv, self.stderr_path)
        try:
            deadline = time.monotonic() + 60
            if serial:
                self._wait_socket(self.serial_path, deadline)
                self.console.attach(_connect(host.socket(self.serial_path), self._alive, deadline))
            self._wait_socket(self.qmp_path, deadline)
            self.qmp = Qmp(_connect(host.socket(self.qmp_path), self._alive, deadline))
        except BaseException:
            self.kill()
            raise

    def _wait_socket(self, path: str, deadline: float) -> None:
        while True:
            self._alive()
            if self.host.run(f"test -S {path} && echo yes || true").strip() == "yes":
                return
            if time.monotonic() > deadline:
                raise Unexpected(f"QEMU made no socket {path}; its messages:\n{self.stderr()}")
            time.sleep(0.1)

    def _alive(self) -> None:
        if self.process.poll() is not None:
            raise Unexpected(f"QEMU ended with {self.process.returncode}; its messages:\n{self.stderr()}")

    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")[-4000:]

    def hmp(self, line: str) -> str:
        return self.qmp.run("human-monitor-command", {"command-line": line})

    def set_mode(self, mode: str, reason: str | None = None, seconds: float = 60) -> dict[str, Any]:
        arguments = {"mode": mode} | ({"reason": reason} if reason else {})
        answer = self.qmp.run("hybrid-set-mode", arguments, seconds)
        self.switches.append({"at": time.monotonic()} | answer)
        if answer["after"] != mode:
            raise Unexpected(f"asked for {mode}, QEMU answers {answer}")
        self.mode = mode
        return answer

    def flip(self) -> dict[str, Any]:
        assert self.mode
        return self.set_mode(OTHER[self.mode])

    def random_switches(self, count: int, low_ms: float = 5, high_ms: float = 300, meanwhile: Callable[[], None] = lambda: None) -> None:
        for _ in range(count):
            time.sleep(self.random.uniform(low_ms, high_ms) / 1000)
            self.flip()
            meanwhile()

    def wait_line(self, pattern: str, seconds: float, since: int = 0, fatal: str | None = None) -> tuple[int, re.Match[str]]:
        """A console line that matches; a line that matches `fatal` ends the waiting."""
        wanted, bad = re.compile(pattern), re.compile(fatal) if fatal else None
        found = self.console.wait(since, lambda text: bool(wanted.search(text) or (bad and bad.search(text))), seconds)
        if found:
            match = wanted.search(found[1])
            if match:
                return found[0], match
            raise Unexpected(f"waited for console line {pattern!r}, got {found[1]!r}\n{self.report()}")
        why = "the console was closed" if self.console.closed else f"it did not come within {seconds} s"
        raise Unexpected(f"waited for console line {pattern!r}: {why}\n{self.report()}")

    def report(self) -> str:
        """Everything that helps to understand a failure."""
        parts = [f"seed {self.seed}, mode {self.mode}, switches {len(self.switches)}, host {self.host.name}"]
        for entry in self.switches[-20:]:
            phases = " ".join(f"{p['name']}={p['us']}" for p in entry.get("phases", []))
            age = time.monotonic() - entry["at"]
            parts.append(f"  {age:8.3f} s ago {entry['before']}->{entry['after']} pause {entry['pause-us']} us: {phases}")
        parts.append("console, last lines:")
        now = time.monotonic()
        parts += [f"  {now - at:8.3f} s ago {line}" for at, line in self.console.lines[-25:]]
        if self.console.part:
            parts.append(f"  (unfinished) {self.console.part.decode('latin1')}")
        if self.process.poll() is None:
            for command in ("info status", "info cpus", "info registers -a"):
                try:
                    parts.append(f"{command}: {self.qmp.run('human-monitor-command', {'command-line': command}, 10)[:3000]}")
                except Exception as error:
                    parts.append(f"{command}: {error}")
                    break
        else:
            parts.append(f"QEMU ended with {self.process.returncode}")
        parts.append(f"QEMU's messages:\n{self.stderr()}")
        parts.append("command: " + shlex.join(self.argv))
        return "\n".join(parts)

    def kill(self) -> None:
        if self.process.poll() is None:
            try:
                self.qmp.run("quit", seconds=5)
            except Exception:
                pass
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                # The path of this VM's own socket is on its command line and on no other.
                self.host.run(f"pid=$(grep -lsF -- {self.qmp_path} /proc/[0-9]*/cmdline | cut -d/ -f3 | head -1); "
                              f"[ -n \"$pid\" ] && [ \"$pid\" != $$ ] && kill -9 $pid", check=False)  # fmt: skip
                self.process.kill()
        for path in (self.qmp_path, self.serial_path):
            if isinstance(self.host, LabHost):
                self.host.forget(path)
        self.host.run(f"rm -f {self.base}.*", check=False)
        self.stderr_path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------- bare metal
class Baremetal:
    """The bare-metal guest of one configuration, started again after a test that broke it."""

    def __init__(self, host: Host, binary: str, kernel: str, *, accel: str, machine: str, cpus: int, seed: int, cpu: str = "max") -> None:
        self.host, self.binary, self.kernel, self.seed = host, binary, kernel, seed
        self.accel, self.machine, self.cpus, self.cpu = accel, machine, cpus, cpu
        self.vm: Vm | None = None
        self.notes: list[str] = []
        self.controls: dict[tuple[str, str], list[str]] = {}

    def process(self, accel: str, extra: tuple[str, ...] = ()) -> Vm:
        """A QEMU with this guest's hardware."""
        start = "tcg" if "start=tcg" in accel else "kvm"
        return Vm(
            self.host, self.binary,
            ["-accel", accel, "-machine", self.machine, "-cpu", self.cpu, "-smp", str(self.cpus), "-m", "64", "-vga", "std",
             "-net", "none", "-device", "edu", "-device", "pci-testdev", "-device", "pvpanic", "-action", "panic=pause",
             "-kernel", self.kernel, *extra],
            mode=start if accel.startswith("hybrid") else None, seed=self.seed,
        )  # fmt: skip

    def start(self, extra: tuple[str, ...] = ()) -> Vm:
        self.stop()
        self.vm = self.process(self.accel, extra)
        self.vm.wait_line("^READY", 90)
        return self.vm

    def stop(self) -> None:
        if self.vm:
            self.vm.kill()
            self.vm = None

    def running(self) -> Vm:
        return self.vm if self.vm and self.vm.process.poll() is None else self.start()

    def order(
        self, test: str, arg: int = 0, wait: int = 0, *, at: Callable[[Vm, int, str], Any] | None = None,
        during: Callable[[Vm], None] | None = None, seconds: float = 60,
    ) -> list[str]:  # fmt: skip
        """Run one test. `at` is called while the guest waits at a point, `during` while a storm rages.

        `at` may answer another Vm: the one that the guest is in now.

        Answers the discrepancies that the guest found; a guest that crashes or hangs raises, and is started anew.
        """
        vm = self.running()
        # A guest that resets itself by a triple fault stops there, so that the report shows where.
        vm.qmp.run("set-action", {"reboot": "shutdown", "shutdown": "pause"})
        since = len(vm.console.lines)
        vm.console.send(f"{test} {arg} {wait}\n")
        bad: list[str] = []
        point = 0
        try:
            while True:
                since, match = vm.wait_line(r"^(AT|STORM|BAD|NOTE|PASS|FAIL|P|CRASH|READY)\b ?(.*)", seconds, since)
                since += 1
                word, rest = match[1], match[2]
                if word == "AT":
                    moved = at(vm, point, rest) if at else None
                    if isinstance(moved, Vm):
                        vm.kill()
                        vm = self.vm = moved
                        vm.qmp.run("set-action", {"reboot": "shutdown", "shutdown": "pause"})
                        since = 0
                    point += 1
                    vm.console.send("g")
                elif word == "STORM":
                    if during:
                        during(vm)
                    vm.console.send("s")
                elif word == "BAD":
                    bad.append(rest)
                elif word == "NOTE":
                    self.notes.append(f"{test} {arg}: {rest}")
                elif word == "PASS":
                    if bad:
                        raise Unexpected(f"{test} reports discrepancies and PASS: {bad}")
                    break
                elif word == "FAIL":
                    bad = bad or [rest]
                    break
                elif word in ("CRASH", "READY"):
                    what = "crashed" if word == "CRASH" else "started again by itself"
                    raise Unexpected(f"the guest {what} in {test} {arg}: {rest}\n{vm.report()}")
            vm.qmp.run("set-action", {"reboot": "reset", "shutdown": "poweroff"})
            return bad
        except QmpError as error:
            report = vm.report()
            self.stop()
            raise Unexpected(f"{error}\n{report}") from error
        except BaseException:
            self.stop()
            raise
