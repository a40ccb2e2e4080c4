# SPDX-License-Identifier: GPL-3.0-or-later
"""Make targets that documents name exist, and each target says what it is."""

from __future__ import annotations

import re
import subprocess

import pytest
from documents import ROOT, documents, text, tracked

RULE = re.compile(r"^([a-z][a-z0-9-]*):(?:[^=#]*)(?:## (.*))?$", re.MULTILINE)
# `make lab LAB=1`, make build qemu-test: words up to the first that is no target's name
COMMAND = re.compile(r"(?:`|^|\$ |&& )make((?: [a-z][a-z0-9-]*)+)", re.MULTILINE)


def targets() -> dict[str, str]:
    return {name: said or "" for name, said in RULE.findall(text("Makefile"))}


@pytest.mark.parametrize("name", documents())
def test_targets_in_documents_exist(name: str) -> None:
    used = {word for words in COMMAND.findall(text(name)) for word in words.split()}
    assert used <= set(targets()), f"{name} names {sorted(used - set(targets()))}"


def test_phony_and_described() -> None:
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", text("Makefile"), re.MULTILINE)
    assert phony
    assert set(phony[1].replace("\\", " ").split()) == set(targets())
    assert [name for name, said in targets().items() if not said] == []


def test_what_targets_call_exists() -> None:
    for tool in re.findall(r"^\t@?(tools/\S+)", text("Makefile"), re.MULTILINE):
        assert tool in tracked(), tool
        assert (ROOT / tool).stat().st_mode & 0o111, f"{tool} cannot be executed"


def test_order_of_make_test() -> None:
    """The README's test command runs what the documents say it runs."""
    found = re.search(r"^test:.*\n\ttools/stages (.*)$", text("Makefile"), re.MULTILINE)
    assert found
    assert set(found[1].split()) <= set(targets())
    ladder = set(re.findall(r"^\| `make ([a-z-]+)`", text("CONTRIBUTING.md"), re.MULTILINE))
    assert ladder == {*found[1].split(), "patches-build", "stock-tests", "mutations", "test"}


@pytest.mark.parametrize("target", ["build", "bench", "mutations", "stock-tests", "qemu-test", "demo", "soak"])
def test_arguments_are_those_of_the_target(target: str) -> None:
    """ARGS does not reach what the target needs."""
    done = subprocess.run(["make", "-n", target, "ARGS=--marker"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len([line for line in done.stdout.splitlines() if "--marker" in line]) == 1


def test_minutes_and_seed_of_a_soak() -> None:
    done = subprocess.run(["make", "-n", "soak", "MINUTES=90", "SEED=1"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["python", "tests/soak/soak.py", "--minutes", "90", "--seed", "1"]
