"""Facts about where a packet's stored bytes are written."""

import os
from functools import partial

import numpy as np
import pytest

from snapmig.container.format import Encoding, Layout
from snapmig.container.index import StoredPacket
from snapmig.container.slots import SlotPlan, read_stored, write_stored
from tests.support import ram

MASK = np.array([1, 0, 1, 1, 0, 0, 0, 1], bool)
PAGES = ram.noise(4)


@pytest.fixture
def slot(shm):
    """Give a descriptor of an empty slot of 8 pages at offset 4096."""
    with (shm / "slot").open("w+b") as file:
        file.truncate(9 * 4096)
        yield file.fileno()


def _packet(encoding, size):
    return StoredPacket(0, 4096, size, encoding, 0, b"", MASK.view(np.uint8), 4)


def test_raw_pages_have_their_own_places_in_a_fixed_slot(slot):
    """Page n of a raw packet is at n times the page size in its slot."""
    write_stored(slot, Layout.FIXED, 4096, MASK, PAGES, Encoding.RAW)

    written = np.frombuffer(os.pread(slot, 8 * 4096, 4096), np.uint8).reshape(8, 4096)
    assert written[MASK].tobytes() == PAGES.tobytes()


def test_zero_pages_stay_holes_in_a_fixed_slot(slot):
    """Nothing is written where a page is zero."""
    write_stored(slot, Layout.FIXED, 4096, MASK, PAGES, Encoding.RAW)

    assert os.fstat(slot).st_blocks * 512 == 4 * 4096


@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.DEFLATE])
def test_packed_bytes_are_in_one_piece(slot, encoding):
    """In the packed layout stored bytes follow each other."""
    write_stored(slot, Layout.PACKED, 4096, MASK, PAGES, encoding)

    assert os.pread(slot, 4 * 4096, 4096) == PAGES.tobytes()


def test_a_deflate_stream_starts_its_fixed_slot(slot):
    """A stream stands at the start of its slot."""
    write_stored(slot, Layout.FIXED, 4096, MASK, b"stream", Encoding.DEFLATE)

    assert os.pread(slot, 7, 4096) == b"stream\0"


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.DEFLATE])
def test_what_was_written_is_read(slot, layout, encoding):
    """Stored bytes come back in each layout and encoding."""
    write_stored(slot, layout, 4096, MASK, PAGES, encoding)

    assert (
        read_stored(partial(_read, slot), layout, _packet(encoding, PAGES.nbytes))
        == PAGES.tobytes()
    )


def _read(slot, offset, length):
    return os.pread(slot, length, offset)


@pytest.mark.parametrize("packet", [0, 1, 1 << 20])
def test_a_fixed_place_follows_from_the_number_alone(packet):
    """The slot of packet k is at data_offset + k * packet_size."""
    plan = SlotPlan("", Layout.FIXED, 524288, 8192, 1 << 20)

    assert plan.slot_offset(packet) == (1 << 20) + packet * 524288
