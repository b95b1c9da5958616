"""Worker side of a search for the kernel's note VMCOREINFO in a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import numpy as np

from snapmig.chains.reader import ReadPlan, open_chain
from snapmig.errors import CorruptSnapshotError, UnsupportedError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.damage import sound_packets
from snapmig.images.elf.vmcoreinfo import MAX_NOTE_SIZE, find_notes, note_text
from snapmig.pages import Bytes
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("FindNoteHandler", "FoundNote")


class FoundNote(NamedTuple):
    """A note: the RAM offset of its page, and its text."""

    ram_offset: int
    text: bytes


class FindNoteHandler:
    """Decodes packets and looks at the start of each page. Damage is left to whoever restores."""

    def __init__(self, plan: Sequence[ReadPlan]) -> None:
        self._chain = open_chain(plan)
        self._geometry = self._chain.snapshot.geometry

    def run(self, task: Task, _row: Row) -> list[FoundNote]:
        """Search a batch of packets; return its first note, if there is one."""
        found = {}
        for loaded in self._chain.load_all(sound_packets(self._chain, task, {})):
            if loaded.pages is not None and (at := find_notes(loaded.pages)):
                found[loaded.packet.packet] = np.flatnonzero(loaded.packet.in_use)[at].tolist()
        notes = (self._note(packet, found[packet]) for packet in sorted(found))
        return [*islice(filter(None, notes), 1)]

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        self._chain.expect(task.first, task.count, task.argument)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _note(self, packet: int, pages: Sequence[int]) -> FoundNote | None:
        # Read again with what follows: a text may go on in the next packet.
        place = self._geometry.place(packet)
        content = self._content(packet)
        if packet + 1 in self._geometry.block_packets(place.block):
            content = np.concatenate([content, self._content(packet + 1)])
        for page in pages:
            start = page * PAGE_SIZE
            text = note_text(content[start : start + MAX_NOTE_SIZE].tobytes())
            if text is not None:
                return FoundNote(place.ram_offset + start, text)
        return None

    def _content(self, number: int) -> Bytes:
        place = self._geometry.place(number)
        pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
        with suppress(CorruptSnapshotError, UnsupportedError):
            packet = self._chain.snapshot.packet(place)
            if packet.pages:
                pages[packet.in_use[: place.pages]] = self._chain.load(packet)
        return pages.reshape(-1)
