# SPDX-License-Identifier: GPL-3.0-or-later
"""Which mode a policy wants: the same function as accel/hybrid/hybrid-decision.c of the series.  Pure.

Times are whole milliseconds of one clock, whichever it is.  tests/unit/test_decision.py compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

NO_END = -1
"""An override that lasts until it is released."""
NO_TIME = -1
"""Nothing to wait for."""


@dataclass(frozen=True)
class RuleState:
    """A rule and what it is at; active before ``until_ms``, 0 when it never was."""

    mode: str
    priority: int
    min_ms: int
    max_ms: int
    since_ms: int = 0
    until_ms: int = 0

    def active(self, now_ms: int) -> bool:
        """Whether the rule asks for its mode."""
        return now_ms < self.until_ms


@dataclass(frozen=True)
class Override:
    """An operator's mode, until ``until_ms`` or NO_END; a forced one outranks the lock."""

    mode: str
    until_ms: int = NO_END
    forced: bool = False

    def active(self, now_ms: int) -> bool:
        """Whether it is not over."""
        return self.until_ms == NO_END or now_ms < self.until_ms


@dataclass(frozen=True)
class State:
    """All that the decision depends on.

    :param mode: the mode now.
    :param lock: ``kvm``, ``tcg`` or ``none``.
    :param switches: how often rules and their ends may take the VM to kvm in ``per_ms``.
    :param recent: when they did, the oldest first.
    """

    mode: str
    rest: str
    lock: str = "none"
    override: Optional[Override] = None
    rules: Sequence[RuleState] = ()
    switches: int = 10
    per_ms: int = 60_000
    recent: Sequence[int] = ()


@dataclass(frozen=True)
class Decision:
    """The answer.

    :param cause: ``lock``, ``override``, ``rule`` or ``rest``.
    :param rule: index of the rule that decided, None for other causes.
    :param limited: the limit of switches keeps the VM in tcg.
    :param next_ms: when to decide again, NO_TIME for never.
    """

    mode: str
    cause: str
    rule: Optional[int]
    limited: bool
    next_ms: int


def decide(state: State, now_ms: int) -> Decision:
    """Return the mode that a policy wants."""
    override = state.override if state.override and state.override.active(now_ms) else None
    active = [index for index, rule in enumerate(state.rules) if rule.active(now_ms)]
    times = [state.rules[index].until_ms for index in active]
    if override and override.until_ms != NO_END:
        times.append(override.until_ms)

    index: Optional[int] = None
    if state.lock != "none" and not (override and override.forced):
        mode, cause = state.lock, "lock"
    elif override:
        mode, cause = override.mode, "override"
    elif active:
        # At equal priority the safer mode goes first, then the rule listed first.
        index = min(active, key=lambda number: (-state.rules[number].priority, state.rules[number].mode != "tcg", number))
        mode, cause = state.rules[index].mode, "rule"
    else:
        mode, cause = state.rest, "rest"

    # Only the way to kvm is limited: a guest that makes rules come and go ends up watched, not unwatched.
    limited = False
    if cause in ("rule", "rest") and state.mode == "tcg" and mode == "kvm" and len(state.recent) >= state.switches:
        until = state.recent[-state.switches] + state.per_ms
        if until > now_ms:
            mode, limited = "tcg", True
            times.append(until)
    return Decision(mode, cause, index, limited, _first(times))


def begin(rule: RuleState, now_ms: int) -> RuleState:
    """Return a rule after it was triggered; one that is active stays so for longer."""
    since = rule.since_ms if rule.active(now_ms) else now_ms
    return replace(rule, since_ms=since, until_ms=now_ms + rule.max_ms)


def end(rule: RuleState, now_ms: int) -> RuleState:
    """Return a rule after its end was asked for: it ends now, or as soon as it may."""
    until = max(now_ms, rule.since_ms + rule.min_ms)
    return replace(rule, until_ms=until) if rule.active(now_ms) and until < rule.until_ms else rule


def _first(times: Iterable[int]) -> int:
    return min(times, default=NO_TIME)
