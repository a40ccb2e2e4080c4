# SPDX-License-Identifier: GPL-3.0-or-later
"""Which KVM ioctls a switch really makes, from QEMU's own trace points."""

from __future__ import annotations

import re
import struct
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from goals import DIRECTIONS
from guests import Guest
from harness import Unexpected

# QEMU says the vCPU's number first, so that what it says of a VM is told apart.
CALL = re.compile(r"\bkvm_(?:vcpu|vm)_ioctl (?:cpu_index \d+, )?type 0x([0-9a-f]+), arg (0x[0-9a-f]+|\(nil\))")
EVENTS = ("kvm_vcpu_ioctl", "kvm_vm_ioctl")
KVM_GET_MSRS = 0xC008AE88
NAMES = {
    0xAE80: "KVM_RUN",
    0x8090AE81: "KVM_GET_REGS",
    0x4090AE82: "KVM_SET_REGS",
    0x8138AE83: "KVM_GET_SREGS",
    0x4138AE84: "KVM_SET_SREGS",
    0xC008AE88: "KVM_GET_MSRS",
    0x4008AE89: "KVM_SET_MSRS",
    0x4004AE8B: "KVM_SET_SIGNAL_MASK",
    0x8400AE8E: "KVM_GET_LAPIC",
    0x4400AE8F: "KVM_SET_LAPIC",
    0x8004AE98: "KVM_GET_MP_STATE",
    0x4004AE99: "KVM_SET_MP_STATE",
    0x8040AE9F: "KVM_GET_VCPU_EVENTS",
    0x4040AEA0: "KVM_SET_VCPU_EVENTS",
    0x8080AEA1: "KVM_GET_DEBUGREGS",
    0x4080AEA2: "KVM_SET_DEBUGREGS",
    0x9000AEA4: "KVM_GET_XSAVE",
    0x5000AEA5: "KVM_SET_XSAVE",
    0x8188AEA6: "KVM_GET_XCRS",
    0x4188AEA7: "KVM_SET_XCRS",
    0x8140AECC: "KVM_GET_SREGS2",
    0x4140AECD: "KVM_SET_SREGS2",
    0x9000AECF: "KVM_GET_XSAVE2",
    0x4018AEE1: "KVM_SET_DEVICE_ATTR",
    0x4018AEE2: "KVM_GET_DEVICE_ATTR",
    0xC208AE62: "KVM_GET_IRQCHIP",
    0x8208AE63: "KVM_SET_IRQCHIP",
    0x4008AE6A: "KVM_SET_GSI_ROUTING",
    0xC008AE67: "KVM_IRQ_LINE_STATUS",
}


def calls(text: str) -> list[tuple[int, int]]:
    """Return the requests in a trace and the addresses of their arguments, in order."""
    return [(int(request, 16), 0 if argument == "(nil)" else int(argument, 16)) for request, argument in CALL.findall(text)]


def counts(requests: Sequence[int]) -> dict[str, int]:
    """Return how often each request occurs, by name."""
    return dict(Counter(NAMES.get(request, f"{request:#x}") for request in requests))


def _traced(guest: Guest, mode: str) -> list[tuple[int, int]]:
    """Switch a guest that is stopped, so that no vCPU runs meanwhile, and return the ioctls that QEMU made."""
    guest.qmp.run("stop")
    for event in EVENTS:
        guest.qmp.run("trace-event-set-state", {"name": event, "enable": True})
    size = guest.stderr_path.stat().st_size
    guest.set_mode(mode)
    for event in EVENTS:
        guest.qmp.run("trace-event-set-state", {"name": event, "enable": False})
    guest.qmp.run("cont")
    # The trace comes through ssh, after the answer.
    deadline = time.monotonic() + 30
    while not (found := calls(guest.stderr_path.read_bytes()[size:].decode(errors="replace"))):
        if time.monotonic() > deadline:
            raise Unexpected(f"QEMU traced no ioctl:\n{guest.stderr()}")
        time.sleep(0.1)
    return found


def _msrs(guest: Guest, address: int) -> list[int]:
    """Return the indices in a struct kvm_msrs of QEMU's memory."""
    pid = guest.process_id()
    program = f"import sys; m = open('/proc/{pid}/mem', 'rb', 0); m.seek({address}); print(m.read(16384).hex())"
    data = bytes.fromhex(guest.host.run(f'python3 -c "{program}"').strip())
    (number,) = struct.unpack_from("<I", data)
    return [struct.unpack_from("<I", data, 8 + 16 * i)[0] for i in range(number)]


def of_a_switch(guest: Guest) -> dict[str, Any]:
    """Return the requests that a switch makes in each direction, and the MSRs that it reads; the guest is in mode kvm again then.

    The list of MSRs is read where QEMU keeps it: it stays there until the next MSR is read or written.
    """
    there = _traced(guest, "tcg")
    msrs = _msrs(guest, next(argument for request, argument in reversed(there) if request == KVM_GET_MSRS))
    back = _traced(guest, "kvm")
    requests = [[request for request, _ in traced] for traced in (there, back)]
    return dict(zip(DIRECTIONS, requests)) | {"msrs": msrs}
