# SPDX-License-Identifier: GPL-3.0-or-later
"""What documents say of QMP, blockers, definitions and variables is what the code has."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import fields
from typing import Any

import pytest
import yaml
from documents import ROOT, added, code, documents, rows, section, spans, text, tracked

from tests.series import added_file

sys.path.insert(0, str(ROOT / "module_utils"))

from hybrid_vmm import definition, errors

ARCHITECTURE = "docs/architecture.md"
OPERATIONS = "docs/operations.md"
ENVIRONMENT = re.compile(r"\bHYBRID_(?:TEST_[A-Z]+|FULL|STOCK|QEMU|LAB_QEMU)\b")
CHOICES = {
    "machine": definition.MACHINES,
    "accel": definition.ACCELERATORS,
    "irqchip": definition.IRQCHIPS,
    "start_mode": definition.MODES,
}


def schema() -> dict[str, dict[str, Any]]:
    """The series' QAPI schema by name."""
    source = re.sub(r"#.*", "", added_file("qapi/hybrid.json"))
    found = {}
    for block in re.findall(r"^\{.*?\}\s*$(?=\s*(?:^\{|\Z))", source, re.DOTALL | re.MULTILINE):
        item = ast.literal_eval(block.replace(": true", ": True"))
        kind = next(iter(item))
        found[item[kind]] = item
    return found


def members(name: str) -> set[str]:
    """Names of the members of a struct, its base included."""
    item = schema()[name]
    own = {key.lstrip("*") for key in item.get("data", {})}
    return own | (members(item["base"]) if "base" in item else set())


def test_the_schema_was_read() -> None:
    assert {"hybrid-set-mode", "query-hybrid", "HYBRID_SWITCH"} <= set(schema())


def test_commands_and_events() -> None:
    names = {name for name, item in schema().items() if {"command", "event"} & set(item)}
    documented = {code(row[0])[0]: row for row in rows(section(ARCHITECTURE, "QMP interface"))}
    assert set(documented) == names
    answer = set(code(documented["hybrid-set-mode"][1]))
    assert answer == members("HybridSetModeResult") | {key.lstrip("*") for key in schema()["hybrid-set-mode"]["data"]}
    assert set(code(documented["query-hybrid"][1])) == members("HybridInfo")
    assert set(code(documented["HYBRID_SWITCH"][1])) == members("HybridSwitch")
    prose = section(ARCHITECTURE, "QMP interface")
    for name in members("HybridSwitchCounts") | members("HybridTimes"):
        assert f"`{name}`" in prose, name


def test_phases_in_order() -> None:
    table = [code(row[0])[0] for row in rows(section(ARCHITECTURE, "A switch"))]
    assert table == schema()["HybridPhaseName"]["data"]
    listed = re.search(r"^\| phase \| a part of a switch: (.*) \|$", text(ARCHITECTURE), re.MULTILINE)
    assert listed
    assert listed[1].split(", ") == schema()["HybridPhaseName"]["data"]


def test_causes_and_modes() -> None:
    words = {row[0]: row[1] for row in rows(section(ARCHITECTURE, "Words"))}
    assert code(words["cause"]) == schema()["HybridCause"]["data"]
    assert code(words["mode"]) == schema()["HybridMode"]["data"]


@pytest.mark.parametrize("name", documents())
def test_hybrid_words_are_known(name: str) -> None:
    """Anything in a document that looks like one of our QMP names is one."""
    for word in re.findall(r"\b(?:hybrid-set-\w+|query-hybrid\w*|HYBRID_[A-Z]+(?:_[A-Z]+)*)\b", text(name)):
        assert word in schema() or word == "HYBRID_VMM_CACHE" or ENVIRONMENT.fullmatch(word), f"{name}: {word}"


def test_environment_of_tests() -> None:
    harness = "".join(text(name) for name in tracked() if name.startswith("tests/qemu/"))
    for word in ENVIRONMENT.findall(text("CONTRIBUTING.md")):
        assert f'"{word}"' in harness, word


def test_hmp_and_trace_points() -> None:
    commands = added()["hmp-commands.hx"] + added()["hmp-commands-info.hx"]
    for command in ("hybrid_set_mode", "hybrid"):
        assert re.search(rf'\.name\s+= "{command}"', commands), command
    tables = "".join(body for path, body in added().items() if path.endswith("trace-events"))
    points = set(re.findall(r"^(hybrid_\w+)\(", tables, re.MULTILINE))
    for name in (ARCHITECTURE, "CONTRIBUTING.md"):
        assert points <= set(spans(name)), f"{name} lacks {sorted(points - set(spans(name)))}"


def blockers_in_code() -> set[str]:
    """Names of all blockers that the series knows."""
    found = set()
    for path, body in added().items():
        if path.endswith(".c"):
            found |= set(re.findall(r'\bwhat = "([a-z-]+)"', body))
            found |= set(re.findall(r'add_blocker\(&?\w+, "([a-z-]+)"', body))
            found |= set(re.findall(r'name = g_strdup\("([a-z-]+)"\)', body))
            found |= set(re.findall(r"blocked by '([a-z-]+)'", body))
    return found


