# SPDX-License-Identifier: GPL-3.0-or-later
"""Follows the switches of running VMs through their event sockets, as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Callable

from . import store, table
from .clock import Deadline, iso_utc
from .errors import HybridError, NotRunning, QemuDied
from .hybrid import snake
from .paths import Paths
from .qmp import Session

EVENT = "HYBRID_SWITCH"


async def follow(paths: Paths, names: Sequence[str], timeout: float, show: Callable[[dict[str, Any]], None]) -> None:
    """Call ``show`` for each switch until all VMs have ended.

    The event socket serves one listener: a second ``hybridctl watch`` on the same VM ends with an error.

    :param names: of defined VMs; empty for all that run.
    :param timeout: seconds to connect.
    :param show: takes vm, at (ISO 8601 UTC), before, after, cause, rule, reason, pause_us, phases.
    :raises UnknownVm: a name is not defined.
    :raises NotRunning, PermissionDenied, TimedOut, ProtocolFailure: a VM cannot be listened to.
    """
    chosen = store.known(paths, names) if names else store.names(paths)
    deadline = Deadline(timeout)
    sessions = []
    try:
        for name in chosen:
            session = Session(name, paths.events(name), deadline)
            try:
                await session.connect()
            except NotRunning:
                if names:
                    raise
                continue
            sessions.append(session)
        if not sessions:
            raise HybridError("no VM of this host is running, there is nothing to watch")
        await asyncio.gather(*(_follow(session, show) for session in sessions))
    finally:
        await asyncio.gather(*(session.close() for session in sessions))


async def _follow(session: Session, show: Callable[[dict[str, Any]], None]) -> None:
    try:
        async for message in session.events():
            if message.get("event") == EVENT:
                show(row(session.vm, message))
    except QemuDied:
        return


def row(vm: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return one switch from a QMP event. Pure.

    :param message: the event, with data and timestamp (seconds, microseconds).
    """
    stamp = message["timestamp"]
    data = snake(message["data"])
    return {"vm": vm, "at": iso_utc(stamp["seconds"] * 1000000 + stamp["microseconds"]), **data}


def line(switch: dict[str, Any]) -> str:
    """Return one switch as a line for people."""
    rule = f" {switch['rule']}" if switch.get("rule") else ""
    reason = f" ({table.cell('reason', switch['reason'])})" if switch.get("reason") else ""
    return (
        f"{switch['at']}  {switch['vm']}  {switch['before']} -> {switch['after']}  "
        f"pause {table.pause(switch.get('pause_us'))}  by {switch['cause']}{rule}{reason}"
    )
