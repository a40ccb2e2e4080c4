# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the VMs of one host into the state that a plan (items.py) asks for: observe, decide, act.

``observe`` only reads, ``decide`` is pure, ``act`` only does what was decided, so that check mode, which leaves ``act``
out, predicts exactly what a run does.  Switching modes does not belong here: that is mode.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import grp
import json
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from . import definition, store
from .errors import DefinitionError, HybridError
from .paths import GROUP, Paths, unit_name

USER = "hybrid-qemu"
UNIT_DIR = "/etc/systemd/system"
DROP_IN = "50-hybrid-vm.conf"
#: How long to wait for another run on the same host, which may be starting slow VMs.
LOCK_LIMIT_S = 300.0
_LOCK_POLL_S = 0.2
QEMU_IMG = "/opt/hybrid-vmm/current/bin/qemu-img"
#: Keys of a definition that a running QEMU need not be told.
_NO_RESTART = ("expected_mode",)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

#: run(argv, umask=...) -> (exit status, stdout, stderr), as AnsibleModule.run_command.
Run = Callable[..., Tuple[int, str, str]]


class ProvisionError(HybridError):
    """A VM cannot be brought into the wanted state. The message begins with the VM's name."""

    code = "provision"


class ConsentMissing(ProvisionError):
    """Something would be lost, and nobody said that this is wanted."""

    code = "consent"


@dataclass(frozen=True)
class Consent:
    """What may be disrupted.

    :param restart: running VMs, to bring a change into effect.
    :param remove: VMs whose state is ``absent``.
    :param disk_removal: also the disks of removed VMs.
    """

    restart: bool = False
    remove: bool = False
    disk_removal: bool = False


@dataclass
class Observed:
    """What a host has of one VM now."""

    stored: Optional[Dict[str, Any]] = None
    started: Optional[Dict[str, Any]] = None
    active: bool = False
    enabled: bool = False
    running_qemu: Optional[str] = None
    installed_qemu: Optional[str] = None
    sandbox: Optional[str] = None
    folder: bool = False
    seed_exists: bool = False
    #: virtual size of each existing image that the plan names; None when nobody needs to know
    disks: Dict[str, Optional[int]] = field(default_factory=dict)


