"""
A scripted destination of a multifd migration, without QEMU, well-behaved or not.

It keeps all bytes of a source; :mod:`tests.support.multifd.reader` takes them apart afterwards.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from tests.support.multifd import answers, reader, wire
from tests.support.multifd.talk import MAIN, channel

ANY_CHANNEL = "any channel"
CLOSE, LEAVE, STALL, SAY, FLOOD, HOLD = "close", "leave", "stall", "say", "flood", "hold"
_STEP = 1 << 20
_PIECES = 100
_MOMENT_S = 0.02
_END_S = 30.0


@dataclass(frozen=True)
class Deed:
    """
    What a destination does once it has read so many bytes of a connection.

    :param line: ``main``, ``channel 0`` and so on, or ``any channel``: the first that gets there
    :param kind: ``close`` the connection, ``leave`` by closing all, ``stall`` by reading no more of
        it, ``hold`` by reading no more of any, ``say`` the data on main, ``flood`` main with it
    """

    line: str
    at: int
    kind: str
    data: bytes = b""


@dataclass(frozen=True)
class Manner:
    """
    The behaviour of a destination.

    :param answer: its words on main when everything has come
    :param leaves: it closes all connections then
    :param accepts: connections that it accepts, None for all
    :param listens: somebody is at the address
    """

    deeds: tuple[Deed, ...] = ()
    answer: bytes = answers.shut(0)
    leaves: bool = False
    accepts: int | None = None
    listens: bool = True


GOOD = Manner((Deed(MAIN, 8, SAY, answers.pong(1)),))
"""A ping is answered, and in the end the migration."""


@dataclass
class Connection:
    """
    One connection.

    :ivar raw: the bytes read so far
    :ivar reads: it is still read
    :ivar ended: the source has closed it
    """

    end: socket.socket
    name: str | None = None
    raw: bytearray = field(default_factory=bytearray)
    out: bytearray = field(default_factory=bytearray)
    flood: bytes = b""
    reads: bool = True
    ended: bool = False
    closed: bool = False


class Destination:
    """
    Listens at a UNIX socket when told to; a context manager, which ends it.

    :ivar answered: everything has come, and the last word was said
    :ivar broken: a connection was closed before
    """

    def __init__(self, manner: Manner = GOOD) -> None:
        self.connections: list[Connection] = []
        self.answered = self.broken = False
        self._manner = manner
        self._left = list(manner.deeds)
        self._server = socket.socket(socket.AF_UNIX)
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def listen(self, uri: str) -> None:
        """Listen at ``unix:PATH`` from now on."""
        if not self._manner.listens:
            return
        self._server.bind(uri.removeprefix("unix:"))
        self._server.listen(16)
        self._server.setblocking(False)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_END_S)
            assert not self._thread.is_alive(), "the scripted destination hangs"
        for each in (self._server, *(one.end for one in self.connections)):
            each.close()
        self._selector.close()

    @property
    def left_open(self) -> list[str | None]:
        """Names of connections that the source has not closed, nor we."""
        found = []
        for one in self.connections:
            if not one.closed:
                poll = select.poll()
                poll.register(one.end, select.POLLRDHUP)
                found += [] if poll.poll(0) else [one.name]
        return found

    @property
    def main(self) -> bytes:
        """All bytes of the main connection."""
        return next((bytes(one.raw) for one in self.connections if one.name == MAIN), b"")

    @property
    def channels(self) -> list[bytes]:
        """All bytes of each channel."""
        return [bytes(one.raw) for one in self.connections if one.name not in (MAIN, None)]

    @property
    def read(self) -> tuple[reader.Main, list[reader.Channel]]:
        """All connections, taken apart."""
        return reader.read_main(self.main), [reader.read_channel(each) for each in self.channels]

    def ram(self, before: Mapping[str, int] | None = None) -> dict[str, bytes]:
        """Return the blocks' contents; ``before`` as of :func:`reader.restored`."""
        return reader.restored(*self.read, before)

    def _run(self) -> None:
        self._selector.register(self._server, selectors.EVENT_READ)
        while not self._over.is_set():
            for key, _ in self._selector.select(_MOMENT_S):
                if key.fileobj is self._server:
                    self._accept()
            for one in list(self.connections):
                with contextlib.suppress(BlockingIOError):
                    self._serve(one)
            self._answer()

    def _accept(self) -> None:
        if len(self.connections) == self._manner.accepts:
            self._selector.unregister(self._server)
            return
        end, _ = self._server.accept()
        end.setblocking(False)
        self._selector.register(end, selectors.EVENT_READ)
        self.connections.append(Connection(end))

    def _serve(self, one: Connection) -> None:
        if one.closed:
            return
        if one.name is None:
            one.name = _name(one)
        self._do_deeds(one)
        self._write(one)
        if one.reads and not one.closed and one.name is not None:
            self._read(one)

    def _read(self, one: Connection) -> None:
        data = _receive(one.end, min([_STEP, *(deed.at - len(one.raw) for deed in self._of(one))]))
        if not data:
            one.ended, one.reads = True, False
            self._selector.unregister(one.end)
        one.raw += data
        self._do_deeds(one)

    def _of(self, one: Connection) -> list[Deed]:
        lines = (one.name, "" if one.name in (MAIN, None) else ANY_CHANNEL)
        return [deed for deed in self._left if deed.line in lines and deed.at >= len(one.raw)]

    def _do_deeds(self, one: Connection) -> None:
        for deed in self._of(one):
            if deed.at == len(one.raw) and not one.ended:
                self._left.remove(deed)
                self._do(deed, one)

    def _do(self, deed: Deed, one: Connection) -> None:
        self.broken = self.broken or deed.kind in (CLOSE, LEAVE)
        everyone = self.connections if deed.kind in (LEAVE, HOLD) else [one]
        if deed.kind in (CLOSE, LEAVE):
            for each in everyone:
                self._close(each)
        elif deed.kind in (STALL, HOLD):
            for each in everyone:
                self._rest(each)
        else:
            main = next(each for each in self.connections if each.name == MAIN)
            main.out += deed.data
            main.flood = deed.data if deed.kind == FLOOD else b""
            self._write(main)

    def _write(self, one: Connection) -> None:
        # A flood has no end of its own.
        for _ in range(_PIECES):
            if not one.out:
                return
            try:
                del one.out[: one.end.send(one.out)]
            except BlockingIOError:
                return
            except OSError:  # the source has gone
                one.out.clear()
                return
            one.out += one.flood

    def _rest(self, one: Connection) -> None:
        if one.reads:
            one.reads = False
            self._selector.unregister(one.end)

    def _close(self, one: Connection) -> None:
        if not one.closed:
            self._rest(one)
            one.closed = True
            one.end.close()

    def _answer(self) -> None:
        # All bytes of channels are here when the last ones of main are.
        mains = [one for one in self.connections if one.name == MAIN]
        if self.answered or not mains or mains[0].raw[-1:] != b"}":
            return
        if not all(one.reads for one in self.connections) or reader.find_end(mains[0].raw) is None:
            return
        self.answered = True
        for one in self.connections:
            with contextlib.suppress(BlockingIOError):
                while one.reads and not one.closed:
                    self._serve(one)
        mains[0].out += self._manner.answer
        self._write(mains[0])
        if self._manner.leaves:
            for one in self.connections:
                self._close(one)


def _name(one: Connection) -> str | None:
    first = _receive(one.end, wire.INIT.size, socket.MSG_PEEK)
    if first[:4] == b"QEVM":
        return MAIN
    return channel(first[24]) if len(first) > 24 else None


def _receive(end: socket.socket, length: int, flags: int = 0) -> bytes:
    try:
        return end.recv(length, flags)
    except ConnectionResetError:
        return b""
