# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy in QEMU: rules, override, lock, limit and what is refused, on a guest that runs meanwhile."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Baremetal, QmpError, Unexpected, Vm
from test_baremetal import CONFIGS, STOCK
from test_blockers import refused_at_start

pytestmark = pytest.mark.skipif(bool(STOCK), reason="a stock accelerator has no policy")
ACCEL, MACHINE, CPUS = next(iter(CONFIGS.values()))
#: Seconds in which what must happen has happened; nothing is measured by it.
SOON = 30
HOUR_MS = 3600 * 1000


def rule(name: str, **keys: Any) -> dict[str, Any]:
    """A rule in the compiled form, by default one that only a command triggers."""
    plain = {"trigger": "schedule", "mode": "tcg", "priority": 100, "min-ms": 0, "max-ms": HOUR_MS, "events": [], "alerts": [], "calendar": "daily"}
    return {"name": name, **plain, **{key.replace("_", "-"): value for key, value in keys.items()}}


def policy(*rules: dict[str, Any], mark: str = "", **keys: Any) -> dict[str, Any]:
    """A policy in the compiled form. QEMU takes any hash; `mark` makes two that are otherwise the same differ."""
    plain = {"schema": 1, "rest": "kvm", "lock": "none", "switches": 1000, "per-ms": 60000}
    data = {**plain, **{key.replace("_", "-"): value for key, value in keys.items()}, "rules": list(rules)}
    return {**data, "hash": f"{hash(json.dumps(data, sort_keys=True)):x}{mark}"}


@pytest.fixture(scope="module")
def machine(host, binary, baremetal_kernel, seed) -> Iterator[Baremetal]:
    guest = Baremetal(host, binary, baremetal_kernel, accel=ACCEL, machine=MACHINE, cpus=CPUS, seed=seed)
    yield guest
    guest.stop()


@pytest.fixture
def vm(machine: Baremetal) -> Iterator[Vm]:
    """A guest in kvm without a policy."""
    running = machine.running()
    yield running
    if machine.vm is running and running.process.poll() is None:
        running.qmp.run("hybrid-set-policy")
        running.set_mode("kvm")


def use(vm: Vm, *rules: dict[str, Any], **keys: Any) -> dict[str, Any]:
    chosen = policy(*rules, **keys)
    vm.qmp.run("hybrid-set-policy", {"policy": chosen})
    return chosen


def state(vm: Vm) -> dict[str, Any]:
    return vm.qmp.run("query-hybrid")


def why(vm: Vm) -> tuple[str, str, str | None]:
    info = state(vm)
    return info["mode"], info["cause"], info.get("rule")


def switch_to(vm: Vm, mode: str, since: int) -> dict[str, Any]:
    """The first switch into a mode after that many events."""
    deadline = time.monotonic() + SOON
    while True:
        for event in vm.qmp.events[since:]:
            if event["event"] == "HYBRID_SWITCH" and event["data"]["after"] == mode:
                return dict(event["data"])
        if time.monotonic() > deadline:
            raise Unexpected(f"no switch to {mode} within {SOON} s; events: {vm.qmp.events[since:]}")
        vm.qmp.poll(1)


