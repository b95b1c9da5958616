"""A state's parts after its list of RAM blocks: sections with pages, and the devices."""

from __future__ import annotations

from typing import NamedTuple

from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.qemu.attachments import BytesFile
from snapmig.images.qemu.records import RAM_CONTINUE, RAM_PAGE, RAM_ZERO
from snapmig.images.qemu.sections import (
    RAM_EOS,
    RAM_FLAGS,
    RAM_FLUSH,
    SECTION_COMMAND,
    SECTION_END,
    SECTION_FULL,
    SECTION_PART,
    skip_full,
)
from snapmig.images.qemu.state import VmState

__all__ = ("StateParts", "split_state")

_SHOWN = "device state"


class StateParts(NamedTuple):
    """
    The parts, in the order of the stream.

    :ivar footer: of the section with the list of RAM blocks, empty for old machine types
    :ivar pages: sections up to RAM's end, which is a part like the others here
    :ivar devices: sections up to the end mark
    """

    footer: bytes
    pages: bytes
    devices: bytes


def split_state(state: VmState) -> StateParts:
    """
    Return the parts of a state.

    :raises CorruptSnapshotError: RAM has no end in it, or something impossible
    """
    after, stop = state.after, state.end_mark
    start = 5 if state.has_footers else 0
    try:
        end, last = _Walk(state, start, len(after) if stop is None else stop).to_the_end()
    except SnapmigError as error:
        raise CorruptSnapshotError(f"{_SHOWN}: {error.message}") from error
    pages = after[start:last] + bytes([SECTION_PART]) + after[last + 1 : end]
    return StateParts(after[:start], pages, after[end:stop])


class _Walk:
    def __init__(self, state: VmState, start: int, stop: int) -> None:
        self._file = BytesFile(state.after, _SHOWN)
        self._raw = state.after
        self._section = state.section_id
        self._footer = 5 if state.has_footers else 0
        self._at = start
        self._stop = stop

    def to_the_end(self) -> tuple[int, int]:
        # Offsets of the end of RAM's last section, and of its start.
        while self._at < self._stop:
            start, kind = self._at, self._number(1)
            if kind in (SECTION_PART, SECTION_END):
                if self._number(4) != self._section:
                    raise SnapmigError("a device sends its state in parts between the pages")
                self._pages()
                self._at += self._footer
                if kind == SECTION_END:
                    return self._at, start
            elif kind == SECTION_COMMAND:
                self._number(2)
                length = self._number(2)
                self._at += length
            else:
                end = skip_full(self._raw, start, self._stop) if kind == SECTION_FULL else None
                if end is None:
                    raise SnapmigError(f"section type is {kind:#x} where RAM goes on")
                self._at = end
        raise SnapmigError("RAM has no end")

    def _pages(self) -> None:
        while True:
            word = self._number(8)
            flags = word & RAM_FLAGS
            if flags == RAM_EOS:
                return
            kind = flags & ~RAM_CONTINUE
            if kind == RAM_FLUSH:
                continue
            if kind not in (RAM_ZERO, RAM_PAGE):
                raise SnapmigError(f"a page has the flags {flags:#x}")
            if not flags & RAM_CONTINUE:
                length = self._number(1)
                self._at += length
            self._at += PAGE_SIZE if kind == RAM_PAGE else 1

    def _number(self, size: int) -> int:
        raw = self._file.read(self._at, size)
        self._at += size
        return int.from_bytes(raw)
