"""Facts about snapshots without compression: RAM blocks are mapped from the file as they are."""

import mmap

import pytest

import snapmig
from tests.support import ram

MIB = 1 << 20
SIZES = (2 * MIB, 5 * MIB + 4096, MIB // 2 + 100)
CONTENTS = [ram.mixed(size, seed) for seed, size in enumerate(SIZES)]
NAMES = ("pc.ram", "vga", "rom")


@pytest.fixture(scope="module")
def blocks(shared_shm):
    """Give RAM blocks with their files."""
    return [
        (snapmig.RamBlock(name, len(content)), ram.write(shared_shm / name, content))
        for name, content in zip(NAMES, CONTENTS, strict=True)
    ]


def _mapped(path, offset, size):
    # What a program sees that maps a part of a file.
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ, offset=offset) as view,
    ):
        return view[:]


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("packet_size", ["64K", "512K", "4M"])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_blocks_are_mapped_from_the_snapshot(blocks, tmp_path, shm, place, packet_size, jobs):
    """At the offset that info names, each RAM block stands byte for byte, zero pages included."""
    path = {"disk": tmp_path, "memory": shm}[place] / "s"
    snapmig.save(blocks, path, compression="none", packet_size=packet_size, jobs=jobs)
    found = {
        block.name: _mapped(path, block.offset, block.size) for block in snapmig.info(path).blocks
    }

    assert dict(zip(NAMES, CONTENTS, strict=True)) == found


def test_the_command_line_names_the_offsets(blocks, shm, cli):
    """``info --json`` has the offset of each block, a multiple of a page."""
    snapmig.save(blocks, shm / "s", compression="none")
    shown = cli("info", "--json", shm / "s").json["blocks"]
    offsets = [block["offset"] for block in shown]

    assert [offset % mmap.PAGESIZE for offset in offsets] == [0, 0, 0]
    assert all(
        content == _mapped(shm / "s", offset, len(content))
        for content, offset in zip(CONTENTS, offsets, strict=True)
    )


def test_the_rest_of_a_blocks_last_page_is_zero(blocks, shm):
    """A program that maps whole pages sees zeros after the end of a block."""
    snapmig.save(blocks, shm / "s", compression="none")
    block = snapmig.info(shm / "s").blocks[2]

    assert _mapped(shm / "s", block.offset, MIB // 2 + 4096) == CONTENTS[2] + bytes(4096 - 100)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_zero_pages_are_holes(tmp_path, shm, place):
    """A snapshot takes the space of the pages that are not zero, and of its index."""
    pieces = {at * MIB + 40_960: ram.noise(3, at).tobytes() for at in range(0, 32, 2)}
    ram.write_sparse(shm / "a", 32 * MIB, pieces)
    path = {"disk": tmp_path, "memory": shm}[place] / "s"
    result = snapmig.save(shm / "a", path, compression="none", page_digests=False)

    assert result.data_pages == 48
    assert 48 * 4096 <= ram.disk_bytes(path) <= 48 * 4096 + (64 << 10)
    assert path.stat().st_size > 32 * MIB


def test_a_block_of_packets_that_do_not_compress_can_be_mapped(shm):
    """The stored form of packets decides, and not the option of the save."""
    ram.write(shm / "a", ram.noise(256))
    snapmig.save(shm / "a", shm / "s", compression="zstd")
    (block,) = snapmig.info(shm / "s").blocks

    assert _mapped(shm / "s", block.offset, block.size) == ram.noise(256).tobytes()


@pytest.mark.parametrize(
    "way", [{"compression": "none", "layout": "packed"}, {"compression": "lz4"}, {}], ids=range(3)
)
def test_what_can_not_be_mapped_has_no_offset(blocks, shm, way):
    """Packed or compressed, a block has no place to be mapped from."""
    snapmig.save(blocks, shm / "s", **way)

    assert {block.offset for block in snapmig.info(shm / "s").blocks} == {None}


def test_a_mapped_block_is_a_copy_on_write_guest(blocks, shm):
    """A private mapping can be written to, and the snapshot stays as it was."""
    snapmig.save(blocks, shm / "s", compression="none")
    block = snapmig.info(shm / "s").blocks[0]
    before = (shm / "s").read_bytes()
    with (
        (shm / "s").open("rb") as file,
        mmap.mmap(
            file.fileno(),
            block.size,
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
            offset=block.offset,
        ) as view,
    ):
        view[:4096] = b"w" * 4096
        changed = view[:8192]

    assert (changed, (shm / "s").read_bytes() == before) == (
        b"w" * 4096 + CONTENTS[0][4096:8192],
        True,
    )