def test_blockers() -> None:
    table = rows(section(ARCHITECTURE, "Blockers"))
    assert {code(row[0])[0] for row in table} == blockers_in_code()
    for row in table:
        for path in code(row[2]):
            assert f'"{code(row[0])[0]}"' in added()[path] or f"'{code(row[0])[0]}'" in added()[path], row


def test_definition_keys() -> None:
    table = {code(row[0])[0]: row[1:] for row in rows(section(ARCHITECTURE, "VM definition"))}
    known = {field.name: field for field in fields(definition.Vm)}
    assert set(table) == {*known, "schema"}
    for name, (default, allowed) in table.items():
        if name in ("schema", "name", "uuid", "expected_mode"):
            continue
        value = known[name].default
        said = code(default)[0] if code(default) else default
        assert said == ("none" if value in (None, ()) else str(value)), name
        if name in CHOICES:
            assert tuple(code(allowed)) == CHOICES[name], name
    for name, kind in (("disks", definition.Disk), ("networks", definition.Network)):
        assert {field.name for field in fields(kind)} <= set(code(table[name][1])), name
    assert str(definition.MAX_DISKS) in table["disks"][1]
    assert str(definition.MAX_NETWORKS) in table["networks"][1]


def test_cpu_models() -> None:
    """Each recommended CPU is a definition's, and its model is in the series or QEMU's own `max`."""
    recommended = [code(row[1])[0] for row in rows(section(OPERATIONS, "CPU models"))]
    ours = set(re.findall(r'\.name = "(hybrid-[^"]+)"', added()["target/i386/cpu.c"]))
    assert {definition.parse({"schema": 1, "name": "a", "cpu": cpu}).cpu.split(",")[0] for cpu in recommended} == ours | {"max"}


def sources() -> str:
    """Where messages are written, in one line, string literals joined, every placeholder as three dots."""
    suffixes = (".py", ".yml")
    folders = ("library/", "module_utils/", "roles/", "playbooks/", "lab/")
    ours = "\n".join(text(name) for name in tracked() if name.startswith(folders) and name.endswith(suffixes))
    body = re.sub(r"\{\{.*?\}\}|\{[^{}]*\}", "...", ours)
    body += "\n".join(lines for path, lines in added().items() if path.endswith(".c"))
    body = re.sub(r'"\s*\n\s*f?"', "", body)
    body = re.sub(r"%s|%d", "...", body)
    return re.sub(r"\s+", " ", body)


def test_messages_are_those_of_the_code() -> None:
    body = sources()
    missing = []
    for row in rows(section(OPERATIONS, "Reading errors")):
        for message in re.findall(r'"([^"]+)"', " ".join(row)):
            pieces = [piece.strip(" '") for piece in message.split("...")]
            missing += [f"{message}: '{piece}'" for piece in pieces if len(piece) > 3 and piece not in body]
    assert missing == []


def test_every_error_code_is_explained() -> None:
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HybridError)}
    for name in tracked():
        if name.startswith("module_utils/") and name.endswith(".py"):
            codes |= set(re.findall(r'^    code = "([a-z-]+)"$', text(name), re.MULTILINE))
    said = {found for row in rows(section(OPERATIONS, "Reading errors")) for found in code(row[0]) if len(row) == 4}
    assert said | {"error", "vm"} == codes


def test_fleet_variables() -> None:
    """Variables of fleet_mode.yml: its own comment and the table."""
    commented = dict(re.findall(r"^# (fleet_\w+) +(.*)$", text("playbooks/fleet_mode.yml"), re.MULTILINE))
    table = {code(row[0])[0]: row for row in rows(section(OPERATIONS, "Fleet mode changes"))}
    assert set(table) == set(commented)


@pytest.mark.parametrize("name", documents())
def test_role_variables_exist(name: str) -> None:
    known: set[str] = set()
    for path in tracked():
        if re.fullmatch(r"roles/\w+/(defaults|vars)/main.yml", path):
            known |= set(yaml.safe_load(text(path)))
        if path.endswith("meta/argument_specs.yml"):
            for entry in yaml.safe_load(text(path))["argument_specs"].values():
                known |= set(entry.get("options") or {})
    modules = {path.rsplit("/", 1)[-1].removesuffix(".py") for path in tracked() if "/library/" in f"/{path}"}
    roles = {path.split("/")[1] for path in tracked() if path.startswith("roles/")}
    facts = {"hybrid_vm_result", "hybrid_vm_plan", "hybrid_qemu_build_artifact"}
    for word in re.findall(r"(?<![\w/.-])(?:__)?hybrid_(?:vm|host|qemu_build|qemu_install)_\w+", text(name)):
        filters = {path.rsplit("/", 1)[-1].removesuffix(".yml") for path in tracked() if path.startswith("filter_plugins/")}
        assert word in known | modules | roles | filters | facts, f"{name}: {word}"