def refused(vm: Vm, command: str, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises(QmpError) as caught:
        vm.qmp.run(command, arguments)
    return caught.value.desc


def test_rule_begins_and_ends(vm):
    use(vm, rule("audit"))
    assert vm.qmp.run("hybrid-begin", {"rule": "audit", "reason": "incident 7"}) == {"changed": True}
    info = state(vm)
    assert (info["mode"], info["cause"], info["rule"], info["reason"]) == ("tcg", "rule", "audit", "incident 7")
    assert info["policy"]["rules"][0]["active"]
    assert info["policy"]["rules"][0]["count"] == 1
    assert vm.qmp.run("hybrid-begin", {"rule": "audit"}) == {"changed": False}
    assert vm.qmp.run("hybrid-end", {"rule": "audit"}) == {"changed": True}
    assert why(vm) == ("kvm", "rest", None)
    assert vm.qmp.run("hybrid-end", {"rule": "audit"}) == {"changed": False}


def test_hold_ends_a_rule(vm):
    """After max the guest goes back by itself, and the end that was asked for waits for min."""
    use(vm, rule("brief", max_ms=1500))
    since = len(vm.qmp.events)
    vm.qmp.run("hybrid-begin", {"rule": "brief"})
    entered, left = switch_to(vm, "tcg", since), switch_to(vm, "kvm", since)
    assert (entered["cause"], entered["rule"], left["cause"]) == ("rule", "brief", "rest")
    assert left["at-us"] - entered["at-us"] >= 1_500_000 - 50_000

    use(vm, rule("dwell", min_ms=1500))
    since = len(vm.qmp.events)
    vm.qmp.run("hybrid-begin", {"rule": "dwell"})
    assert vm.qmp.run("hybrid-end", {"rule": "dwell"}) == {"changed": True}
    assert why(vm) == ("tcg", "rule", "dwell")
    entered, left = switch_to(vm, "tcg", since), switch_to(vm, "kvm", since)
    assert left["cause"] == "rest"
    assert left["at-us"] - entered["at-us"] >= 1_500_000 - 50_000


def test_priority(vm):
    use(vm, rule("low"), rule("fast", mode="kvm", priority=200), rule("same", priority=200))
    for name, expected in (("low", ("tcg", "rule", "low")), ("fast", ("kvm", "rule", "fast")), ("same", ("tcg", "rule", "same"))):
        vm.qmp.run("hybrid-begin", {"rule": name})
        assert why(vm) == expected
    vm.qmp.run("hybrid-end", {"rule": "same"})
    assert why(vm) == ("kvm", "rule", "fast")


def test_event_of_qemu(vm):
    use(vm, rule("button", trigger="event", events=["POWERDOWN"]))
    since = len(vm.qmp.events)
    vm.qmp.run("system_powerdown")
    switch = switch_to(vm, "tcg", since)
    assert (switch["cause"], switch["rule"], switch["reason"]) == ("rule", "button", "POWERDOWN")
    vm.qmp.run("hybrid-set-policy")
    assert state(vm)["mode"] == "tcg", "without a policy the guest stays where it is"


def test_events_that_are_not_watched(vm):
    use(vm, rule("button", trigger="event", events=["POWERDOWN"]))
    vm.qmp.run("stop")
    vm.qmp.run("cont")
    assert why(vm)[0] == "kvm"
    use(vm, rule("pause", trigger="event", events=["STOP"]))
    vm.qmp.run("stop")
    # The event is looked at by the main loop after the command: so is the next command.
    deadline = time.monotonic() + SOON
    while state(vm)["mode"] != "tcg":
        assert time.monotonic() < deadline
    vm.qmp.run("cont")


def test_alert(vm):
    use(vm, rule("ids", trigger="event", alerts=["ids", "scan"]), rule("other", trigger="event", alerts=["other"]))
    assert vm.qmp.run("hybrid-alert", {"name": "unknown"}) == {"rules": []}
    assert why(vm)[0] == "kvm"
    assert vm.qmp.run("hybrid-alert", {"name": "scan", "reason": "port scan"}) == {"rules": ["ids"]}
    assert why(vm) == ("tcg", "rule", "ids")
    assert state(vm)["reason"] == "port scan"


def test_override(vm):
    """An operator outranks a rule, until the time is over or he lets go."""
    use(vm, rule("audit"))
    vm.qmp.run("hybrid-begin", {"rule": "audit"})
    vm.qmp.run("hybrid-set-mode", {"mode": "kvm", "reason": "load test"})
    assert why(vm) == ("kvm", "operator", None)
    assert state(vm)["policy"]["override"] == {"mode": "kvm", "forced": False, "reason": "load test"}
    assert vm.qmp.run("hybrid-release") == {"changed": True}
    assert why(vm) == ("tcg", "rule", "audit")
    assert vm.qmp.run("hybrid-release") == {"changed": False}

    since = len(vm.qmp.events)
    answer = vm.qmp.run("hybrid-set-mode", {"mode": "kvm", "for-ms": 1500})
    back = switch_to(vm, "tcg", since)
    assert (back["cause"], back["rule"]) == ("rule", "audit")
    assert back["at-us"] - answer["at-us"] >= 1_500_000 - 50_000
    assert "override" not in state(vm)["policy"]


def test_lock(vm):
    use(vm, rule("audit"), lock="kvm")
    vm.qmp.run("hybrid-begin", {"rule": "audit"})
    assert why(vm)[0] == "kvm"
    assert refused(vm, "hybrid-set-mode", {"mode": "tcg"}) == "policy locks mode 'kvm'; force is needed"
    vm.qmp.run("hybrid-set-mode", {"mode": "tcg", "force": True})
    assert why(vm) == ("tcg", "operator", None)
    vm.qmp.run("hybrid-release")
    assert why(vm) == ("kvm", "lock", None)


def test_replace(vm):
    """What is active stays so under a policy that has the rule too; the same policy again is no change."""
    first = use(vm, rule("audit"), rule("gone"))
    assert vm.qmp.run("hybrid-set-policy", {"policy": first}) == {"changed": False}
    vm.qmp.run("hybrid-begin", {"rule": "audit"})
    vm.qmp.run("hybrid-begin", {"rule": "gone"})
    second = policy(rule("new"), rule("audit"))
    assert vm.qmp.run("hybrid-set-policy", {"policy": second}) == {"changed": True}
    info = state(vm)["policy"]
    assert info["hash"] == second["hash"]
    assert [(one["name"], one["active"]) for one in info["rules"]] == [("new", False), ("audit", True)]
    assert why(vm)[0] == "tcg"
    vm.qmp.run("hybrid-set-mode", {"mode": "kvm"})
    use(vm, rule("audit"), mark="third")
    assert state(vm)["policy"]["override"]["mode"] == "kvm"
    vm.qmp.run("hybrid-release")
    assert why(vm) == ("tcg", "rule", "audit")
    use(vm, mark="none left")
    assert why(vm) == ("kvm", "rest", None)


def test_resting_mode(vm):
    use(vm, rest="tcg")
    assert why(vm) == ("tcg", "rest", None)
    use(vm, rest="kvm")
    assert why(vm) == ("kvm", "rest", None)


def test_limit_of_switches(vm):
    """Rules that come and go take the guest to tcg, and then no more out of it until the time is over."""
    use(vm, rule("flap"), switches=2, per_ms=5000)
    since = len(vm.qmp.events)
    for _ in range(2):
        vm.qmp.run("hybrid-begin", {"rule": "flap"})
        vm.qmp.run("hybrid-end", {"rule": "flap"})
        assert why(vm) == ("kvm", "rest", None)
    vm.qmp.run("hybrid-begin", {"rule": "flap"})
    vm.qmp.run("hybrid-end", {"rule": "flap"})
    assert why(vm) == ("tcg", "rule", "flap")
    info = state(vm)["policy"]
    assert (info["limited"], info["wanted"], info["cause"]) == (True, "tcg", "rest")
    told = vm.qmp.wait_event("HYBRID_POLICY", since, SOON)["data"]
    assert told == {"what": "limited", "wanted": "kvm"}
    switches = [event["data"] for event in vm.qmp.events[since:] if event["event"] == "HYBRID_SWITCH"]
    back = switch_to(vm, "kvm", len(vm.qmp.events))
    assert back["cause"] == "rest"
    first = next(one for one in switches if one["after"] == "kvm")
    assert back["at-us"] - first["at-us"] >= 5_000_000 - 50_000
    # An operator is not limited.
    vm.set_mode("tcg")
    vm.set_mode("kvm")


def test_switch_that_fails(vm):
    """It is said once, and tried again until it succeeds."""
    use(vm, rule("audit"))
    since = len(vm.qmp.events)
    vm.qmp.run("qom-set", {"path": "/machine", "property": "x-hybrid-fail", "value": "convert"})
    vm.qmp.run("hybrid-begin", {"rule": "audit"})
    told = vm.qmp.wait_event("HYBRID_POLICY", since, SOON)["data"]
    assert (told["what"], told["wanted"], told["rule"]) == ("failed", "tcg", "audit")
    assert "failed in phase 'convert'" in told["error"]
    assert switch_to(vm, "tcg", since)["rule"] == "audit"
    assert "error" not in state(vm)["policy"]


def test_reset_keeps_what_is_active(vm, machine):
    use(vm, rule("audit"))
    vm.qmp.run("hybrid-begin", {"rule": "audit"})
    lines = len(vm.console.lines)
    vm.qmp.run("set-action", {"reboot": "reset", "shutdown": "pause"})
    vm.qmp.run("system_reset")
    vm.wait_line("^READY", 90, since=lines)
    assert why(vm) == ("tcg", "rule", "audit")


def test_guest_does_not_notice(machine):
    """The guest's own tests, with every switch made by a rule."""
    vm = machine.running()
    use(vm, rule("audit"))
    before = state(vm)["switches"]
    begun = False

    def flip(vm: Vm, _point: int, _name: str) -> None:
        nonlocal begun
        vm.qmp.run("hybrid-end" if begun else "hybrid-begin", {"rule": "audit"})
        begun = not begun

    for test, arg in (("x87", 3), ("smc", 0), ("irr-pending", 0), ("ap-halted", 0)):
        assert machine.order(test, arg, 0, at=flip) == [], test
    after = state(vm)["switches"]
    assert after["kvm-to-tcg"] > before["kvm-to-tcg"]
    assert after["failed"] == before["failed"]
    vm.qmp.run("hybrid-set-policy")
    vm.set_mode("kvm")


def test_without_a_policy(vm):
    assert "policy" not in state(vm)
    for command, arguments in (
        ("hybrid-begin", {"rule": "x"}), ("hybrid-end", {"rule": "x"}), ("hybrid-alert", {"name": "x"}), ("hybrid-release", None),
        ("hybrid-set-mode", {"mode": "tcg", "for-ms": 1000}), ("hybrid-set-mode", {"mode": "tcg", "force": True}),
    ):  # fmt: skip
        assert refused(vm, command, arguments) == "there is no policy"
    assert vm.qmp.run("hybrid-set-policy") == {"changed": False}
    assert state(vm)["mode"] == "kvm"


BAD = (
    ("schema", 2, "schema: 2 is not between 1 and 1"),
    ("switches", 0, "switches: 0 is not between 1 and 1000"),
    ("per-ms", 0, "per-ms: 0 is not between 1 and 86400000"),
    ("hash", "x" * 129, "hash: longer than 128 bytes"),
    ("rules.name", "No", "rules[1].name: 'No' is not a name (1 to 48 of a-z 0-9 -, beginning with a letter or digit)"),
    ("rules.name", "good", "rules[1].name: 'good' is the name of another rule"),
    ("rules.priority", 1001, "rules[1].priority: 1001 is not between 0 and 1000"),
    ("rules.max-ms", 0, "rules[1].max-ms: 0 is not between 1 and 2592000000"),
    ("rules.min-ms", HOUR_MS + 1, "rules[1].min-ms: 3600001 is not between 0 and 3600000"),
    ("rules.events", ["NO_SUCH"], "rules[1].events: 'NO_SUCH' is not an event that can trigger a rule"),
    ("rules.events", ["HYBRID_SWITCH"], "rules[1].events: 'HYBRID_SWITCH' is not an event that can trigger a rule"),
    ("rules.alerts", [""], "rules[1].alerts: '' is not a name (1 to 48 of a-z 0-9 -, beginning with a letter or digit)"),
)


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=[f"{key}-{number}" for number, (key, *_) in enumerate(BAD)])
def test_policies_that_are_refused(vm, key, value, message):
    """The policy in force stays in force."""
    good = use(vm, rule("good"), rest="tcg")
    bad = copy.deepcopy(policy(rule("good"), rule("bad"), mark="bad"))
    place = bad["rules"][1] if key.startswith("rules.") else bad
    place[key.removeprefix("rules.")] = value
    assert refused(vm, "hybrid-set-policy", {"policy": bad}) == message
    assert state(vm)["policy"]["hash"] == good["hash"]
    assert why(vm) == ("tcg", "rest", None)


