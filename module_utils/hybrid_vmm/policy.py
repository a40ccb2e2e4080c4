# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy is: the form that people declare, and the compiled form that hosts store and QEMU gets.  Pure.

The compiled form is ``HybridPolicy`` of the series' qapi/hybrid.json: every key is there, times are milliseconds, and
``hash`` names the rest.  QEMU checks it again; docs/policies.md describes the declared form.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .errors import DefinitionError, PolicyError
from .reader import Reader, show

SCHEMA = 1
MODES = ("kvm", "tcg")
TRIGGERS = ("event", "schedule")
#: Triggers and scopes of the design that this version does not have.
LATER = {"trigger": ("guest-call", "address", "process"), "scope": ("process",)}
#: The same limits as in QEMU (hybrid-policy-file.c).
MAX_RULES = 64
MAX_LIST = 64
MAX_SWITCHES = 1000
MAX_PRIORITY = 1000
MAX_PER_MS = 24 * 3600 * 1000
MAX_HOLD_MS = 30 * 24 * 3600 * 1000
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,47}"
EVENT_PATTERN = r"(?!HYBRID_)[A-Z][A-Z0-9_]{0,63}"
DURATION_PATTERN = r"[0-9]{1,12}(ms|s|m|h|d)"
_NAME_WHAT = "a name (1 to 48 of a-z 0-9 -, beginning with a letter or digit)"
_EVENT_WHAT = "the name of a QMP event such as 'GUEST_PANICKED' (those of switches, HYBRID_*, cannot trigger one)"
_DURATION_WHAT = "a duration (a whole number with ms, s, m, h or d, such as '10m')"


@dataclass(frozen=True)
class Rule:
    """What takes a VM out of its resting mode.

    :param min_ms: the mode lasts at least so many milliseconds.
    :param max_ms: it ends by itself so many milliseconds after the last trigger.
    :param calendar: systemd's OnCalendar expression; empty unless the trigger is ``schedule``.
    """

    name: str
    trigger: str
    mode: str
    priority: int
    min_ms: int
    max_ms: int
    events: tuple[str, ...]
    alerts: tuple[str, ...]
    calendar: str


@dataclass(frozen=True)
class Policy:
    """When a VM is in which mode.

    :param lock: ``kvm``, ``tcg`` or ``none``.
    :param switches: how often rules and their ends may take the VM to kvm in ``per_ms`` milliseconds.
    """

    rest: str
    lock: str
    switches: int
    per_ms: int
    rules: tuple[Rule, ...]

    def compiled(self) -> dict[str, Any]:
        """Return the form that is stored and sent to QEMU."""
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "rest": self.rest,
            "lock": self.lock,
            "switches": self.switches,
            "per-ms": self.per_ms,
            "rules": [
                {
                    "name": rule.name,
                    "trigger": rule.trigger,
                    "mode": rule.mode,
                    "priority": rule.priority,
                    "min-ms": rule.min_ms,
                    "max-ms": rule.max_ms,
                    "events": list(rule.events),
                    "alerts": list(rule.alerts),
                    "calendar": rule.calendar,
                }
                for rule in self.rules
            ],
        }
        return {**data, "hash": _hash(data)}


def parse(data: Any) -> Policy:
    """Check a declared policy.

    :raises PolicyError: e.g. ``rules[2].hold.max: '5 parsecs' is not a duration (...)``.
    """
    try:
        return _policy(Reader(data))
    except DefinitionError as exc:
        raise PolicyError(str(exc)) from exc


def duration(reader: Reader, key: str, default: Optional[int], low: int, high: int) -> int:
    """Read a duration: a number with its unit.

    :param default: milliseconds; None when there must be one.
    :return: milliseconds, between low and high.
    :raises DefinitionError: it is not one, or not between them.
    """
    text = reader.text(key, pattern=DURATION_PATTERN, what=_DURATION_WHAT, required=default is None)
    if text is None:
        assert default is not None
        return default
    number = re.match("[0-9]+", text)
    assert number is not None
    result = int(number.group()) * UNITS_MS[text[number.end() :]]
    if not low <= result <= high:
        raise reader.fail(key, f"'{text}' is not between {duration_text(low)} and {duration_text(high)}")
    return result


