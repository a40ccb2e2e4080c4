# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of all VMs of a host, stopped ones and broken ones too.  One VM in trouble never hides the others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Optional

from . import aio, hybrid, policystore, store, units
from .clock import Deadline, iso_utc
from .definition import Vm
from .errors import CommandFailed, CommandUnknown, HybridError, NotHybrid, NotRunning, VmError
from .paths import Paths, unit_name
from .qmp import Session
from .units import Unit


def collect(paths: Paths, wanted: Optional[Sequence[str]], timeout: float) -> list[dict[str, Any]]:
    """Return the facts of VMs.

    :param wanted: names; None or ``["all"]`` for every VM that is defined or running here.
    :param timeout: seconds for the whole call.
    :return: one mapping per VM as in the RETURN of module hybrid_vm_info, sorted by name unless names were given.
    :raises UnknownVm: a wanted VM is neither defined nor running.
    :raises StoreError: the definitions may not be read.
    :raises LibraryMissing: a VM runs and qemu.qmp is not there.
    """
    deadline = Deadline(timeout)
    defined = store.names(paths)
    undefined = leftovers(paths, defined)
    if wanted is None or list(wanted) == ["all"]:
        names = sorted(defined + undefined)
    else:
        names = list(dict.fromkeys(wanted))
        if set(names) - set(defined) - set(undefined):
            store.known(paths, [name for name in names if name not in undefined])
    found = units.states(names, deadline)

    async def gather() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(_facts(paths, name, name in defined, found[name], deadline) for name in names)))

    return aio.run(gather())


def leftovers(paths: Paths, defined: Sequence[str]) -> list[str]:
    """Return the names of VMs that have a control socket but no definition, sorted."""
    try:
        entries = os.listdir(paths.run_dir)
    except OSError:
        return []
    return sorted(name for name in entries if name not in defined and os.path.exists(paths.control(name)))


async def _facts(paths: Paths, name: str, defined: bool, unit: Unit, deadline: Deadline) -> dict[str, Any]:
    facts = _blank(name, defined, unit)
    problem: Optional[str] = None
    vm: Optional[Vm] = None
    if defined:
        try:
            vm = store.load(paths, name)
            stored = policystore.load(paths, name)
            facts["stored_policy"] = stored["hash"] if stored else None
        except HybridError as exc:
            problem = exc.message
    if vm is not None:
        facts.update(
            uuid=vm.uuid,
            accel=vm.accel,
            expected_mode=vm.expected_mode,
            irqchip=vm.irqchip,
            vcpus=vm.vcpus,
            memory_mib=vm.memory_mib,
        )
    try:
        async with Session(name, paths.control(name), deadline, paths.run(name)) as session:
            facts["running"] = True
            facts.update(qemu_version=session.version, series=session.series)
            facts.update(await _running(session))
            if facts["policy"]:
                facts["expected_mode"] = facts["policy"]["wanted"]
            running = facts["policy"]["hash"] if facts["policy"] else None
            facts["policy_drift"] = running != facts["stored_policy"]
    except NotRunning as exc:
        # The unit may be up a moment before QEMU listens, or a moment after it stopped to.
        problem = problem or (exc.text if unit.up else _stopped(name, unit))
    except VmError as exc:
        facts["running"] = True
        problem = problem or exc.text
    facts["in_expected_mode"], facts["why"] = judge(facts, problem)
    return facts


def _blank(name: str, defined: bool, unit: Unit) -> dict[str, Any]:
    """Return facts in which nothing is known yet: every key, so that templates need no defaults."""
    keys = (
        "uuid accel mode expected_mode in_expected_mode why since cause reason rule switches time last_switch irqchip "
        "qemu_version series interface vcpus memory_mib policy stored_policy policy_drift"
    )
    facts: dict[str, Any] = dict.fromkeys(keys.split())
    facts.update(
        name=name,
        defined=defined,
        running=unit.up,
        unit_state=unit.active,
        sub_state=unit.sub,
        pid=unit.pid,
        blockers=[],
        dropped_features=[],
    )
    return facts


async def _running(session: Session) -> dict[str, Any]:
    """Ask a running QEMU, hybrid or not."""
    try:
        state = await hybrid.query(session)
    except NotHybrid:
        accel = "kvm" if await _uses_kvm(session) else "tcg"
        return {"accel": accel, "mode": accel}
    last = state.get("last_switch")
    return {
        "accel": "hybrid",
        "mode": state["mode"],
        "since": iso_utc(state["since_us"]),
        "last_switch": dict(last, at=iso_utc(last["at_us"])) if last else None,
        **{key: state.get(key) for key in ("cause", "reason", "rule", "switches", "time", "irqchip", "interface", "policy")},
        **{key: state.get(key) or [] for key in ("blockers", "dropped_features")},
    }


async def _uses_kvm(session: Session) -> bool:
    try:
        return bool((await session.execute("query-kvm"))["enabled"])
    except (CommandUnknown, CommandFailed):
        return False


def _stopped(name: str, unit: Unit) -> str:
    unit_file = unit_name(name)
    if unit.active == "failed":
        return f"not running: unit {unit_file} failed ({unit.result}), see 'journalctl -u {unit_file}'"
    if unit.active == "activating":
        return f"not running yet: unit {unit_file} is starting"
    return f"not running: start it with 'systemctl start {unit_file}'"


def judge(facts: dict[str, Any], problem: Optional[str]) -> tuple[Optional[bool], Optional[str]]:
    """Decide whether a VM is in its expected mode, and if not, say why. Pure.

    :param problem: what kept us from looking, if anything did.
    :return: in_expected_mode (None when it cannot be told) and why (None when all is well).
    """
    mode, expected = facts["mode"], facts["expected_mode"]
    if mode is None:
        return None, problem or "its mode is not known"
    if expected is None:
        return None, problem or "running, but not defined on this host"
    if facts["policy_drift"]:
        problem = problem or "its policy is not the stored one: run playbooks/policy.yml, or hybrid_vm_policy, again"
    if mode == expected:
        return True, problem
    if facts["accel"] != "hybrid":
        return False, f"runs with accelerator '{facts['accel']}', which cannot switch; expected mode is '{expected}'"
    why = f"in mode '{mode}' since {facts['since']} by {facts['cause']}"
    if facts["rule"]:
        why += f" {facts['rule']}"
    if facts["reason"]:
        why += f" ('{facts['reason']}')"
    why += f", expected is '{expected}'"
    if facts["policy"] and facts["policy"].get("error"):
        return False, f"{why}: {facts['policy']['error']}"
    for blocker in facts["blockers"]:
        why += f"; blocked by '{blocker['name']}': {blocker['reason']}"
    return False, why
