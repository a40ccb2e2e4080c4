# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hybrid accelerator tells: QMP commands, event, monitor commands for people, trace points, identity."""

from __future__ import annotations

import os
import re
import time

import pytest
from harness import QmpError, Vm

PHASES = ["stop", "save", "convert", "translations", "irqchip", "resume"]
ARGUMENTS = ["-accel", "hybrid", "-machine", "pc,smm=off", "-m", "64", "-smp", "2"]


@pytest.fixture(scope="module")
def vm(host, binary, seed):
    """A VM whose firmware waits for something to boot."""
    the_vm = Vm(host, binary, ARGUMENTS, mode="kvm", seed=seed, serial=False)
    yield the_vm
    the_vm.kill()


def in_mode(vm: Vm, mode: str) -> Vm:
    vm.set_mode(mode)
    return vm


def check_record(record: dict, before: str, after: str, cause: str = "operator") -> None:
    assert (record["before"], record["after"], record["cause"]) == (before, after, cause)
    assert 0 < record["pause-us"] < 10_000_000
    names = [phase["name"] for phase in record["phases"]]
    assert names == [p for p in PHASES if p in names], "phases are in the order in which they happen"
    assert {"stop", "save", "convert", "resume"} <= set(names)
    total = sum(phase["us"] for phase in record["phases"])
    assert total <= record["pause-us"] + 10 * len(names)
    assert total >= record["pause-us"] * 0.9 - 100, "the phases account for the pause"


def test_version_names_the_series(host, binary):
    said = host.run(f"{binary} --version", 60)
    if "hybrid-vmm" not in said and os.environ.get("HYBRID_QEMU"):
        pytest.skip("HYBRID_QEMU is a developer's build without --with-pkgversion")
    assert re.search(r"version 10\.0\.\d+.*hybrid-vmm h1\.[0-9a-f]{8}", said)


def test_switch_answers_before_after_pause_and_phases(vm):
    in_mode(vm, "kvm")
    answer = vm.set_mode("tcg", "audit 17")
    assert answer["changed"] is True
    assert answer["reason"] == "audit 17"
    check_record(answer, "kvm", "tcg")
    check_record(vm.set_mode("kvm"), "tcg", "kvm")


def test_same_mode_changes_nothing(vm):
    in_mode(vm, "kvm")
    counts = vm.qmp.run("query-hybrid")["switches"]
    answer = vm.set_mode("kvm")
    assert (answer["changed"], answer["pause-us"], answer["phases"]) == (False, 0, [])
    assert (answer["before"], answer["after"]) == ("kvm", "kvm")
    assert vm.qmp.run("query-hybrid")["switches"] == counts


def test_query(vm):
    in_mode(vm, "kvm")
    before = vm.qmp.run("query-hybrid")
    started = time.time() * 1e6
    answer = vm.set_mode("tcg", "look")
    time.sleep(0.2)
    info = vm.qmp.run("query-hybrid")
    assert (info["interface"], info["mode"], info["start"], info["irqchip"]) == (1, "tcg", "kvm", "on")
    assert (info["cause"], info["reason"]) == ("operator", "look")
    assert info["blockers"] == []
    assert all(isinstance(feature, str) for feature in info["dropped-features"])
    assert info["switches"]["kvm-to-tcg"] == before["switches"]["kvm-to-tcg"] + 1
    assert info["switches"]["tcg-to-kvm"] == before["switches"]["tcg-to-kvm"]
    assert info["switches"]["failed"] == 0
    assert info["time"]["tcg-us"] - before["time"]["tcg-us"] >= 200_000
    # The host's clock and this one's may differ by minutes, not by days.
    assert abs(info["since-us"] - started) < 86_400e6
    last = info["last-switch"]
    assert {k: last[k] for k in ("before", "after", "pause-us", "phases")} == {k: answer[k] for k in ("before", "after", "pause-us", "phases")}
    later = vm.qmp.run("query-hybrid")
    assert later["since-us"] == info["since-us"]
    assert later["time"]["kvm-us"] == info["time"]["kvm-us"]
    vm.set_mode("kvm")
    assert "reason" not in vm.qmp.run("query-hybrid")


