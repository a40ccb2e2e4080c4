# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes the mode of many VMs at once: read all, then switch all, then report all.

1. Lock every VM in the order of names, connect to all in parallel, ask each for its mode.
2. When one of them cannot be read, or is blocked, nothing is switched at all.
3. Otherwise those in another mode switch in parallel.  A failure there does not stop the others.  A VM that has a policy
   is thereby overridden, and so is one that a rule holds in that mode, which would leave it when the rule ends.
4. The outcome has one result per VM, whatever happened.
Check mode is the same without step 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from . import aio, hybrid, policy, store
from .clock import Deadline
from .deps import require_qmp
from .difference import Difference
from .errors import Blocked, CommandFailed, HybridError, Locked, NotHybrid, NotRunning, NotTried, VmError
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
    :param settled: nothing is to be done; for the call itself, not shown.
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
    settled: bool = field(default=False, repr=False)

    def fail(self, exc: HybridError) -> None:
        """Note a failure."""
        self.error, self.code = exc.message, exc.code

    def to_dict(self) -> dict[str, Any]:
        """Return the result as modules and hybridctl show it."""
        shown = asdict(self)
        del shown["settled"]
        return {**shown, "ok": self.error is None}


@dataclass(frozen=True)
class Override:
    """What an operator asks of VMs that have a policy.

    :param for_ms: milliseconds after which the policy decides again; None: until it is released.
    :param force: also against the policy's lock.
    """

    for_ms: Optional[int] = None
    force: bool = False

    @property
    def asked(self) -> bool:
        """Whether anything is asked that needs a policy."""
        return self.for_ms is not None or self.force

    def text(self) -> str:
        """Return how a diff shows it; nothing when nothing is asked."""
        return (f" for {policy.duration_text(self.for_ms)}" if self.for_ms is not None else "") + (" forced" if self.force else "")


@dataclass
class Outcome:
    """Results of one call, in the order of names.

    :param left_out: VMs that ``all`` did not take, with the reason.
    """

    results: list[Result]
    left_out: list[dict[str, str]]
    override: Override

    def difference(self) -> Difference:
        """Return what changed, or would change in check mode."""
        difference = Difference()
        for result in self.results:
            if result.changed:
                difference.note(result.name, result.before, f"{result.after}{self.override.text()}")
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
    override: Optional[Override] = None,
) -> Outcome:
    """Bring VMs into a mode.

    :param names: of defined VMs; ``["all"]`` takes every defined VM that runs and can switch.
    :param mode: ``kvm`` or ``tcg``.
    :param timeout: seconds for the whole call.
    :param reason: why, kept with the switch.
    :param check: only predict.
    :param override: what only VMs with a policy can be asked.
    :raises UnknownVm, StoreError, LibraryMissing: before anything is touched.
    """
    require_qmp()
    everything = list(names) == ["all"]
    chosen = store.names(paths) if everything else store.known(paths, names)
    left_out: list[dict[str, str]] = []
    if everything:
        left = leftovers(paths, chosen)
        left_out = [{"name": name, "reason": f"VM '{name}': running, but not defined on this host"} for name in left]
    outcome = aio.run(_Change(paths, sorted(chosen), mode, Deadline(timeout), reason, check, everything, override or Override()).run())
    if everything:
        left_out += [{"name": result.name, "reason": str(result.error)} for result in outcome.results if _skippable(result)]
        outcome.results = [result for result in outcome.results if not _skippable(result)]
    else:
        given = {name: place for place, name in enumerate(chosen)}
        outcome.results.sort(key=lambda result: given[result.name])
    outcome.left_out = sorted(left_out, key=lambda item: item["name"])
    return outcome


def _skippable(result: Result) -> bool:
    return result.code in (NotRunning.code, NotHybrid.code, Locked.code)


def _stays(info: Optional[dict[str, Any]], mode: str) -> bool:
    """Whether a VM that is in a mode stays there without being asked.

    Not while a rule, an override with an end, the limit of switches or a blocker holds it there.  One that rests there is left
    to its policy, so that its rules go on working.
    """
    if info is None:
        return True
    if info["wanted"] != mode or info["limited"]:
        return False
    if info["cause"] == "override":
        return "until_us" not in info["override"]
    return bool(info["cause"] != "rule")


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
        override: Override,
    ) -> None:
        self._mode = mode
        self._reason = reason
        self._check = check
        self._lenient = lenient
        self._override = override
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
        return Outcome(list(self._results.values()), [], self._override)

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
            self._check_policy(name, state.get("policy"))
            result.settled = result.before == self._mode and not self._override.asked and _stays(state.get("policy"), self._mode)
            if result.before != self._mode and state.get("blockers"):
                raise hybrid.blocked(name, self._mode, state["blockers"])
        except VmError as exc:
            result.fail(exc)

    def _check_policy(self, name: str, info: Optional[dict[str, Any]]) -> None:
        """Refuse what a VM's policy, or that it has none, does not allow."""
        if info is None and self._override.asked:
            raise CommandFailed(name, "has no policy: a time limit and force are for VMs that have one", "there is no policy")
        if info and info["lock"] not in ("none", self._mode) and not self._override.force:
            lock = info["lock"]
            raise Locked(name, f"cannot switch to '{self._mode}', its policy locks mode '{lock}': change the policy, or use force")

    def _give_up(self) -> None:
        for result in self._results.values():
            if not result.error and not result.settled:
                result.fail(NotTried(result.name, "not switched, because another VM of this call failed"))

    async def _switch_and_release(self, name: str) -> None:
        """Let others have a VM as soon as it is done, the slowest may take long."""
        await self._switch(name)
        await self._sessions[name].close()

    async def _switch(self, name: str) -> None:
        result = self._results[name]
        if result.error or result.settled:
            return
        if self._check:
            result.after, result.changed, result.pause_us = self._mode, True, None
            result.cause, result.reason = "operator", self._reason
            return
        try:
            answer = await hybrid.set_mode(self._sessions[name], self._mode, self._reason, self._override.for_ms, self._override.force)
        except VmError as exc:
            result.fail(exc)
            result.pause_us = None
            if not isinstance(exc, (Blocked, CommandFailed, NotHybrid)):
                result.after = None
            return
        result.before, result.after = answer["before"], answer["after"]
        result.changed = True
        result.pause_us, result.phases = answer.get("pause_us"), answer.get("phases") or []
        result.cause, result.reason = answer.get("cause"), answer.get("reason")


__all__ = ["MODES", "Outcome", "Override", "Result", "change"]
