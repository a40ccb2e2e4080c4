# SPDX-License-Identifier: GPL-3.0-or-later
"""A host and its VMs as role hybrid_host and hybrid_vm leave them: who may what, and what runs."""

from __future__ import annotations

from typing import Any

import pytest

VMS = ("check1", "check2")
SOCKETS = ("control.sock", "events.sock", "console.sock")
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def test_user_has_no_rights_beyond_its_own(host: Any) -> None:
    user = host.user("hybrid-qemu")
    assert user.shell == "/usr/sbin/nologin"
    assert user.groups == ["hybrid-qemu"]
    assert host.group("hybrid-vmm").exists


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/hybrid-vmm", "root", "hybrid-vmm", 0o750),
        ("/etc/hybrid-vmm/vms", "root", "hybrid-vmm", 0o2750),
        ("/etc/hybrid-vmm/policies", "root", "hybrid-vmm", 0o2750),
        ("/etc/hybrid-vmm/vms/check1.json", "root", "hybrid-vmm", 0o640),
        ("/run/hybrid-vmm", "root", "root", 0o755),
        ("/run/hybrid-vmm/check1", "hybrid-qemu", "hybrid-vmm", 0o2750),
        ("/run/hybrid-vmm/check1/control.sock", "hybrid-qemu", "hybrid-vmm", 0o770),
        ("/var/lib/hybrid-vmm/check1", "hybrid-qemu", "hybrid-vmm", 0o2750),
        ("/var/lib/hybrid-vmm/check2/data.raw", "hybrid-qemu", "hybrid-vmm", 0o600),
    ],
)
def test_permissions(host: Any, path: str, owner: str, group: str, mode: int) -> None:
    found = host.file(path)
    assert (found.user, found.group, oct(found.mode)) == (owner, group, oct(mode))


def test_binary_is_the_one_that_was_built(host: Any, hypervisor: Any, manifest: Any) -> None:
    program = host.file("/opt/hybrid-vmm/current/bin/qemu-system-x86_64")
    assert program.sha256sum == manifest["files"]["bin/qemu-system-x86_64"]
    for vm in VMS:
        assert hypervisor.output(f"sha256sum /proc/{hypervisor.pid(vm)}/exe").split()[0] == program.sha256sum
    assert manifest["series"] in hypervisor.output("/opt/hybrid-vmm/current/bin/qemu-system-x86_64 --version")


@pytest.mark.parametrize("vm", VMS)
def test_unit_runs_without_rights(host: Any, hypervisor: Any, vm: str) -> None:
    service = host.service(f"hybrid-vm@{vm}")
    assert service.is_running
    assert service.is_enabled
    status = dict(line.split(":", 1) for line in hypervisor.output(f"cat /proc/{hypervisor.pid(vm)}/status").splitlines())
    wanted = {"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}
    assert {key: status[key].strip() for key in wanted} == wanted
    groups = {host.user("hybrid-qemu").gid, host.group("kvm").gid}
    assert {int(number) for number in status["Groups"].split()} <= groups


def test_vm_sees_no_other_vm(hypervisor: Any) -> None:
    root = f"/proc/{hypervisor.pid('check1')}/root"
    for folder in ("/run/hybrid-vmm", "/var/lib/hybrid-vmm"):
        assert hypervisor.output(f"ls {root}{folder}").split() == ["check1"]
    assert hypervisor.host.run(f"ls {root}/etc/hybrid-vmm/vms").rc != 0


def test_unit_is_rated_as_well_protected(hypervisor: Any) -> None:
    rating = hypervisor.output("systemd-analyze security --no-pager hybrid-vm@check1.service").splitlines()[-1]
    assert float(rating.split(":")[1].split()[0]) <= 2.0


@pytest.mark.parametrize("socket", SOCKETS)
def test_third_party_is_refused_at_the_socket(hypervisor: Any, socket: str) -> None:
    path = f"/run/hybrid-vmm/check1/{socket}"
    done = hypervisor.host.run(f"setpriv --reuid=65534 --regid=65534 --clear-groups -- python3 -I -c %s {path}", CONNECT)
    assert done.rc != 0
    assert "PermissionError" in done.stderr


def test_third_party_is_told_so_by_hybridctl(hypervisor: Any) -> None:
    done = hypervisor.host.run("setpriv --reuid=65534 --regid=65534 --clear-groups -- hybridctl mode tcg check1")
    assert done.rc == 4
    assert "as a member of group 'hybrid-vmm'" in done.stderr


def test_operator_may(hypervisor: Any) -> None:
    done = hypervisor.host.run("setpriv --reuid=65534 --regid=65534 --groups=hybrid-vmm -- hybridctl list")
    assert done.rc == 0
    assert "check1  active" in done.stdout


def test_check_mode_predicts_nothing(playbook: Any, recap: Any) -> None:
    done = playbook("playbooks/site.yml", "--check", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {host: numbers["changed"] for host, numbers in recap(done.stdout).items() if numbers["changed"]} == {}
