# SPDX-License-Identifier: GPL-3.0-or-later
"""hybridctl as a person and a program use it: words, JSON and exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODULE_UTILS, Host, wait_for

from hybrid_vmm import cli


def hybridctl(host: Host, *words: str) -> int:
    """Run hybridctl in this process."""
    return cli.main([*words, "--config-dir", host.paths.config_dir, "--run-dir", host.paths.run_dir])


@pytest.fixture
def web1(host: Host) -> Host:
    """A host with one running hybrid VM."""
    host.define("web1")
    host.fake_qemu("web1")
    return host


def test_list(web1: Host, capsys: pytest.CaptureFixture[str]) -> None:
    web1.define("db1", accel="tcg")
    assert hybridctl(web1, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["VM", "UNIT", "ACCEL", "MODE", "EXPECTED", "SINCE", "QEMU", "WHY"]
    assert lines[1].split()[0] == "db1"
    assert lines[1].endswith("start it with 'systemctl start hybrid-vm@db1.service'")
    since = "2025-11-23T05:00:00.000000Z"
    assert [*lines[2].split()[:1], *lines[2].split()[2:]] == ["web1", "hybrid", "kvm", "kvm", since, "h1.0a1b2c3d", "-"]


def test_list_of_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert hybridctl(host, "list") == 0
    assert capsys.readouterr().out == f"no VMs are defined in {host.paths.definitions}\n"


def test_list_json(web1: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert hybridctl(web1, "list", "--json") == 0
    assert [vm["name"] for vm in json.loads(capsys.readouterr().out)] == ["web1"]


def test_show(web1: Host, capsys: pytest.CaptureFixture[str]) -> None:
    hybridctl(web1, "mode", "tcg", "web1", "--reason", "patch day")
    capsys.readouterr()
    assert hybridctl(web1, "show", "web1") == 0
    out = capsys.readouterr().out
    for line in (
        "mode              tcg",
        "last_switch       kvm -> tcg at 2025-11-23T05:00:00.000000Z by operator, pause 2.41 ms",
        "switches          kvm_to_tcg 1, tcg_to_kvm 0, failed 0",
        "dropped_features  avx512f",
        "blockers          -",
    ):
        assert line in out.splitlines()


def test_show_json(web1: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert hybridctl(web1, "show", "web1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "kvm"


def test_mode(web1: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert hybridctl(web1, "mode", "tcg", "web1", "--check") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["web1", "kvm", "tcg", "-", "yes"]
    assert hybridctl(web1, "mode", "tcg", "web1") == 0
    assert capsys.readouterr().out == ("VM    BEFORE  AFTER  PAUSE    OK\nweb1  kvm     tcg    2.41 ms  yes\n")
    assert hybridctl(web1, "mode", "tcg", "all") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["web1", "tcg", "tcg", "0", "us", "yes"]


def test_mode_json_and_left_out(web1: Host, capsys: pytest.CaptureFixture[str]) -> None:
    web1.define("off")
    assert hybridctl(web1, "mode", "tcg", "all", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["vms"][0]["ok"], answer["left_out"][0]["name"]) == (True, "off")
    assert hybridctl(web1, "mode", "tcg", "all") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("left out: VM 'off': is not running (no socket ")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("mode", "tcg", "web9"), 3, "VM 'web9' is not defined in {vms}; defined are: off"),
        (("show", "web9"), 3, "VM 'web9' is not defined in {vms}; defined are: off"),
        (
            ("mode", "tcg", "off"),
            1,
            "VM 'off': is not running (no socket {run}/off/control.sock): start it with 'systemctl start hybrid-vm@off.service'",
        ),
        (("mode", "tcg", "off", "all"), 2, "name: 'all' cannot be combined with names"),
        (("mode", "tcg", "off", "--timeout", "0"), 2, "timeout: 0 is not between 0 and 86400 seconds"),
        (("mode", "tcg", "off", "--reason", "ü" * 129), 2, "reason: 258 bytes are more than 256"),
        (("watch", "web9"), 3, "VM 'web9' is not defined in {vms}; defined are: off"),
        (("watch",), 1, "no VM of this host is running, there is nothing to watch"),
    ],
)
def test_errors(host: Host, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, message: str) -> None:
    host.define("off")
    assert hybridctl(host, *words) == status
    assert capsys.readouterr().err == (f"hybridctl: {message.format(vms=host.paths.definitions, run=host.paths.run_dir)}\n")


@pytest.mark.parametrize("words", [(), ("mode", "fast", "web1"), ("mode", "tcg"), ("show",), ("frobnicate",)])
def test_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(words))
    assert caught.value.code == 2


def test_validate(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.define("good")
    host.define("bad", irqchip="maybe")
    good, bad = host.paths.definition("good"), host.paths.definition("bad")
    assert hybridctl(host, "validate", good) == 0
    assert capsys.readouterr().out == f"{good}: definition of VM 'good' is valid\n"
    assert hybridctl(host, "validate", good, bad) == 1
    assert capsys.readouterr().err == f"hybridctl: {bad}: irqchip: 'maybe' is not one of 'on', 'split', 'off'\n"


def test_watch(web1: Host, tmp_path: Path) -> None:
    """Two switches while a watch runs, and the watch ends when the VM does."""
    log = tmp_path / "log"
    words = [sys.executable, "-m", "hybrid_vmm.cli", "watch", "--json", "--run-dir", web1.paths.run_dir]
    environment = {**os.environ, "PYTHONPATH": str(MODULE_UTILS)}
    with (
        log.open("wb") as out,
        subprocess.Popen([*words, "--config-dir", web1.paths.config_dir], stdout=out, env=environment) as process,
    ):
        connected = f"{web1.paths.events('web1')}"
        wait_for(lambda: Path("/proc/net/unix").read_text().count(connected) > 1, "watch to connect")
        hybridctl(web1, "mode", "tcg", "web1", "--reason", "patch day")
        hybridctl(web1, "mode", "kvm", "web1")
        wait_for(lambda: log.read_text().count("\n") == 2, "two events")
        first = json.loads(log.read_text().splitlines()[0])
        assert (first["vm"], first["before"], first["after"], first["pause_us"]) == ("web1", "kvm", "tcg", 2410)
        assert first["at"] == "2025-11-23T05:00:00.000000Z"
        web1.stop_all()
        assert process.wait(10) == 0


def test_watch_is_interrupted(web1: Host) -> None:
    words = [sys.executable, "-m", "hybrid_vmm.cli", "watch", "--run-dir", web1.paths.run_dir]
    environment = {**os.environ, "PYTHONPATH": str(MODULE_UTILS)}
    with subprocess.Popen([*words, "--config-dir", web1.paths.config_dir], stderr=subprocess.PIPE, env=environment) as process:
        connected = f"{web1.paths.events('web1')}"
        wait_for(lambda: Path("/proc/net/unix").read_text().count(connected) > 1, "watch to connect")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
