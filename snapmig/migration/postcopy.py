"""A postcopy migration's source: the bytes around the pages, and requests for pages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

from snapmig.geometry import PAGE_SIZE
from snapmig.images.qemu.records import RAM_ZERO
from snapmig.images.qemu.sections import (
    MAGIC,
    RAM_EOS,
    SECTION_COMMAND,
    SECTION_END,
    SECTION_EOF,
    SECTION_PART,
    VERSION,
)
from snapmig.images.qemu.split import split_state
from snapmig.images.qemu.state import QemuBlock, VmState
from snapmig.migration.return_path import OPENING, Command, Message
from snapmig.migration.wire import MigrationError
from snapmig.printable import printable

__all__ = ("Frame", "PostcopyStream", "Request", "RequestReader", "pack_command", "zero_page")

_RANGES_AT_ONCE = 4000
"""Ranges in a command, whose length has 16 bits."""
_NAMED = 13
"""Bytes of a request before the name of its block."""


class Frame(NamedTuple):
    """
    The bytes around the pages of a section.

    :ivar head: up to the first page
    :ivar tail: after the last one
    """

    head: bytes
    tail: bytes


def pack_command(command: Command, data: bytes = b"") -> bytes:
    """Return a command of the source."""
    return struct.pack(">BHH", SECTION_COMMAND, command, len(data)) + data


class PostcopyStream:
    """
    Everything but the snapshot's pages.

    :param state: of the guest, with the pages that are a part of it, and page sizes of the
        destination's memory
    :ivar header: the first bytes, to be sent as soon as the connection is open
    :ivar opening: the rest, up to the snapshot's first page
    :ivar frame: of a section with pages
    :ivar end: what follows the last page
    :raises CorruptSnapshotError: the device state has no end of RAM
    """

    def __init__(self, state: VmState) -> None:
        parts = split_state(state)
        section, eos = state.ram_header[1:5], struct.pack(">Q", RAM_EOS)
        summary = reduce(or_, (block.page_size for block in state.blocks))
        advice = pack_command(Command.POSTCOPY_ADVISE, struct.pack(">QQ", summary, PAGE_SIZE))
        before = OPENING + advice + state.before
        whole = state._replace(before=before, list_end=eos).classic().opening()
        self.header = MAGIC + struct.pack(">I", VERSION)
        self.opening = whole[len(self.header) :] + parts.footer + parts.pages
        self.frame = Frame(bytes([SECTION_PART]) + section, eos + parts.footer)
        self.end = bytes([SECTION_END]) + section + self.frame.tail + bytes([SECTION_EOF])
        self._devices = parts.devices

    def run(self, missing: Sequence[tuple[bytes, Sequence[tuple[int, int]]]]) -> bytes:
        """
        Return the bytes that let the guest run.

        :param missing: names of RAM blocks, and what is still to come of each: offsets and lengths
        """
        listen, run = pack_command(Command.POSTCOPY_LISTEN), pack_command(Command.POSTCOPY_RUN)
        package = listen + self._devices + run
        packaged = pack_command(Command.PACKAGED, struct.pack(">I", len(package)))
        return b"".join([*(_discards(*each) for each in missing), packaged, package])


def _discards(name: bytes, ranges: Sequence[tuple[int, int]]) -> bytes:
    head = b"\0" + bytes([len(name)]) + name + b"\0"
    parts = [ranges[at : at + _RANGES_AT_ONCE] for at in range(0, len(ranges), _RANGES_AT_ONCE)]
    return b"".join(
        pack_command(
            Command.POSTCOPY_RAM_DISCARD,
            head + b"".join(struct.pack(">QQ", *each) for each in part),
        )
        for part in parts
    )


def zero_page(frame: Frame, block: bytes, offset: int) -> bytes:
    """Return a section with one page of zeros."""
    word = struct.pack(">Q", offset | RAM_ZERO)
    return frame.head + word + bytes([len(block)]) + block + b"\0" + frame.tail


class Request(NamedTuple):
    """
    A page asked for, huge if the block has huge ones.

    :ivar block: number of its RAM block in the destination's list
    :ivar offset: in the block
    """

    block: int
    offset: int


class RequestReader:
    """
    Reads requests for pages from the return path.

    :param blocks: the destination's RAM blocks
    """

    def __init__(self, blocks: Sequence[QemuBlock]) -> None:
        self._blocks = blocks
        self._numbers = {block.name.encode(): number for number, block in enumerate(blocks)}
        self._block: int | None = None

    def read(self, kind: int, body: bytes) -> Request | None:
        """
        Return the request in a message, None if it is another message.

        :raises MigrationError: it asks for something that does not exist
        """
        if kind == Message.REQ_PAGES_ID:
            self._block = self._find(body)
            body = body[: _NAMED - 1]
        elif kind != Message.REQ_PAGES:
            return None
        if len(body) != _NAMED - 1:
            raise MigrationError(
                f"the destination asks for pages in {len(body)} bytes, expected {_NAMED - 1}"
            )
        if self._block is None:
            raise MigrationError("the destination asks for a page and names no RAM block")
        offset, length = struct.unpack(">QI", body)
        self._check(self._block, offset, length)
        return Request(self._block, offset)

    def _find(self, body: bytes) -> int:
        if len(body) < _NAMED or len(body) != _NAMED + body[_NAMED - 1]:
            raise MigrationError(
                f"the destination names a RAM block in {len(body)} bytes, expected {_NAMED} and "
                "the name"
            )
        name = body[_NAMED:]
        if name not in self._numbers:
            shown = printable(name.decode("utf-8", "replace"))
            raise MigrationError(
                f"the destination asks for a page of RAM block {shown!r}, which is not in the list"
            )
        return self._numbers[name]

    def _check(self, block: int, offset: int, length: int) -> None:
        found = self._blocks[block]
        where = f"the destination asks for {length} bytes at {offset:#x} of RAM block "
        where += f"{found.name!r}, "
        if length != found.page_size or offset % found.page_size:
            raise MigrationError(f"{where}expected a page of {found.page_size}")
        if offset >= found.length:
            raise MigrationError(f"{where}which has {found.length}")