def test_an_event_for_each_switch(vm):
    in_mode(vm, "kvm")
    vm.qmp.poll()
    since = len(vm.qmp.events)
    answer = vm.set_mode("tcg", "event")
    event = vm.qmp.wait_event("HYBRID_SWITCH", since, 10)["data"]
    assert {k: event[k] for k in ("before", "after", "cause", "reason", "pause-us", "phases")} == {
        k: answer[k] for k in ("before", "after", "cause", "reason", "pause-us", "phases")
    }
    since = len(vm.qmp.events)
    vm.set_mode("tcg")
    vm.qmp.poll(0.3)
    assert [e for e in vm.qmp.events[since:] if e["event"] == "HYBRID_SWITCH"] == []
    vm.set_mode("kvm")
    vm.qmp.wait_event("HYBRID_SWITCH", since, 10)


def test_unknown_mode(vm):
    with pytest.raises(QmpError) as error:
        vm.qmp.run("hybrid-set-mode", {"mode": "xen"})
    assert "xen" in error.value.desc
    assert "mode" in error.value.desc
    assert vm.qmp.run("query-hybrid")["mode"] == vm.mode


def test_missing_mode(vm):
    with pytest.raises(QmpError, match="mode"):
        vm.qmp.run("hybrid-set-mode")


def test_reason_that_is_too_long(vm):
    with pytest.raises(QmpError, match="reason"):
        vm.qmp.run("hybrid-set-mode", {"mode": "tcg", "reason": "x" * 300})


def test_monitor_for_people(vm):
    in_mode(vm, "kvm")
    assert re.search(r"mode: *kvm", vm.hmp("info hybrid"))
    said = vm.hmp("hybrid_set_mode tcg by-hand")
    vm.mode = vm.qmp.run("query-hybrid")["mode"]
    assert vm.mode == "tcg"
    assert "kvm" in said
    assert "tcg" in said
    assert re.search(r"pause \d+ us", said)
    text = vm.hmp("info hybrid")
    assert re.search(r"mode: *tcg", text)
    assert "by-hand" in text
    assert "xen" in vm.hmp("hybrid_set_mode xen")
    vm.set_mode("kvm")


def test_monitor_commands_of_both_accelerators(vm):
    """What one of them offers is asked for in both modes."""
    for mode in ("kvm", "tcg"):
        in_mode(vm, mode)
        assert "TB count" in vm.hmp("info jit")
        assert "enabled" in vm.hmp("info kvm")
    assert vm.qmp.run("query-status")["status"] == "running"


def test_trace_points(host, binary, seed):
    trace = f"{host.folder}/trace-{seed}"
    vm = Vm(host, binary, [*ARGUMENTS, "-trace", "hybrid_*", "-D", trace], mode="kvm", seed=seed, serial=False)
    try:
        vm.set_mode("tcg")
        vm.set_mode("kvm")
        text = host.run(f"cat {trace}")
        assert len(re.findall(r"hybrid_switch .*kvm -> tcg", text)) == 1
        assert len(re.findall(r"hybrid_switch .*tcg -> kvm", text)) == 1
        for phase in ("stop", "save", "convert", "resume"):
            assert re.search(rf"hybrid_phase .*{phase}", text), phase
    finally:
        vm.kill()
        host.run(f"rm -f {trace}")


def test_several_monitors_at_once(host, binary, seed):
    """Each consumer has its own socket; a switch asked for on one is seen on the other."""
    from harness import Qmp, _connect

    path = f"{host.folder}/second-{seed}"
    vm = Vm(host, binary, [*ARGUMENTS, "-qmp", f"unix:{path},server=on,wait=off"], mode="kvm", seed=seed, serial=False)
    try:
        second = Qmp(_connect(host.socket(path), vm._alive, time.monotonic() + 30))
        vm.set_mode("tcg")
        assert second.wait_event("HYBRID_SWITCH", 0, 10)["data"]["after"] == "tcg"
        assert second.run("hybrid-set-mode", {"mode": "kvm"})["before"] == "tcg"
        assert vm.qmp.wait_event("HYBRID_SWITCH", 1, 10)["data"]
        assert vm.qmp.run("query-hybrid")["mode"] == "kvm"
    finally:
        vm.kill()


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_other_accelerators_refuse(host, binary, seed, accel):
    vm = Vm(host, binary, ["-accel", accel, "-m", "64"], mode=None, seed=seed, serial=False)
    try:
        for command, arguments in (("hybrid-set-mode", {"mode": "tcg"}), ("query-hybrid", None)):
            with pytest.raises(QmpError) as error:
                vm.qmp.run(command, arguments)
            assert error.value.error_class == "GenericError"
            assert f"accelerator is '{accel}', not 'hybrid'" in error.value.desc.lower()
        assert f"'{accel}'" in vm.hmp("info hybrid").lower()
    finally:
        vm.kill()
