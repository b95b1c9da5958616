"""The main connection of a migration that is received, with and without multifd."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.migration.main_channel import MainChannel
from snapmig.pages import Bytes
from tests.support.multifd.plain import background, write_plain
from tests.support.multifd.plan import BLOCKS
from tests.support.multifd.talk import MAIN
from tests.support.qemu_files import FLUSH, Block, Stream, data, device, part, zero

MOST = 1 << 18
MOST_RAM = 1 << 30


def seeds() -> list[bytes]:
    """Return streams, the first byte telling whether pages have channels of their own."""
    flushes = Stream([part(zero(0, b"ram"))], list_end=(FLUSH, 16)).build()
    scripted = write_plain(background(BLOCKS[2:3])).line(MAIN).data[: MOST - 1]
    streams = [
        Stream([part(data(0, 1, b"ram"), data(1, 2), zero(2))], [Block()]).build(),
        Stream([device(1), part(data(0, 1, b"ram"))], early=device(1)).build(),
        scripted,
    ]
    return [b"\1" + flushes, *(b"\0" + each for each in streams)]


class Sink:
    """Counts pages."""

    full = False

    def __init__(self, pages: int) -> None:
        self._pages = pages

    def take_pages(self, first: int, pages: Bytes) -> None:
        """Check that they are in the guest's RAM."""
        assert pages.shape[1] == PAGE_SIZE
        self.take_zeros(first, len(pages))

    def take_zeros(self, first: int, count: int) -> None:
        """Check the same of zero pages."""
        assert 0 <= first < first + count <= self._pages


def read(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Receive a stream to its end."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MOST)
    ours.sendall(data[1 : 1 + MOST])
    ours.shutdown(socket.SHUT_WR)
    ours.setblocking(False)
    try:
        _receive(theirs, multifd=data[:1] == b"\1", check=lambda: None)
    finally:
        ours.close()
        theirs.close()


def _receive(connection: socket.socket, *, multifd: bool, check: Callable[[], None]) -> None:
    main = MainChannel(connection, "the source", multifd=multifd)
    state = main.read_head(10, check)
    blocks = tuple(RamBlock(block.name, block.length) for block in state.blocks)
    geometry = Geometry(blocks, 64 << 10)
    pages = sum(-(-block.size // PAGE_SIZE) for block in blocks)
    main.begin(state, geometry, Sink(pages))
    try:
        for _ in range(1000):
            moved = main.receive()
            main.passed = main.marks
            if main.ended or not (moved or main.is_behind):
                break
        if main.ended:
            main.state()
    finally:
        main.release()
