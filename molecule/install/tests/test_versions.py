# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenario leaves on the lab host, looked at from outside; and playbooks/rollback.yml."""

from __future__ import annotations

from typing import Any

PREFIX = "/srv/hybrid-install-test"
ONE, THREE = "qemu-10.0.13-h1.11111111", "qemu-10.0.13-h1.33333333"


def test_versions_lie_beside_each_other(host: Any) -> None:
    names = host.check_output(f"ls -A {PREFIX}").split()
    assert sorted(names) == [".lock", "current", "previous", ONE, THREE]
    assert host.file(f"{PREFIX}/current").linked_to == f"{PREFIX}/{THREE}"
    assert host.check_output(f"readlink {PREFIX}/current") == THREE  # relative: the prefix may be mounted elsewhere


def test_files_belong_to_root_and_nobody_else_writes(host: Any) -> None:
    assert host.check_output(f"find {PREFIX} ! -user root -o ! -type l -perm /022") == ""
    assert host.file(f"{PREFIX}/current/bin/qemu-system-x86_64").mode == 0o755


def test_the_process_of_the_first_version_lives(host: Any) -> None:
    assert host.run(f"readlink /proc/[0-9]*/exe | grep -qx {PREFIX}/{ONE}/bin/qemu-img").rc == 0


def test_no_archive_is_left(host: Any) -> None:
    assert host.check_output("find /var/tmp /tmp /root/.ansible/tmp -name 'hybrid-qemu-*' 2>/dev/null || true") == ""


def test_rollback_playbook(host: Any, playbook: Any, recap: Any) -> None:
    done = playbook("playbooks/rollback.yml", "-e", f"hybrid_qemu_install_prefix={PREFIX}", "-e", f"rollback_version={ONE}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert next(iter(recap(done.stdout).values()))["changed"] == 1
    assert f"{THREE} -> {ONE}" in " ".join(done.stdout.split())
    assert host.check_output(f"readlink {PREFIX}/current") == ONE

    done = playbook("playbooks/rollback.yml", "-e", f"hybrid_qemu_install_prefix={PREFIX}", "-e", "rollback_version=qemu-9-h1.00000000")
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert f"qemu-9-h1.00000000 is not installed in {PREFIX}; installed: {THREE}, {ONE}" in text

    assert playbook("playbooks/rollback.yml", "-e", f"hybrid_qemu_install_prefix={PREFIX}").returncode == 0
    assert host.check_output(f"readlink {PREFIX}/current") == THREE
