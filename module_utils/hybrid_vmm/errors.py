# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can go wrong, as exceptions whose message can be shown to a person as it is.

A message names the thing (VM, file, socket), says what is wrong and what to do.  ``code`` is the same for programs; it
is returned by the modules and by ``hybridctl --json`` and never changes for a given cause.
"""

from __future__ import annotations


class HybridError(Exception):
    """Base of all errors of this package.

    :param message: one sentence or two for a person.
    """

    code = "error"

    @property
    def message(self) -> str:
        """The text for a person."""
        return str(self)


class DefinitionError(HybridError):
    """A VM definition is not valid. The message starts with the path of the value."""

    code = "bad-definition"


class PolicyError(DefinitionError):
    """A policy is not valid. The message starts with the path of the value."""

    code = "bad-policy"


class StoreError(HybridError):
    """A definition cannot be read or written: permission, disk full, no such folder."""

    code = "store"


class UnknownVm(HybridError):
    """No VM of that name is defined on this host."""

    code = "unknown-vm"


class LibraryMissing(HybridError):
    """Python cannot import qemu.qmp."""

    code = "library-missing"


class LaunchError(HybridError):
    """QEMU cannot be started: something the definition names is missing on this host."""

    code = "launch"


class VmError(HybridError):
    """Base of what can happen with one running (or not running) VM.

    :param vm: name of the VM; the message begins with it.
    :param text: what is wrong and what to do.
    """

    code = "vm"

    def __init__(self, vm: str, text: str) -> None:
        super().__init__(f"VM '{vm}': {text}")
        self.vm = vm
        self.text = text


class NotRunning(VmError):
    """There is no QMP socket, or nobody listens on it."""

    code = "not-running"


class PermissionDenied(VmError):
    """The caller may not use the VM's socket or folder."""

    code = "permission-denied"


class Busy(VmError):
    """Another run holds the VM until our deadline."""

    code = "busy"


class TimedOut(VmError):
    """QEMU did not answer before the deadline. A command that was sent may still take effect."""

    code = "timed-out"


class QemuDied(VmError):
    """QEMU closed the connection during the call."""

    code = "qemu-died"


class ProtocolFailure(VmError):
    """What answered on the socket does not speak QMP as expected."""

    code = "protocol"


class CommandUnknown(VmError):
    """QEMU does not know the QMP command: it is not the hybrid binary."""

    code = "command-unknown"


class CommandFailed(VmError):
    """QEMU refused a QMP command.

    :param desc: QEMU's own words.
    """

    code = "command-failed"

    def __init__(self, vm: str, text: str, desc: str) -> None:
        super().__init__(vm, text)
        self.desc = desc


class NotHybrid(VmError):
    """The VM runs, but with an accelerator that cannot switch."""

    code = "not-hybrid"


class WrongInterface(VmError):
    """The running QEMU's series speaks another version of the interface than this package."""

    code = "wrong-interface"


class Locked(VmError):
    """The VM's policy locks another mode."""

    code = "locked"


class Blocked(VmError):
    """The VM cannot switch now, and QEMU says why (a blocker)."""

    code = "blocked"


class NotTried(VmError):
    """The VM was left alone, because another VM of the same call failed before anything was switched."""

    code = "not-tried"
