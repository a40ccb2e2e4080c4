# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides in which mode a VM is: cases that people can check, and the same function in C for these and generated ones.

The C side is the file that the QEMU series adds, compiled alone, with sanitizers.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hybrid_vmm.decision import NO_END, NO_TIME, Decision, Override, RuleState, State, begin, decide, end
from tests.series import added_file

NOW = 100_000
CAUSES = ("lock", "override", "rule", "rest")


def rule(mode: str = "tcg", priority: int = 100, until: int = NOW + 1000) -> RuleState:
    return RuleState(mode, priority, 500, 5000, since_ms=NOW - 200, until_ms=until)


KVM = State(mode="kvm", rest="kvm", per_ms=60_000)
TCG = replace(KVM, mode="tcg")
OVER = rule(until=NOW)
FULL = {"switches": 2, "recent": (NOW - 5000, NOW - 4000)}

CASES = {
    "rest": (KVM, Decision("kvm", "rest", None, False, NO_TIME)),
    "rest in tcg": (replace(KVM, rest="tcg"), Decision("tcg", "rest", None, False, NO_TIME)),
    "active rule": (replace(KVM, rules=(rule(),)), Decision("tcg", "rule", 0, False, NOW + 1000)),
    "rule that is over": (replace(TCG, rules=(OVER,)), Decision("kvm", "rest", None, False, NO_TIME)),
    "higher priority": (replace(KVM, rules=(rule(), rule("kvm", 101))), Decision("kvm", "rule", 1, False, NOW + 1000)),
    "tcg goes first": (replace(KVM, rules=(rule("kvm"), rule())), Decision("tcg", "rule", 1, False, NOW + 1000)),
    "the first goes first": (replace(KVM, rules=(OVER, rule(), rule())), Decision("tcg", "rule", 1, False, NOW + 1000)),
    "next is the first to end": (
        replace(KVM, rules=(rule(until=NOW + 900), rule(until=NOW + 300))), Decision("tcg", "rule", 0, False, NOW + 300),
    ),
    "override": (replace(KVM, rules=(rule(),), override=Override("kvm")), Decision("kvm", "override", None, False, NOW + 1000)),
    "override with an end": (replace(KVM, override=Override("tcg", NOW + 7)), Decision("tcg", "override", None, False, NOW + 7)),
    "override that is over": (replace(KVM, override=Override("tcg", NOW)), Decision("kvm", "rest", None, False, NO_TIME)),
    "lock": (replace(KVM, lock="kvm", rules=(rule(),), override=Override("tcg")), Decision("kvm", "lock", None, False, NOW + 1000)),
    "forced override": (replace(KVM, lock="kvm", override=Override("tcg", forced=True)), Decision("tcg", "override", None, False, NO_TIME)),
    "limit": (replace(TCG, **FULL), Decision("tcg", "rest", None, True, NOW + 55_000)),
    "limit of a rule": (replace(TCG, rules=(rule("kvm"),), **FULL), Decision("tcg", "rule", 0, True, NOW + 1000)),
    "limit not reached": (replace(TCG, **{**FULL, "switches": 3}), Decision("kvm", "rest", None, False, NO_TIME)),
    "limit that is over": (
        replace(TCG, switches=2, recent=(NOW - 60_000, NOW - 1)), Decision("kvm", "rest", None, False, NO_TIME),
    ),
    "no limit into tcg": (replace(KVM, rules=(rule(),), **FULL), Decision("tcg", "rule", 0, False, NOW + 1000)),
    "no limit in kvm": (replace(KVM, **FULL), Decision("kvm", "rest", None, False, NO_TIME)),
    "no limit of operators": (replace(TCG, override=Override("kvm"), **FULL), Decision("kvm", "override", None, False, NO_TIME)),
    "no limit of locks": (replace(TCG, lock="kvm", **FULL), Decision("kvm", "lock", None, False, NO_TIME)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_decide(name: str) -> None:
    state, expected = CASES[name]
    assert decide(state, NOW) == expected


def test_begin_and_end() -> None:
    fresh = RuleState("tcg", 100, 500, 5000)
    begun = begin(fresh, NOW)
    assert (begun.since_ms, begun.until_ms) == (NOW, NOW + 5000)
    again = begin(begun, NOW + 100)
    assert (again.since_ms, again.until_ms) == (NOW, NOW + 5100)
    assert end(begun, NOW + 100).until_ms == NOW + 500
    assert end(begun, NOW + 600).until_ms == NOW + 600
    assert end(end(begun, NOW + 100), NOW + 200).until_ms == NOW + 500
    assert end(begun, NOW + 5000) == begun
    assert end(fresh, NOW) == fresh


def generated(source: random.Random) -> State:
    """A state in which limits, ends and priorities meet often."""

    def time() -> int:
        return NOW + source.choice((-70_000, -2000, -1, 0, 1, 500, 2000)) + source.randint(-3, 3)

    def mode() -> str:
        return source.choice(("kvm", "tcg"))

    rules = []
    for _ in range(source.randint(0, 4)):
        least = source.choice((0, 500, 3000))
        rules.append(RuleState(mode(), source.choice((0, 100, 101)), least, least + source.choice((0, 1, 5000)), time(), source.choice((0, time()))))
    override = Override(mode(), source.choice((NO_END, time())), source.random() < 0.5) if source.random() < 0.3 else None
    lock = source.choice(("none", "none", "kvm", "tcg"))
    recent = tuple(sorted(time() for _ in range(source.randint(0, 5))))
    return State(mode(), mode(), lock, override, tuple(rules), source.randint(1, 4), source.choice((1000, 60_000)), recent)


def line(state: State, act: int) -> str:
    """A state as decision-twin.c reads it."""
    override = state.override or Override("kvm")
    numbers: list[int] = [NOW, state.mode == "tcg", state.rest == "tcg", state.lock != "none", state.lock == "tcg"]
    numbers += [state.override is not None, override.mode == "tcg", override.forced, override.until_ms, state.switches, state.per_ms]
    numbers.append(len(state.rules))
    for one in state.rules:
        numbers += [one.mode == "tcg", one.priority, one.min_ms, one.max_ms, one.since_ms, one.until_ms]
    return " ".join(str(int(number)) for number in [*numbers, len(state.recent), *state.recent, act])


def expected(state: State, act: int, number: int) -> str:
    """What decision-twin.c shall print."""
    answer = decide(state, NOW)
    index = -1 if answer.rule is None else answer.rule
    numbers: list[int] = [answer.mode == "tcg", CAUSES.index(answer.cause), index, answer.limited, answer.next_ms]
    if act >= 0:
        old = state.rules[act]
        new = end(old, NOW) if number % 2 else begin(old, NOW)
        numbers += [new != old if number % 2 else not old.active(NOW), new.since_ms, new.until_ms]
    return " ".join(str(int(one)) for one in numbers)


def test_the_same_in_c(tmp_path: Path) -> None:
    for name in ("hybrid-decision.c", "hybrid-decision.h"):
        (tmp_path / name).write_text(added_file(f"accel/hybrid/{name}"), encoding="utf-8")
    program = tmp_path / "twin"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover", f"-I{tmp_path}"]
    sources = [str(Path(__file__).with_name("decision-twin.c")), str(tmp_path / "hybrid-decision.c")]
    subprocess.run(["gcc", *flags, "-o", str(program), *sources], check=True, timeout=120)

    source = random.Random(4711)
    states = [state for state, _ in CASES.values()] + [generated(source) for _ in range(20_000)]
    acts = [source.randrange(len(state.rules)) if state.rules else -1 for state in states]
    text = "\n".join([str(len(states)), *(line(state, act) for state, act in zip(states, acts))])
    done = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.splitlines()
    assert len(answers) == len(states)
    for number, (state, act, answer) in enumerate(zip(states, acts, answers)):
        assert answer == expected(state, act, number), f"{state}, act {act}, case {number}"
    assert len({answer.split()[1] for answer in answers}) == len(CAUSES), "generated states reach every cause"
