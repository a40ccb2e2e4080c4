# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies: what is accepted, the compiled form, the exact words of every refusal, and the JSON schema beside them."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT

from hybrid_vmm import policy, policyplan
from hybrid_vmm.errors import PolicyError

SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "policy.schema.json").read_text(encoding="utf-8")))
EXAMPLES = re.findall(r"^```yaml\n# policy\n(.*?)^```", (ROOT / "docs" / "policies.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
WHOLE = {
    "rest": "kvm",
    "lock": "none",
    "limits": {"switches": 5, "per": "90s"},
    "rules": [
        {
            "name": "ids",
            "trigger": "event",
            "mode": "tcg",
            "scope": "vm",
            "priority": 7,
            "hold": {"min": "1s", "max": "10m"},
            "events": ["WATCHDOG"],
            "alerts": ["a", "b-1"],
        },
        {"name": "night", "trigger": "schedule", "mode": "kvm", "hold": {"max": "2h"}, "calendar": "daily"},
    ],
}


def test_compiled() -> None:
    compiled = policy.parse(WHOLE).compiled()
    digest = compiled.pop("hash")
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert compiled == {
        "schema": 1,
        "rest": "kvm",
        "lock": "none",
        "switches": 5,
        "per-ms": 90000,
        "rules": [
            {
                "name": "ids", "trigger": "event", "mode": "tcg", "priority": 7, "min-ms": 1000, "max-ms": 600000,
                "events": ["WATCHDOG"], "alerts": ["a", "b-1"], "calendar": "",
            },
            {
                "name": "night", "trigger": "schedule", "mode": "kvm", "priority": 100, "min-ms": 0, "max-ms": 7200000,
                "events": [], "alerts": [], "calendar": "daily",
            },
        ],
    }  # fmt: skip
    assert policy.parse({"rest": "kvm"}).compiled()["hash"] == policy.parse({"rest": "kvm", "rules": []}).compiled()["hash"] != digest


def test_compiled_is_checked_when_it_is_read() -> None:
    compiled = policy.parse(WHOLE).compiled()
    assert policy.from_compiled(compiled) == compiled
    for change, message in (
        ({"rest": "tcg"}, "is not that of the contents; the file was changed by hand, declare the policy again"),
        ({"schema": 2}, "schema: 2 is not 1, the only schema that this version reads"),
    ):
        with pytest.raises(PolicyError, match=re.escape(message)):
            policy.from_compiled({**compiled, **change})
    with pytest.raises(PolicyError, match="is not a mapping"):
        policy.from_compiled([])


def bad(path: str, value: Any) -> dict[str, Any]:
    """The whole policy with one value changed, or, for None, without it."""
    data: Any = copy.deepcopy(WHOLE)
    place, keys = data, [int(key) if key.isdigit() else key for key in re.findall(r"[\w-]+", path)]
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return dict(data)


NAME = "is not a name (1 to 48 of a-z 0-9 -, beginning with a letter or digit)"
DURATION = "is not a duration (a whole number with ms, s, m, h or d, such as '10m')"
REFUSED = (
    ("rest", None, "rest: is missing"),
    ("rest", "fast", "rest: 'fast' is not one of 'kvm', 'tcg'"),
    ("lock", "yes", "lock: 'yes' is not one of 'kvm', 'tcg', 'none'"),
    ("limits.switches", 0, "limits.switches: 0 is not between 1 and 1000"),
    ("limits.per", "25h", "limits.per: '25h' is not between 1s and 1d"),
    ("limits.pre", "1m", "limits.pre: unknown key, did you mean 'per'?"),
    ("rules[0].name", "Ids", f"rules[0].name: 'Ids' {NAME}"),
    ("rules[1].name", "ids", "rules[1].name: 'ids' is the name of rules[0] too"),
    ("rules[0].trigger", "process", "rules[0].trigger: 'process' is not supported by this version, it has: event, schedule"),
    ("rules[0].trigger", "cron", "rules[0].trigger: 'cron' is not one of 'event', 'schedule'"),
    ("rules[0].scope", "process", "rules[0].scope: 'process' is not supported by this version, it has: vm"),
    ("rules[0].priority", 1001, "rules[0].priority: 1001 is not between 0 and 1000"),
    ("rules[0].hold", None, "rules[0].hold: is missing"),
    ("rules[0].hold.max", None, "rules[0].hold.max: is missing"),
    ("rules[0].hold.max", "5 parsecs", f"rules[0].hold.max: '5 parsecs' {DURATION}"),
    ("rules[0].hold.max", 5, "rules[0].hold.max: 5 is not a string"),
    ("rules[0].hold.min", "11m", "rules[0].hold.min: '11m' is not between 0s and 10m"),
    ("rules[0].hold.max", "31d", "rules[0].hold.max: '31d' is not between 1s and 30d"),
    (
        "rules[0].events", ["HYBRID_SWITCH"],
        "rules[0].events[0]: 'HYBRID_SWITCH' is not the name of a QMP event such as 'GUEST_PANICKED' (those of switches, HYBRID_*, cannot trigger one)",
    ),
    ("rules[0].alerts", ["a", "B"], f"rules[0].alerts[1]: 'B' {NAME}"),
    ("rules[0].calendar", "daily", "rules[0].calendar: is only for trigger 'schedule'"),
    ("rules[1].calendar", None, "rules[1].calendar: is missing: trigger 'schedule' needs it"),
    ("rules[1].events", ["STOP"], "rules[1].events: is only for trigger 'event'"),
    ("rules[1].alerts", ["a"], "rules[1].alerts: is only for trigger 'event'"),
    ("rules", [{"name": "x", "trigger": "event", "hold": {"max": "1m"}}], "rules[0].events: is missing: trigger 'event' needs events, alerts or both"),
    ("rules", "x", "rules: 'x' is not a list"),
    ("budget", 1, "budget: unknown key, allowed: rest, lock, limits, rules"),
)  # fmt: skip

#: What a schema cannot say: that names differ, and how one duration compares with another.
BEYOND_THE_SCHEMA = ("is the name of", "is not between 1s", "is not between 0s")


@pytest.mark.parametrize(("path", "value", "message"), REFUSED, ids=[f"{path}-{number}" for number, (path, *_) in enumerate(REFUSED)])
def test_refused(path: str, value: Any, message: str) -> None:
    data = bad(path, value)
    with pytest.raises(PolicyError) as caught:
        policy.parse(data)
    assert str(caught.value) == message
    assert SCHEMA.is_valid(data) is any(words in message for words in BEYOND_THE_SCHEMA)


def test_not_a_mapping() -> None:
    with pytest.raises(PolicyError, match="'kvm' is not a mapping"):
        policy.parse("kvm")


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_documentation(text: str) -> None:
    data = yaml.safe_load(text)
    SCHEMA.validate(data)
    policy.parse(data)


def test_whole_policy_fits_the_schema() -> None:
    assert len(EXAMPLES) >= 4
    SCHEMA.validate(WHOLE)


def test_plan() -> None:
    entries = policyplan.plan({"web2": None, "web1": WHOLE})
    assert [(entry["name"], entry["policy"], entry["pattern"]) for entry in entries] == [
        ("web1", WHOLE, "hybrid-begin@web1:*.timer"),
        ("web2", None, "hybrid-begin@web2:*.timer"),
    ]
    where = "hybrid_policy_policies.web1.rules[1].calendar"
    timer = {"unit": "hybrid-begin@web1:night.timer", "instance": "web1:night", "calendar": "daily", "where": where}
    assert [entry["timers"] for entry in entries] == [[timer], []]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "hybrid_policy_policies: [] is not a mapping of VM names to policies"),
        ({"web1": {"rest": "fast"}}, "hybrid_policy_policies.web1.rest: 'fast' is not one of 'kvm', 'tcg'"),
        ({"all": None}, "hybrid_policy_policies.all: name: 'all' means every VM of a host and cannot be the name of one"),
    ],
)
def test_plans_that_are_refused(data: Any, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policyplan.plan(data)
    assert str(caught.value) == message


@pytest.mark.parametrize(("ms", "text"), [(0, "0s"), (1500, "1500ms"), (90000, "90s"), (3600000, "1h"), (172800000, "2d")])
def test_duration_text(ms: int, text: str) -> None:
    assert policy.duration_text(ms) == text
