# SPDX-License-Identifier: GPL-3.0-or-later
"""From the results of hybrid_vm_mode on many hosts to rows of a table and to the demo's report.  Pure.

Rows have: vm, host, before, after, changed, pause_us, ok, error; whoever has more to say of a switch
(heartbeats_missed, guest_errors) adds keys. Values may be Ansible's lazy containers, so everything is copied into
plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import HybridError

_RESULT_KEYS = ("before", "after", "changed", "pause_us", "ok", "error")


class RowsError(HybridError):
    """The data are not what the filters take."""

    code = "rows"


def rows_of_hosts(hostvars: Any, hosts: Sequence[str], register: str) -> list[dict[str, Any]]:
    """Flatten registered results, one row per VM; nothing is lost.

    :param hostvars: Ansible's hostvars, or any mapping of host to variables.
    :param hosts: hosts in the order of the table.
    :param register: name of the variable that holds the result of hybrid_vm_mode, of one task or of a loop.
    :return: rows; a host without result, or that failed before it had one for each VM, gives a row with vm ``-``.
    :raises RowsError: hostvars or hosts are of the wrong kind.
    """
    if not isinstance(hostvars, Mapping):
        raise RowsError(f"hybrid_switch_rows: the input is not hostvars but {type(hostvars).__name__}")
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Sequence):
        raise RowsError("hybrid_switch_rows: hosts is not a list of host names")
    rows: list[dict[str, Any]] = []
    for host in hosts:
        variables = hostvars[host] if host in hostvars else {}  # noqa: SIM401  HostVars.get() gives Undefined
        result = variables[register] if register in variables else None  # noqa: SIM401  as above
        rows += _rows_of_host(str(host), result)
    return rows


def _rows_of_host(host: str, result: Any) -> list[dict[str, Any]]:
    if not isinstance(result, Mapping):
        return [_no_row(host, "no result: the host was not reached, or the play stopped before")]
    if "results" in result:
        return [row for item in result["results"] for row in _rows_of_host(host, item)]
    if result.get("skipped") is True:
        return []
    vms = result.get("vms") or []
    if not vms and (result.get("failed") or result.get("unreachable")):
        return [_no_row(host, str(result.get("msg") or "failed"))]
    return [{"vm": vm["name"], "host": host, **{key: vm.get(key) for key in _RESULT_KEYS}} for vm in vms]


def _no_row(host: str, error: str) -> dict[str, Any]:
    return {
        "vm": "-",
        "host": host,
        "before": None,
        "after": None,
        "changed": False,
        "pause_us": None,
        "ok": False,
        "error": error,
    }


def demo_report(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the contents of reports/demo.json.

    :param rows: one per switch.
    :return: switches (vm, host, from, to, pause_us, ok), guest_errors, and ok: there was a switch, every switch is
        ok and no guest reported an error.
    """
    errors = sum(int(row.get("guest_errors") or 0) for row in rows)
    switches = [
        {
            "vm": row.get("vm"),
            "host": row.get("host"),
            "from": row.get("before"),
            "to": row.get("after"),
            "pause_us": row.get("pause_us"),
            "ok": row.get("ok") is True,
        }
        for row in rows
    ]
    return {
        "switches": switches,
        "guest_errors": errors,
        "ok": bool(switches) and errors == 0 and all(item["ok"] for item in switches),
    }


def plain_rows(name: str, rows: Any) -> list[dict[str, Any]]:
    """Return rows as plain dicts.

    :param name: of the filter, for the error.
    :raises RowsError: it is not a list of mappings.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise RowsError(f"{name}: the input is not a list of rows but {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RowsError(f"{name}: row {index} is not a mapping but {type(row).__name__}")
    return [dict(row) for row in rows]
