# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-doc describes every module, filter and role, and what it says is what the code takes."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from documents import ROOT, tracked

LIBRARIES = [ROOT / "library", *sorted(ROOT.glob("roles/*/library"))]
MODULES = {Path(name).stem: ROOT / name for name in tracked() if name.endswith(".py") and (ROOT / name).parent in LIBRARIES}
FILTER_FILES = sorted(Path(name).name for name in tracked() if name.startswith("filter_plugins/") and name.endswith(".py"))
SIDECARS = sorted(Path(name).stem for name in tracked() if name.startswith("filter_plugins/") and name.endswith(".yml"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
COMPARED = ("type", "choices", "default", "elements")


class SpecFound(Exception):
    """Carries what a module hands to AnsibleModule."""


def ansible_doc(*words: str) -> dict[str, Any]:
    """Run ansible-doc with the repository's settings."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(["ansible-doc", "--json", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@functools.cache
def module_docs() -> dict[str, Any]:
    return ansible_doc("-t", "module", "-M", ":".join(map(str, LIBRARIES)), *MODULES)


@functools.cache
def filter_docs() -> dict[str, Any]:
    return ansible_doc("-t", "filter", *SIDECARS)


def load(path: Path) -> ModuleType:
    """Import a file under a name of its own, with the repository's module_utils in place."""
    for folder in (ROOT / "module_utils", *sorted(ROOT.glob("roles/*/module_utils"))):
        if str(folder) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(folder))
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def arguments_of(name: str) -> dict[str, Any]:
    """What a module hands to AnsibleModule."""
    loaded = load(MODULES[name])

    def stop(**arguments: Any) -> None:
        raise SpecFound(arguments)

    loaded.AnsibleModule = stop  # type: ignore[attr-defined]
    with pytest.raises(SpecFound) as found:
        loaded.main()
    arguments: dict[str, Any] = found.value.args[0]
    return arguments


def compare(documented: dict[str, Any], spec: dict[str, Any], where: str) -> None:
    """Options as documented and as taken, at every depth."""
    assert set(documented) == set(spec), where
    for name, option in spec.items():
        doc = documented[name]
        said = {"type": "str", **{key: doc[key] for key in COMPARED if doc.get(key) is not None}}
        taken = {"type": "str", **{key: option[key] for key in COMPARED if option.get(key) is not None}}
        assert said == taken, f"{where}: {name}"
        assert bool(doc.get("required")) is bool(option.get("required")), f"{where}: {name}"
        assert doc.get("description"), f"{where}: {name}"
        if option.get("options") or doc.get("suboptions"):
            compare(doc.get("suboptions") or {}, option.get("options") or {}, f"{where}: {name}")


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    found = module_docs()[name]
    assert found["doc"]["short_description"]
    assert found["return"], "RETURN is empty"
    arguments = arguments_of(name)
    compare(found["doc"].get("options") or {}, arguments["argument_spec"], name)
    if MODULES[name].parent == ROOT / "library":
        assert found["examples"], "EXAMPLES is empty"
        support = found["doc"]["attributes"]["check_mode"]["support"]
        assert (support in ("full", "partial")) is bool(arguments.get("supports_check_mode")), "check_mode"


def test_every_filter_has_its_document() -> None:
    code: dict[str, Any] = {}
    for name in FILTER_FILES:
        code.update(load(ROOT / "filter_plugins" / name).FilterModule().filters())
    assert sorted(code) == SIDECARS
    for name, function in code.items():
        options = filter_docs()[name]["doc"]["options"]
        parameters = list(inspect.signature(function).parameters.values())
        assert {"_input", *(parameter.name for parameter in parameters[1:])} == set(options), name
        for parameter in parameters[1:]:
            required = parameter.default is inspect.Parameter.empty
            assert bool(options[parameter.name].get("required")) is required, f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", SIDECARS)
def test_filter(name: str) -> None:
    found = filter_docs()[name]
    assert found["doc"]["short_description"]
    assert found["examples"]
    assert found["return"]["_value"]["description"]


def test_roles() -> None:
    found = ansible_doc("-t", "role", *ROLES)
    assert sorted(found) == ROLES
    for name, role in found.items():
        for entry, doc in role["entry_points"].items():
            assert doc["short_description"], f"{name}: {entry}"
