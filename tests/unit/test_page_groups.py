"""Packets of a batch read in groups: every page in its place, whatever is a hole."""

import numpy as np
import pytest

from snapmig.container.format import PageKind
from snapmig.container.index import empty_records
from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.encoder import PacketEncoder
from snapmig.geometry import Geometry, RamBlock
from snapmig.handlers.pipeline import PacketPipeline, WithoutParent
from snapmig.images.source import ImageReader, read_batch
from snapmig.workers.tasks import Task

PACKET = 8 * 4096
START = 3 * PACKET + 100  # a block may begin anywhere
SIZE = 20 * PACKET - 4096 - 7


class Reader(ImageReader):
    """RAM in extents, filled with what can't be mistaken."""

    def __init__(self, extents, size=SIZE):
        self.ram = np.zeros(START + size, np.uint8)
        self._extents = [(START + first, START + end) for first, end in extents]
        for first, end in self._extents:
            self.ram[first:end] = np.random.default_rng(first).integers(1, 256, end - first)

    def extents(self, start, stop):
        """Yield the extents between two RAM offsets."""
        for first, end in self._extents:
            if first < stop and end > start:
                yield max(first, start), min(end, stop)

    def view(self, start, stop):
        """Return a range, read-only, and refuse one that is no part of an extent."""
        assert any(first <= start < stop <= end for first, end in self._extents)
        return np.frombuffer(self.ram.tobytes(), np.uint8)[start:stop]


def groups_of(reader, size=SIZE):
    """Return the groups of a batch."""
    return list(read_batch(reader, START, START + size, PACKET))


EXTENTS = {
    "everything": [(0, SIZE)],
    "one page in each packet": [(at * PACKET + 8192, at * PACKET + 12288) for at in range(19)],
    "every other page": [(at * 8192, at * 8192 + 4096) for at in range(79)],
    "across packets": [(4096, 3 * PACKET + 4096), (9 * PACKET - 4096, 9 * PACKET + 8192)],
    "side by side": [(0, 4096), (4096, PACKET), (PACKET, 4 * PACKET)],
    "parts of pages": [(100, 5000), (5001, 5002), (7 * PACKET + 1, 8 * PACKET - 1)],
    "the last page": [(SIZE - 2000, SIZE)],
    "nothing": [],
}


@pytest.mark.parametrize("extents", EXTENTS.values(), ids=EXTENTS)
def test_every_page_is_in_its_place(extents):
    """The pages of all groups, put to their places, are the batch's RAM."""
    reader = Reader(extents)
    found = np.zeros((20 * 8, 4096), np.uint8)
    for group in groups_of(reader):
        own = found[group.first * 8 : (group.first + group.packets) * 8]
        own[group.there] = group.pages

    assert found.tobytes().rstrip(b"\0") == reader.ram[START:].tobytes().rstrip(b"\0")


@pytest.mark.parametrize("extents", EXTENTS.values(), ids=EXTENTS)
def test_a_packet_is_in_one_group(extents):
    """Groups follow each other, and none begins before the end of the one before."""
    groups = groups_of(Reader(extents))
    ends = [0, *(group.first + group.packets for group in groups)]

    assert all(group.first >= end for group, end in zip(groups, ends, strict=False))


def test_full_packets_are_not_copied_together():
    """Each packet without holes is a group of its own, in the memory of the image."""
    groups = groups_of(Reader([(0, 4 * PACKET)], 4 * PACKET), 4 * PACKET)

    assert [(each.is_whole, each.pages.flags.writeable) for each in groups] == [(True, False)] * 4


def test_packets_with_few_pages_come_together():
    """Eight packets of one page take as much memory as a full one, and come as one group."""
    groups = groups_of(Reader([(at * PACKET, at * PACKET + 4096) for at in range(16)]))

    assert [(each.first, each.packets) for each in groups] == [(0, 8), (8, 8)]


def test_a_hole_where_the_parent_had_pages_has_changed():
    """A packet saved as the parent's is found changed once the guest has given up its memory."""
    geometry = Geometry((RamBlock("ram", 4 * PACKET),), PACKET)
    records = empty_records(0, 4, PACKET)
    records["kinds"][2] = PageKind.SAME_AS_PARENT * 0x55
    settings, comparison = PacketSettings(), WithoutParent(page_digests=False)
    pipeline = PacketPipeline(Reader([]), geometry, PacketEncoder(settings), comparison)
    found = pipeline.changed(Task(0, 0, 4), records)

    assert [(at, len(summary.data)) for at, summary in found] == [(2, 0)]
