#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does this QEMU binary start, say who it is, answer, and run guest code?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: hybrid_qemu_smoke
short_description: Try out a QEMU binary
description:
  - Checks what C(--version) says, that QMP answers C(query-version), that the accelerators are in the list, and boots a guest of
    512 bytes through the firmware under each given accelerator. The guest ends QEMU with a status that nothing else gives.
options:
  binary:
    description: Path of C(qemu-system-x86_64).
    type: path
    required: true
  identity:
    description: Text that C(--version) must contain.
    type: str
    required: true
  version:
    description: The version that QMP must answer.
    type: str
    required: true
  accelerators:
    description: Accelerators that must be in the list.
    type: list
    elements: str
    default: [tcg]
  boot:
    description: Values of C(-accel) to boot the guest with. Those that need KVM are left out where C(/dev/kvm) cannot be used.
    type: list
    elements: str
    default: [tcg]
  timeout:
    description: Seconds for each start of the binary.
    type: int
    default: 60
extends_documentation_fragment:
  - hybrid_attributes.reads
"""

EXAMPLES = r"""
- name: Try out the binary
  hybrid_qemu_smoke:
    binary: /var/tmp/build/stage/bin/qemu-system-x86_64
    identity: hybrid-vmm h1.0a1b2c3d
    version: 10.0.13
    accelerators: [kvm, tcg, hybrid]
    boot: [tcg, "hybrid,start=tcg"]
"""

RETURN = r"""
accelerators:
  description: What the binary offers.
  type: list
  elements: str
  returned: success
booted:
  description: What the guest ran under.
  type: list
  elements: str
  returned: success
skipped_boots:
  description: What was left out because KVM cannot be used here.
  type: list
  elements: str
  returned: success
"""

import fcntl
import json
import os
import subprocess
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

#: mov al, 0x10; out 0xf4, al; cli; hlt. isa-debug-exit makes status (0x10 << 1) | 1 of it.
BOOT_SECTOR = bytes([0xB0, 0x10, 0xE6, 0xF4, 0xFA, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"
GUEST_STATUS = 33

KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12


class SmokeError(Exception):
    """The binary does not do what it must."""


def run(argv: list[str], timeout: int, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the binary; time out with an error that says what was run."""
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as exc:
        raise SmokeError(f"{' '.join(argv)}: no end after {timeout} s: {(exc.stderr or b'').decode(errors='replace').strip()}") from exc
    except OSError as exc:
        raise SmokeError(f"{argv[0]}: {exc.strerror}") from exc


def check_identity(binary: str, identity: str, timeout: int) -> None:
    """Check what --version says."""
    result = run([binary, "--version"], timeout)
    if result.returncode:
        raise SmokeError(f"{binary} --version ended with {result.returncode}: {result.stderr.strip()}")
    if identity not in result.stdout:
        raise SmokeError(f"{binary} --version says '{result.stdout.splitlines()[0]}', without '{identity}'")


def check_qmp(binary: str, version: str, timeout: int) -> None:
    """Check that QMP answers query-version."""
    commands = "".join(json.dumps({"execute": name}) + "\n" for name in ("qmp_capabilities", "query-version", "quit"))
    argv = [binary, "-machine", "none", "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    result = run(argv, timeout, commands)
    for line in result.stdout.splitlines():
        answer = json.loads(line)
        numbers = answer.get("return", {}).get("qemu") if isinstance(answer.get("return"), dict) else None
        if numbers:
            found = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
            if found != version:
                raise SmokeError(f"QMP query-version answers {found}, expected {version}")
            return
    raise SmokeError(f"QMP did not answer query-version: {result.stdout.strip()} {result.stderr.strip()}")


def list_accelerators(binary: str, timeout: int) -> list[str]:
    """Return the accelerators that -accel help lists."""
    result = run([binary, "-accel", "help"], timeout)
    return sorted(line.strip() for line in result.stdout.splitlines()[1:] if line.strip())


def boot(binary: str, accel: str, timeout: int) -> None:
    """Boot the guest under one accelerator."""
    with tempfile.NamedTemporaryFile(prefix="hybrid-smoke-") as disk:
        disk.write(BOOT_SECTOR)
        disk.flush()
        argv = [
            *[binary, "-machine", "pc,smm=off", "-accel", accel, "-m", "32", "-nodefaults", "-display", "none", "-no-reboot"],
            *["-drive", f"file={disk.name},format=raw,if=ide,snapshot=on", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
        ]
        result = run(argv, timeout)
    if result.returncode != GUEST_STATUS:
        raise SmokeError(
            f"the guest did not run under -accel {accel}: status {result.returncode}, expected {GUEST_STATUS}: {result.stderr.strip()}"
        )


def kvm_usable() -> bool:
    """Say whether this user can talk to a KVM of the known version."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fcntl.ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION
    except OSError:
        return False
    finally:
        os.close(fd)


def needs_kvm(accel: str) -> bool:
    """Say whether an accelerator opens /dev/kvm."""
    return accel.split(",")[0] in ("kvm", "hybrid")


def smoke(params: dict[str, Any]) -> dict[str, Any]:
    """Run all checks."""
    binary, timeout = params["binary"], params["timeout"]
    check_identity(binary, params["identity"], timeout)
    check_qmp(binary, params["version"], timeout)
    offered = list_accelerators(binary, timeout)
    missing = sorted(set(params["accelerators"]) - set(offered))
    if missing:
        raise SmokeError(f"-accel help lists {', '.join(offered)}, without {', '.join(missing)}")
    skipped = [accel for accel in params["boot"] if needs_kvm(accel) and not kvm_usable()]
    booted = [accel for accel in params["boot"] if accel not in skipped]
    for accel in booted:
        boot(binary, accel, timeout)
    return {"accelerators": offered, "booted": booted, "skipped_boots": skipped}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "binary": {"type": "path", "required": True},
            "identity": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "accelerators": {"type": "list", "elements": "str", "default": ["tcg"]},
            "boot": {"type": "list", "elements": "str", "default": ["tcg"]},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **smoke(module.params))
    except SmokeError as exc:
        module.fail_json(msg=f"smoke test: {exc}")


if __name__ == "__main__":
    main()
