# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport, with real processes: stock QEMU for what any QEMU does, the stand-in for what ours does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Optional

import pytest
from conftest import MODULE_UTILS, Host, run_as_nobody

from hybrid_vmm import errors, hybrid
from hybrid_vmm.clock import Deadline
from hybrid_vmm.qmp import Session


def ask(host: Host, command: str = "query-status", seconds: float = 5.0, vm: str = "web1") -> Any:
    """Run one command as every user of the control socket does."""

    async def call() -> Any:
        async with Session(vm, host.paths.control(vm), Deadline(seconds), host.paths.run(vm)) as session:
            return await session.execute(command)

    return asyncio.run(call())


def ask_hybrid(host: Host, mode: Optional[str] = None, seconds: float = 5.0) -> dict[str, Any]:
    """Run query-hybrid, or hybrid-set-mode."""

    async def call() -> dict[str, Any]:
        async with Session("web1", host.paths.control("web1"), Deadline(seconds), host.paths.run("web1")) as session:
            if mode is None:
                return await hybrid.query(session)
            return await hybrid.set_mode(session, mode, "test")

    return asyncio.run(call())


def test_real_qemu_answers(host: Host) -> None:
    host.stock_qemu("web1")
    assert ask(host)["status"] in ("running", "prelaunch")


def test_version_and_series_come_from_the_greeting(host: Host) -> None:
    host.fake_qemu("web1")

    async def look() -> tuple[str, Optional[str]]:
        async with Session("web1", host.paths.control("web1"), Deadline(5)) as session:
            return session.version, session.series

    assert asyncio.run(look()) == ("10.0.13", "h1.0a1b2c3d")


def test_stock_qemu_does_not_know_the_command(host: Host) -> None:
    host.stock_qemu("web1")
    with pytest.raises(errors.CommandUnknown) as caught:
        ask(host, "hybrid-set-mode")
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    assert caught.value.message == (f"VM 'web1': QEMU {version.split()[3]} does not know the command 'hybrid-set-mode'")


def test_no_folder(host: Host) -> None:
    with pytest.raises(errors.NotRunning) as caught:
        ask(host)
    assert caught.value.message == (
        f"VM 'web1': is not running (no socket {host.paths.control('web1')}): start it with 'systemctl start hybrid-vm@web1.service'"
    )


def test_killed_qemu_leaves_a_dead_socket(host: Host) -> None:
    process = host.stock_qemu("web1")
    process.kill()
    process.wait()
    with pytest.raises(errors.NotRunning) as caught:
        ask(host)
    assert caught.value.message == (
        f"VM 'web1': is not running (QEMU is gone, nobody listens on {host.paths.control('web1')}): "
        "see 'journalctl -u hybrid-vm@web1.service'"
    )


def test_stopped_qemu_does_not_greet(host: Host) -> None:
    host.stock_qemu("web1").send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(errors.TimedOut) as caught:
        ask(host, seconds=0.5)
    assert time.monotonic() - begin < 3
    assert caught.value.message == (
        f"VM 'web1': no QMP greeting on {host.paths.control('web1')} within 0.5 s: QEMU hangs, or another program "
        "keeps the socket busy; see 'systemctl status hybrid-vm@web1.service' and 'ss -xp'"
    )


def test_qemu_stops_after_the_greeting(host: Host) -> None:
    process = host.stock_qemu("web1")

    async def call() -> None:
        async with Session("web1", host.paths.control("web1"), Deadline(1), host.paths.run("web1")) as session:
            process.send_signal(signal.SIGSTOP)
            await session.execute("query-status")

    begin = time.monotonic()
    with pytest.raises(errors.TimedOut) as caught:
        asyncio.run(call())
    assert time.monotonic() - begin < 4
    assert caught.value.message == (
        f"VM 'web1': no answer to 'query-status' on {host.paths.control('web1')} within 1 s: QEMU hangs or is "
        "overloaded, and may still carry it out; look again with 'hybridctl show web1'"
    )


