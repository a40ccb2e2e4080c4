# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the policies of an inventory into what role hybrid_policy does on a host.  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import definition, policy
from .errors import DefinitionError, PolicyError
from .reader import show


def plan(policies: Any, variable: str = "hybrid_policy_policies") -> list[dict[str, Any]]:
    """Check policies.

    :param policies: declared policies by VM; None for a VM that shall have none.
    :param variable: its name, for errors.
    :return: one entry per VM in the order of names: name, policy as it was declared or None, timers (of rules with a
        schedule: unit, instance, calendar, where), pattern (of the file names of all its timers).
    :raises PolicyError: e.g. ``hybrid_policy_policies.web1.rules[0].mode: 'fast' is not one of 'kvm', 'tcg'``.
    """
    if not isinstance(policies, Mapping):
        raise PolicyError(f"{variable}: {show(policies)} is not a mapping of VM names to policies")
    return [_entry(str(name), policies[name], f"{variable}.{name}") for name in sorted(policies, key=str)]


def _entry(name: str, declared: Any, where: str) -> dict[str, Any]:
    try:
        definition.check_name(name)
    except DefinitionError as exc:
        raise PolicyError(f"{where}: {exc}") from exc
    timers: list[dict[str, str]] = []
    if declared is not None:
        try:
            rules = policy.parse(declared).rules
        except PolicyError as exc:
            raise PolicyError(f"{where}.{exc}") from exc
        for index, rule in enumerate(rules):
            if rule.trigger == "schedule":
                instance = f"{name}:{rule.name}"
                unit = f"hybrid-begin@{instance}.timer"
                timers.append({"unit": unit, "instance": instance, "calendar": rule.calendar, "where": f"{where}.rules[{index}].calendar"})
    # Ansible's containers are lazy; modules get plain ones.
    plain = json.loads(json.dumps(declared))
    return {"name": name, "policy": plain, "timers": timers, "pattern": f"hybrid-begin@{name}:*.timer"}
