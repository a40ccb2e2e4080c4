# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing the mode of many VMs: nothing is half done, nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
from conftest import Host

from hybrid_vmm import mode
from hybrid_vmm.errors import UnknownVm


def change(host: Host, *names: str, to: str = "tcg", seconds: float = 10.0, check: bool = False) -> mode.Outcome:
    """Change the mode of VMs."""
    return mode.change(host.paths, list(names), to, seconds, "patch day", check)


def brief(outcome: mode.Outcome) -> list[tuple[Any, ...]]:
    """Return what matters of each result."""
    return [(item.name, item.before, item.after, item.changed, item.code) for item in outcome.results]


def vms(host: Host, *names: str, **behaviour: Any) -> None:
    """Define and start hybrid VMs."""
    for name in names:
        host.define(name)
        host.fake_qemu(name, **behaviour)


def test_switch_and_again(host: Host) -> None:
    vms(host, "web1")
    outcome = change(host, "web1")
    assert outcome.error is None
    assert outcome.results[0].to_dict() == {
        "name": "web1",
        "ok": True,
        "before": "kvm",
        "after": "tcg",
        "changed": True,
        "pause_us": 2410,
        "phases": [{"name": "stop", "us": 180}, {"name": "save", "us": 2230}],
        "cause": "operator",
        "reason": "patch day",
        "error": None,
        "code": None,
    }
    assert outcome.difference().as_diff() == {"before": {"web1": "kvm"}, "after": {"web1": "tcg"}}
    again = change(host, "web1")
    assert brief(again) == [("web1", "tcg", "tcg", False, None)]
    assert again.results[0].pause_us == 0
    assert again.difference().changed is False


def test_check_mode_predicts_and_does_nothing(host: Host) -> None:
    vms(host, "web1", "web2")
    change(host, "web2")
    predicted = change(host, "web1", "web2", check=True)
    assert brief(predicted) == [("web1", "kvm", "tcg", True, None), ("web2", "tcg", "tcg", False, None)]
    assert predicted.results[0].pause_us is None
    real = change(host, "web1", "web2")
    assert real.difference().as_diff() == predicted.difference().as_diff()
    assert [(item.cause, item.reason) for item in real.results] == [(x.cause, x.reason) for x in predicted.results]


def test_results_are_in_the_order_of_the_names(host: Host) -> None:
    vms(host, "web2", "db1", "web1")
    assert [item.name for item in change(host, "web2", "db1", "web1", "db1").results] == ["web2", "db1", "web1"]


def test_all_in_parallel(host: Host) -> None:
    names = [f"web{index}" for index in range(8)]
    vms(host, *names, delay=1)
    begin = time.monotonic()
    outcome = change(host, "all")
    assert time.monotonic() - begin < 6
    assert outcome.error is None
    assert [item.changed for item in outcome.results] == [True] * 8


def test_all_takes_what_can_switch(host: Host) -> None:
    vms(host, "web1", "web2")
    vms(host, "old1", accel="kvm")
    vms(host, "old2", accel="stock")
    host.define("off1")
    host.fake_qemu("stray")
    outcome = change(host, "all")
    assert brief(outcome) == [("web1", "kvm", "tcg", True, None), ("web2", "kvm", "tcg", True, None)]
    assert outcome.error is None
    socket = host.paths.control("off1")
    assert outcome.left_out == [
        {
            "name": "off1",
            "reason": f"VM 'off1': is not running (no socket {socket}): start it with 'systemctl start hybrid-vm@off1.service'",
        },
        {
            "name": "old1",
            "reason": "VM 'old1': cannot switch: it runs with accelerator 'kvm'; set 'accel: hybrid' in its "
            "definition, then restart the VM",
        },
        {
            "name": "old2",
            "reason": "VM 'old2': cannot switch: its QEMU 10.0.13 is not a hybrid one; install one with role "
            "hybrid_qemu_install, then restart the VM",
        },
        {"name": "stray", "reason": "VM 'stray': running, but not defined on this host"},
    ]


def test_all_of_nothing(host: Host) -> None:
    outcome = change(host, "all")
    assert (outcome.results, outcome.left_out, outcome.error) == ([], [], None)


def test_unknown_vm_touches_nothing(host: Host) -> None:
    vms(host, "web1")
    with pytest.raises(UnknownVm) as caught:
        change(host, "web1", "web9")
    assert caught.value.message == f"VM 'web9' is not defined in {host.paths.definitions}; defined are: web1"
    assert brief(change(host, "web1", check=True))[0][1] == "kvm"


