# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the policy of a VM to what is declared: in the store, and in its QEMU when it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import aio, hybrid, policystore, store
from .clock import Deadline
from .deps import require_qmp
from .errors import DefinitionError, NotRunning, PolicyError, StoreError, VmError
from .paths import Paths
from .qmp import Session

Compiled = Optional[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What apply() found and did; a hash is None where there is no policy.

    :param before: the stored policy as it was; None also when the file was not whole.
    :param stored_hash: of the stored policy before.
    :param running: whether the VM runs.
    :param running_hash: of the policy in its QEMU before; None when it does not run.
    :param drift: the running VM had another policy than the stored one, or the stored one was not whole.
    :param changed: whether store or QEMU was (in check mode: would be) changed.
    """

    before: Compiled
    stored_hash: Optional[str]
    running: bool
    running_hash: Optional[str]
    drift: bool
    changed: bool


def apply(paths: Paths, name: str, wanted: Compiled, timeout: float, check: bool = False) -> Outcome:
    """Store a policy and put it into force.

    QEMU goes first, because it may refuse: then nothing is stored.  A run that is cut off in between leaves a drift, which
    the next one finds and mends.

    :param name: of a defined VM.
    :param wanted: compiled policy; None removes it.
    :param timeout: seconds.
    :param check: only predict.
    :raises UnknownVm, StoreError, PolicyError, LibraryMissing, VmError: nothing was changed.
    """
    require_qmp()
    store.known(paths, [name])
    accel = store.load(paths, name).accel if wanted else "hybrid"
    if accel != "hybrid":
        raise PolicyError(f"VM '{name}': its definition has accel '{accel}', only VMs with accel 'hybrid' can have a policy")
    return aio.run(_apply(paths, name, wanted, Deadline(timeout), check))


async def _apply(paths: Paths, name: str, wanted: Compiled, deadline: Deadline, check: bool) -> Outcome:
    before, whole = _stored(paths, name)
    wanted_hash, stored_hash = _hash(wanted), _hash(before)
    session = Session(name, paths.control(name), deadline, paths.run(name))
    try:
        running = await _connected(session)
        running_hash = _hash((await hybrid.query(session)).get("policy")) if running else None
        drift = not whole or (running and running_hash != stored_hash)
        changed = not whole or stored_hash != wanted_hash or (running and running_hash != wanted_hash)
        if changed and not check:
            if running and running_hash != wanted_hash:
                await hybrid.set_policy(session, wanted)
            try:
                policystore.save(paths, name, wanted)
            except StoreError:
                if running and running_hash == stored_hash:
                    await hybrid.set_policy(session, before)
                raise
    finally:
        await session.close()
    return Outcome(before, stored_hash, running, running_hash, drift, changed)


def _stored(paths: Paths, name: str) -> tuple[Compiled, bool]:
    """Return the stored policy, and whether the file is whole (no file is)."""
    try:
        return policystore.load(paths, name), True
    except DefinitionError:
        return None, False


def _hash(compiled: Compiled) -> Optional[str]:
    return str(compiled["hash"]) if compiled else None


async def _connected(session: Session) -> bool:
    try:
        await session.lock()
        await session.connect()
    except NotRunning:
        return False
    return True


def command(
    paths: Paths, names: Sequence[str], timeout: float, act: Callable[[Session], Awaitable[Any]]
) -> list[tuple[str, Any]]:
    """Run one command of the policy on VMs, on all at once: one that does not answer must not keep an alert from the others.

    :param act: what to do with each session.
    :return: name and answer of each in the order given; the answer of a VM that failed is its VmError.
    :raises UnknownVm, LibraryMissing: before anything is done.
    """
    require_qmp()
    deadline = Deadline(timeout)

    async def run(name: str) -> Any:
        try:
            async with Session(name, paths.control(name), deadline, paths.run(name)) as session:
                return await act(session)
        except VmError as exc:
            return exc

    async def run_all(chosen: Sequence[str]) -> list[Any]:
        return list(await asyncio.gather(*map(run, chosen)))

    chosen = store.known(paths, names)
    return list(zip(chosen, aio.run(run_all(chosen))))