def duration_text(ms: int) -> str:
    """Return milliseconds in the largest unit that divides them, e.g. ``90s``."""
    unit, size = next((unit, size) for unit, size in reversed(list(UNITS_MS.items())) if ms % size == 0)
    return f"{ms // size}{unit}" if ms else "0s"


def from_compiled(data: Any) -> dict[str, Any]:
    """Check that a compiled policy, as read from a file, is whole: the right schema, and contents that its hash names.

    :raises PolicyError: it is not.
    """
    if not isinstance(data, Mapping):
        raise PolicyError(f"{show(data)} is not a mapping")
    if data.get("schema") != SCHEMA:
        raise PolicyError(f"schema: {show(data.get('schema'))} is not {SCHEMA}, the only schema that this version reads")
    rest = {key: value for key, value in data.items() if key != "hash"}
    if data.get("hash") != _hash(rest):
        raise PolicyError(f"hash: {show(data.get('hash'))} is not that of the contents; the file was changed by hand, declare the policy again")
    return dict(data)


def _hash(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _policy(reader: Reader) -> Policy:
    rest = reader.choice("rest", MODES)
    lock = reader.choice("lock", (*MODES, "none"), "none")
    limits = Reader(reader.mapping("limits"), "limits")
    switches = limits.number("switches", 10, 1, MAX_SWITCHES)
    per_ms = duration(limits, "per", 60_000, 1000, MAX_PER_MS)
    limits.finish()
    rules = tuple(_rule(item, f"rules[{index}]") for index, item in enumerate(reader.items("rules", MAX_RULES)))
    reader.finish()
    names = [rule.name for rule in rules]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DefinitionError(f"rules[{index}].name: '{name}' is the name of rules[{names.index(name)}] too")
    return Policy(rest, lock, switches, per_ms, rules)


def _rule(data: Any, path: str) -> Rule:
    reader = Reader(data, path)
    name = reader.text("name", pattern=NAME_PATTERN, what=_NAME_WHAT, required=True) or ""
    trigger = _supported(reader, "trigger", TRIGGERS, None)
    _supported(reader, "scope", ("vm",), "vm")
    hold = Reader(reader.mapping("hold", required=True), reader.at("hold"))
    max_ms = duration(hold, "max", None, 1000, MAX_HOLD_MS)
    min_ms = duration(hold, "min", 0, 0, max_ms)
    hold.finish()
    rule = Rule(
        name=name,
        trigger=trigger,
        mode=reader.choice("mode", MODES, "tcg"),
        priority=reader.number("priority", 100, 0, MAX_PRIORITY),
        min_ms=min_ms,
        max_ms=max_ms,
        events=tuple(reader.texts("events", MAX_LIST, pattern=EVENT_PATTERN, what=_EVENT_WHAT)),
        alerts=tuple(reader.texts("alerts", MAX_LIST, pattern=NAME_PATTERN, what=_NAME_WHAT)),
        calendar=reader.text("calendar", "", pattern=r".{1,200}", what="a calendar expression") or "",
    )
    reader.finish()
    _check_trigger(reader, rule)
    return rule


def _supported(reader: Reader, key: str, choices: tuple[str, ...], default: Optional[str]) -> str:
    """Read one of several words; say so when it is one of the words of versions to come."""
    value = reader.text(key)
    if value in LATER[key]:
        raise reader.fail(key, f"'{value}' is not supported by this version, it has: {', '.join(choices)}")
    return reader.choice(key, choices, default)


def _check_trigger(reader: Reader, rule: Rule) -> None:
    """Check that the rule has what triggers it, and nothing of another trigger."""
    if rule.trigger == "event":
        if not rule.events and not rule.alerts:
            raise reader.fail("events", "is missing: trigger 'event' needs events, alerts or both")
        if rule.calendar:
            raise reader.fail("calendar", "is only for trigger 'schedule'")
    else:
        if not rule.calendar:
            raise reader.fail("calendar", "is missing: trigger 'schedule' needs it")
        for key, value in (("events", rule.events), ("alerts", rule.alerts)):
            if value:
                raise reader.fail(key, "is only for trigger 'event'")
