"""Facts about the functions of the package and what they return."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.errors import SnapmigError, UsageError
from tests.support import ram

MIB = 1 << 20
SMALL, LARGE = ram.mixed(100_001, 3), ram.mixed(3 * MIB, 4)
RAM = SMALL + LARGE
BLOCKS = (
    snapmig.RamBlock.at(0, 100_001, "low"),
    snapmig.RamBlock(
        "high é",
        3 * MIB,
        (snapmig.RamPiece(0, MIB, 1 << 32), snapmig.RamPiece(2 * MIB, MIB, 1 << 33)),
    ),
)
DATA_PAGES = sum(
    content[at : at + 4096].strip(b"\0") != b""
    for content in (SMALL, LARGE)
    for at in range(0, len(content), 4096)
)
ZERO_PAGES = 25 + 768 - DATA_PAGES
STATE = ram.text(300).tobytes()


@pytest.fixture(scope="module")
def images(shared_shm):
    """Give two RAM blocks with their files."""
    contents = (SMALL, LARGE)
    files = [ram.write(shared_shm / str(n), content) for n, content in enumerate(contents)]
    return list(zip(BLOCKS, files, strict=True))


@pytest.fixture(scope="module")
def saved(shared_shm, images):
    """Give the result of a save of two blocks with three attachments."""
    (shared_shm / "domain.xml").write_bytes(b"<domain/>")
    attach = {"state": STATE, "domain.xml": shared_shm / "domain.xml", "nothing": b""}
    return snapmig.save(images, shared_shm / "s", packet_size="64K", attach=attach, jobs=2)


@pytest.fixture
def opened(saved):
    """Give the snapshot open."""
    with snapmig.open(saved.snapshot) as snapshot:
        yield snapshot


def test_a_save_counts_the_pages(saved):
    """Data and zero pages are those of each block, the last one maybe cut short."""
    assert (saved.data_pages, saved.zero_pages) == (DATA_PAGES, ZERO_PAGES)


def test_a_save_says_what_it_made(saved):
    """Sizes in the result are those of the files."""
    facts = Path(saved.snapshot).stat()

    assert (saved.ram_size, saved.file_size, saved.disk_size, saved.jobs) == (
        len(RAM),
        facts.st_size,
        facts.st_blocks * 512,
        2,
    )


def test_a_save_counts_packets(saved):
    """Packets of all encodings together are those of all blocks."""
    assert sum(saved.packets.values()) == 2 + 48


def test_info_says_what_the_save_said(saved):
    """Facts about a snapshot are the same later as when it was made."""
    known = snapmig.info(saved.snapshot)
    names = ("snapshot_id", "ram_size", "data_pages", "zero_pages", "packets", "stored_size")

    assert [getattr(saved, name) for name in names] == [getattr(known, name) for name in names]


def test_info_lists_attachments(saved):
    """Attachments have their names and sizes."""
    known = [(entry.name, entry.size) for entry in snapmig.info(saved.snapshot).attachments]

    assert known == [("state", len(STATE)), ("domain.xml", 9), ("nothing", 0)]


def test_info_keeps_the_blocks(saved):
    """RAM blocks keep name, size, address and page size."""
    known = tuple(
        snapmig.RamBlock(block.name, block.size, block.pieces, block.page_size)
        for block in snapmig.info(saved.snapshot).blocks
    )

    assert known == BLOCKS


def test_compressed_blocks_can_not_be_mapped(saved):
    """A compressed packet has no place in the file to be mapped from."""
    assert {block.offset for block in snapmig.info(saved.snapshot).blocks} == {None}


def test_two_saves_have_different_ids(images, saved, shm):
    """Every snapshot has a random id of its own."""
    assert snapmig.save(images, shm / "t").snapshot_id != saved.snapshot_id


def test_a_good_snapshot_is_verified(saved):
    """A whole snapshot has no problem."""
    result = snapmig.verify(saved.snapshot, jobs=2)

    assert (result.ok, result.problems, result.packets, result.damaged_packets) == (True, (), 50, 0)


def test_a_restore_is_the_blocks_end_to_end(saved, shm):
    """All blocks are restored one after the other."""
    snapmig.restore(saved.snapshot, shm / "r")

    assert (shm / "r").read_bytes() == RAM


@pytest.mark.parametrize(("block", "expected"), [("low", SMALL), ("high é", LARGE)], ids=range(2))
def test_a_single_block_is_restored(saved, shm, block, expected):
    """One block by name gives that block's bytes."""
    snapmig.restore(saved.snapshot, shm / "r", block=block)

    assert expected == (shm / "r").read_bytes()


def test_a_restore_counts_the_pages(saved, shm):
    """Data and zero pages of a restore are those of the save."""
    result = snapmig.restore(saved.snapshot, shm / "r")

    assert (result.data_pages, result.zero_pages) == (DATA_PAGES, ZERO_PAGES)


def test_pages_of_many_tiny_blocks_are_counted(shm):
    """Each block's last page counts as one, so no number of pages is below zero."""
    ram.write(shm / "a", b"x")
    blocks = [(snapmig.RamBlock(f"b{n}", 1), shm / "a") for n in range(5)]
    snapmig.save(blocks, shm / "s")

    result = snapmig.restore(shm / "s", shm / "r")

    assert (result.data_pages, result.zero_pages) == (5, 0)


