"""
The main connection of a migration, parsed as it arrives.

It has the list of RAM blocks, marks at which the channels must be level with it, zero pages of
older QEMUs, and the state of all devices. Without multifd it has all pages, too.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Generator
from typing import Protocol

import numpy as np

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.images.qemu.kept_state import MAX_STATE_SIZE
from snapmig.images.qemu.parse import NoRamSectionError, parse_vm_state
from snapmig.images.qemu.records import RAM_CONTINUE, RAM_PAGE, RAM_ZERO, STRIDE, ZERO_STRIDE
from snapmig.images.qemu.sections import (
    RAM_EOS,
    RAM_FLAGS,
    RAM_FLUSH,
    SECTION_COMMAND,
    SECTION_END,
    SECTION_FOOTER,
    SECTION_FULL,
    SECTION_PART,
    SECTION_START,
    find_end_mark,
)
from snapmig.images.qemu.state import VmState
from snapmig.migration.inbox import Inbox, IncompleteError
from snapmig.migration.return_path import Command, ReturnPath, command_problem
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.pages import Bytes
from snapmig.system.signals import raise_if_cancelled

__all__ = ("MainChannel", "PageSink")

_AT_ONCE = 4 << 20
"""Bytes of one call, so that the caller can look at other things in between."""

_HEAD_LIMIT = 80 << 20
"""Bytes before the pages: the list of blocks, and devices that send their state early."""

_RECORDS = 1024
"""Records taken together."""

_STEPS = PAGE_SIZE * np.arange(_RECORDS, dtype=np.uint64)
_WORD = struct.Struct(">Q")
_MOMENT_S = 0.02
_OTHER_PAGES = {0x40: "XBZRLE deltas", 0x80: "RDMA hooks", 0x100: "compressed pages"}

Parser = Generator[None, None, None]


class PageSink(Protocol):
    """Takes the pages of the main connection."""

    @property
    def full(self) -> bool:
        """True if no more pages can be taken now."""

    def take_pages(self, first: int, pages: Bytes) -> None:
        """Take consecutive pages, as ``(n, 4096)``, from a page number in RAM offsets on."""

    def take_zeros(self, first: int, count: int) -> None:
        """Take consecutive zero pages."""


class MainChannel:
    """
    The main connection.

    :param multifd: pages have channels of their own
    :param name: of the source, for errors
    :ivar marks: marks passed so far
    :ivar passed: barriers of all channels so far; parsing waits at a mark beyond them
    :ivar ended: the whole stream has arrived
    :ivar received: bytes so far
    """

    def __init__(
        self, connection: socket.socket | SecureConnection, name: str, *, multifd: bool
    ) -> None:
        self.shown = name
        self.marks = 0
        self.passed = 0
        self.ended = False
        self.received = 0
        self.return_path = ReturnPath(connection)
        self._connection = connection
        connection.setblocking(False)
        self._multifd = multifd
        self._inbox = Inbox(name)
        self._eof = False
        self._stopped = False
        self._tail = bytearray()
        self._kept = bytearray()
        self._footer = b""
        self._sink: PageSink | None = None
        self._block: tuple[int, int] | None = None
        self._blocks: dict[bytes, tuple[int, int]] = {}

    def read_head(self, limit_s: float, check: Callable[[], None]) -> VmState:
        """
        Wait for everything before the pages, and return it: a state without ``after``.

        :param check: called several times a second; raises if the migration failed
        :raises MigrationError: it does not arrive in time, or is not a stream
        :raises UnsupportedError: the stream uses something unknown here
        """
        deadline = time.monotonic() + limit_s
        while (state := self._parse_head()) is None:
            if self._eof:
                raise self._refuse(f"connection ended after {self.received} bytes")
            if len(self._inbox) > _HEAD_LIMIT:
                raise self._refuse(f"no page came in {_HEAD_LIMIT} bytes")
            if time.monotonic() > deadline:
                raise self._refuse(f"no list of RAM blocks came in {limit_s:g} s")
            if not self._receive_some():
                raise_if_cancelled()
                check()
                time.sleep(_MOMENT_S)
        return state

    def begin(self, state: VmState, geometry: Geometry, sink: PageSink) -> None:
        """
        Prepare for the pages.

        :param geometry: of the state's RAM blocks
        """
        self._state = state
        self._sink = sink
        self._blocks = {
            block.name.encode(): (geometry.block_start(number) // PAGE_SIZE, block.size)
            for number, block in enumerate(geometry.blocks)
        }
        self._parser: Parser = self._sections()

    def receive(self) -> bool:
        """
        Take all that has arrived; return False if nothing had, or if it must wait.

        :raises MigrationError: it is impossible, or the connection ended too early
        """
        moved, until = False, self.received + _AT_ONCE
        while True:
            before = len(self._inbox)
            self._parse()
            moved = moved or len(self._inbox) != before
            self._stopped = self._is_held
            if self.ended or self._stopped or not self._receive_some():
                break
            moved = True
            if self.received > until and not self._has_pending:
                break
        return moved

    def release(self) -> None:
        """Give back buffers and pages once nothing more is read; what is waiting is lost."""
        self._inbox.close()
        self._sink = None
        self._parser.close()

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._connection.fileno()

    @property
    def is_behind(self) -> bool:
        """True if bytes that are here already have become readable since :meth:`receive`."""
        return self._stopped and not (self.ended or self._is_held)

    @property
    def is_readable(self) -> bool:
        """True if more may arrive and can be taken."""
        return not (self.ended or self._eof or self._is_held)

    def state(self) -> VmState:
        """Return the state of all devices, once the stream has ended."""
        end = struct.pack(">BIQ", SECTION_END, self._state.section_id, RAM_EOS) + self._footer
        after = b"".join([self._footer, self._kept, end, self._tail])
        return self._state._replace(list_end=struct.pack(">Q", RAM_EOS), after=after)

    @property
    def _is_held(self) -> bool:
        full = self._sink is not None and self._sink.full
        return full or (self._multifd and self.marks > self.passed)

    # Bytes.

    @property
    def _has_pending(self) -> bool:
        # Bytes that no poll shows.
        connection = self._connection
        return isinstance(connection, SecureConnection) and connection.pending() > 0

    def _receive_some(self) -> bool:
        try:
            count = self._inbox.receive(self._connection)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._refuse(f"connection failed: {error.strerror}") from error
        self._eof = self._eof or not count
        self.received += count
        return bool(count)

    def _take(self, length: int) -> Generator[None, None, bytes]:
        while len(self._inbox) < length:
            yield
        return self._inbox.take(length)

    def _number(self, size: int) -> Generator[None, None, int]:
        return int.from_bytes((yield from self._take(size)))

    # Before the pages.

    def _parse_head(self) -> VmState | None:
        try:
            state, end = parse_vm_state(self._inbox)
        except (IncompleteError, NoRamSectionError):
            return None
        self._inbox.take(end)
        before = state.before
        while before[:1] == bytes([SECTION_COMMAND]):
            number, length = int.from_bytes(before[1:3]), int.from_bytes(before[3:5])
            self._check_command(number, length)
            if len(before) < 5 + length:
                raise self._refuse(f"command {number} has fewer than its {length} bytes")
            self._obey(number, before[5 : 5 + length])
            before = before[5 + length :]
        words = struct.unpack(f">{len(state.list_end) // 8}Q", state.list_end)
        self._marks_are_flushes = RAM_FLUSH in words
        self.marks = words.count(RAM_FLUSH) or 1
        return state._replace(before=before)

    def _check_command(self, number: int, length: int) -> None:
        # Before its data is waited for, which may never come.
        if problem := command_problem(number, length):
            raise UnsupportedError(problem, path=self.shown)

    def _obey(self, number: int, data: bytes) -> bool:
        # True if the command belongs to the guest rather than to this migration.
        return self.return_path.obey(Command(number), data)

    # Pages.

    def _parse(self) -> None:
        try:
            next(self._parser)
        except StopIteration:
            self._take_tail()
        if self._eof and not self.ended and not self._is_held:
            raise self._refuse(f"connection ended too early, after {self.received} bytes")

    def _sections(self) -> Parser:
        self._footer = yield from self._read_footer()
        while True:
            kind = yield from self._number(1)
            if kind in (SECTION_PART, SECTION_END):
                number = yield from self._number(4)
                if number != self._state.section_id:
                    raise self._in_parts()
                yield from self._words()
                if (yield from self._read_footer()) != self._footer:
                    raise self._refuse("a section has a footer and another one has none")
                if kind == SECTION_END:
                    return
            elif kind == SECTION_COMMAND:
                yield from self._command()
            elif kind == SECTION_FULL:  # a background snapshot ends its pages so
                self._inbox.start -= 1
                return
            elif kind == SECTION_START:
                raise self._in_parts()
            else:
                raise self._refuse(f"section type is {kind:#x} where RAM goes on")

    def _read_footer(self) -> Generator[None, None, bytes]:
        kind = yield from self._number(1)
        self._inbox.start -= 1
        if kind != SECTION_FOOTER:  # machine types before 2.4 have none
            return b""
        footer = yield from self._take(5)
        number, expected = int.from_bytes(footer[1:]), self._state.section_id
        if number != expected:
            raise self._refuse(f"RAM ends with the footer of section {number}, not {expected}")
        return footer

    def _command(self) -> Parser:
        head = yield from self._take(4)
        number, length = struct.unpack(">HH", head)
        self._check_command(number, length)
        data = yield from self._take(length)
        if self._obey(number, data):
            self._kept += bytes([SECTION_COMMAND]) + head + data

    def _words(self) -> Parser:
        inbox = self._inbox
        while True:
            while len(inbox) < _WORD.size:
                yield
            (word,) = _WORD.unpack_from(inbox.raw, inbox.start)
            inbox.start += _WORD.size
            address, flags = word & ~RAM_FLAGS, word & RAM_FLAGS
            if flags == RAM_EOS:
                if not self._marks_are_flushes:
                    yield from self._mark()
                return
            if flags & ~RAM_CONTINUE == RAM_FLUSH:
                yield from self._mark()
            else:
                yield from self._page(address, flags)

    def _mark(self) -> Parser:
        self.marks += 1
        while self._is_held:
            yield

    def _page(self, address: int, flags: int) -> Parser:
        kind = flags & ~RAM_CONTINUE
        if kind not in (RAM_ZERO, RAM_PAGE):
            names = [words for bit, words in _OTHER_PAGES.items() if flags & bit]
            found = names[0] if names else f"flags {flags:#x}"
            raise UnsupportedError(f"main connection has {found}, not known here", path=self.shown)
        if kind == RAM_PAGE and self._multifd:
            raise self._refuse("main connection has pages, expected them on the channels")
        if not flags & RAM_CONTINUE:
            length = yield from self._number(1)
            self._block = self._find_block((yield from self._take(length)))
        if self._block is None or address >= self._block[1]:
            raise self._refuse(f"page {address:#x} is in no RAM block")
        start, size = self._block
        left = (size - address) // PAGE_SIZE
        page = start + address // PAGE_SIZE
        body, stride = (PAGE_SIZE, STRIDE) if kind == RAM_PAGE else (1, ZERO_STRIDE)
        while len(self._inbox) < body:
            yield
        count = self._run(body, stride, address, kind | RAM_CONTINUE, left)
        inbox = self._inbox
        rows = np.ndarray((count, body), np.uint8, inbox.raw, inbox.start, (stride, 1))
        sink = self._sink
        if sink is None:
            raise RuntimeError("pages before begin()")
        if kind == RAM_PAGE:
            sink.take_pages(page, rows)
        elif rows.any():
            raise UnsupportedError("a page is filled with a byte that is not zero", path=self.shown)
        else:
            sink.take_zeros(page, count)
        inbox.start += (count - 1) * stride + body
        while self._is_held:
            yield

    def _run(self, body: int, stride: int, address: int, flags: int, left: int) -> int:
        # Number of whole records in the buffer that continue this one, itself included.
        room = (len(self._inbox) - body) // stride
        count = min(_RECORDS - 1, room, left - 1)
        at = self._inbox.start + body
        following = address + PAGE_SIZE + flags
        if count <= 0 or _WORD.unpack_from(self._inbox.raw, at) != (following,):
            return 1
        words = np.ndarray((count,), ">u8", self._inbox.raw, at, (stride,))
        wrong = words != _STEPS[:count] + np.uint64(following)
        first = int(wrong.argmax())
        return 1 + (first if wrong[first] else count)

    def _find_block(self, name: bytes) -> tuple[int, int]:
        if name not in self._blocks:
            raise self._refuse(f"page of a RAM block {name!r}, which is not in the list")
        return self._blocks[name]

    # Devices.

    def _take_tail(self) -> None:
        self._tail += self._inbox.take(len(self._inbox))
        size = len(self._tail)
        if size > MAX_STATE_SIZE:
            message = f"device state has more than {MAX_STATE_SIZE} bytes"
            raise self._refuse(message)
        # QEMU waits for an acknowledgement before it closes the connection.
        if self._tail.endswith(b"}") or self._eof:
            tail = bytes(self._tail)
            mark = find_end_mark(lambda start, length: tail[start : start + length], 0, size)
            self.ended = mark is not None

    # Errors.

    def _refuse(self, words: str) -> SnapmigError:
        return MigrationError(words, path=self.shown)

    def _in_parts(self) -> UnsupportedError:
        message = "a device sends its state in parts between the pages, which is not known here"
        return UnsupportedError(message, path=self.shown)
