"""Facts about RAM blocks and the packets that they are cut into."""

import pytest

from snapmig.geometry import Geometry, PacketPlace, RamBlock, block_problem

KIB = 1 << 10


def _geometry(*sizes, packet_size=64 * KIB):
    return Geometry(tuple(RamBlock(f"b{n}", size) for n, size in enumerate(sizes)), packet_size)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ((1,), 1),
        ((64 * KIB,), 1),
        ((64 * KIB + 1,), 2),
        ((1, 1, 1), 3),
        ((128 * KIB, 64 * KIB), 3),
        ((100 * KIB, 100 * KIB), 4),
    ],
)
def test_every_block_starts_with_a_packet_of_its_own(sizes, count):
    """The number of packets is that of each block rounded up, added together."""
    assert count == _geometry(*sizes).packet_count


@pytest.mark.parametrize(
    ("packet", "place"),
    [
        (0, PacketPlace(0, 0, 0, 64 * KIB)),
        (1, PacketPlace(1, 0, 64 * KIB, 36 * KIB)),
        (2, PacketPlace(2, 1, 100 * KIB, 5)),
        (3, PacketPlace(3, 2, 100 * KIB + 5, 64 * KIB)),
    ],
)
def test_place_of_a_packet(packet, place):
    """A packet lies inside one block, and the last one of a block may be short."""
    assert place == _geometry(100 * KIB, 5, 64 * KIB).place(packet)


@pytest.mark.parametrize(
    ("length", "pages"), [(1, 1), (4096, 1), (4097, 2), (64 * KIB, 16), (64 * KIB - 1, 16)]
)
def test_pages_of_a_place_count_the_cut_one(length, pages):
    """A page that the end of its block cuts short is a page."""
    assert pages == PacketPlace(0, 0, 0, length).pages


@pytest.mark.parametrize(
    ("offset", "packet"),
    [(0, 0), (64 * KIB - 1, 0), (64 * KIB, 1), (100 * KIB - 1, 1), (100 * KIB, 2), (104 * KIB, 3)],
)
def test_packet_at_a_ram_offset(offset, packet):
    """Each byte of RAM is in one packet."""
    assert packet == _geometry(100 * KIB, 4 * KIB, 64 * KIB).packet_at(offset)


def test_packets_cover_ram_without_gap_or_overlap():
    """The packets' ranges laid end to end are all of RAM."""
    shape = _geometry(100 * KIB, 5, 64 * KIB, 1)
    places = [shape.place(packet) for packet in range(shape.packet_count)]

    ends = [place.ram_offset + place.length for place in places]

    assert [0, *ends] == [*(place.ram_offset for place in places), shape.ram_size]


def test_block_packets_are_the_packets_of_that_block():
    """Numbers of a block's packets follow each other."""
    assert range(2, 3) == _geometry(100 * KIB, 5, 64 * KIB).block_packets(1)


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ((), "no RAM block"),
        ((RamBlock("a", 1), RamBlock("a", 2)), "two RAM blocks have the name 'a'"),
        ((RamBlock("a", 1 << 55), RamBlock("b", (1 << 55) + 1)), "more than"),
        ((RamBlock("", 1),), "not 1 to 255 bytes"),
        ((RamBlock("é" * 128, 1),), "not 1 to 255 bytes"),
        ((RamBlock("a\0b", 1),), "not 1 to 255 bytes"),
        ((RamBlock("a", 0),), "has 0 bytes"),
        ((RamBlock("a", -4096),), "has -4096 bytes"),
        ((RamBlock("a", 1, page_size=2048),), "pages of 2048 bytes"),
        ((RamBlock("a", 1, page_size=12288),), "pages of 12288 bytes"),
        ((RamBlock("a", 1, gpa=-1),), "guest physical address"),
        ((RamBlock("a", 1, gpa=(1 << 64) - 1),), "guest physical address"),
    ],
    ids=range(12),
)
def test_block_problem_names_what_no_guest_has(blocks, problem):
    """A list of RAM blocks that can't be one guest's is told why."""
    assert problem in block_problem(blocks)


@pytest.mark.parametrize(
    "blocks",
    [
        (RamBlock("a", 1),),
        (RamBlock("é" * 127, 1 << 56),),
        (RamBlock("a", 5, gpa=(1 << 64) - 2, page_size=1 << 30), RamBlock("b", 5, gpa=0)),
    ],
    ids=range(3),
)
def test_block_problem_is_none_for_a_guest(blocks):
    """Blocks at the limits are allowed."""
    assert block_problem(blocks) is None