@pytest.mark.parametrize("block", ["", "ram", "LOW"])
def test_an_unknown_block_is_refused(saved, shm, block):
    """A name that no block has is refused, with the names that there are."""
    with pytest.raises(UsageError, match="it has low, high é"):
        snapmig.restore(saved.snapshot, shm / "r", block=block)


def test_length(opened):
    """An open snapshot is as long as all blocks together."""
    assert (len(opened), opened.length) == (len(RAM), len(RAM))


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 0),
        (0, 1),
        (0, 1 << 62),
        (99_990, 20),
        (100_000, 70_000),
        (len(RAM) - 1, 10),
        (len(RAM), 10),
        (len(RAM) + 5, 10),
    ],
)
def test_reading_anywhere(opened, offset, size):
    """A read gives the bytes of that range, as far as there are any."""
    assert RAM[offset : offset + size] == opened.read(offset, size)


@pytest.mark.parametrize(("block", "content"), [("low", SMALL), ("high é", LARGE)], ids=range(2))
@pytest.mark.parametrize(("offset", "size"), [(0, 10), (65_530, 12), (99_999, 100)])
def test_reading_in_a_block(opened, block, content, offset, size):
    """A read in a block counts from its start and ends with it."""
    assert content[offset : offset + size] == opened.read(offset, size, block)


@pytest.mark.parametrize(
    ("number", "block", "expected"),
    [
        (0, None, RAM[:4096]),
        (3, None, RAM[12288:16384]),
        (24, "low", SMALL[24 * 4096 :]),
        (767, "high é", LARGE[-4096:]),
    ],
    ids=range(4),
)
def test_a_page_is_an_array(opened, number, block, expected):
    """A page's bytes come as numpy sees bytes."""
    page = opened.page(number, block)

    assert (page.dtype, page.tobytes()) == (np.uint8, expected)


def test_a_page_can_not_be_written(opened):
    """A snapshot is read-only."""
    assert not opened.page(0).flags.writeable


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda snapshot: snapshot.read(-1, 5), "offset is -1"),
        (lambda snapshot: snapshot.read(0, -5), "size -5"),
        (lambda snapshot: snapshot.read(0, 5, "x"), "no RAM block 'x'"),
        (lambda snapshot: snapshot.read(0, 5, ""), "no RAM block ''"),
        (lambda snapshot: snapshot.page(-1), "page is -1, expected 0 to 792"),
        (lambda snapshot: snapshot.page(793), "page is 793"),
        (lambda snapshot: snapshot.page(25, "low"), "page is 25, expected 0 to 24"),
        (lambda snapshot: snapshot.page(0, "x"), "no RAM block 'x'"),
    ],
    ids=range(8),
)
def test_reads_that_make_no_sense(opened, call, words):
    """A range outside, or in no block, is refused."""
    with pytest.raises(UsageError, match=words):
        call(opened)


def test_attachments_come_back(opened):
    """Attachments are the bytes that were given."""
    digests = {name: hashlib.md5(value).digest() for name, value in opened.attachments.items()}

    assert digests == {
        "state": hashlib.md5(STATE).digest(),
        "domain.xml": hashlib.md5(b"<domain/>").digest(),
        "nothing": hashlib.md5(b"").digest(),
    }


def test_a_missing_attachment_is_a_key_error(opened):
    """Attachments are a mapping."""
    with pytest.raises(KeyError):
        opened.attachments["other"]


@pytest.mark.parametrize(
    ("attach", "kind", "words"),
    [
        ({"": b""}, UsageError, "attachment name ''"),
        ({"é" * 128: b""}, UsageError, "not 1 to 255 bytes"),
        ({"a\0b": b""}, UsageError, "not 1 to 255 bytes"),
        ({"a": "/nowhere"}, OSError, "No such file"),
        ({"a": "/"}, SnapmigError, "attachment 'a' is not a regular file"),
        ({"a": "/dev/null"}, SnapmigError, "not a regular file"),
        ({str(n): b"" for n in range(4097)}, UsageError, "4097 attachments, expected at most 4096"),
    ],
    ids=range(7),
)
def test_attachments_that_are_refused(images, shm, attach, kind, words):
    """An attachment that can't be is refused before any work."""
    with pytest.raises(kind, match=words):
        snapmig.save(images, shm / "s", attach=attach)

    assert list(shm.iterdir()) == []


def test_an_attachment_that_is_too_large_is_refused(images, shm):
    """A file of more than 1 GiB is refused by its size."""
    with (shm / "huge").open("wb") as file:
        file.truncate((1 << 30) + 1)

    with pytest.raises(SnapmigError, match=r"attachment 'a' has 1.0 GiB, expected at most 1.0 GiB"):
        snapmig.save(images, shm / "s", attach={"a": shm / "huge"})


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([("a", 1), ("a", 1)], "two RAM blocks have the name 'a'"),
        ([("", 1)], "not 1 to 255 bytes"),
    ],
    ids=range(2),
)
def test_blocks_that_are_refused(shm, blocks, words):
    """RAM blocks that no guest has are refused before any work."""
    ram.write(shm / "a", b"x")

    with pytest.raises(UsageError, match=words):
        snapmig.save([(snapmig.RamBlock(*block), shm / "a") for block in blocks], shm / "s")


