# SPDX-License-Identifier: GPL-3.0-or-later
"""The package against the built hybrid QEMU (HYBRID_QEMU=<path>), and that the other tests' stand-in speaks as it does."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import Host
from fake_qemu import FakeQemu

from hybrid_vmm import info, mode, ready
from hybrid_vmm.clock import Deadline
from hybrid_vmm.hybrid import snake
from hybrid_vmm.qmp import Session

BINARY = os.environ.get("HYBRID_QEMU", "")
#: More arguments, e.g. where the firmware is: HYBRID_QEMU_ARGS="-L /usr/share/seabios".
ARGUMENTS = shlex.split(os.environ.get("HYBRID_QEMU_ARGS", ""))

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not BINARY, reason="HYBRID_QEMU does not name a hybrid QEMU"),
]


def start(host: Host, *words: str, name: str = "web1") -> None:
    """Start the binary with a VM's control socket and wait until it answers."""
    os.makedirs(host.paths.run(name))
    socket = f"unix:{host.paths.control(name)},server=on,wait=off"
    host.start([BINARY, *words, "-nodefaults", "-display", "none", "-qmp", socket, *ARGUMENTS], name)
    asyncio.run(ready.wait_ready(name, host.paths, 60))


def start_hybrid(host: Host) -> None:
    """Start a VM without a guest, in tcg."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/kvm")
    start(host, "-accel", "hybrid,start=tcg", "-machine", "pc,smm=off", "-cpu", "max", "-m", "64", "-S")


def test_an_accelerator_that_cannot_switch(host: Host) -> None:
    host.define("web1")
    start(host, "-accel", "tcg", "-machine", "none")
    assert mode.change(host.paths, ["web1"], "kvm", 10).error == (
        "VM 'web1': cannot switch: it runs with accelerator 'tcg'; set 'accel: hybrid' in its definition, then restart the VM"
    )
    assert info.collect(host.paths, None, 10)[0]["why"] == ("runs with accelerator 'tcg', which cannot switch; expected mode is 'kvm'")


def test_the_stand_in_answers_with_the_same_keys(host: Host) -> None:
    start_hybrid(host)

    async def ask(command: str, **arguments: str) -> Any:
        async with Session("web1", host.paths.control("web1"), Deadline(20), host.paths.run("web1")) as session:
            return snake(await session.execute(command, arguments))

    fake = FakeQemu({"mode": "tcg"})
    for target in ("tcg", "kvm", "tcg"):
        real = asyncio.run(ask("hybrid-set-mode", mode=target, reason="test"))
        _same_shape(real, snake(fake.switch({"mode": target, "reason": "test"})), "hybrid-set-mode")
    _same_shape(asyncio.run(ask("query-hybrid")), snake(fake.state()), "query-hybrid")


def _same_shape(real: Any, fake: Any, path: str) -> None:
    """Compare keys and kinds, not values; reason is there only when it was given."""
    assert isinstance(real, type(fake)), path
    if isinstance(real, Mapping):
        assert set(real) - {"reason"} == set(fake) - {"reason"}, path
        for key in set(real) & set(fake):
            _same_shape(real[key], fake[key], f"{path}.{key}")
    elif isinstance(real, list) and real and fake:
        _same_shape(real[0], fake[0], f"{path}[0]")


def test_there_and_back(host: Host) -> None:
    start_hybrid(host)
    host.define("web1", expected_mode="tcg")
    for target in ("kvm", "tcg", "kvm", "tcg"):
        outcome = mode.change(host.paths, ["web1"], target, 20, "test")
        assert outcome.error is None
        assert (outcome.results[0].changed, outcome.results[0].after) == (True, target)
    facts = info.collect(host.paths, ["web1"], 10)[0]
    assert (facts["mode"], facts["in_expected_mode"], facts["reason"]) == ("tcg", True, "test")
    assert facts["switches"]["tcg_to_kvm"] == 2
