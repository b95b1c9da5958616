"""
QEMU's classic migration stream in a file: ``migrate file:``, ``exec:``, libvirt's raw images.

Pages come in any order, and in a live save more than once: the last copy of a page wins. See
QEMU's migration/ram.c. All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from snapmig.architectures import Architecture
from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, Geometry, PacketPlace, RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan, Placer, block_starts
from snapmig.images.qemu.addresses import place_pc_ram
from snapmig.images.qemu.parse import (
    parse_vm_state,
)
from snapmig.images.qemu.sections import (
    MAGIC,
    MAPPED_RAM,
    RAM_EOS,
    SECTION_COMMAND,
    SECTION_END,
    SECTION_FOOTER,
    SECTION_FULL,
    SECTION_PART,
    SECTION_START,
    ends_complete,
    skip_full,
)
from snapmig.images.qemu.state import (
    VmState,
    attach_vm_state,
    load_vm_state,
)
from snapmig.images.readers.files import MappedFile
from snapmig.images.readers.page_table import NO_PAGE, PageTable, PageTableReader
from snapmig.images.source import ImageReader
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask

__all__ = ("NAME", "StreamImage", "open_at", "open_image", "plan_at", "plan_image", "recognises")

NAME = "qemu-stream"

_ZERO = 0x02
_PAGE = 0x08
_CONTINUE = 0x20
_FLUSH = 0x200
_FLAGS = 0xFFF
_KNOWN = {0x40: "XBZRLE deltas", 0x80: "RDMA hooks", 0x100: "compressed pages"}

_STRIDE = 8 + PAGE_SIZE
"""A page that follows another one: address and flags, then its bytes."""
_ZERO_STRIDE = 9
_AHEAD = 256
"""Records looked at together: a run of them is the usual case."""

MAX_STATE_SIZE = 1 << 30


def recognises(file: ImageFile) -> bool:
    """Return whether a file is a migration stream without the mapped-ram capability."""
    head = file.read(0, min(1024, file.size))
    return head.startswith(MAGIC) and b"\x0amapped-ram" not in head


def open_image(file: ImageFile) -> StreamImage:
    """
    Open a stream.

    :raises SnapmigError: cut short, or a field that can't be
    :raises UnsupportedError: pages as deltas, or devices that send their state in parts
    """
    return open_at(file, 0, NAME)


def plan_image(content: Content) -> ImagePlan:
    """
    Return how a snapshot becomes a stream.

    :raises UsageError: the snapshot has no device state of QEMU
    """
    return plan_at(content, load_vm_state(content.attachments, NAME), 0)


class StreamImage:
    """A stream whose pages were found."""

    def __init__(
        self,
        name: str,
        file: ImageFile,
        table: PageTable,
        blocks: tuple[RamBlock, ...],
        attachments: Mapping[str, bytes],
    ) -> None:
        self.format = name
        self.shown = file.shown
        self.paths: tuple[str, ...] = (file.shown,)
        self.blocks = blocks
        self.attachments: Mapping[str, bytes] = attachments
        self.architecture: Architecture | None = None
        self._file = file
        self.table = table

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function that opens a reader in any process."""
        return partial(PageTableReader, self._file.path, self.table.path, _STRIDE)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on whose page is in the stream."""
        found = self.table.next_page(start // PAGE_SIZE)
        return None if found is None else max(start, found * PAGE_SIZE)

    def check_unchanged(self) -> None:
        """Compare the file with what it was when it was opened."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Close the file and the table."""
        self.table.close()
        self._file.close()


