"""
A scripted destination of a postcopy migration, without QEMU.

It reads the source's connection by itself, keeps the pages, and refuses one that comes twice, as
QEMU does. A script says what it sends, once the guest would run.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from types import MappingProxyType

import numpy as np

from snapmig.container.reader import SnapshotFile
from snapmig.images.plan import Content
from snapmig.images.qemu.shared import whole_stream
from snapmig.images.qemu.state import VmState
from snapmig.migration.recovery import ask_for_received, read_received
from snapmig.migration.sender import MainSender
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.serving import Serving, listed_blocks
from tests.support.multifd import wire
from tests.support.multifd.wire import PAGE


class WrongStreamError(Exception):
    """The source sent what no destination takes."""


def request(offset: int, name: bytes | None, length: int = PAGE) -> bytes:
    """Return a request for a page, of the block asked for before if there is no name."""
    body = struct.pack(">QI", offset, length)
    if name is not None:
        body += bytes([len(name)]) + name
    return struct.pack(">HH", 3 if name is not None else 4, len(body)) + body


class Destination:
    """
    The other end of a connection, in a thread of its own.

    :param connection: becomes its own
    :param script: called once the guest runs, with this destination; may send anything
    :param received: pages that have come over an earlier connection: masks by block
    :param page_sizes: of blocks with other pages than usual; once the guest runs, each must come as
        a whole, in order, in one section
    :ivar ram: the contents of each block by its name
    :ivar discarded: ranges by block
    :ivar order: blocks and offsets of pages in the order of their arrival
    :ivar at_run: their number when the guest was let run
    :ivar error: why it gave up, None if it has everything
    """

    def __init__(
        self,
        connection: socket.socket,
        script: Callable[[Destination], None] = lambda _end: None,
        received: dict[bytes, np.ndarray] | None = None,
        page_sizes: Mapping[bytes, int] = MappingProxyType({}),
    ) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._script = script
        self._received = received
        self._page_sizes = page_sizes
        self._block = b""
        self._running = received is not None
        self._due: tuple[bytes, int] | None = None
        self.ram: dict[bytes, bytearray] = {}
        self._pages_here: set[tuple[bytes, int]] = set()
        self.discarded: dict[bytes, list[tuple[int, int]]] = {}
        self.order: list[tuple[bytes, int]] = []
        self.at_run = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Send bytes to the source; its end is no failure here."""
        with suppress(OSError):
            self._connection.sendall(data)

    def wait_for_close(self) -> None:
        """Drop everything until the source has gone."""
        with suppress(OSError):
            while self._connection.recv(1 << 16):
                pass

    def finish(self) -> None:
        """Wait for its end; raise if the source sent something wrong."""
        self._thread.join(30)
        self.close()
        if self.error is not None:
            raise self.error

    def cut(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection, and release everything."""
        self.cut()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._file.close()
        self._connection.close()

    def _run(self) -> None:
        try:
            if self._received is None:
                self._head()
            while self._section():
                pass
            self.send(struct.pack(">HHI", 1, 4, 0))
        except (WrongStreamError, OSError, ValueError) as error:
            self.error = error

    def _head(self) -> None:
        if self._read(4) != b"QEVM" or self._number(4) != 3 or self._number(1) != 7:
            raise WrongStreamError("no start of a stream")
        self._read(self._number(4))

    def _section(self) -> bool:
        kind = self._number(1)
        if kind == 0:
            return False
        if kind == 8:
            self._command(self._number(2), self._read(self._number(2)))
            return True
        self._read(4)
        if kind == 1:
            self._read(self._number(1) + 8)
            self._list(self._number(8) & ~0xFFF)
        elif kind not in (2, 3):
            raise WrongStreamError(f"section type is {kind}")
        self._pages()
        if self._number(1) != 0x7E:
            raise WrongStreamError("no footer")
        self._read(4)
        return True

    def _list(self, size: int) -> None:
        while size:
            name = self._read(self._number(1))
            length = self._number(8)
            if name in self._page_sizes and self._number(8) != self._page_sizes[name]:
                raise WrongStreamError(f"wrong page size of {name!r}")
            self.ram[name] = bytearray(length)
            size -= length

    def _pages(self) -> None:
        while not (word := self._number(8)) & wire.EOS:
            if not word & wire.CONTINUE:
                self._block = self._read(self._number(1))
            place = (self._block, word & ~0xFFF)
            page = self._read(PAGE if word & wire.DATA else 1)
            mask = None if self._received is None else self._received[self._block]
            if place in self._pages_here or (mask is not None and mask[place[1] // PAGE]):
                raise WrongStreamError(f"a page came twice: {place}")
            self._check_whole(place)
            self._pages_here.add(place)
            self.order.append(place)
            if word & wire.DATA:
                self.ram[self._block][place[1] : place[1] + PAGE] = page

        if self._due is not None:
            raise WrongStreamError(f"a section ends where {self._due} is due")

    def _check_whole(self, place: tuple[bytes, int]) -> None:
        if not self._running:
            return
        block, offset = place
        size = self._page_sizes.get(block, PAGE)
        if place != self._due and (self._due is not None or offset % size):
            raise WrongStreamError(f"{place} comes where {self._due} is due")
        self._due = (block, offset + PAGE) if (offset + PAGE) % size else None

    def _command(self, number: int, data: bytes) -> None:
        if number == wire.PING:
            self.send(struct.pack(">HH", wire.PONG, 4) + data)
        elif number == wire.POSTCOPY_ADVISE:
            summary = reduce(or_, self._page_sizes.values(), PAGE)
            if data != struct.pack(">QQ", summary, PAGE):
                raise WrongStreamError("wrong page sizes")
        elif number == wire.POSTCOPY_DISCARD:
            name = data[2 : 2 + data[1]]
            ranges = list(struct.iter_unpack(">QQ", data[3 + data[1] :]))
            if any(each % self._page_sizes.get(name, PAGE) for pair in ranges for each in pair):
                raise WrongStreamError("a discard of a part of a page")
            self.discarded.setdefault(name, []).extend(ranges)
        elif number == wire.PACKAGED:
            package = self._read(int.from_bytes(data))
            listen, run = wire.command(wire.POSTCOPY_LISTEN), wire.command(wire.POSTCOPY_RUN)
            if not package.startswith(listen) or not package.endswith(run) or not self.discarded:
                raise WrongStreamError("a package without LISTEN, RUN or a discard before it")
            self.at_run = len(self.order)
            self._running = True
            self._script(self)
        elif number == wire.RECV_BITMAP:
            assert self._received is not None
            mask = self._received[data[1:]]
            self.ram[data[1:]] = bytearray(len(mask) * PAGE)
            bits = np.packbits(mask, bitorder="little").tobytes()
            bits += bytes(-len(bits) % 8)
            head = struct.pack(">HH", 5, len(data)) + data
            mark = struct.pack(">Q", 0x0123456789ABCDEF)
            self.send(head + struct.pack(">Q", len(bits)) + bits + mark)
        elif number == wire.POSTCOPY_RESUME:
            self.send(struct.pack(">HHI", 6, 4, 1))
            self._script(self)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._read(size))

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise WrongStreamError("the connection ended")
        return data


def serve(
    snapshot: Path,
    script: Callable[[Destination], None] = lambda _end: None,
    *,
    first: tuple[int, ...] = (),
    jobs: int = 2,
    page_sizes: Mapping[bytes, int] = MappingProxyType({}),
    blocks: int | None = None,
) -> tuple[Destination, Serving]:
    """
    Serve a snapshot to a destination; return both.

    :param blocks: number of RAM blocks served; others count as a part of the device state
    """
    options = read_options(jobs, "auto", None, None)
    with (
        SnapshotFile(os.fspath(snapshot)) as file,
        Reading(file, options) as reading,
        Serving(reading, *_inputs(file, page_sizes, blocks)) as serving,
    ):
        ours, theirs = socket.socketpair()
        end = Destination(theirs, script, page_sizes=page_sizes)
        with ours:
            try:
                main = MainSender(ours, serving.take)
                main.send(serving.stream.header)
                serving.run(main, first, lambda: None, lambda: None)
            except BaseException:
                end.close()
                raise
        return end, serving


def serve_rest(
    snapshot: Path,
    script: Callable[[Destination], None],
    received: dict[bytes, np.ndarray],
    page_sizes: Mapping[bytes, int] = MappingProxyType({}),
) -> Destination:
    """Serve the rest of a snapshot to a destination that has some pages; return it."""
    ours, theirs = socket.socketpair()
    end = Destination(theirs, script, received, page_sizes)
    options = read_options(2, "auto", None, None)
    with ours, SnapshotFile(os.fspath(snapshot)) as file, Reading(file, options) as reading:
        content, state = _inputs(file, page_sizes)
        try:
            ours.sendall(ask_for_received(listed_blocks(state)))
            masks = read_received(ours, listed_blocks(state), lambda *_: None)
            with Serving(reading, content, state, masks) as serving:
                serving.resume(MainSender(ours, serving.take), lambda: None)
        except BaseException:
            end.close()
            raise
    return end


def _inputs(
    file: SnapshotFile, page_sizes: Mapping[bytes, int], count: int | None = None
) -> tuple[Content, VmState]:
    content, state = whole_stream(content_of(file), "a migration")
    blocks = (
        replace(block, page_size=page_sizes.get(block.name.encode(), PAGE))
        for block in content.blocks[:count]
    )
    return content._replace(blocks=tuple(blocks)), state
