"""
QEMU's classic migration stream in a file: ``migrate file:``, ``exec:``, libvirt's raw images.

Pages come in any order, and in a live save more than once: the last copy of a page wins. See QEMU's
migration/ram.c. All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from snapmig.architectures import Architecture
from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan, block_starts
from snapmig.images.qemu.addresses import place_pc_ram
from snapmig.images.qemu.attachments import attach_vm_state
from snapmig.images.qemu.parse import Readable, parse_vm_state
from snapmig.images.qemu.records import STRIDE, place_packets, zero_page
from snapmig.images.qemu.scan import StreamScan
from snapmig.images.qemu.sections import (
    IGNORE_SHARED,
    MAPPED_RAM,
    RAM_EOS,
    SECTION_FULL,
    SECTION_PART,
    find_end_mark,
    skip_full,
)
from snapmig.images.qemu.shared import whole_stream
from snapmig.images.qemu.state import VmState
from snapmig.images.readers.files import MappedFile
from snapmig.images.readers.page_table import PageBytes, PageTable, PageTableReader
from snapmig.images.source import ImageReader

__all__ = (
    "NAME",
    "StreamImage",
    "open_at",
    "open_image",
    "open_stream",
    "plan_at",
    "plan_image",
)

NAME = "qemu-stream"

_NO_PAGES = (
    "there is no page of RAM in the stream, which no guest has: with multifd they go over "
    "connections of their own"
)


def open_image(file: ImageFile) -> StreamImage:
    """
    Open a stream.

    :raises SnapmigError: cut short, or an impossible field
    :raises UnsupportedError: pages as deltas, or devices with their state in parts
    """
    return open_at(file, 0, NAME)


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a stream.

    :raises UsageError: the snapshot has no device state of QEMU
    """
    return plan_at(*whole_stream(content, NAME), 0)


class StreamFile(Readable, Protocol):
    """A file with a stream, or what a disk image holds of one."""

    def check_unchanged(self) -> None:
        """
        Compare it with its state when opened.

        :raises ImageChangedError: its size or modification time differs
        """

    def close(self) -> None:
        """Close it."""


class StreamImage:
    """
    A stream with its pages located.

    :param open_bytes: opens the stream's bytes in any process
    :param stride: bytes from a page to the next one of a run
    """

    def __init__(
        self,
        name: str,
        file: StreamFile,
        open_bytes: Callable[[], PageBytes],
        table: PageTable,
        blocks: tuple[RamBlock, ...],
        attachments: Mapping[str, bytes],
        stride: int = STRIDE,
    ) -> None:
        self.format = name
        self.shown = file.shown
        self.paths: tuple[str, ...] = (file.shown,)
        self.blocks = blocks
        self.attachments: Mapping[str, bytes] = attachments
        self.architecture: Architecture | None = None
        self.remarks: tuple[str, ...] = ()
        self._file = file
        self._open_bytes = open_bytes
        self._stride = stride
        self.table = table

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function to open a reader in any process."""
        return partial(PageTableReader, self._open_bytes, self.table.path, self._stride)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on with a page in the stream."""
        found = self.table.next_page(start // PAGE_SIZE)
        return None if found is None else max(start, found * PAGE_SIZE)

    def check_unchanged(self) -> None:
        """Compare the file with its state when opened."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Close the file and the table."""
        self.table.close()
        self._file.close()


def open_at(file: ImageFile, start: int, name: str) -> StreamImage:
    """Open a stream starting at an offset of its file."""
    return open_stream(file, start, name, partial(MappedFile, file.path))


def open_stream(
    file: StreamFile, start: int, name: str, open_bytes: Callable[[], PageBytes]
) -> StreamImage:
    """
    Open a stream whose bytes are anywhere.

    :param file: the same bytes, and whether they change
    :param open_bytes: a picklable function to open them in any process
    """
    state, offset = parse_vm_state(file, start)
    if MAPPED_RAM in state.capabilities:
        message = "the stream is a mapped-ram one, not a classic one"
        raise SnapmigError(message, path=file.shown, offset=start)
    stop = find_end_mark(file.read, offset, file.size)
    if stop is None:
        message = "the stream has no end mark: the save was cut short, or is not done yet"
        raise SnapmigError(message, path=file.shown)
    blocks = tuple(RamBlock(block.name, block.length) for block in state.blocks)
    try:
        table = PageTable(sum(block.size for block in blocks) // PAGE_SIZE)
    except SnapmigError as error:
        error.path = file.shown
        raise
    try:
        scan = StreamScan(file.shown, open_bytes(), state, offset, stop, table.entries)
        after = scan.run()
        if IGNORE_SHARED in state.capabilities and len(scan.sent) < len(blocks):
            table, blocks = _keep_sent(table, blocks, scan.sent)
        elif not scan.has_data and IGNORE_SHARED not in state.capabilities:
            raise SnapmigError(_NO_PAGES)
    except BaseException as error:
        table.close()
        if isinstance(error, SnapmigError):
            error.path = file.shown
        raise
    whole = state._replace(after=after)
    placed, architecture = place_pc_ram(whole, blocks)
    image = StreamImage(name, file, open_bytes, table, placed, attach_vm_state(whole))
    image.architecture = architecture
    return image


def _keep_sent(
    table: PageTable, blocks: tuple[RamBlock, ...], sent: set[str]
) -> tuple[PageTable, tuple[RamBlock, ...]]:
    # A block without a single page in the stream, zero or not, was left out. Its RAM is elsewhere,
    # and a snapshot must not claim that it is zero.
    ranges = [
        (start // PAGE_SIZE, block.size // PAGE_SIZE)
        for block, start in zip(blocks, block_starts(blocks), strict=True)
        if block.name in sent
    ]
    if not ranges:
        raise SnapmigError("there is no RAM block with pages: all of them were left out")
    kept = table.only(ranges)
    table.close()
    return kept, tuple(block for block in blocks if block.name in sent)


def plan_at(content: Content, state: VmState, start: int, head: bytes = b"") -> ImagePlan:
    """
    Return the plan of a stream starting at an offset of its file.

    Zero pages are left out: a QEMU waiting for a migration has them already.

    :param head: the bytes before the stream
    """
    state = state.classic()
    opening = state.opening()
    early = _early_end(state)
    # The bytes before the pages, then a section for all of them.
    part = state.after[:early] + bytes([SECTION_PART]) + state.ram_header[1:5]
    if IGNORE_SHARED in state.capabilities:
        # A block without any page would count as left out.
        blank = (
            block.name
            for number, block in enumerate(content.blocks)
            if not any(mask.any() for mask in content.data_pages(number))
        )
        part += b"".join(map(zero_page, blank))
    at = start + len(opening) + len(part)
    placer, end = place_packets(content, at)
    # Its end, its footer (that of the section before: the same number), and everything after it.
    footer = state.after[: 5 if state.has_footers else 0]
    rest = struct.pack(">Q", RAM_EOS) + footer + state.after[early:]
    pieces = [(0, head), (start, opening + part), (end, rest)]
    return ImagePlan(end + len(rest), (), pieces, placer)


def _early_end(state: VmState) -> int:
    # The pages go after the device states that follow the list of RAM blocks.
    after, stop = state.after, state.end_mark
    at: int | None = 5 if state.has_footers else 0
    while at is not None and stop is not None and after[at] == SECTION_FULL:
        at = skip_full(after, at, stop)
    if at is None:
        message = "a device's state follows the list of RAM blocks, and its end can't be found"
        raise UnsupportedError(message)
    return at