def open_at(file: ImageFile, start: int, name: str) -> StreamImage:
    """Open a stream that starts at an offset of its file."""
    state, offset = parse_vm_state(file, start)
    if MAPPED_RAM in state.capabilities:
        message = "the stream is a mapped-ram one, not a classic one"
        raise SnapmigError(message, path=file.shown, offset=start)
    if not ends_complete(file, offset):
        message = "the stream has no end mark: the save was cut short, or is not done yet"
        raise SnapmigError(message, path=file.shown)
    blocks = tuple(RamBlock(block.name, block.length) for block in state.blocks)
    if odd := [block.name for block in blocks if block.size % PAGE_SIZE]:
        raise SnapmigError(f"RAM block {odd[0]!r} is not made of whole pages", path=file.shown)
    try:
        table = PageTable(sum(block.size for block in blocks) // PAGE_SIZE)
    except SnapmigError as error:
        error.path = file.shown
        raise
    try:
        scan = _Scan(file, state, offset, table.entries)
        kept = scan.run()
        after = b"".join(file.read(first, end - first) for first, end in kept)
        if len(scan.sent) < len(blocks):
            table, blocks = _keep_sent(table, blocks, scan.sent)
    except BaseException as error:
        table.close()
        if isinstance(error, SnapmigError):
            error.path = file.shown
        raise
    whole = state._replace(after=after)
    placed, architecture = place_pc_ram(whole, blocks)
    image = StreamImage(name, file, table, placed, attach_vm_state(whole))
    image.architecture = architecture
    return image


def _keep_sent(
    table: PageTable, blocks: tuple[RamBlock, ...], sent: set[str]
) -> tuple[PageTable, tuple[RamBlock, ...]]:
    # A block of which not one page came, zero or not, was left out: x-ignore-shared does that.
    # Its RAM is elsewhere, and a snapshot must not say that it is zero.
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


class _Scan:
    # One walk over the stream: where each page's last copy is, and which bytes are not pages.
    def __init__(
        self, file: ImageFile, state: VmState, offset: int, entries: npt.NDArray[np.int64]
    ) -> None:
        self._shown = file.shown
        self._mapped = MappedFile(file.path)
        self._data = self._mapped.array.data
        self._size = file.size
        self._offset = offset
        self._section_id = state.section_id
        self._entries = entries
        blocks = tuple(RamBlock(block.name, block.length) for block in state.blocks)
        geometry = Geometry(blocks, PAGE_SIZE)
        self._blocks = {
            block.name.encode(): (geometry.block_start(number) // PAGE_SIZE, block.size)
            for number, block in enumerate(blocks)
        }
        self._block: tuple[int, int] | None = None
        self.sent: set[str] = set()

    def run(self) -> list[tuple[int, int]]:
        kept = [(self._offset, self._skip_footer())]
        while True:
            start, kind = self._offset, self._number(1)
            if kind == SECTION_COMMAND:
                self._offset += 2
                length = self._number(2)
                self._offset += length
                kept.append((start, self._offset))
            elif kind in (SECTION_PART, SECTION_END):
                if self._number(4) != self._section_id:
                    raise self._unsupported("a device sends its state in parts between the pages")
                self._pages()
                end = self._skip_footer()
                if kind == SECTION_END:
                    # Its pages are sorted with the others; what stays is the empty section.
                    footer = end - 5 if self._data[end - 5] == SECTION_FOOTER else end
                    kept += [(start, start + 5), (footer - 8, end), (end, self._size)]
                    return self._checked(kept)
            elif kind == SECTION_FULL:
                # A device whose state comes early, as virtio-mem's does.
                self._offset = skip_full(self._data, start)
                kept.append((start, self._offset))
            elif kind == SECTION_START:
                raise self._unsupported("a device sends its state in parts between the pages")
            else:
                raise self._refuse(start, f"section type is {kind:#x} where RAM goes on")

    def _checked(self, kept: list[tuple[int, int]]) -> list[tuple[int, int]]:
        size = sum(end - start for start, end in kept)
        if size > MAX_STATE_SIZE:
            message = f"device state has {size} bytes, expected at most {MAX_STATE_SIZE}"
            raise SnapmigError(message, path=self._shown)
        return kept

    def _pages(self) -> None:
        while True:
            start, word = self._offset, self._number(8)
            address, flags = word & ~_FLAGS, word & _FLAGS
            if flags & RAM_EOS:
                return
            if flags & ~_CONTINUE == _FLUSH:
                continue
            if flags & ~_CONTINUE not in (_ZERO, _PAGE):
                names = [words for bit, words in _KNOWN.items() if flags & bit]
                raise self._unsupported(f"it has {names[0] if names else f'flags {flags:#x}'}")
            if not flags & _CONTINUE:
                self._block = self._find_block()
            if self._block is None or address >= self._block[1]:
                raise self._refuse(start, f"page {address:#x} is in no RAM block")
            if flags & _PAGE:
                self._take_pages(self._block, address)
            else:
                self._take_zeros(self._block, address)

    def _take_pages(self, block: tuple[int, int], address: int) -> None:
        count = 1 + self._run_after(PAGE_SIZE, _STRIDE, block, address, _PAGE | _CONTINUE)
        page = block[0] + address // PAGE_SIZE
        offsets = self._offset + np.arange(count, dtype=np.int64) * _STRIDE
        self._entries[page : page + count] = offsets
        self._offset += count * _STRIDE - 8
        if self._offset > self._size:
            raise self._refuse(self._size, "file ends inside a page")

    def _take_zeros(self, block: tuple[int, int], address: int) -> None:
        count = 1 + self._run_after(1, _ZERO_STRIDE, block, address, _ZERO | _CONTINUE)
        fill = np.asarray(self._data)[self._offset : self._offset + count * 9 : _ZERO_STRIDE]
        if fill.any() or len(fill) != count:
            raise self._unsupported("a page is filled with a byte that is not zero")
        page = block[0] + address // PAGE_SIZE
        self._entries[page : page + count] = NO_PAGE
        self._offset += count * _ZERO_STRIDE - 8

    def _run_after(
        self, body: int, stride: int, block: tuple[int, int], address: int, flags: int
    ) -> int:
        # How many records after this one are its successors, byte for byte as expected.
        first = self._offset + body
        room = (self._size - first) // stride
        count = min(_AHEAD, room, (block[1] - address) // PAGE_SIZE - 1)
        if count <= 0:
            return 0
        words = np.ndarray((count,), ">u8", self._data, first, (stride,))
        expected = address + PAGE_SIZE * np.arange(1, count + 1, dtype=np.uint64) + flags
        wrong = np.flatnonzero(words != expected)
        return int(wrong[0]) if wrong.size else count

    def _find_block(self) -> tuple[int, int]:
        start = self._offset
        length = self._number(1)
        name = bytes(self._data[self._offset : self._offset + length])
        self._offset += length
        if name not in self._blocks:
            raise self._refuse(start, f"page of a RAM block {name!r}, which is not in the list")
        self.sent.add(name.decode())
        return self._blocks[name]

    def _skip_footer(self) -> int:
        if self._offset < self._size and self._data[self._offset] == SECTION_FOOTER:
            self._offset += 5
        return self._offset

    def _number(self, size: int) -> int:
        raw = self._data[self._offset : self._offset + size]
        if len(raw) < size:
            raise self._refuse(self._offset, "file ends inside the RAM section")
        self._offset += size
        return int.from_bytes(raw)

    def _refuse(self, offset: int, words: str) -> SnapmigError:
        return SnapmigError(words, path=self._shown, offset=offset)

    def _unsupported(self, words: str) -> UnsupportedError:
        return UnsupportedError(
            f"{words}, which is not known here", path=self._shown, offset=self._offset
        )


@dataclass(frozen=True)
class StreamPlacer(Placer):
    """
    Puts packets into a stream, whose pages stand one behind the other.

    :param offsets: where each packet's first page record starts in the file
    :param names: packets whose first page names its RAM block, with the name as the stream has it
    """

    offsets: npt.NDArray[np.int64]
    names: dict[int, bytes]
    ram_starts: tuple[int, ...]

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Write a packet's data pages, each behind its address."""
        inside = place.ram_offset - self.ram_starts[place.block]
        addresses = inside + np.flatnonzero(mask).astype(np.uint64) * np.uint64(PAGE_SIZE)
        records = np.empty((len(data), _STRIDE), np.uint8)
        words = addresses | np.uint64(_PAGE | _CONTINUE)
        records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
        records[:, 8:] = data
        content = records.reshape(-1)
        name = self.names.get(place.packet)
        if name is not None:
            first = struct.pack(">Q", int(addresses[0]) | _PAGE) + name
            content = np.concatenate([np.frombuffer(first, np.uint8), content[8:]])
        store.write(int(self.offsets[place.packet]), content)


def plan_at(content: Content, state: VmState, start: int, head: bytes = b"") -> ImagePlan:
    """
    Return where everything goes in a stream that starts at an offset of its file.

    Zero pages are left out: a QEMU that waits for a migration has them.

    :param head: what stands before the stream
    """
    state = state.with_capability(MAPPED_RAM, on=False)
    entries = b"".join(state.block_entry(block) for block in state.blocks)
    opening = state.head() + state.total() + entries + struct.pack(">Q", RAM_EOS)
    footer = 5 if state.has_footers else 0
    # What goes before the pages, then a section for all of them.
    early = footer
    while state.after[early : early + 1] == bytes([SECTION_FULL]):
        early = skip_full(memoryview(state.after), early)
    part = state.after[:early] + bytes([SECTION_PART]) + state.ram_header[1:5]
    counts = [_data_pages(content, number) for number in range(len(content.blocks))]
    for block, pages in zip(content.blocks, counts, strict=True):
        if not pages.any():
            # One zero page: a block of which nothing comes at all is one that was left out.
            part += struct.pack(">Q", _ZERO) + _pack_name(block.name) + b"\0"
    offsets, names, at = _place_packets(content, counts, start + len(opening) + len(part))
    # Its end, its footer (that of the section before: the same number), and what followed.
    rest = struct.pack(">Q", RAM_EOS) + state.after[:footer] + state.after[early:]
    placer = StreamPlacer(offsets, names, block_starts(content.blocks))
    pieces = [(0, head), (start, opening + part), (at, rest)]
    return ImagePlan(at + len(rest), (), pieces, placer)


def _data_pages(content: Content, number: int) -> npt.NDArray[np.int64]:
    # How many data pages each packet of a block has.
    return np.concatenate(
        [
            mask.reshape(-1, content.packet_pages).sum(axis=1, dtype=np.int64)
            for mask in content.data_pages(number)
        ]
    )


def _place_packets(
    content: Content, counts: list[npt.NDArray[np.int64]], at: int
) -> tuple[npt.NDArray[np.int64], dict[int, bytes], int]:
    # Where each packet's records start, which of them names its block, and where they all end.
    names = {}
    packet = 0
    for block, pages in zip(content.blocks, counts, strict=True):
        if pages.any():
            names[packet + int(np.flatnonzero(pages)[0])] = _pack_name(block.name)
        packet += len(pages)
    sizes = np.concatenate(counts) * _STRIDE
    for number, name in names.items():
        sizes[number] += len(name)
    ends = at + np.cumsum(sizes)
    return ends - sizes, names, int(ends[-1])


def _pack_name(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw
