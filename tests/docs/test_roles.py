# SPDX-License-Identifier: GPL-3.0-or-later
"""defaults/main.yml and meta/argument_specs.yml of every role say the same."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from documents import ROOT, text

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict, "path": str}


def defaults(role: str) -> dict[str, Any]:
    return yaml.safe_load(text(f"roles/{role}/defaults/main.yml")) or {}


def entries(role: str) -> dict[str, dict[str, Any]]:
    """Options by entry point."""
    specs = yaml.safe_load(text(f"roles/{role}/meta/argument_specs.yml"))["argument_specs"]
    return {entry: spec.get("options") or {} for entry, spec in specs.items()}


@pytest.mark.parametrize("role", ROLES)
def test_same_variables(role: str) -> None:
    specified = {name: option for options in entries(role).values() for name, option in options.items()}
    assert set(defaults(role)) - set(specified) == set(), "in defaults, not in argument_specs"
    only_specified = {name for name in set(specified) - set(defaults(role)) if not specified[name].get("required")}
    assert only_specified == set(), "in argument_specs, not in defaults, and not required"


@pytest.mark.parametrize("role", ROLES)
def test_same_defaults(role: str) -> None:
    known = defaults(role)
    for entry, options in entries(role).items():
        for name, option in options.items():
            where = f"{role}, entry {entry}: {name}"
            if name not in known:
                continue
            value = known[name]
            if isinstance(value, str) and "{{" in value:
                assert "default" not in option, f"{where}: its default is a template, which argument_specs cannot say"
                continue
            assert "default" in option, f"{where}: argument_specs has no default, defaults has {value!r}"
            assert option["default"] == value, where
            assert isinstance(value, TYPES[option["type"]]), where
            assert isinstance(value, bool) is (option["type"] == "bool"), where


@pytest.mark.parametrize("role", ROLES)
def test_names_and_descriptions(role: str) -> None:
    for entry, options in entries(role).items():
        for name, option in options.items():
            assert name.startswith(f"{role}_"), f"{entry}: {name}"
            assert option.get("description"), f"{entry}: {name}"
            assert option.get("type") in TYPES, f"{entry}: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_private_variables_look_private(role: str) -> None:
    path = ROOT / "roles" / role / "vars" / "main.yml"
    for name in yaml.safe_load(path.read_text()) if path.exists() else ():
        assert name.startswith(f"__{role}_"), name


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_a_comment_with_an_example(role: str) -> None:
    """The comment is above the variable, or above the first of a few that belong together."""
    for paragraph in text(f"roles/{role}/defaults/main.yml").split("\n\n"):
        variables = [line.partition(":")[0] for line in paragraph.splitlines() if line.startswith(f"{role}_")]
        if variables:
            assert "# Example" in paragraph, f"no example of {', '.join(variables)}"


@pytest.mark.parametrize("role", ROLES)
def test_readme_leads_to_the_variables(role: str) -> None:
    assert "defaults/main.yml" in text(f"roles/{role}/README.md")