@dataclass
class Decision:
    """What is to be done with one VM; everything false means that it is as wanted."""

    name: str
    write: bool = False
    sandbox: Optional[str] = None
    create: List[Mapping[str, Any]] = field(default_factory=list)
    grow: List[Mapping[str, Any]] = field(default_factory=list)
    seed: bool = False
    enable: Optional[bool] = None
    start: bool = False
    stop: bool = False
    restart: bool = False
    remove: bool = False
    remove_disks: bool = False
    #: why the running VM is not yet what is stored; empty when it is restarted now
    restart_needed: List[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether act() would do anything."""
        return bool(
            self.write
            or self.sandbox is not None
            or self.create
            or self.grow
            or self.seed
            or self.enable is not None
            or self.start
            or self.stop
            or self.restart
            or self.remove
            or self.remove_disks
        )


def bytes_of(size: str) -> int:
    """Return the number of bytes that a size such as ``10G`` means."""
    return int(size[:-1]) * _UNITS[size[-1]]


def restart_reasons(observed: Observed, wanted: Mapping[str, Any]) -> List[str]:
    """Say what of a running VM differs from what is wanted and needs a restart to take effect."""
    if observed.started is None:
        return ["what it was started with is not known"]
    before, after = _relevant(observed.started), _relevant(wanted)
    reasons = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if observed.running_qemu and observed.installed_qemu and observed.running_qemu != observed.installed_qemu:
        reasons.append(f"QEMU ({observed.running_qemu} runs, {observed.installed_qemu} is installed)")
    return reasons


def _relevant(data: Mapping[str, Any]) -> Dict[str, Any]:
    result = {key: value for key, value in data.items() if key not in _NO_RESTART}
    result["disks"] = [{key: disk[key] for key in disk if key != "size"} for disk in data.get("disks", [])]
    return result


def decide(entry: Mapping[str, Any], observed: Observed, consent: Consent) -> Decision:
    """Compare one VM of the plan with what the host has.

    :raises ConsentMissing: a VM would be removed without consent.
    :raises ProvisionError: a disk would have to shrink.
    """
    if entry["state"] == "absent":
        return _decide_absent(entry, observed, consent)
    wanted = entry["definition"]
    decision = Decision(entry["name"], write=observed.stored != wanted)
    sandbox = sandbox_text(entry["sandbox"])
    if sandbox != (observed.sandbox or ""):
        decision.sandbox = sandbox
    for disk in entry["disks"]:
        _decide_disk(decision, disk, observed)
    decision.seed = bool(entry.get("seed")) and not observed.seed_exists
    if observed.enabled != entry["autostart"]:
        decision.enable = entry["autostart"]
    if entry["state"] == "stopped":
        decision.stop = observed.active
        return decision
    if not observed.active:
        decision.start = True
        return decision
    reasons = restart_reasons(observed, wanted)
    if decision.sandbox is not None:
        reasons.append("sandbox of its unit")
    if decision.grow:
        reasons.append("disks that grow")
    if reasons and consent.restart:
        decision.restart = True
    else:
        decision.restart_needed = reasons
        decision.grow = []
    return decision


def _decide_absent(entry: Mapping[str, Any], observed: Observed, consent: Consent) -> Decision:
    name = entry["name"]
    decision = Decision(name)
    decision.remove = observed.stored is not None or observed.active or observed.enabled
    decision.stop = observed.active
    decision.remove_disks = observed.folder and consent.disk_removal
    if decision.remove and not consent.remove:
        raise ConsentMissing(
            f"{name}: state 'absent' would remove this VM, which needs consent: hybrid_vm_allow_remove: true"
        )
    if decision.remove_disks and not consent.remove:
        raise ConsentMissing(f"{name}: removing its disks also needs hybrid_vm_allow_remove: true")
    return decision


def _decide_disk(decision: Decision, disk: Mapping[str, Any], observed: Observed) -> None:
    if disk["file"] not in observed.disks:
        if disk["file"].startswith("/dev/"):
            raise ProvisionError(f"{decision.name}: block device '{disk['file']}' does not exist on this host")
        if not disk["size"] and not disk["source"]:
            raise ProvisionError(
                f"{decision.name}: disk '{disk['file']}' does not exist, and neither 'size' nor 'source' says how to create it"
            )
        decision.create.append(disk)
        return
    size = observed.disks[disk["file"]]
    if size is None or not disk["size"]:
        return
    if size > bytes_of(disk["size"]):
        raise ProvisionError(
            f"{decision.name}: disk '{disk['file']}' has {size} bytes, size '{disk['size']}' is less; disks do not shrink"
        )
    if size < bytes_of(disk["size"]):
        decision.grow.append(disk)


def sandbox_text(lines: Sequence[str]) -> str:
    """Return the drop-in of a VM's unit, empty when it needs none."""
    if not lines:
        return ""
    return "# Written by role hybrid_vm from the VM's definition.\n[Service]\n" + "\n".join(lines) + "\n"


def difference(entry: Mapping[str, Any], observed: Observed, decision: Decision) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return one VM before and after, for ``diff``; only what changes."""
    before: Dict[str, Any] = {}
    after: Dict[str, Any] = {}

    def note(key: str, old: Any, new: Any) -> None:
        before[key], after[key] = old, new

    if decision.remove:
        note("definition", observed.stored, None)
    elif decision.write:
        old, new = observed.stored or {}, entry["definition"]
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        note("definition", {key: old[key] for key in keys if key in old} or None, {key: new[key] for key in keys if key in new})
    if decision.start or decision.stop:
        note("state", "running" if observed.active else "stopped", "running" if decision.start else "stopped")
    if decision.restart:
        note("running", "as started before", "restarted")
    if decision.enable is not None:
        note("autostart", observed.enabled, decision.enable)
    if decision.sandbox is not None:
        note("sandbox", observed.sandbox or "", decision.sandbox)
    for disk in decision.create:
        note(disk["file"], None, disk["source"] or disk["size"])
    for disk in decision.grow:
        note(disk["file"], observed.disks[disk["file"]], bytes_of(disk["size"]))
    if decision.seed:
        note("seed", None, entry["definition"]["seed"])
    if decision.remove_disks:
        note("disks", "present", None)
    return before, after


class Host:
    """The one place that touches the host: systemd, files, qemu-img.

    :param run: runs a program.
    :param paths: where VMs lie.
    :param unit_dir: where units and their drop-ins lie.
    """

    def __init__(self, run: Run, paths: Optional[Paths] = None, unit_dir: str = UNIT_DIR) -> None:
        self._run = run
        self._paths = paths or Paths()
        self._unit_dir = unit_dir

    @contextlib.contextmanager
    def alone(self, seconds: float = LOCK_LIMIT_S) -> Iterator[None]:
        """Keep other runs away from the VMs of this host; nothing is left behind when this process dies.

        :raises ProvisionError: another run takes too long, or the host is not prepared.
        """
        folder, end = self._paths.definitions, time.monotonic() + seconds
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as exc:
            raise ProvisionError(f"{folder} does not exist: role hybrid_host prepares a host for VMs") from exc
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise ProvisionError(
                            f"another run has been changing the VMs of this host for more than {seconds:g} s: try again when it has ended"
                        ) from None
                time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    # ---- observe

    def observe(self, entries: Sequence[Mapping[str, Any]]) -> Dict[str, Observed]:
        """Read what the host has of the plan's VMs."""
        result = {entry["name"]: Observed() for entry in entries}
        units = self._units(list(result))
        for entry in entries:
            name, seen = entry["name"], result[entry["name"]]
            properties = units.get(unit_name(name), {})
            seen.active = properties.get("ActiveState") in ("active", "activating", "reloading")
            seen.enabled = properties.get("UnitFileState") == "enabled"
            seen.stored = _read_json(self._paths.definition(name))
            seen.started = _read_json(self._started(name)) if seen.active else None
            seen.sandbox = _read_text(self._drop_in(name))
            seen.folder = os.path.isdir(self._paths.state(name))
            if entry["state"] == "absent":
                continue
            if seen.active:
                seen.running_qemu = _link(f"/proc/{properties.get('MainPID', '0')}/exe")
                seen.installed_qemu = os.path.realpath(entry["definition"]["qemu"])
            seed = entry["definition"].get("seed")
            seen.seed_exists = bool(seed) and os.path.exists(seed)
            for disk in entry["disks"]:
                if os.path.exists(disk["file"]):
                    grows = disk["size"] and not disk["file"].startswith("/dev/")
                    seen.disks[disk["file"]] = self._virtual_size(name, disk) if grows else None
        return result

    def undeclared(self, entries: Sequence[Mapping[str, Any]]) -> List[str]:
        """Return VMs that are defined on the host and not in the plan."""
        return sorted(set(store.names(self._paths)) - {entry["name"] for entry in entries})

    def _units(self, names: Sequence[str]) -> Dict[str, Dict[str, str]]:
        if not names:
            return {}
        wanted = "--property=Id,ActiveState,MainPID,UnitFileState"
        out = self._must(["systemctl", "show", wanted, *[unit_name(name) for name in names]], "systemd cannot be asked")
        blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
        return {block["Id"]: block for block in blocks if "Id" in block}

    def _virtual_size(self, name: str, disk: Mapping[str, Any]) -> int:
        argv = [self._qemu_img(), "info", "--force-share", "--output=json", "-f", disk["format"], disk["file"]]
        return int(json.loads(self._must(argv, f"{name}: disk '{disk['file']}' cannot be read"))["virtual-size"])

    # ---- act

    def act(self, entries: Sequence[Mapping[str, Any]], decisions: Mapping[str, Decision]) -> None:
        """Do what was decided. VMs are started together, so that one slow guest does not hold up the others.

        :raises ProvisionError: names the VM; what concerns other VMs was done all the same.
        """
        by_name = {entry["name"]: entry for entry in entries}
        todo = [decision for decision in decisions.values() if decision.changed]
        self._stop([item.name for item in todo if item.stop or (item.restart and item.grow)])
        for item in todo:
            if item.remove or item.remove_disks:
                self._remove(item)
            else:
                self._define(by_name[item.name], item)
        if any(item.sandbox is not None or item.remove for item in todo):
            self._must(["systemctl", "daemon-reload"], "systemd does not read its units again")
        for verb, value in (("enable", True), ("disable", False)):
            units = [unit_name(item.name) for item in todo if item.enable is value]
            if units:
                self._must(["systemctl", "--quiet", verb, *units], f"systemd does not {verb} the units")
        self._start([item.name for item in todo if item.start or (item.restart and item.grow)], "start")
        self._start([item.name for item in todo if item.restart and not item.grow], "restart")
        for item in todo:
            if not item.remove and not item.remove_disks and not item.restart_needed:
                self._forget_old_seeds(by_name[item.name])

    def _define(self, entry: Mapping[str, Any], item: Decision) -> None:
        name = item.name
        user, group = pwd.getpwnam(USER), grp.getgrnam(GROUP)
        folder = self._paths.state(name)
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
            os.chown(folder, user.pw_uid, group.gr_gid)
            os.chmod(folder, 0o2750)
        for disk in item.create:
            self._create_disk(name, disk)
        for disk in item.grow:
            argv = [self._qemu_img(), "resize", "-q", "-f", disk["format"], disk["file"], disk["size"]]
            self._must(_as_user(argv), f"{name}: disk '{disk['file']}' does not grow")
        if item.seed:
            self._create_seed(name, entry["seed"], entry["definition"]["seed"])
        if item.sandbox is not None:
            self._write_drop_in(name, item.sandbox)
        if item.write:
            store.save(self._paths, definition.parse(entry["definition"]))
            os.chown(self._paths.definition(name), 0, group.gr_gid)

    def _create_disk(self, name: str, disk: Mapping[str, Any]) -> None:
        """Create an image under another name first: a half-written one must not be taken for a disk.

        Runs as the VMs' user: its folder is writable by QEMU, which may be hostile and plant links there.
        """
        partial = disk["file"] + ".partial"
        what = f"{name}: disk '{disk['file']}' cannot be created"
        if disk["source"]:
            if not os.path.exists(disk["source"]):
                raise ProvisionError(f"{what}: its source '{disk['source']}' does not exist on this host")
            argv = [self._qemu_img(), "convert", "-O", disk["format"], disk["source"], partial]
        else:
            argv = [self._qemu_img(), "create", "-q", "-f", disk["format"], partial, disk["size"]]
        self._must(_as_user(argv), what, umask=0o077)
        if disk["source"] and disk["size"]:
            self._must(_as_user([self._qemu_img(), "resize", "-q", "-f", disk["format"], partial, disk["size"]]), what)
        os.rename(partial, disk["file"])

    def _create_seed(self, name: str, files: Mapping[str, str], path: str) -> None:
        """Build a NoCloud image; user data may hold secrets, so only this VM's QEMU may read it."""
        user = pwd.getpwnam(USER)
        with tempfile.TemporaryDirectory(prefix="hybrid-seed-") as folder:
            for file_name, text in files.items():
                with open(os.path.join(folder, file_name), "w", encoding="utf-8") as stream:
                    stream.write(text)
            image = os.path.join(folder, "seed.iso")
            sources = [os.path.join(folder, file_name) for file_name in sorted(files)]
            argv = ["xorrisofs", "-quiet", "-output", image, "-volid", "CIDATA", "-joliet", "-rational-rock", *sources]
            self._must(argv, f"{name}: the cloud-init seed cannot be built", umask=0o077)
            partial = path + ".partial"
            if os.path.lexists(partial):
                os.unlink(partial)
            target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
            with open(image, "rb") as source, os.fdopen(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
                os.fchown(sink.fileno(), user.pw_uid, user.pw_gid)
            os.rename(partial, path)

    def _forget_old_seeds(self, entry: Mapping[str, Any]) -> None:
        folder, current = self._paths.state(entry["name"]), entry["definition"].get("seed")
        for file_name in os.listdir(folder):
            path = os.path.join(folder, file_name)
            if file_name.startswith("seed-") and file_name.endswith(".iso") and path != current:
                os.unlink(path)

    def _write_drop_in(self, name: str, text: str) -> None:
        path = self._drop_in(name)
        if not text:
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(path + ".new", path)

    def _remove(self, item: Decision) -> None:
        if item.remove:
            self._must(["systemctl", "--quiet", "disable", unit_name(item.name)], f"{item.name}: its unit cannot be disabled")
            shutil.rmtree(os.path.dirname(self._drop_in(item.name)), ignore_errors=True)
            timers = sorted(glob.glob(os.path.join(self._unit_dir, f"hybrid-begin@{item.name}:*.timer")))
            if timers:
                names = [os.path.basename(path) for path in timers]
                self._must(["systemctl", "--quiet", "disable", "--now", *names], f"{item.name}: timers of its policy cannot be disabled")
            for path in (self._paths.definition(item.name), self._paths.policy(item.name), *timers):
                if os.path.lexists(path):
                    os.unlink(path)
        if item.remove_disks:
            shutil.rmtree(self._paths.state(item.name))

    def _stop(self, names: Sequence[str]) -> None:
        if names:
            self._must(["systemctl", "stop", *[unit_name(name) for name in names]], f"{', '.join(names)}: cannot be stopped")

    def _start(self, names: Sequence[str], verb: str) -> None:
        """Start or restart units together and say for each that failed why, in its journal's words."""
        if not names:
            return
        self._run(["systemctl", verb, *[unit_name(name) for name in names]])
        units = self._units(names)
        failed = [name for name in names if units.get(unit_name(name), {}).get("ActiveState") != "active"]
        if failed:
            raise ProvisionError("\n".join(f"{name}: does not {verb}:\n{self._journal(name)}" for name in failed))

    def _journal(self, name: str) -> str:
        argv = ["journalctl", "--unit", unit_name(name), "--lines", "12", "--no-pager", "--quiet", "--output", "cat"]
        _code, out, _err = self._run(argv)
        return out.strip() or "its journal is empty"

    # ---- helpers

    def _must(self, argv: List[str], what: str, **options: Any) -> str:
        code, out, err = self._run(argv, **options)
        if code:
            raise ProvisionError(f"{what}: {(err or out).strip() or f'{argv[0]} ended with status {code}'}")
        return out

    def _qemu_img(self) -> str:
        return QEMU_IMG if os.path.exists(QEMU_IMG) else "qemu-img"

    def _started(self, name: str) -> str:
        return os.path.join(self._paths.run_dir, f"{name}.started.json")

    def _drop_in(self, name: str) -> str:
        return os.path.join(self._unit_dir, f"{unit_name(name)}.d", DROP_IN)


def _as_user(argv: List[str]) -> List[str]:
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--", *argv]


def _read_text(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _read_json(path: str) -> Optional[Dict[str, Any]]:
    """Return a stored definition in its complete form; one that cannot be read is taken as different from any other."""
    text = _read_text(path)
    if text is None:
        return None
    try:
        return definition.parse(json.loads(text)).to_dict()
    except (ValueError, DefinitionError):
        return {}


def _link(path: str) -> Optional[str]:
    try:
        return os.readlink(path)
    except OSError:
        return None
