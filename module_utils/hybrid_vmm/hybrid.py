# SPDX-License-Identifier: GPL-3.0-or-later
"""The hybrid QMP commands, as the QEMU series defines them (qapi/hybrid.json), with Python's spelling of their keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .errors import Blocked, CommandFailed, CommandUnknown, NotHybrid, ProtocolFailure, WrongInterface
from .qmp import Session

#: Version of the series' interface that this package speaks; the first number of a series identity (h1....).
INTERFACE = 1

MODES = ("kvm", "tcg")

_NOT_HYBRID = re.compile(r"accelerator is '(?P<accel>[^']*)', not 'hybrid'")
_BLOCKED = re.compile(r"blocked by '(?P<name>[^']*)'(?:: (?P<reason>.*))?", re.DOTALL)


def snake(value: Any) -> Any:
    """Turn QMP's keys (``pause-us``) into Python's (``pause_us``), at every depth; values stay."""
    if isinstance(value, dict):
        return {str(key).replace("-", "_"): snake(item) for key, item in value.items()}
    if isinstance(value, list):
        return [snake(item) for item in value]
    return value


async def query(session: Session) -> dict[str, Any]:
    """Ask a VM for its mode and all that belongs to it (query-hybrid).

    :return: interface, mode, since_us, cause, reason, switches, time, last_switch, blockers, dropped_features, irqchip,
        start.
    :raises NotHybrid: QEMU is stock, or runs with another accelerator.
    :raises WrongInterface: the series is not of our interface version.
    :raises VmError: whatever the transport meets.
    """
    try:
        state = snake(await session.execute("query-hybrid"))
    except CommandUnknown as exc:
        raise _stock(session) from exc
    except CommandFailed as exc:
        _raise_not_hybrid(session, exc)
        raise
    _checked(session, state, "query-hybrid", ("interface",))
    if state["interface"] != INTERFACE:
        raise WrongInterface(
            session.vm,
            f"its QEMU ({session.series or session.version}) speaks hybrid interface {state['interface']}, this "
            f"toolkit speaks {INTERFACE}: install the matching series with role hybrid_qemu_install and restart the VM",
        )
    return _checked(session, state, "query-hybrid", ("mode", "since_us"))


async def set_mode(
    session: Session, mode: str, reason: Optional[str] = None, for_ms: Optional[int] = None, force: bool = False
) -> dict[str, Any]:
    """Switch a VM and wait until it runs in the new mode (hybrid-set-mode).

    :param mode: ``kvm`` or ``tcg``.
    :param reason: why, for the journal; kept by QEMU.
    :param for_ms: milliseconds after which a policy decides again; needs a policy.
    :param force: also against the policy's lock; needs a policy.
    :return: changed, before, after, cause, reason, pause_us, phases (list of name and us).
    :raises Blocked: QEMU names a blocker.
    :raises NotHybrid, VmError: as in query.
    """
    arguments: dict[str, Any] = {"mode": mode}
    if reason:
        arguments["reason"] = reason
    if for_ms is not None:
        arguments["for-ms"] = for_ms
    if force:
        arguments["force"] = True
    try:
        answer = snake(await session.execute("hybrid-set-mode", arguments))
    except CommandUnknown as exc:
        raise _stock(session) from exc
    except CommandFailed as exc:
        found = _BLOCKED.search(exc.desc)
        if found:
            raise blocked(session.vm, mode, [found.groupdict()]) from exc
        _raise_not_hybrid(session, exc)
        raise
    return _checked(session, answer, "hybrid-set-mode", ("changed", "before", "after"))


async def set_policy(session: Session, compiled: Optional[Mapping[str, Any]]) -> bool:
    """Replace a VM's policy as a whole, or remove it (hybrid-set-policy).

    :param compiled: as policy.Policy.compiled() returns it; None for no policy.
    :return: whether it is another one than before.
    :raises VmError: QEMU refuses it, or has no policies; the old one stays in force.
    """
    return bool((await _policy_command(session, "hybrid-set-policy", policy=compiled))["changed"])


async def release(session: Session) -> bool:
    """End an operator's override; return whether there was one (hybrid-release)."""
    return bool((await _policy_command(session, "hybrid-release"))["changed"])


async def begin(session: Session, rule: str, reason: Optional[str] = None) -> bool:
    """Trigger a rule; return whether it was not active (hybrid-begin)."""
    return bool((await _policy_command(session, "hybrid-begin", rule=rule, reason=reason))["changed"])


async def end(session: Session, rule: str) -> bool:
    """End a rule; return whether it ends earlier than it would have (hybrid-end)."""
    return bool((await _policy_command(session, "hybrid-end", rule=rule))["changed"])


async def alert(session: Session, name: str, reason: Optional[str] = None) -> list[str]:
    """Report an alert; return the rules that it has triggered (hybrid-alert)."""
    return list((await _policy_command(session, "hybrid-alert", name=name, reason=reason))["rules"])


async def _policy_command(session: Session, command: str, **arguments: Any) -> dict[str, Any]:
    """Run a command of the policy; arguments that are None are left out.

    :raises WrongInterface: the VM's QEMU is older than policies.
    :raises NotHybrid, VmError: as in query.
    """
    try:
        return dict(await session.execute(command, {key: value for key, value in arguments.items() if value is not None}))
    except CommandUnknown as exc:
        if not session.series:
            raise _stock(session) from exc
        raise WrongInterface(
            session.vm,
            f"its QEMU ({session.series}) has no policies: install the matching series with role hybrid_qemu_install and restart the VM",
        ) from exc
    except CommandFailed as exc:
        _raise_not_hybrid(session, exc)
        raise


def blocked(vm: str, mode: str, blockers: Sequence[Mapping[str, Any]]) -> Blocked:
    """Return the error for a switch that blockers forbid; the VM stays in its mode.

    :param blockers: at least one, each with its name, e.g. ``vfio``, and its reason.
    """
    text = "; ".join(f"'{item.get('name')}'" + (f": {item['reason']}" if item.get("reason") else "") for item in blockers)
    return Blocked(vm, f"cannot switch to '{mode}', blocked by {text}")


def _stock(session: Session) -> NotHybrid:
    return NotHybrid(
        session.vm,
        f"cannot switch: its QEMU {session.version} is not a hybrid one; install one with role hybrid_qemu_install, then restart the VM",
    )


def _checked(session: Session, answer: Any, command: str, keys: Sequence[str]) -> dict[str, Any]:
    missing = [key for key in keys if not isinstance(answer, dict) or key not in answer]
    if missing:
        raise ProtocolFailure(session.vm, f"QEMU's answer to '{command}' lacks {', '.join(missing)}")
    return dict(answer)


def _raise_not_hybrid(session: Session, exc: CommandFailed) -> None:
    found = _NOT_HYBRID.search(exc.desc)
    if found:
        raise NotHybrid(
            session.vm,
            f"cannot switch: it runs with accelerator '{found['accel']}'; set 'accel: hybrid' in its definition, then restart the VM",
        ) from exc
