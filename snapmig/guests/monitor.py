"""
QEMU's monitor, by synchronous calls over the QEMU project's own client library.

It is reached at its socket, or through libvirt: :mod:`snapmig.guests.connection` has the ways.

The library is asyncio; its loop runs only inside a call here, so that there is no other thread and
workers can be forked. It runs for moments only, and signals arrive between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from snapmig.errors import UsageError
from snapmig.guests.answers import WrongAnswerError, typed
from snapmig.guests.connection import (
    Connection,
    MonitorError,
    Peer,
    Renewal,
    SocketConnection,
    words,
)
from snapmig.guests.name import Domain
from snapmig.guests.wait import USUAL_WAIT, MonitorWait
from snapmig.system.signals import HeldSignals, raise_if_cancelled

__all__ = ("Domain", "Monitor", "MonitorError", "Peer", "Stop", "is_there", "words")

Answer = TypeVar("Answer")
Work = Callable[[], Coroutine[Any, Any, Any]]
_NOTICE_S = 5.0
_MOMENT_S = 0.1
_GLANCE_S = 0.001
_AFTER_SILENCE_S = 2.0
"""Seconds to wait for an answer while an earlier one is still missing."""
_QUIET = logging.NullHandler()


class Stop(NamedTuple):
    """
    A moment at which the guest was stopped.

    :param stopped_ns: nanoseconds since 1970, as all times
    :param resumed_ns: None if it has not been resumed
    """

    stopped_ns: int
    resumed_ns: int | None = None

    @property
    def seconds(self) -> float | None:
        """Length of the pause, None if it is not over, or if the clock was set meanwhile."""
        if self.resumed_ns is None or self.resumed_ns < self.stopped_ns:
            return None
        return (self.resumed_ns - self.stopped_ns) / 1e9


class Monitor:
    """
    A monitor that was reached, directly or through libvirt.

    :param source: the UNIX socket of ``-qmp unix:PATH,server=on``, or a domain of libvirt's
    :param wait: limit for each answer, and for the greeting
    :ivar path: the source, for people
    :ivar peer: QEMU's process; None if it is not known or may not be looked into
    :raises MonitorError: nobody listens there, it is not a monitor, or it does not greet in time
    :raises UsageError: a program or library for it is not installed
    """

    def __init__(self, source: str | Domain, wait: MonitorWait = USUAL_WAIT) -> None:
        try:
            from qemu.qmp import ExecuteError, QMPClient, QMPError  # noqa: PLC0415 - optional
        except ImportError as error:
            message = "running guests need qemu.qmp: pip install 'snapmig[qemu]'"
            raise UsageError(message) from error
        self._connection: Connection
        if isinstance(source, Domain):
            from snapmig.guests.domain import DomainConnection  # noqa: PLC0415 - few guests need it

            self._connection = DomainConnection(source, wait.limit_s)
        else:
            self._connection = SocketConnection(source)
        self.path = self._connection.path
        self._wait = wait
        self._silent = False
        self._pending: list[asyncio.Task[Any]] = []
        # If the peer is no QEMU, the library logs the JSON reader's exception and passes it on.
        logging.getLogger("qemu.qmp").addHandler(_QUIET)
        self._refusal = ExecuteError
        self._errors = (QMPError, OSError, EOFError, ValueError, RecursionError)
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("snapmig")
        self.peer = self._connect()

    def execute(self, command: str, **arguments: Any) -> Any:
        """
        Run a command and return its answer unchanged; an argument's ``_`` stands for ``-``.

        :raises MonitorError: QEMU refused it (with QEMU's reason), did not answer, or went away
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._answer(command, lambda: self._client.execute(command, named or None))

    def ask(self, kind: type[Answer], command: str, **arguments: Any) -> Answer:
        """
        Run a command and return its answer as a type of :mod:`snapmig.guests.answers`.

        :raises MonitorError: as :meth:`execute`, or the answer is of another type
        """
        try:
            return typed(self.execute(command, **arguments), kind)
        except WrongAnswerError as error:
            raise self._wrong(command, error) from error

    def begin(
        self, kind: type[Answer], command: str, **arguments: Any
    ) -> Callable[[], Answer | None]:
        """
        Send a command without waiting, and return a function that returns its answer, once known.

        While QEMU sends a guest it may not answer before its data is taken.

        :raises MonitorError: by that function, as :meth:`ask`
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        with HeldSignals():
            task = self._loop.create_task(self._client.execute(command, named or None))
            self._pending.append(task)
            self._loop.run_until_complete(asyncio.sleep(0))

        def look() -> Answer | None:
            with HeldSignals():
                self._loop.run_until_complete(asyncio.wait({task}, timeout=_GLANCE_S))
            if not task.done():
                return None
            try:
                return typed(task.result(), kind)
            except WrongAnswerError as error:
                raise self._wrong(command, error) from error
            except self._errors as error:
                raise self._refused(command, error) from error

        return look

    def send_descriptor(self, fd: int, command: str, **arguments: Any) -> Any:
        """
        Run a command for a descriptor, ``getfd`` or ``add-fd``, and return its answer.

        :raises MonitorError: QEMU refused it (with QEMU's reason), or went away
        """

        async def send() -> Any:
            self._client.send_fd_scm(fd)
            return await self._client.execute(command, arguments)

        return self._answer(command, send)

    def stops(self) -> list[Stop]:
        """Return the stops of the guest during this connection, by QEMU's clock."""
        found: list[Stop] = []
        for event in self._client.events.history:
            with contextlib.suppress(KeyError, TypeError):
                at: Any = event["timestamp"]
                time_ns = at["seconds"] * 10**9 + at["microseconds"] * 1000
                if event["event"] == "STOP":
                    found.append(Stop(time_ns))
                elif event["event"] == "RESUME" and found and found[-1].resumed_ns is None:
                    found[-1] = found[-1]._replace(resumed_ns=time_ns)
        return found

    def take_events(self) -> None:
        """Take what has come, without waiting."""
        with HeldSignals():
            self._loop.run_until_complete(asyncio.sleep(_GLANCE_S))

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._connection.socket.fileno()

    @property
    def renewal(self) -> Renewal | None:
        """The program to reach the monitor anew if this connection breaks; None for a socket."""
        return self._connection.renewal

    def domain_xml(self) -> bytes | None:
        """Return the definition of a domain of libvirt's, as its save images have it."""
        if self._connection.renewal is None:
            return None
        return self.ask(str, "snapmig-domain-xml").encode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Leave the monitor; the guest is not affected."""
        if not self._loop.is_closed():
            try:
                with contextlib.suppress(*self._errors), HeldSignals():
                    self._run(self._client.disconnect, _AFTER_SILENCE_S)
                for task in self._pending:
                    self._end(task, silent=True)
            finally:
                self._loop.close()
        self._connection.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _connect(self) -> Peer | None:
        try:
            self._wait_for_greeting()
            peer = self._connection.find_peer()
            self._run(lambda: self._client.connect(self._connection.socket), self._wait.limit_s)
        except self._errors as error:
            self.close()
            message = f"no QEMU monitor answers here: {_words(error)}"
            raise MonitorError(message, path=self.path) from error
        except BaseException:  # a signal's, a cancellation, or a monitor that does not greet
            self.close()
            raise
        return peer

    def _wait_for_greeting(self) -> None:
        # Before asyncio has the socket: an exception from a signal handler tears nothing here.
        connection = self._connection
        connection.socket.setblocking(False)
        started, told, connected = time.monotonic(), False, False
        while True:
            # If the socket's queue of clients is full, connecting must be retried.
            connected = connected or connection.try_to_connect()
            if connected and _is_readable(connection.socket, _MOMENT_S):
                return
            if not connected:
                time.sleep(_MOMENT_S)
            raise_if_cancelled()
            waited = time.monotonic() - started
            if waited >= self._wait.limit_s:
                raise MonitorError(connection.silence(self._wait.limit_s), path=self.path)
            if waited >= _NOTICE_S and not told and self._wait.notice is not None:
                told = True
                text = f"{connection.notice}; waiting up to {self._wait.limit_s:g} s"
                self._wait.notice(text)

    def _answer(self, command: str, work: Work) -> Any:
        # Answers come in the order of commands: after a missing one there is little to wait for.
        limit = self._wait.limit_s
        limit = min(limit, _AFTER_SILENCE_S) if self._silent else limit
        try:
            answer = self._run(work, limit)
        except TimeoutError as error:
            message = f"QEMU did not answer {command} in {limit:g} s"
            raise MonitorError(message, path=self.path) from error
        except self._errors as error:
            raise self._refused(command, error) from error
        self._silent = False
        return answer

    def _wrong(self, command: str, error: WrongAnswerError) -> MonitorError:
        message = f"QEMU's answer to {command} is invalid: {words(str(error))}"
        return MonitorError(message, path=self.path)

    def _refused(self, command: str, error: BaseException) -> MonitorError:
        who, verb = "QEMU", "did not answer"
        if isinstance(error, self._refusal):
            who = "libvirt" if error.error_class == "LibvirtError" else who
            verb = "refused"
        return MonitorError(f"{who} {verb} {command}: {_words(error)}", path=self.path)

    def _run(self, work: Work, limit_s: float) -> Any:
        task: asyncio.Task[Any] | None = None
        started = time.monotonic()
        end = started + limit_s
        try:
            while task is None or not task.done():
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                # Held, because an exception from a handler inside the loop is swallowed or tears
                # it, and Python tells on stderr of a coroutine that was made and never begun.
                with HeldSignals():
                    task = task or self._loop.create_task(work())
                    self._loop.run_until_complete(
                        asyncio.wait({task}, timeout=min(left, _MOMENT_S))
                    )
            return task.result()
        finally:
            if task is not None:
                self._end(task, silent=time.monotonic() - started >= min(limit_s, _AFTER_SILENCE_S))

    def _end(self, task: asyncio.Task[Any], *, silent: bool) -> None:
        if not task.done():
            self._silent = silent
            task.cancel()
            with HeldSignals():
                self._loop.run_until_complete(asyncio.wait({task}, timeout=_AFTER_SILENCE_S))
        if task.done() and not task.cancelled():
            task.exception()  # retrieved, or asyncio prints it if a signal came just now


def is_there(domain: Domain, wait: MonitorWait) -> bool:
    """
    Return True if a domain exists and is not off.

    :raises MonitorError: libvirt can't be reached
    """
    from snapmig.guests.domain import AbsentError  # noqa: PLC0415 - as above

    try:
        Monitor(domain, wait).close()
    except AbsentError:
        return False
    return True


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _words(error: BaseException) -> str:
    return words(str(error)) or type(error).__name__  # a time-out has no message of its own