def test_too_many_rules(vm):
    many = policy(*(rule(f"r{number}") for number in range(65)))
    assert refused(vm, "hybrid-set-policy", {"policy": many}) == "rules: more than 64"
    use(vm, *(rule(f"r{number}") for number in range(64)))
    vm.qmp.run("hybrid-begin", {"rule": "r63"})
    assert why(vm) == ("tcg", "rule", "r63")
    assert refused(vm, "hybrid-begin", {"rule": "r64"}).startswith("the policy has no rule 'r64'; it has: r0, r1, ")


@pytest.fixture
def policy_file(machine, tmp_path) -> Callable[[str], str]:
    """Put a policy file on the host, answer its path there."""

    def put(text: str) -> str:
        path = tmp_path / "policy.json"
        path.write_text(text)
        return str(machine.host.push(path, path.name))

    return put


def test_policy_file(machine, policy_file):
    """It decides in which mode the guest starts, and its rules work."""
    chosen = policy(rule("fast", mode="kvm"), rest="tcg")
    vm = machine.process(f"{ACCEL},policy-file={policy_file(json.dumps(chosen))}")
    try:
        info = state(vm)
        assert (info["mode"], info["start"], info["cause"], info["policy"]["hash"]) == ("tcg", "tcg", "start", chosen["hash"])
        vm.wait_line("^READY", 90)
        vm.qmp.run("hybrid-begin", {"rule": "fast"})
        assert why(vm) == ("kvm", "rule", "fast")
    finally:
        vm.kill()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting a JSON value"),
        ("{", "JSON parse error"),
        ("[]", "Invalid parameter type"),
        ("{}", "Parameter 'schema' is missing"),
        (json.dumps(policy(switches=0)), "switches: 0 is not between 1 and 1000"),
        (json.dumps({**policy(), "more": 1}), "Parameter 'more' is unexpected"),
    ],
    ids=["empty", "not JSON", "list", "no keys", "bad value", "unknown key"],
)
def test_policy_file_that_is_not_one(host, binary, policy_file, text, message):
    path = policy_file(text)
    said = refused_at_start(host, binary, ["-accel", f"{ACCEL},policy-file={path}", "-machine", MACHINE])
    assert f"policy-file {path}: " in said
    assert message in said


def test_no_policy_file(host, binary):
    said = refused_at_start(host, binary, ["-accel", f"{ACCEL},policy-file=/nowhere/policy.json", "-machine", MACHINE])
    assert "policy-file: Failed to open file" in said
    assert "/nowhere/policy.json" in said
