"""
QEMU's monitor, by synchronous calls over the QEMU project's own client library.

The library is asyncio; its loop runs only inside a call here, so that no thread exists beside the
caller's and workers can be forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Any, NamedTuple

from snapmig.errors import SnapmigError, UsageError
from snapmig.system.signals import HeldSignals

__all__ = ("Monitor", "MonitorError", "Peer")

_ANSWER_S = 30.0


class MonitorError(SnapmigError):
    """QEMU's monitor can't be reached, or refused a command."""


class Peer(NamedTuple):
    """
    The process that listens at a monitor's socket, as the kernel names it.

    :param pid: 0 where it is in no process namespace that is seen from here
    :param uid: its effective user when it began to listen
    """

    pid: int
    uid: int


class Monitor:
    """
    A connection to a monitor's socket.

    :param path: the UNIX socket of ``-qmp unix:PATH,server=on``
    :raises MonitorError: nobody listens there, or it is not a monitor
    :raises UsageError: the client library is not installed
    """

    def __init__(self, path: str) -> None:
        try:
            from qemu.qmp import QMPClient, QMPError  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            message = "running guests need qemu.qmp: pip install 'snapmig[qemu]'"
            raise UsageError(message) from error
        self.path = path
        self._errors = (QMPError, OSError, asyncio.TimeoutError, EOFError)
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("snapmig")
        self.peer = self._connect(path)

    def execute(self, command: str, **arguments: Any) -> Any:
        """
        Run a command and return its answer; an argument's ``_`` stands for ``-``.

        :raises MonitorError: QEMU refused it, with its words, or went away
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            return self._run(self._client.execute(command, named or None))
        except self._errors as error:
            message = f"QEMU refused {command}: {_words(error)}"
            raise MonitorError(message, path=self.path) from error

    def send_descriptor(self, fd: int, command: str, **arguments: Any) -> Any:
        """
        Run a command that takes a descriptor, ``getfd`` or ``add-fd``, and return its answer.

        :raises MonitorError: QEMU refused it, with its words, or went away
        """

        async def send() -> Any:
            self._client.send_fd_scm(fd)
            return await self._client.execute(command, arguments)

        try:
            return self._run(send())
        except self._errors as error:
            message = f"QEMU refused {command}: {_words(error)}"
            raise MonitorError(message, path=self.path) from error

    def close(self) -> None:
        """Leave the monitor; the guest goes on as it is."""
        if not self._loop.is_closed():
            with contextlib.suppress(*self._errors):
                self._run(self._client.disconnect())
            self._loop.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _connect(self, path: str) -> Peer:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            self._run(self._client.connect(connection))
        except self._errors as error:
            connection.close()
            self._loop.close()
            message = f"no QEMU monitor answers here: {_words(error)}"
            raise MonitorError(message, path=path) from error
        except BaseException:  # a signal's, or a cancellation, which waited until it was connected
            self.close()
            connection.close()
            raise
        pid, uid, _gid = struct.unpack("iII", raw)
        return Peer(pid, uid)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        with HeldSignals():
            return self._loop.run_until_complete(asyncio.wait_for(work, _ANSWER_S))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__  # a time-out has no words of its own
