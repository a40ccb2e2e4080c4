# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit starts: hybrid-vm-run and hybrid-vm-ready."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MODULE_UTILS, Host, run_as_nobody, wait_for

from hybrid_vmm import definition, errors, launch, ready


def run(host: Host, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run hybrid-vm-run in a process of its own."""
    return subprocess.run(_words(host, *words), env=_env(environment), capture_output=True, text=True, check=False)


def _words(host: Host, *words: str) -> list[str]:
    folders = ["--config-dir", host.paths.config_dir, "--run-dir", host.paths.run_dir, "--state-dir"]
    return [sys.executable, "-m", "hybrid_vmm.launch", *words, *folders, host.paths.state_dir]


def _env(extra: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(MODULE_UTILS), **extra}


def folders(host: Host) -> None:
    """Make what the unit and role hybrid_vm make."""
    os.makedirs(host.paths.run("web1"))
    os.makedirs(host.paths.state("web1"))


def test_print(host: Host) -> None:
    host.define("web1")
    done = run(host, "web1", "--print")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("/opt/hybrid-vmm/current/bin/qemu-system-x86_64 \\\n  -name guest=web1,debug-threads=on \\\n")


def test_credential_comes_first(host: Host, tmp_path: Path) -> None:
    host.define("web1", vcpus=1)
    shutil.copy(host.paths.definition("web1"), tmp_path / "definition")
    host.define("web1", vcpus=0)
    done = run(host, "web1", "--print", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert done.returncode == 0
    done = run(host, "web2", "--print", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        78,
        f"hybrid-vm-run: VM 'web2': {tmp_path}/definition: name: 'web1' is not 'web2'\n",
    )
    assert run(host, "web1", "--print", CREDENTIALS_DIRECTORY="/nonexistent").returncode == 78


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("web9", "VM 'web9' is not defined in {vms}; defined are: web1"),
        (
            "../x",
            "name: '../x' is not a VM name (1 to 48 of A-Z a-z 0-9 _ . -, beginning with a letter or digit)",
        ),
    ],
)
def test_no_definition(host: Host, name: str, message: str) -> None:
    host.define("web1")
    done = run(host, name)
    assert done.returncode == 78
    assert done.stderr == f"hybrid-vm-run: VM '{name}': {message.format(vms=host.paths.definitions)}\n"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"qemu": "/no/qemu"}, "qemu: /no/qemu does not exist: install it with role hybrid_qemu_install"),
        (
            {"kernel": "/no/vmlinuz"},
            "kernel: /no/vmlinuz does not exist: put the file there or correct the definition",
        ),
        (
            {"kernel": "/dev/null", "initrd": "/no/initrd"},
            "initrd: /no/initrd does not exist: put the file there or correct the definition",
        ),
        ({"seed": "/no/seed"}, "seed: /no/seed does not exist: put the file there or correct the definition"),
        (
            {"disks": [{"file": "/dev/null"}, {"file": "root.qcow2"}]},
            "disks[1].file: {state}/root.qcow2 does not exist: create it (role hybrid_vm) or correct the definition",
        ),
    ],
)
def test_preflight_names_the_key(host: Host, keys: dict[str, Any], message: str) -> None:
    folders(host)
    vm = definition.parse({"schema": 1, "name": "web1", "accel": "tcg", "qemu": "/bin/true", **keys})
    with pytest.raises(errors.LaunchError) as caught:
        launch.preflight(vm, host.paths)
    assert caught.value.message == message.format(state=host.paths.state("web1"))


def test_host_without_kvm(host: Host) -> None:
    folders(host)
    vm = definition.parse({"schema": 1, "name": "web1", "qemu": "/bin/true"})
    with pytest.raises(errors.LaunchError) as caught:
        launch.preflight(vm, host.paths, kvm_device="/no/kvm")
    assert caught.value.message == ("accel: /no/kvm does not exist: load the kvm module and add the user to group kvm (role hybrid_host)")
    launch.preflight(vm, host.paths, kvm_device="/dev/null")


def test_no_folders(host: Host) -> None:
    vm = definition.parse({"schema": 1, "name": "web1", "qemu": "/bin/true", "accel": "tcg"})
    with pytest.raises(errors.LaunchError) as caught:
        launch.preflight(vm, host.paths)
    assert caught.value.message == (
        f"folder: {host.paths.run('web1')} does not exist: start the VM through systemctl, its unit and role hybrid_vm make it"
    )


def test_disk_of_another_user() -> None:
    script = "from hybrid_vmm import launch; launch._need('disks[0].file', '/etc/shadow', 6, 'do something')"
    packages = "/tmp/hybrid-vmm-unit-packages"
    shutil.copytree(MODULE_UTILS, packages, dirs_exist_ok=True)
    try:
        done = run_as_nobody(["/usr/bin/python3", "-B", "-c", script], {"PYTHONPATH": packages})
    finally:
        shutil.rmtree(packages)
    assert done.stderr.splitlines()[-1] == (
        "hybrid_vmm.errors.LaunchError: disks[0].file: /etc/shadow cannot be written by uid 65534: do something"
    )


def test_a_qemu_that_cannot_be_executed(host: Host, tmp_path: Path) -> None:
    folders(host)
    program = tmp_path / "qemu"
    program.write_text("#!/no/interpreter\n")
    program.chmod(0o755)
    host.define("web1", accel="tcg", qemu=str(program))
    done = run(host, "web1")
    assert done.returncode == 78
    assert done.stderr == f"hybrid-vm-run: VM 'web1': qemu: cannot execute {program}: No such file or directory\n"


def test_launch_becomes_qemu_and_ready_sees_it(host: Host) -> None:
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        pytest.skip("no qemu-system-x86_64 here: make env installs it")
    folders(host)
    host.define("web1", accel="tcg", qemu=program, memory_mib=64, extra_args=["-S"])
    with subprocess.Popen(_words(host, "web1"), env=_env({})) as process:
        try:
            words = ["web1", "--timeout", "60", "--run-dir", host.paths.run_dir]
            done = subprocess.run([sys.executable, "-m", "hybrid_vmm.ready", *words], env=_env({"MAINPID": str(process.pid)}), check=False)
            assert done.returncode == 0
            assert os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) == "qemu-system-x86_64"
            for socket in (host.paths.control("web1"), host.paths.events("web1"), host.paths.console("web1")):
                assert os.stat(socket).st_mode & 0o007 == 0, f"{socket} is open to everybody"
        finally:
            process.send_signal(signal.SIGTERM)


def test_ready_times_out(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    assert ready.main(["web1", "--timeout", "0.3", "--run-dir", host.paths.run_dir]) == 1
    assert time.monotonic() - begin < 2
    assert capsys.readouterr().err == (
        f"hybrid-vm-ready: VM 'web1': not ready within 0.3 s: is not running (no socket {host.paths.control('web1')}): "
        "start it with 'systemctl start hybrid-vm@web1.service'\n"
    )


def test_ready_notices_that_qemu_ended(host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    monkeypatch.setenv("MAINPID", str(process.pid))
    begin = time.monotonic()
    assert ready.main(["web1", "--timeout", "60", "--run-dir", host.paths.run_dir]) == 1
    assert time.monotonic() - begin < 5
    assert capsys.readouterr().err == (
        f"hybrid-vm-ready: VM 'web1': QEMU (pid {process.pid}) ended before it was ready: see 'journalctl -u hybrid-vm@web1.service'\n"
    )


def test_ready_waits_for_a_late_qemu(host: Host) -> None:
    async def late() -> str:
        asyncio.get_running_loop().call_later(0.5, host.fake_qemu, "web1")
        return await ready.wait_ready("web1", host.paths, 20)

    assert asyncio.run(late()) == "running"


def test_zombies_are_not_alive() -> None:
    with subprocess.Popen(["true"]) as process:
        wait_for(lambda: not ready.alive(process.pid), "the end of true")
        assert process.poll() == 0