def test_a_save_of_no_block_is_refused(shm):
    """A guest has at least one RAM block."""
    with pytest.raises(UsageError, match="no RAM block"):
        snapmig.save([], shm / "s")


@pytest.mark.parametrize("verb", ["save", "restore", "verify"])
def test_progress_ends_with_all_of_ram(images, saved, shm, verb):
    """The last word of progress is that all of RAM is done, and it never goes back."""
    seen = []
    calls = {
        "save": lambda: snapmig.save(images, shm / "s", progress=seen.append),
        "restore": lambda: snapmig.restore(saved.snapshot, shm / "r", progress=seen.append),
        "verify": lambda: snapmig.verify(saved.snapshot, progress=seen.append),
    }
    calls[verb]()

    done = [moment.done_bytes for moment in seen]
    assert (done[-1], done) == (seen[-1].total_bytes, sorted(done))


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_an_exception_of_the_progress_function_leaves_nothing(images, saved, shm, verb):
    """Whoever raises while told of progress ends the run, which cleans up."""

    def complain(_progress):
        raise LookupError("enough")

    calls = {
        "save": lambda: snapmig.save(images, shm / "s", progress=complain),
        "restore": lambda: snapmig.restore(saved.snapshot, shm / "r", progress=complain),
    }
    with pytest.raises(LookupError):
        calls[verb]()

    assert list(shm.iterdir()) == []


def test_force_and_in_place_are_one_too_many(saved, shm):
    """A restore either makes a new file or keeps the old one."""
    with pytest.raises(UsageError, match="exclude each other"):
        snapmig.restore(saved.snapshot, shm / "r", force=True, in_place=True)


def test_a_snapshot_shows_what_it_is(saved):
    """The repr of an open snapshot has its name, size and number of blocks."""
    with snapmig.open(saved.snapshot) as snapshot:
        assert repr(snapshot) == f"<Snapshot {saved.snapshot!r}: 3.1 MiB, 2 blocks>"
        assert repr(snapshot.attachments) == "<Attachments 'state', 'domain.xml', 'nothing'>"


def test_reads_by_address_join_pieces(opened):
    """Bytes are found by guest physical address, in whatever block and piece they are."""
    assert opened.read_at(7, 100) == SMALL[7:107]
    assert opened.read_at((1 << 33) + 5, 50) == LARGE[2 * MIB + 5 : 2 * MIB + 55]
    assert opened.ranges == ((0, 100_001), (1 << 32, (1 << 32) + MIB), (1 << 33, (1 << 33) + MIB))


@pytest.mark.parametrize(
    ("address", "size"), [(100_000, 2), ((1 << 32) + MIB - 1, 2), (1 << 40, 1)]
)
def test_addresses_without_ram_are_refused(opened, address, size):
    """A read that leaves the RAM names the first address without any."""
    with pytest.raises(UsageError, match="has no RAM at the address 0x"):
        opened.read_at(address, size)


def test_addresses_of_bytes(opened):
    """A byte has the address of its piece, and none where the block has no piece."""
    assert opened.address_of(2 * MIB + 3, "high é") == (1 << 33) + 3
    assert opened.address_of(MIB, "high é") is None


def test_pages_have_their_sources(opened, saved):
    """Iteration gives each page once, with its address, source and bytes."""
    pages = list(opened.pages())
    joined = b"".join(page.content.tobytes() for page in pages)

    assert joined == RAM
    assert [page.number for page in pages] == list(range(len(pages)))
    assert sum(page.source == "stored" for page in pages) == saved.data_pages
    assert len(list(opened.pages(zeros=False))) == saved.data_pages
    assert pages[25].address == 1 << 32


def test_search_finds_every_place(opened):
    """All places of some bytes are found in order, those across packets too."""
    edges = range(65_536, len(LARGE), 65_536)
    edge = next(each for each in edges if LARGE[each - 1] and LARGE[each])
    pattern = LARGE[edge - 6 : edge + 9]
    places, at = [], LARGE.find(pattern)
    while at >= 0:
        places.append(at)
        at = LARGE.find(pattern, at + 1)

    assert list(opened.search(pattern, "high é")) == places
    assert edge - 6 in places
    assert len(SMALL) + edge - 6 in list(opened.search(pattern))


@pytest.mark.parametrize("pattern", [b"", bytes(8), b"x" * (65_536 + 1)])
def test_patterns_that_can_not_be_searched_are_refused(opened, pattern):
    """Nothing, zeros only, and more than a packet are refused before anything is read."""
    with pytest.raises(UsageError, match="pattern has"):
        opened.search(pattern)


def test_arrays_can_not_be_written(opened):
    """An array shares the memory of the cache, and is read-only."""
    array = opened.array(0, 5000, "low")
    assert array.tobytes() == SMALL[:5000]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
