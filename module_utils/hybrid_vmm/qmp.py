# SPDX-License-Identifier: GPL-3.0-or-later
"""The only transport to a running QEMU: one QMP connection, under one deadline, with errors for people.

Built on qemu.qmp (asyncio).  What does not belong here: the hybrid commands themselves, see hybrid.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from . import lock
from .clock import Deadline
from .deps import require_qmp
from .errors import (
    Busy,
    CommandFailed,
    CommandUnknown,
    HybridError,
    NotRunning,
    PermissionDenied,
    ProtocolFailure,
    QemuDied,
    TimedOut,
)
from .paths import GROUP, unit_name

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

#: Seconds that saying goodbye may take; nothing depends on it.
_CLOSE_LIMIT = 1.0
#: Seconds between two tries when QEMU's backlog is full.
_BACKLOG_POLL = 0.02

_SERIES = re.compile(r"\bh[0-9]+\.[0-9a-f]{8}\b")


class Session:
    """One QMP connection to one VM, from the lock to the goodbye.  Use it with ``async with``.

    :param vm: name of the VM, for messages.
    :param path: the QMP socket.
    :param deadline: time limit of everything that is done with this session.
    :param lock_folder: folder to lock first (see lock.py); None for sockets of which we are the only user.
    """

    def __init__(self, vm: str, path: str, deadline: Deadline, lock_folder: Optional[str] = None) -> None:
        self.vm = vm
        self.path = path
        self.deadline = deadline
        self._lock_folder = lock_folder
        self._lock: Optional[int] = None
        self._client: Optional[QMPClient] = None

    async def __aenter__(self) -> Session:
        try:
            await self.lock()
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        await self.close()

    async def lock(self) -> None:
        """Take the VM's lock; does nothing when there is none to take or it is ours already.

        :raises NotRunning, PermissionDenied: the folder is not there, or not for us.
        :raises Busy: another run held it until the deadline.
        """
        if self._lock_folder is None or self._lock is not None:
            return
        try:
            self._lock = await lock.acquire(self._lock_folder, self.deadline)
        except OSError as exc:
            raise self._connect_error(exc) from exc
        except lock.LockHeld as exc:
            raise Busy(
                self.vm,
                f"another run uses it since more than {self.deadline} ({exc.holder}): try again when that has ended",
            ) from None

    async def connect(self) -> None:
        """Connect and negotiate.

        :raises LibraryMissing: no qemu.qmp.
        :raises NotRunning, PermissionDenied, TimedOut, QemuDied, ProtocolFailure: as their names say.
        """
        require_qmp()
        from qemu.qmp import ConnectError, QMPClient

        sock = await self._socket()
        client = QMPClient(self.vm)
        try:
            await asyncio.wait_for(client.connect(sock), self.deadline.left())
        except asyncio.TimeoutError:
            sock.close()
            raise TimedOut(
                self.vm,
                f"no QMP greeting on {self.path} within {self.deadline}: QEMU hangs, or another program keeps the "
                f"socket busy; see 'systemctl status {unit_name(self.vm)}' and 'ss -xp'",
            ) from None
        except ConnectError as exc:
            sock.close()
            if isinstance(exc.exc, (EOFError, OSError)):
                raise self._died("the handshake") from exc
            raise ProtocolFailure(self.vm, f"what listens on {self.path} does not speak QMP: {exc.exc}") from exc
        self._client = client

    async def _socket(self) -> socket.socket:
        """Return a connected socket. A full backlog is waited for (asyncio takes EAGAIN for success)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(self.path)
                    return sock
                except BlockingIOError:
                    if self.deadline.passed:
                        raise TimedOut(
                            self.vm,
                            f"too many programs wait for {self.path} since more than {self.deadline}; see 'ss -xp'",
                        ) from None
                    await asyncio.sleep(min(_BACKLOG_POLL, self.deadline.left()))
        except HybridError:
            sock.close()
            raise
        except OSError as exc:
            sock.close()
            raise self._connect_error(exc) from exc

    async def execute(self, command: str, arguments: Optional[Mapping[str, Any]] = None) -> Any:
        """Run one QMP command and return what QEMU answered.

        :raises CommandUnknown: QEMU has no such command.
        :raises CommandFailed: QEMU refused; ``desc`` has its words.
        :raises TimedOut, QemuDied, ProtocolFailure: as their names say.
        """
        from qemu.qmp import ExecInterruptedError, ExecuteError, QMPError, StateError

        if self._client is None:
            raise RuntimeError("Session.execute() before connect()")
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), self.deadline.left())
        except asyncio.TimeoutError:
            raise TimedOut(
                self.vm,
                f"no answer to '{command}' on {self.path} within {self.deadline}: QEMU hangs or is overloaded, and may "
                f"still carry it out; look again with 'hybridctl show {self.vm}'",
            ) from None
        except ExecuteError as exc:
            desc = str(exc)
            if exc.error_class == "CommandNotFound":
                raise CommandUnknown(self.vm, f"QEMU {self.version} does not know the command '{command}'") from exc
            raise CommandFailed(self.vm, f"QEMU refused '{command}': {desc}", desc) from exc
        except (ExecInterruptedError, StateError) as exc:
            raise self._died(f"'{command}'") from exc
        except QMPError as exc:
            raise ProtocolFailure(self.vm, f"QEMU's answer to '{command}' is not QMP: {exc}") from exc

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield QMP events until the connection ends. Not limited by the deadline.

        :return: messages as in the QMP specification: ``event``, ``data``, ``timestamp``.
        :raises QemuDied: QEMU closed the connection.
        """
        from qemu.qmp import Runstate

        if self._client is None:
            raise RuntimeError("Session.events() before connect()")
        client = self._client
        with client.listener() as listener:
            while True:
                event = asyncio.ensure_future(listener.get())
                change = asyncio.ensure_future(client.runstate_changed())
                try:
                    await asyncio.wait((event, change), return_when=asyncio.FIRST_COMPLETED)
                    if event.done():
                        yield dict(event.result())
                    elif client.runstate is not Runstate.RUNNING:
                        raise self._died("listening to events")
                finally:
                    event.cancel()
                    change.cancel()

    async def close(self) -> None:
        """Disconnect and give the lock back; never raises, never waits long."""
        client, self._client = self._client, None
        if client is not None:
            # The call's own result or error is what counts.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.disconnect(), _CLOSE_LIMIT)
        held, self._lock = self._lock, None
        if held is not None:
            os.close(held)

    @property
    def version(self) -> str:
        """QEMU's version from its greeting, e.g. ``10.0.13``; ``?`` before the greeting."""
        number = self._greeting().get("qemu")
        if not isinstance(number, Mapping):
            return "?"
        return f"{number.get('major')}.{number.get('minor')}.{number.get('micro')}"

    @property
    def series(self) -> Optional[str]:
        """Identity of the QEMU series, e.g. ``h1.0a1b2c3d``, from the package version; None for a stock QEMU."""
        found = _SERIES.search(str(self._greeting().get("package", "")))
        return found.group(0) if found else None

    def _greeting(self) -> Mapping[str, Any]:
        if self._client is None or self._client.greeting is None:
            return {}
        version = self._client.greeting.QMP.version
        return version if isinstance(version, Mapping) else {}

    def _died(self, during: str) -> QemuDied:
        return QemuDied(
            self.vm,
            f"QEMU closed {self.path} during {during}, it probably ended: see 'journalctl -u {unit_name(self.vm)}'",
        )

    def _connect_error(self, exc: OSError) -> HybridError:
        unit = unit_name(self.vm)
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            return NotRunning(self.vm, f"is not running (no socket {self.path}): start it with 'systemctl start {unit}'")
        if exc.errno == errno.ECONNREFUSED:
            return NotRunning(self.vm, f"is not running (QEMU is gone, nobody listens on {self.path}): see 'journalctl -u {unit}'")
        if exc.errno in (errno.EACCES, errno.EPERM):
            return PermissionDenied(self.vm, f"no permission for {self.path}: run as root or as a member of group '{GROUP}'")
        return ProtocolFailure(self.vm, f"cannot connect to {self.path}: {exc.strerror or exc}")
