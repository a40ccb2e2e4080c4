# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules and filters as Ansible runs them, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible.module_utils.hybrid_vmm import argspec as argspec_of_modules
from conftest import ROOT, Host


@pytest.fixture(autouse=True)
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible with the repository's paths, whoever calls us (molecule sets its own configuration)."""
    config = tmp_path / "ansible.cfg"
    config.write_text(
        f"""[defaults]
library = {ROOT}/library
module_utils = {ROOT}/module_utils
filter_plugins = {ROOT}/filter_plugins
doc_fragment_plugins = {ROOT}/doc_fragments
stdout_callback = ansible.builtin.default
interpreter_python = {sys.executable}
local_tmp = {tmp_path}/local
remote_tmp = {tmp_path}/remote
"""
    )
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ANSIBLE_CONFIG", str(config))
    monkeypatch.setenv("ANSIBLE_NOCOLOR", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def ansible(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs from the environment that runs the tests."""
    program = str(Path(sys.executable).parent / words[0])
    return subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=300, check=False)


def run_module(host: Optional[Host], name: str, args: dict[str, Any], *flags: str) -> dict[str, Any]:
    """Run a module on localhost and return its result."""
    if host is not None:
        args = {"config_dir": host.paths.config_dir, "run_dir": host.paths.run_dir, **args}
    done = ansible("ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", name, "-a", json.dumps(args), *flags)
    head, arrow, text = done.stdout.partition("=> ")
    assert arrow, done.stdout + done.stderr
    result, _end = json.JSONDecoder().raw_decode(text)
    assert isinstance(result, dict)
    # Ansible takes this key away before it shows a result.
    return {**result, "failed": "FAILED!" in head}


WRONG_OPTIONS = [
    ("hybrid_vm_mode", {"mode": "kvm"}, "missing required arguments: name"),
    ("hybrid_vm_mode", {"name": "web1"}, "state is present but all of the following are missing: mode"),
    (
        "hybrid_vm_mode",
        {"name": "web1", "mode": "kvm", "for": "1 week"},
        "for: '1 week' is not a duration (a whole number with ms, s, m, h or d, such as '10m')",
    ),
    ("hybrid_vm_mode", {"name": "all", "state": "absent"}, "state 'absent' takes names of VMs, and neither mode, for nor force"),
    ("hybrid_vm_policy", {"name": "web1"}, "state is present but all of the following are missing: policy"),
    ("hybrid_vm_policy", {"name": "web1", "policy": {"rest": "fast"}}, "rest: 'fast' is not one of 'kvm', 'tcg'"),
    ("hybrid_vm_mode", {"name": "web1", "mode": "fast"}, "value of mode must be one of: kvm, tcg, got: fast"),
    ("hybrid_vm_mode", {"name": [], "mode": "kvm"}, "name: the list is empty; name VMs, or 'all'"),
    ("hybrid_vm_mode", {"name": ["all", "web1"], "mode": "kvm"}, "name: 'all' cannot be combined with names"),
    (
        "hybrid_vm_mode",
        {"name": "web1", "mode": "kvm", "timeout": -1},
        "timeout: -1 is not between 0 and 86400 seconds",
    ),
    ("hybrid_vm_mode", {"name": "web1", "mode": "kvm", "reason": "x" * 257}, "reason: 257 bytes are more than 256"),
    (
        "hybrid_vm_mode",
        {"name": "web1", "mode": "kvm", "reason": "a\nb"},
        "reason: control characters are not allowed",
    ),
    ("hybrid_vm_info", {"name": ["all", "web1"]}, "name: 'all' cannot be combined with names"),
    ("hybrid_vm_info", {"name": []}, "name: the list is empty; name VMs, or 'all'"),
]


def test_wrong_options(tmp_path: Path) -> None:
    out, playbook = tmp_path / "out.json", tmp_path / "play.yml"
    tasks: list[dict[str, Any]] = [
        {module: args, "ignore_errors": True, "register": f"result{index}"} for index, (module, args, _message) in enumerate(WRONG_OPTIONS)
    ]
    results = ", ".join(f"result{index}" for index in range(len(WRONG_OPTIONS)))
    tasks.append({"ansible.builtin.copy": {"content": f"{{{{ [{results}] | to_json }}}}", "dest": str(out)}})
    playbook.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    done = ansible("ansible-playbook", "-i", "localhost,", str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr
    found = [(result["failed"], result["msg"]) for result in json.loads(out.read_text())]
    assert found == [(True, message) for _module, _args, message in WRONG_OPTIONS]


def test_mode_from_check_to_idempotence(host: Host) -> None:
    host.define("web1")
    host.fake_qemu("web1")
    args = {"name": "web1", "mode": "tcg", "reason": "patch day"}
    predicted = run_module(host, "hybrid_vm_mode", args, "--check", "--diff")
    assert predicted["changed"] is True
    assert predicted["vms"][0]["pause_us"] is None
    first = run_module(host, "hybrid_vm_mode", args)
    assert (first["changed"], first["left_out"]) == (True, [])
    assert {key: first["vms"][0][key] for key in ("name", "ok", "before", "after", "pause_us")} == {
        "name": "web1",
        "ok": True,
        "before": "kvm",
        "after": "tcg",
        "pause_us": 2410,
    }
    assert "diff" not in first
    second = run_module(host, "hybrid_vm_mode", args)
    assert second["changed"] is False
    assert run_module(host, "hybrid_vm_mode", args, "--check")["changed"] is False


def test_one_failure_loses_no_result(host: Host) -> None:
    for name, behaviour in (("web1", {}), ("web2", {"on_set": "refuse"})):
        host.define(name)
        host.fake_qemu(name, **behaviour)
    result = run_module(host, "hybrid_vm_mode", {"name": ["web1", "web2"], "mode": "tcg"})
    assert result["msg"] == (
        "1 of 2 VMs failed, 1 switched: VM 'web2': QEMU refused 'hybrid-set-mode': state transfer failed in phase 'registers'"
    )
    assert (result["changed"], result["failed"]) == (True, True)
    assert [(vm["name"], vm["ok"], vm["after"]) for vm in result["vms"]] == [
        ("web1", True, "tcg"),
        ("web2", False, "kvm"),
    ]


def test_what_all_leaves_out_does_not_make_a_skipped_task(host: Host) -> None:
    """A key named ``skipped`` would: Ansible reads it as its own."""
    host.define("off")
    result = run_module(host, "hybrid_vm_mode", {"name": "all", "mode": "tcg"})
    assert (result["failed"], result["changed"], result["vms"]) == (False, False, [])
    assert [item["name"] for item in result["left_out"]] == ["off"]


def test_unknown_vm(host: Host) -> None:
    result = run_module(host, "hybrid_vm_mode", {"name": "web9", "mode": "tcg"})
    assert result["msg"] == f"VM 'web9' is not defined in {host.paths.definitions}; defined are: none"
    assert result["code"] == "unknown-vm"


def test_info(host: Host) -> None:
    host.define("web1")
    host.fake_qemu("web1")
    host.define("web2")
    result = run_module(host, "hybrid_vm_info", {}, "--check")
    assert result["changed"] is False
    assert [(vm["name"], vm["running"], vm["mode"]) for vm in result["vms"]] == [
        ("web1", True, "kvm"),
        ("web2", False, None),
    ]


def test_missing_library(host: Host) -> None:
    """A Python without qemu.qmp says which role installs it. Debian's own Python is such a one."""
    python = "/usr/bin/python3"
    if not os.path.exists(python) or os.path.exists("/opt/hybrid-vmm/python/qemu"):
        pytest.skip("needs a system Python, and no /opt/hybrid-vmm here")
    if subprocess.run([python, "-c", "import qemu.qmp"], capture_output=True, check=False).returncode == 0:
        pytest.skip("the system's Python has qemu.qmp")
    host.define("web1")
    extra = ["-e", f"ansible_python_interpreter={python}"]
    result = run_module(host, "hybrid_vm_mode", {"name": "web1", "mode": "tcg"}, *extra)
    assert result["msg"].startswith("Failed to import the required Python library (qemu.qmp) on ")
    assert "role hybrid_host installs it in /opt/hybrid-vmm/python" in result["msg"]
    assert run_module(host, "hybrid_vm_info", {}, *extra)["vms"][0]["running"] is False


@pytest.mark.parametrize("module", ["hybrid_vm_mode", "hybrid_vm_info"])
def test_documentation_of_modules(module: str) -> None:
    done = ansible("ansible-doc", "-t", "module", "--json", module)
    assert done.returncode == 0, done.stderr
    doc = json.loads(done.stdout)[module]
    namespace: dict[str, Any] = {}
    source = (ROOT / "library" / f"{module}.py").read_text()
    exec(compile(source, module, "exec"), namespace)  # the module's own option table
    spec = namespace["argument_spec"]()
    options = doc["doc"]["options"]
    assert set(options) == set(spec)
    for name, option in spec.items():
        documented = {key: options[name].get(key) for key in ("type", "choices", "default", "elements")}
        assert documented == {key: option.get(key) for key in ("type", "choices", "default", "elements")}, name
        assert bool(options[name].get("required")) is bool(option.get("required")), name
    assert doc["return"]
    assert doc["examples"]
    assert set(doc["doc"]["attributes"]) == {"check_mode", "diff_mode", "idempotent", "platform"}


def test_every_returned_fact_is_documented(host: Host) -> None:
    host.define("web1")
    host.fake_qemu("web1")
    done = run_module(host, "hybrid_vm_mode", {"name": "web1", "mode": "tcg", "reason": "x"})
    returned = {"hybrid_vm_mode": done["vms"][0], "hybrid_vm_info": run_module(host, "hybrid_vm_info", {})["vms"][0]}
    for module, facts in returned.items():
        doc = json.loads(ansible("ansible-doc", "-t", "module", "--json", module).stdout)[module]
        documented = doc["return"]["vms"]["contains"]
        assert set(documented) == set(facts)
        for key, value in facts.items():
            if isinstance(value, dict):
                assert set(documented[key]["contains"]) >= set(value), key


@pytest.mark.parametrize("name", ["hybrid_switch_rows", "hybrid_switch_table", "hybrid_vm_definition"])
def test_documentation_of_filters(name: str) -> None:
    done = ansible("ansible-doc", "-t", "filter", "--json", name)
    assert done.returncode == 0, done.stderr
    doc = json.loads(done.stdout)[name]
    assert doc["doc"]["short_description"]
    assert doc["return"]["_value"]
    assert doc["examples"]


PLAYBOOK = """
- hosts: a,b,c
  gather_facts: false
  connection: local
  tasks:
    - name: Switch
      hybrid_vm_mode:
        name: "{{ vms }}"
        mode: tcg
        config_dir: "{{ config }}"
        run_dir: "{{ run }}"
      register: fleet_result
      ignore_errors: true
      when: inventory_hostname != 'c'
    - name: Report
      run_once: true
      vars:
        rows: "{{ hostvars | hybrid_switch_rows(hosts=ansible_play_hosts_all, register='fleet_result') }}"
        more: "{{ rows | map('combine', {'guest_errors': 0}) | list }}"
      ansible.builtin.copy:
        dest: "{{ out }}"
        mode: "0644"
        content: >-
          {{ {'rows': rows, 'table': more | hybrid_switch_table,
              'vm': item | hybrid_vm_definition(host=inventory_hostname)} | to_nice_json }}
      loop: "{{ [{'name': 'web1', 'disks': [{'file': disk}]}] }}"
    - name: A wrong definition
      run_once: true
      ansible.builtin.debug:
        msg: "{{ {'name': 'web1', 'vcpus': 0} | hybrid_vm_definition(host='a') }}"
"""


def test_filters_in_a_playbook(host: Host, tmp_path: Path) -> None:
    """With Ansible's own lazy and tagged types, not with plain ones."""
    host.define("web1")
    host.fake_qemu("web1")
    host.define("off")
    playbook, out = tmp_path / "play.yml", tmp_path / "out.json"
    playbook.write_text(PLAYBOOK)
    inventory = tmp_path / "hosts.json"
    hosts = {"a": {"vms": ["web1"]}, "b": {"vms": ["off"]}, "c": {}}
    variables = {"config": host.paths.config_dir, "run": host.paths.run_dir, "out": str(out), "disk": "root.qcow2"}
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    done = ansible("ansible-playbook", "-i", str(inventory), str(playbook))
    text = done.stdout + done.stderr
    assert "web1: vcpus: 0 is not between 1 and 64" in text
    assert "Traceback" not in text
    result = json.loads(out.read_text())
    assert [(row["host"], row["vm"], row["ok"]) for row in result["rows"]] == [("a", "web1", True), ("b", "off", False)]
    assert result["table"].splitlines()[1].split()[:5] == ["web1", "a", "kvm", "tcg", "2.41"]
    assert result["vm"]["disks"][0]["file"] == "root.qcow2"
    assert result["vm"]["schema"] == 1


def test_the_package_has_the_same_options_under_both_names() -> None:
    from hybrid_vmm import argspec

    assert argspec.host_spec(1.0) == argspec_of_modules.host_spec(1.0)
