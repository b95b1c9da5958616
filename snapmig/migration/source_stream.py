"""The main connection's bytes of a source, in the dialect of the destination."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection

import numpy as np

from snapmig.geometry import PAGE_SIZE
from snapmig.images.plan import Content
from snapmig.images.qemu.records import RAM_CONTINUE, RAM_ZERO
from snapmig.images.qemu.sections import (
    MAGIC,
    RAM_EOS,
    RAM_FLUSH,
    SECTION_PART,
    VERSION,
)
from snapmig.images.qemu.state import VmState
from snapmig.migration.return_path import OPENING

__all__ = ("SourceStream", "has_flushes")

_FLUSH_SINCE = (8, 1)
"""From this QEMU and machine type on, marks are words of their own."""


def has_flushes(machine: str, qemu_version: tuple[int, ...] | None = None) -> bool:
    """
    Return True if a QEMU's marks are words of their own, False if each section is one.

    :param machine: its machine type; one with a version tells by itself
    :param qemu_version: None if it is not known
    """
    found = re.search(r"-(\d+)\.(\d+)$", machine)
    known = [] if found is None else [tuple(int(part) for part in found.groups())]
    known += [] if qemu_version is None else [qemu_version[:2]]
    return min(known, default=_FLUSH_SINCE) >= _FLUSH_SINCE


class SourceStream:
    """
    Everything that goes over the main connection of a multifd migration.

    :param state: of the guest, with the pages that are a part of it
    :param flushes: as of :func:`has_flushes`
    :param fresh: names, without ``/objects/``, of the RAM blocks that are zero in the destination;
        zero pages of all others are sent
    :ivar header: the first bytes, to be sent as soon as the connection is open
    :ivar opening: the rest, up to the end of the list of RAM blocks
    :ivar mark: the first mark, to be sent after the first barrier of all channels: a QEMU (10.0.2)
        that waits for a barrier on a channel that has ended waits for ever
    :ivar part: the start of the section with pages
    """

    def __init__(
        self, content: Content, state: VmState, *, flushes: bool, fresh: Collection[str]
    ) -> None:
        self._content = content
        self._flushes = flushes
        self._fresh = fresh
        words = (RAM_FLUSH, RAM_EOS) if flushes else (RAM_EOS,)
        self._words = struct.pack(f">{len(words)}Q", *words)
        self._footer = state.after[:5] if state.has_footers else b""
        self.part = bytes([SECTION_PART]) + state.ram_header[1:5]
        self._after = state.after[len(self._footer) :]
        opening = state._replace(before=OPENING + state.before, list_end=b"")
        whole = opening.classic().opening()
        self.header = MAGIC + struct.pack(">I", VERSION)
        self.opening = whole[len(self.header) :]
        self.mark = self._words + self._footer

    @property
    def block_names(self) -> tuple[bytes, ...]:
        """Names of the RAM blocks as the destination knows them."""
        return tuple(block.name.encode() for block in self._content.blocks)

    @property
    def last_barriers(self) -> int:
        """Barriers on each channel after the last page."""
        # One for the section with zero pages, and where each section is a mark, one for RAM's end.
        return 1 if self._flushes else 2

    def rest(self) -> bytes:
        """Return everything after the list of RAM blocks."""
        return self.part + self.after_part()

    def after_part(self) -> bytes:
        """Return everything after :attr:`part`, and after pages if they are in that section."""
        zeros = b"".join(self._zeros(number) for number in range(len(self._content.blocks)))
        return zeros + self._words + self._footer + self._after

    def _zeros(self, number: int) -> bytes:
        # Where a firmware's image, or a file, may be in place of zeros.
        block = self._content.blocks[number]
        if block.name.removeprefix("/objects/") in self._fresh:
            return b""
        masks = [mask.reshape(-1) for mask in self._content.data_pages(number)]
        pages = block.size // PAGE_SIZE
        places = np.flatnonzero(~np.concatenate(masks)[:pages])
        if not len(places):
            return b""
        records = np.zeros((len(places), 9), np.uint8)
        words = places.astype(np.uint64) * PAGE_SIZE | np.uint64(RAM_ZERO | RAM_CONTINUE)
        records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
        raw, name = records.tobytes(), block.name.encode()
        first = struct.pack(">Q", int(places[0]) * PAGE_SIZE | RAM_ZERO)
        return first + bytes([len(name)]) + name + raw[8:]
