# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the playbooks and roles: thin wrappers over pure functions of module_utils/hybrid_vmm.

Each has its documentation in a file of its own name beside this one.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# On the controller, Ansible finds the package only for modules; Python needs to be told.
_PACKAGES = str(Path(__file__).resolve().parent.parent / "module_utils")
if _PACKAGES not in sys.path:
    sys.path.append(_PACKAGES)

from hybrid_vmm import definition, policyplan, rows, table
from hybrid_vmm.errors import HybridError


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn our errors into the ones that Ansible shows without a traceback."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except HybridError as exc:
            raise AnsibleFilterError(exc.message) from exc

    return wrapper


def hybrid_switch_rows(hostvars: Any, hosts: Any, register: str) -> list[dict[str, Any]]:
    """Flatten the results of hybrid_vm_mode of many hosts."""
    return rows.rows_of_hosts(hostvars, hosts, register)


def hybrid_switch_table(switches: Any) -> str:
    """Return aligned text."""
    return table.switch_table(rows.plain_rows("hybrid_switch_table", switches))


def hybrid_vm_definition(item: Any, host: str) -> dict[str, Any]:
    """Return a complete, checked VM definition."""
    return definition.complete(item, str(host))


def hybrid_policy_plan(policies: Any) -> list[dict[str, Any]]:
    """Check the policies of a host's VMs and return what is to be done for each."""
    return policyplan.plan(policies)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        functions = (hybrid_policy_plan, hybrid_switch_rows, hybrid_switch_table, hybrid_vm_definition)
        return {function.__name__: _filter(function) for function in functions}
