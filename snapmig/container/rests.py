"""
Verify that slots hold nothing but zeros besides stored bytes, where they may be mapped.

A RAM block with only raw or empty packets can be mapped from the file as it is. The zero pages of
such a guest have no checksum, so a verification reads them. Holes are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from snapmig.container.format import Encoding, Layout
from snapmig.container.index import Record, unpack_kinds
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Mask, runs

__all__ = ("pages_of_record", "wrong_rests")


def wrong_rests(
    snapshot: SnapshotFile, packets: range, stored_pages: Callable[[int], Mask | None]
) -> Iterator[CorruptSnapshotError]:
    """
    Yield an error for each packet with bytes other than zero beside its stored pages.

    Objects, and snapshots in the packed layout, can't be mapped and are not checked.

    :param packets: the packets to check
    :param stored_pages: returns a packet's stored pages, None if anything may be beside them
    """
    if snapshot.is_remote or snapshot.layout != Layout.FIXED:
        return
    block = snapshot.superblock
    start = block.data_offset + packets.start * block.packet_size
    stop = block.data_offset + packets.stop * block.packet_size
    refused = -1
    for data, data_end in snapshot.written(start, stop):
        first = data
        while first < data_end:
            number = (first - block.data_offset) // block.packet_size
            slot = block.data_offset + number * block.packet_size
            end = min(data_end, slot + block.packet_size)
            found = None
            if number != refused and (mask := stored_pages(number)) is not None:
                found = _nonzero(snapshot, slot, _unused(mask, first - slot, end - slot))
            if found is not None:
                refused = number
                message = "slot has a byte that is not zero beside the stored pages"
                yield CorruptSnapshotError(
                    message, path=snapshot.shown, packet=number, offset=found
                )
            first = end


def pages_of_record(record: Record) -> Mask | None:
    """Return the stored pages of a checked record, None if they are compressed."""
    if record["encoding"] not in (Encoding.RAW, Encoding.EMPTY):
        return None
    kinds = record["kinds"]
    return (unpack_kinds(kinds, len(kinds) * 4) & 1).view(np.bool_)


def _unused(mask: Mask, first: int, end: int) -> Iterator[tuple[int, int]]:
    # The parts of a range of a slot without stored pages; mostly all of it has some.
    if mask.tobytes().find(0, first // PAGE_SIZE, -(-end // PAGE_SIZE)) < 0:
        return
    for page, count in runs(~mask):
        low, high = max(first, page * PAGE_SIZE), min(end, (page + count) * PAGE_SIZE)
        if low < high:
            yield low, high


def _nonzero(snapshot: SnapshotFile, slot: int, ranges: Iterable[tuple[int, int]]) -> int | None:
    # The offset of the first byte other than zero.
    for start, stop in ranges:
        data = np.frombuffer(snapshot.read(slot + start, stop - start), np.bool_)
        if data.any():
            return slot + start + int(data.argmax())
    return None