def test_qemu_is_killed_during_the_call(host: Host) -> None:
    process = host.stock_qemu("web1")

    async def call() -> None:
        async with Session("web1", host.paths.control("web1"), Deadline(10), host.paths.run("web1")) as session:
            process.send_signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(0.2, process.kill)
            await session.execute("query-status")

    begin = time.monotonic()
    with pytest.raises(errors.QemuDied) as caught:
        asyncio.run(call())
    assert time.monotonic() - begin < 5
    assert caught.value.message == (
        f"VM 'web1': QEMU closed {host.paths.control('web1')} during 'query-status', it probably ended: "
        "see 'journalctl -u hybrid-vm@web1.service'"
    )


def test_qemu_is_killed_before_the_greeting(host: Host) -> None:
    process = host.stock_qemu("web1")
    process.send_signal(signal.SIGSTOP)

    async def call() -> None:
        asyncio.get_running_loop().call_later(0.2, process.kill)
        async with Session("web1", host.paths.control("web1"), Deadline(10)):
            pass

    with pytest.raises(errors.QemuDied) as caught:
        asyncio.run(call())
    assert caught.value.message == (
        f"VM 'web1': QEMU closed {host.paths.control('web1')} during the handshake, it probably ended: "
        "see 'journalctl -u hybrid-vm@web1.service'"
    )


def test_third_party_is_refused(host: Host) -> None:
    """What a user in no group sees: the folder may not be searched, so the socket cannot even be named."""
    host.stock_qemu("web1")
    os.chmod(host.paths.run("web1"), 0o750)
    folder = host.paths.run_dir
    while folder != "/tmp" and len(folder) > 1:
        os.chmod(folder, 0o755)
        folder = os.path.dirname(folder)
    done = _cli_as_nobody(host)
    assert done.returncode == 4
    assert done.stderr == (
        f"hybridctl: VM 'web1': no permission for {host.paths.control('web1')}: run as root or as a member of group 'hybrid-vmm'\n"
    )


def test_socket_itself_is_closed_to_others(host: Host) -> None:
    """The folder is open, the socket is not: connect() is refused, not the search for it."""
    host.stock_qemu("web1")
    os.chmod(host.paths.control("web1"), 0o770)
    folder = host.paths.run("web1")
    while folder != "/tmp" and len(folder) > 1:
        os.chmod(folder, 0o755)
        folder = os.path.dirname(folder)
    assert _cli_as_nobody(host).returncode == 4


def _cli_as_nobody(host: Host) -> subprocess.CompletedProcess[str]:
    """Run hybridctl mode as nobody, with Debian's Python and copies that nobody may read."""
    host.define("web1")
    base = os.path.dirname(host.paths.run_dir)
    packages = os.path.join(base, "python")
    shutil.copytree(MODULE_UTILS, packages, ignore=shutil.ignore_patterns("__pycache__"))
    import qemu.qmp

    shutil.copytree(os.path.dirname(qemu.qmp.__file__), os.path.join(packages, "qemu", "qmp"))
    os.chmod(base, 0o755)
    os.chmod(host.paths.config_dir, 0o755)
    os.chmod(host.paths.definitions, 0o755)
    script = f"import sys; sys.path.insert(0, {packages!r}); from hybrid_vmm.cli import main; sys.exit(main())"
    words = ["/usr/bin/python3", "-I", "-B", "-c", script, "mode", "kvm", "web1"]
    return run_as_nobody([*words, "--config-dir", host.paths.config_dir, "--run-dir", host.paths.run_dir])


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (
            {"accel": "stock"},
            errors.NotHybrid,
            "VM 'web1': cannot switch: its QEMU 10.0.13 is not a hybrid one; install one with role "
            "hybrid_qemu_install, then restart the VM",
        ),
        (
            {"accel": "kvm"},
            errors.NotHybrid,
            "VM 'web1': cannot switch: it runs with accelerator 'kvm'; set 'accel: hybrid' in its definition, then restart the VM",
        ),
        (
            {"interface": 2},
            errors.WrongInterface,
            "VM 'web1': its QEMU (h1.0a1b2c3d) speaks hybrid interface 2, this toolkit speaks 1: install the matching "
            "series with role hybrid_qemu_install and restart the VM",
        ),
        (
            {"on_query": "refuse"},
            errors.CommandFailed,
            "VM 'web1': QEMU refused 'query-hybrid': state transfer failed in phase 'registers'",
        ),
        ({"on_query": "empty"}, errors.ProtocolFailure, "VM 'web1': QEMU's answer to 'query-hybrid' lacks interface"),
    ],
)
def test_query_errors(host: Host, behaviour: dict[str, Any], kind: type[errors.VmError], message: str) -> None:
    host.fake_qemu("web1", **behaviour)
    with pytest.raises(kind) as caught:
        ask_hybrid(host)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("blocked", errors.Blocked, "VM 'web1': cannot switch to 'tcg', blocked by 'vfio': device 0000:01:00.0 in use"),
        (
            "refuse",
            errors.CommandFailed,
            "VM 'web1': QEMU refused 'hybrid-set-mode': state transfer failed in phase 'registers'",
        ),
        (
            "die",
            errors.QemuDied,
            "VM 'web1': QEMU closed {socket} during 'hybrid-set-mode', it probably ended: see 'journalctl -u hybrid-vm@web1.service'",
        ),
        (
            "hang",
            errors.TimedOut,
            "VM 'web1': no answer to 'hybrid-set-mode' on {socket} within 1 s: QEMU hangs or is overloaded, and may "
            "still carry it out; look again with 'hybridctl show web1'",
        ),
        (
            "empty",
            errors.ProtocolFailure,
            "VM 'web1': QEMU's answer to 'hybrid-set-mode' lacks changed, before, after",
        ),
    ],
)
def test_set_mode_errors(host: Host, trouble: str, kind: type[errors.VmError], message: str) -> None:
    host.fake_qemu("web1", on_set=trouble)
    with pytest.raises(kind) as caught:
        ask_hybrid(host, "tcg", seconds=1)
    assert caught.value.message == message.format(socket=host.paths.control("web1"))


