"""Scan of a classic stream: the place of each page's last copy, and the bytes outside pages."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.qemu.kept_state import MAX_STATE_SIZE
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
    skip_full,
)
from snapmig.images.qemu.state import VmState
from snapmig.images.readers.page_table import NO_PAGE, PageBytes

__all__ = ("StreamScan",)

_KNOWN = {0x40: "XBZRLE deltas", 0x80: "RDMA hooks", 0x100: "compressed pages"}

_AHEAD = 256
"""Records examined together: a run of them is the usual case."""


class StreamScan:
    """
    One scan of a stream.

    :param shown: its file's display name
    :param start: offset after the list of RAM blocks
    :param stop: offset of the end mark
    :param entries: receive the file offset of each page other than zero
    :ivar sent: names of the blocks with pages in the stream
    :ivar has_data: True if there was a page other than zero
    """

    def __init__(
        self,
        shown: str,
        stream: PageBytes,
        state: VmState,
        start: int,
        stop: int,
        entries: npt.NDArray[np.int64],
    ) -> None:
        self._shown = shown
        self._stream = stream
        self._size = stream.size
        self._offset = start
        self._stop = stop
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
        self.has_data = False

    def run(self) -> bytes:
        """
        Find all pages; return everything else after the list of RAM blocks.

        :raises SnapmigError: an impossible field
        :raises UnsupportedError: pages as deltas, or devices with their state in parts
        """
        kept = [(self._offset, self._skip_footer())]
        footer = self._stream.window(*kept[0]).tobytes()
        pages_end = 1
        while self._offset < self._stop:
            start, kind = self._offset, self._number(1)
            if kind in (SECTION_PART, SECTION_END):
                self._section()
                pages_end = len(kept)
                if kind == SECTION_END:
                    break
            else:
                self._skip(kind, start)
                kept.append((start, self._offset))
        if self._offset > self._stop:
            raise self._refuse(self._stop, "file ends inside the RAM section")
        kept.append((self._offset, self._size))
        size = sum(stop - start for start, stop in kept)
        if size > MAX_STATE_SIZE:
            raise self._refuse(
                self._offset, f"device state has {size} bytes, expected at most {MAX_STATE_SIZE}"
            )
        pieces = [self._stream.window(*part).tobytes() for part in kept]
        # The end of RAM without pages, because pages are sorted. The stream of a background
        # snapshot lacks it: devices follow the last pages there. QEMU accepts both.
        end = struct.pack(">BIQ", SECTION_END, self._section_id, RAM_EOS) + footer
        return b"".join([*pieces[:pages_end], end, *pieces[pages_end:]])

    def _skip(self, kind: int, start: int) -> None:
        if kind == SECTION_COMMAND:
            self._offset += 2
            length = self._number(2)
            self._offset += length
        elif kind == SECTION_FULL:
            # A device with its state early, such as virtio-mem, or after the last pages.
            end = skip_full(self._stream.raw, start, self._stop)
            if end is None:
                raise self._refuse(start, "the end of a device's section can't be found")
            self._offset = end
        elif kind == SECTION_START:
            raise self._unsupported("a device sends its state in parts between the pages")
        else:
            raise self._refuse(start, f"section type is {kind:#x} where RAM goes on")

    def _section(self) -> None:
        if self._number(4) != self._section_id:
            raise self._unsupported("a device sends its state in parts between the pages")
        self._pages()
        self._skip_footer()

    def _pages(self) -> None:
        while True:
            start, word = self._offset, self._number(8)
            address, flags = word & ~RAM_FLAGS, word & RAM_FLAGS
            if flags == RAM_EOS:
                return
            if flags & ~RAM_CONTINUE == RAM_FLUSH:
                continue
            if flags & ~RAM_CONTINUE not in (RAM_ZERO, RAM_PAGE):
                names = [words for bit, words in _KNOWN.items() if flags & bit]
                raise self._unsupported(f"it has {names[0] if names else f'flags {flags:#x}'}")
            if not flags & RAM_CONTINUE:
                self._block = self._find_block()
            if self._block is None or address >= self._block[1]:
                raise self._refuse(start, f"page {address:#x} is in no RAM block")
            if flags & RAM_PAGE:
                self._take_pages(self._block, address)
            else:
                self._take_zeros(self._block, address)

    def _take_pages(self, block: tuple[int, int], address: int) -> None:
        count = 1 + self._run_after(PAGE_SIZE, STRIDE, block, address, RAM_PAGE | RAM_CONTINUE)
        page = block[0] + address // PAGE_SIZE
        offsets = self._offset + np.arange(count, dtype=np.int64) * STRIDE
        self._entries[page : page + count] = offsets
        self.has_data = True
        self._offset += count * STRIDE - 8
        if self._offset > self._size:
            raise self._refuse(self._size, "file ends inside a page")

    def _take_zeros(self, block: tuple[int, int], address: int) -> None:
        count = 1 + self._run_after(1, ZERO_STRIDE, block, address, RAM_ZERO | RAM_CONTINUE)
        stop = self._offset + (count - 1) * ZERO_STRIDE + 1
        fill = self._stream.window(self._offset, stop)[::ZERO_STRIDE]
        if fill.any() or len(fill) != count:
            raise self._unsupported("a page is filled with a byte that is not zero")
        page = block[0] + address // PAGE_SIZE
        self._entries[page : page + count] = NO_PAGE
        self._offset += count * ZERO_STRIDE - 8

    def _run_after(
        self, body: int, stride: int, block: tuple[int, int], address: int, flags: int
    ) -> int:
        # Number of records after this one that continue it, byte for byte.
        first = self._offset + body
        room = (self._size - first) // stride
        count = min(_AHEAD, room, (block[1] - address) // PAGE_SIZE - 1)
        if count <= 0:
            return 0
        data = self._stream.window(first, first + (count - 1) * stride + 8)
        words = np.ndarray((count,), ">u8", data, 0, (stride,))
        expected = address + PAGE_SIZE * np.arange(1, count + 1, dtype=np.uint64) + flags
        wrong = np.flatnonzero(words != expected)
        return int(wrong[0]) if wrong.size else count

    def _find_block(self) -> tuple[int, int]:
        start = self._offset
        length = self._number(1)
        name = self._stream.window(self._offset, self._offset + length).tobytes()
        self._offset += length
        if name not in self._blocks:
            raise self._refuse(start, f"page of a RAM block {name!r}, which is not in the list")
        self.sent.add(name.decode())
        return self._blocks[name]

    def _skip_footer(self) -> int:
        if self._stream.window(self._offset, self._offset + 1).tolist() == [SECTION_FOOTER]:
            self._offset += 5
        return self._offset

    def _number(self, size: int) -> int:
        raw = self._stream.window(self._offset, self._offset + size).tobytes()
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