def test_one_that_is_not_running_keeps_the_others_as_they_were(host: Host) -> None:
    vms(host, "web1", "web2")
    change(host, "web2")
    host.define("off1")
    outcome = change(host, "web1", "web2", "off1")
    assert brief(outcome) == [
        ("web1", "kvm", "kvm", False, "not-tried"),
        ("web2", "tcg", "tcg", False, None),
        ("off1", None, None, False, "not-running"),
    ]
    assert outcome.error == (
        f"1 of 3 VMs failed, none switched: VM 'off1': is not running (no socket {host.paths.control('off1')}): start "
        "it with 'systemctl start hybrid-vm@off1.service'"
    )
    assert outcome.results[0].error == "VM 'web1': not switched, because another VM of this call failed"


def test_a_blocker_keeps_all_as_they_were_and_check_mode_says_so(host: Host) -> None:
    vms(host, "web1")
    blockers = [{"name": "vfio", "reason": "0000:01:00.0"}, {"name": "vhost", "reason": "net0"}]
    vms(host, "web2", blockers=blockers)
    for check in (True, False):
        outcome = change(host, "web1", "web2", check=check)
        assert brief(outcome) == [("web1", "kvm", "kvm", False, "not-tried"), ("web2", "kvm", "kvm", False, "blocked")]
        assert outcome.error == (
            "1 of 2 VMs failed, none switched: VM 'web2': cannot switch to 'tcg', blocked by 'vfio': 0000:01:00.0; 'vhost': net0"
        )
    assert change(host, "web2", to="kvm").error is None


def test_a_vm_that_hangs_keeps_all_as_they_were_within_the_time(host: Host) -> None:
    vms(host, "web1")
    host.define("hung")
    host.stock_qemu("hung").send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    outcome = change(host, "web1", "hung", seconds=1)
    assert time.monotonic() - begin < 4
    assert brief(outcome) == [("web1", "kvm", "kvm", False, "not-tried"), ("hung", None, None, False, "timed-out")]


@pytest.mark.parametrize(
    ("trouble", "code", "after"),
    [
        ("die", "qemu-died", None),
        ("hang", "timed-out", None),
        ("refuse", "command-failed", "kvm"),
        ("blocked", "blocked", "kvm"),
        ("empty", "protocol", None),
    ],
)
def test_failure_while_switching_does_not_stop_the_others(host: Host, trouble: str, code: str, after: Any) -> None:
    vms(host, "web1", "web3")
    vms(host, "web2", on_set=trouble)
    outcome = change(host, "web1", "web2", "web3", seconds=2)
    assert brief(outcome) == [
        ("web1", "kvm", "tcg", True, None),
        ("web2", "kvm", after, False, code),
        ("web3", "kvm", "tcg", True, None),
    ]
    assert outcome.error is not None
    assert outcome.error.startswith("1 of 3 VMs failed, 2 switched: VM 'web2': ")
    assert outcome.results[1].pause_us is None
    assert set(outcome.difference().as_diff()["after"]) == {"web1", "web3"}


def test_a_single_vm_fails_with_its_own_words(host: Host) -> None:
    host.define("web1")
    host.stock_qemu("web1")
    outcome = change(host, "web1")
    assert outcome.error is not None
    assert outcome.error.startswith("VM 'web1': cannot switch: its QEMU ")


def test_two_runs_at_once(host: Host) -> None:
    """They meet on the same VMs in different order, and both end: the locks are taken in the order of names."""
    vms(host, "web1", "web2", "web3", delay=0.2)
    outcomes: dict[str, mode.Outcome] = {}

    def run(key: str, names: list[str], to: str) -> None:
        outcomes[key] = change(host, *names, to=to, seconds=20)

    threads = [
        threading.Thread(target=run, args=("a", ["web1", "web2", "web3"], "tcg")),
        threading.Thread(target=run, args=("b", ["web3", "web1", "web2"], "tcg")),
        threading.Thread(target=run, args=("c", ["web2", "web3"], "tcg")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.error for outcome in outcomes.values()] == [None] * 3
    for name in ("web1", "web2", "web3"):
        seen = [item.changed for outcome in outcomes.values() for item in outcome.results if item.name == name]
        assert sum(seen) == 1, f"{name} was switched {sum(seen)} times"


def test_a_run_that_does_not_get_the_lock_leaves_all_as_they_were(host: Host) -> None:
    vms(host, "web2")
    vms(host, "web1", on_set="hang")
    slow = threading.Thread(target=change, args=(host, "web1"), kwargs={"seconds": 3})
    slow.start()
    time.sleep(0.5)
    outcome = change(host, "web1", "web2", seconds=0.5)
    slow.join()
    assert outcome.results[0].code == "busy"
    assert not any(item.changed for item in outcome.results)
    assert outcome.results[1].error is not None
