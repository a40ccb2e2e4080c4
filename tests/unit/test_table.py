# SPDX-License-Identifier: GPL-3.0-or-later
"""Text tables, rows of switches and the demo's report."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from hybrid_vmm import rows, table

ROW = {"vm": "web1", "host": "lab0", "before": "kvm", "after": "tcg", "pause_us": 2410, "ok": True, "error": None}


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(None, "-"), (0, "0 us"), (999, "999 us"), (1000, "1.00 ms"), (2410, "2.41 ms"), (1200000, "1.20 s")],
)
def test_pause(microseconds: Optional[int], text: str) -> None:
    assert table.pause(microseconds) == text


def test_switch_table() -> None:
    other = {"vm": "-", "host": "hypervisor-2", "ok": False, "error": "no result\nat all\x1b[31m"}
    assert table.switch_table([ROW, other]) == (
        "VM    HOST          BEFORE  AFTER  PAUSE    OK   ERROR\n"
        "web1  lab0          kvm     tcg    2.41 ms  yes  -\n"
        "-     hypervisor-2  -       -      -        no   no result at all [31m"
    )


def test_columns_come_with_their_values() -> None:
    assert table.switch_table([{**ROW, "heartbeats_missed": 0, "guest_errors": 0}]) == (
        "VM    HOST  BEFORE  AFTER  PAUSE    OK   MISSED  GUEST ERRORS\nweb1  lab0  kvm     tcg    2.41 ms  yes  0       0"
    )


def test_no_rows() -> None:
    assert table.switch_table([]) == "VM  HOST  BEFORE  AFTER  PAUSE  OK"


VM = {"name": "web1", "before": "kvm", "after": "tcg", "changed": True, "pause_us": 2410, "ok": True, "error": None}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"result": {"vms": [VM]}}, [("web1", True, None)]),
        ({"result": {"vms": [VM], "failed": True, "msg": "1 of 2 ..."}}, [("web1", True, None)]),
        ({"result": {"vms": []}}, []),
        ({"result": {"results": [{"vms": [VM]}, {"vms": [VM]}]}}, [("web1", True, None)] * 2),
        ({"result": {"results": [{"vms": [VM]}, {"skipped": True}]}}, [("web1", True, None)]),
        ({"result": {"failed": True, "msg": "VM 'x' is not defined"}}, [("-", False, "VM 'x' is not defined")]),
        ({"result": {"unreachable": True, "msg": "no route"}}, [("-", False, "no route")]),
        ({"result": {"failed": True}}, [("-", False, "failed")]),
        ({}, [("-", False, "no result: the host was not reached, or the play stopped before")]),
    ],
)
def test_rows_of_hosts(variables: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    found = rows.rows_of_hosts({"lab0": variables}, ["lab0"], "result")
    assert [(row["vm"], row["ok"], row["error"]) for row in found] == expected
    assert all(row["host"] == "lab0" for row in found)


def test_rows_are_in_the_order_of_the_hosts() -> None:
    hostvars = {"b": {"r": {"vms": [VM]}}, "a": {"r": {"vms": [VM]}}}
    assert [row["host"] for row in rows.rows_of_hosts(hostvars, ["b", "a", "c"], "r")] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("hostvars", "hosts", "message"),
    [
        ([], ["a"], "hybrid_switch_rows: the input is not hostvars but list"),
        ({}, "lab0", "hybrid_switch_rows: hosts is not a list of host names"),
    ],
)
def test_rows_of_the_wrong_kind(hostvars: Any, hosts: Any, message: str) -> None:
    with pytest.raises(rows.RowsError) as caught:
        rows.rows_of_hosts(hostvars, hosts, "r")
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x", "f: the input is not a list of rows but str"),
        ({}, "f: the input is not a list of rows but dict"),
        ([{}, 1], "f: row 1 is not a mapping but int"),
    ],
)
def test_plain_rows_of_the_wrong_kind(given: Any, message: str) -> None:
    with pytest.raises(rows.RowsError) as caught:
        rows.plain_rows("f", given)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("given", "guest_errors", "ok"),
    [
        ([ROW], 0, True),
        ([{**ROW, "guest_errors": 1}, {**ROW, "guest_errors": 2}], 3, False),
        ([{**ROW, "ok": False}], 0, False),
        ([], 0, False),
    ],
)
def test_demo_report(given: list[dict[str, Any]], guest_errors: int, ok: bool) -> None:
    report = rows.demo_report(given)
    assert (report["guest_errors"], report["ok"]) == (guest_errors, ok)
    for switch, row in zip(report["switches"], given):
        expected = {"vm": "web1", "host": "lab0", "from": "kvm", "to": "tcg", "pause_us": 2410, "ok": row["ok"]}
        assert switch == expected
