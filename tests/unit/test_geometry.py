"""Facts about RAM blocks and the packets that they are cut into."""

import pytest

from snapmig.geometry import Geometry, PacketPlace, RamBlock, RamPiece, block_problem

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
        ((RamBlock.at(-1, 1),), "guest physical address"),
        ((RamBlock.at(1 << 56, 1),), "guest physical address"),
        ((RamBlock("a", 9000, (RamPiece(0, 5000, 0),)),), "a piece of 5000 from 0x0 on"),
        ((RamBlock("a", 9000, (RamPiece(5000, 4000, 0),)),), "a piece of 4000 from 0x1388 on"),
        ((RamBlock("a", 9000, (RamPiece(4096, 9000, 0),)),), "a piece of 9000 from 0x1000 on"),
        ((RamBlock("a", 9000, (RamPiece(-4096, 4096, 0),)),), "a piece of 4096 from -0x1000 on"),
        ((RamBlock.at(0, 4097, "a"), RamBlock.at(4096, 1, "b")), "'a' and 'b' have the address"),
    ],
    ids=range(17),
)
def test_block_problem_names_what_no_guest_has(blocks, problem):
    """A list of RAM blocks that can't be one guest's is told why."""
    assert problem in block_problem(blocks)


@pytest.mark.parametrize(
    "blocks",
    [
        (RamBlock("a", 1),),
        (RamBlock("é" * 127, 1 << 56),),
        (RamBlock.at((1 << 56) - 5, 5, "a", 1 << 30), RamBlock.at(0, 5, "b")),
        (RamBlock("a", 9000, (RamPiece(0, 4096, 4096), RamPiece(0, 9000, 8192))),),
    ],
    ids=range(4),
)
def test_block_problem_is_none_for_a_guest(blocks):
    """Blocks at the limits are allowed."""
    assert block_problem(blocks) is None


SPLIT = RamBlock("a", 5 * 4096, (RamPiece(3 * 4096, 8192, 1 << 32), RamPiece(4096, 4096, 7)))


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 5, [(0, 5, None)]),
        (4096, 8192, [(4096, 8192, 7)]),
        (5000, 6000, [(5000, 6000, 7 + 904)]),
        (16384, 20480, [(16384, 20480, (1 << 32) + 4096)]),
        (
            0,
            20480,
            [
                (0, 4096, None),
                (4096, 8192, 7),
                (8192, 12288, None),
                (12288, 20480, 1 << 32),
            ],
        ),
    ],
    ids=range(5),
)
def test_a_range_is_cut_where_addresses_do_not_follow(start, stop, expected):
    """A range of a RAM block is told by address, piece by piece."""
    assert [*SPLIT.by_address(start, stop)] == expected


def test_a_range_at_two_addresses_has_the_lower_one():
    """Of several addresses of a byte one is told."""
    block = RamBlock("a", 4096, (RamPiece(0, 4096, 1 << 32), RamPiece(0, 4096, 4096)))
    assert [*block.by_address(0, 4096)] == [(0, 4096, 4096)]