def test_garbage_instead_of_an_answer(host: Host) -> None:
    host.fake_qemu("web1", on_set="garbage")
    with pytest.raises((errors.ProtocolFailure, errors.QemuDied)):
        ask_hybrid(host, "tcg")


def test_something_else_listens_on_the_socket(host: Host) -> None:
    host.fake_qemu("web1", greeting="garbage")
    with pytest.raises(errors.ProtocolFailure, match=r"^VM 'web1': what listens on .*/control.sock does not speak QMP: "):
        ask(host)


def test_switch_with_python_keys(host: Host) -> None:
    host.fake_qemu("web1")
    answer = ask_hybrid(host, "tcg")
    assert answer["pause_us"] == 2410
    assert answer["phases"][0] == {"name": "stop", "us": 180}
    assert ask_hybrid(host)["switches"] == {"kvm_to_tcg": 1, "tcg_to_kvm": 0, "failed": 0}


def test_full_backlog_is_waited_for(host: Host) -> None:
    """asyncio itself takes EAGAIN of connect() for success."""
    os.makedirs(host.paths.run("web1"))
    server = socket.socket(socket.AF_UNIX)
    server.bind(host.paths.control("web1"))
    server.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for client in waiting:
        client.setblocking(False)
        client.connect_ex(host.paths.control("web1"))
    with pytest.raises(errors.TimedOut) as caught:
        ask(host, seconds=0.3)
    assert caught.value.message == (
        f"VM 'web1': too many programs wait for {host.paths.control('web1')} since more than 0.3 s; see 'ss -xp'"
    )
    for sock in (*waiting, server):
        sock.close()


def test_lock_is_waited_for_and_its_holder_named(host: Host) -> None:
    host.fake_qemu("web1")
    script = "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, host.paths.run("web1")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(errors.Busy) as caught:
            ask(host, seconds=0.3)
        assert caught.value.message.startswith(
            f"VM 'web1': another run uses it since more than 0.3 s (pid {holder.pid}, {sys.executable} -c import fcntl"
        )
        assert caught.value.message.endswith("): try again when that has ended")
        holder.kill()
    assert ask(host)["status"] == "running"


def test_nothing_stays_open(host: Host) -> None:
    host.fake_qemu("web1")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        assert ask(host)["status"] == "running"
    assert len(os.listdir("/proc/self/fd")) == len(before)
