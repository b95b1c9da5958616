"""The kernel's note VMCOREINFO in a snapshot's RAM: where the save saw it, or anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from snapmig.attachments import note_packet
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError
from snapmig.handlers.find_note import FindNoteHandler, FoundNote
from snapmig.handlers.load_tasks import LoadTasks
from snapmig.images.elf.vmcoreinfo import MAX_NOTE_SIZE, find_notes, note_text
from snapmig.operations.runs.read import Reading
from snapmig.pages import as_pages
from snapmig.workers.tasks import Task

if TYPE_CHECKING:  # concurrent.futures with it
    from snapmig.operations.runs.random_access import RandomAccess

__all__ = ("find_kernel_note", "noted")


def find_kernel_note(reading: Reading) -> bytes | None:
    """
    Return the text of the note, None if there is none.

    Without a hint of the save all RAM is decoded for it, and a remote snapshot is not searched.
    """
    snapshot = reading.snapshot
    packets, hint = range(snapshot.geometry.packet_count), _hint(snapshot)
    if hint in packets and (text := _search(reading, range(hint, hint + 1))) is not None:
        return text
    return None if any(file.is_remote for file in reading.chain) else _search(reading, packets)


def noted(memory: RandomAccess) -> bytes | None:
    """Return the text of the note where the save saw it, without a search."""
    geometry, hint = memory.geometry, _hint(memory.file)
    if hint not in range(geometry.packet_count):
        return None
    place = geometry.place(hint)
    start, block = place.ram_offset, geometry.blocks[place.block]
    stop = geometry.block_start(place.block) + block.size
    try:
        content = memory.read(start, min(stop, start + place.length + MAX_NOTE_SIZE))
    except CorruptSnapshotError:  # whoever reads there hears of it
        return None
    pages = as_pages(np.frombuffer(content, np.uint8))
    found = (note_text(pages[page:].tobytes()[:MAX_NOTE_SIZE]) for page in find_notes(pages))
    return next(filter(None, found), None)


def _hint(snapshot: SnapshotFile) -> int:
    try:
        found = note_packet(snapshot)
    except CorruptSnapshotError:  # found all the same
        found = None
    return -1 if found is None else found


def _search(reading: Reading, packets: range) -> bytes | None:
    tasks = _NoteTasks(reading.snapshot, packets)
    ram_size = len(reading.snapshot.geometry.ram_range(packets))
    handler = partial(FindNoteHandler, reading.plans)
    reading.run(tasks, handler, ram_size, "looking for the kernel's note")
    return None if tasks.lowest is None else tasks.lowest.text


class _NoteTasks(LoadTasks):
    # Keeps the lowest note only.
    lowest: FoundNote | None = None

    def finished(self, _worker: int, _task: Task, reply: Any) -> list[tuple[int, Task]]:
        notes: Sequence[FoundNote] = reply
        for note in notes:
            if self.lowest is None or note < self.lowest:
                self.lowest = note
        return []
