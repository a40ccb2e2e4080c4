# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes the mode of many VMs at once: read all, then switch all, then report all.

1. Lock every VM in the order of names, connect to all in parallel, ask each for its mode.
2. When one of them cannot be read, or is blocked, nothing is switched at all.
3. Otherwise those in another mode switch in parallel.  A failure there does not stop the others.
4. The outcome has one result per VM, whatever happened.
Check mode is the same without step 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from . import aio, hybrid, store
from .clock import Deadline
from .deps import require_qmp
from .difference import Difference
from .errors import Blocked, CommandFailed, HybridError, NotHybrid, NotRunning, NotTried, VmError
from .hybrid import MODES
from .info import leftovers
from .paths import Paths
from .qmp import Session


@dataclass
class Result:
    """What happened to one VM.

    :param before: mode at the beginning; None when it could not be read.
    :param after: mode at the end (predicted in check mode); None when it is not known.
    :param pause_us: microseconds in which the guest did not run; 0 without a switch, None in check mode or on failure.
    :param phases: name and us (microseconds) of each part of the switch.
    :param error: why it failed; None when it did not.
    :param code: the error's code, see errors.py.
    """

    name: str
    before: Optional[str] = None
    after: Optional[str] = None
    changed: bool = False
    pause_us: Optional[int] = None
    phases: list[dict[str, Any]] = field(default_factory=list)
    cause: Optional[str] = None
    reason: Optional[str] = None
    error: Optional[str] = None
    code: Optional[str] = None

    def fail(self, exc: HybridError) -> None:
        """Note a failure."""
        self.error, self.code = exc.message, exc.code

    def to_dict(self) -> dict[str, Any]:
        """Return the result as modules and hybridctl show it."""
        return {**asdict(self), "ok": self.error is None}


@dataclass
class Outcome:
    """Results of one call, in the order of names.

    :param left_out: VMs that ``all`` did not take, with the reason.
    """

    results: list[Result]
    left_out: list[dict[str, str]]

    def difference(self) -> Difference:
        """Return what changed, or would change in check mode."""
        difference = Difference()
        for result in self.results:
            if result.changed:
                difference.note(result.name, result.before, result.after)
        return difference

    @property
    def error(self) -> Optional[str]:
        """One text for all failures, None when there was none."""
        failed = [result for result in self.results if result.error and result.code != NotTried.code]
        if not failed:
            return None
        text = "; ".join(str(result.error) for result in failed)
        if len(self.results) == 1:
            return text
        switched = sum(result.changed for result in self.results)
        rest = f"{switched} switched" if switched else "none switched"
        return f"{len(failed)} of {len(self.results)} VMs failed, {rest}: {text}"


def change(
    paths: Paths,
    names: Sequence[str],
    mode: str,
    timeout: float,
    reason: Optional[str] = None,
    check: bool = False,
) -> Outcome:
    """Bring VMs into a mode.

    :param names: of defined VMs; ``["all"]`` takes every defined VM that runs and can switch.
    :param mode: ``kvm`` or ``tcg``.
    :param timeout: seconds for the whole call.
    :param reason: why, kept with the switch.
    :param check: only predict.
    :raises UnknownVm, StoreError, LibraryMissing: before anything is touched.
    """
    require_qmp()
    everything = list(names) == ["all"]
    chosen = store.names(paths) if everything else store.known(paths, names)
    left_out: list[dict[str, str]] = []
    if everything:
        left = leftovers(paths, chosen)
        left_out = [{"name": name, "reason": f"VM '{name}': running, but not defined on this host"} for name in left]
    outcome = aio.run(_Change(paths, sorted(chosen), mode, Deadline(timeout), reason, check, everything).run())
    if everything:
        left_out += [{"name": result.name, "reason": str(result.error)} for result in outcome.results if _skippable(result)]
        outcome.results = [result for result in outcome.results if not _skippable(result)]
    else:
        given = {name: place for place, name in enumerate(chosen)}
        outcome.results.sort(key=lambda result: given[result.name])
    outcome.left_out = sorted(left_out, key=lambda item: item["name"])
    return outcome


def _skippable(result: Result) -> bool:
    return result.code in (NotRunning.code, NotHybrid.code)


class _Change:
    """One call of change(), with its open sessions.

    :param lenient: VMs that do not run or cannot switch do not keep the others from it.
    """

    def __init__(
        self,
        paths: Paths,
        names: list[str],
        mode: str,
        deadline: Deadline,
        reason: Optional[str],
        check: bool,
        lenient: bool,
    ) -> None:
        self._mode = mode
        self._reason = reason
        self._check = check
        self._lenient = lenient
        self._results = {name: Result(name) for name in names}
        self._sessions = {name: Session(name, paths.control(name), deadline, paths.run(name)) for name in names}

    async def run(self) -> Outcome:
        try:
            for name in self._results:
                await self._lock(name)
            await asyncio.gather(*map(self._read, self._results))
            if any(result.error and not (self._lenient and _skippable(result)) for result in self._results.values()):
                self._give_up()
            else:
                await asyncio.gather(*map(self._switch_and_release, self._results))
        finally:
            await asyncio.gather(*(session.close() for session in self._sessions.values()))
        return Outcome(list(self._results.values()), [])

    async def _lock(self, name: str) -> None:
        try:
            await self._sessions[name].lock()
        except VmError as exc:
            self._results[name].fail(exc)

    async def _read(self, name: str) -> None:
        result, session = self._results[name], self._sessions[name]
        if result.error:
            return
        try:
            await session.connect()
            state = await hybrid.query(session)
            result.before = result.after = state["mode"]
            result.pause_us = 0
            result.cause, result.reason = state.get("cause"), state.get("reason")
            if result.before != self._mode and state.get("blockers"):
                raise hybrid.blocked(name, self._mode, state["blockers"])
        except VmError as exc:
            result.fail(exc)

    def _give_up(self) -> None:
        for result in self._results.values():
            if not result.error and result.before != self._mode:
                result.fail(NotTried(result.name, "not switched, because another VM of this call failed"))

    async def _switch_and_release(self, name: str) -> None:
        """Let others have a VM as soon as it is done, the slowest may take long."""
        await self._switch(name)
        await self._sessions[name].close()

    async def _switch(self, name: str) -> None:
        result = self._results[name]
        if result.error or result.before == self._mode:
            return
        if self._check:
            result.after, result.changed, result.pause_us = self._mode, True, None
            result.cause, result.reason = "operator", self._reason
            return
        try:
            answer = await hybrid.set_mode(self._sessions[name], self._mode, self._reason)
        except VmError as exc:
            result.fail(exc)
            result.pause_us = None
            if not isinstance(exc, (Blocked, CommandFailed, NotHybrid)):
                result.after = None
            return
        result.before, result.after, result.changed = answer["before"], answer["after"], answer["changed"]
        result.pause_us, result.phases = answer.get("pause_us"), answer.get("phases") or []
        result.cause, result.reason = answer.get("cause"), answer.get("reason")


__all__ = ["MODES", "Outcome", "Result", "change"]
