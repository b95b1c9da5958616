"""Facts about QEMU's classic migration streams, built by hand."""

import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapmig
from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.images.qemu.sections import find_end_mark
from tests.support import program
from tests.support.qemu_files import (
    CONTINUE,
    DATA,
    EOS,
    FLUSH,
    PAGE,
    RAM_ID,
    ZERO,
    Block,
    Stream,
    data,
    device,
    ending,
    footer,
    page,
    part,
    ram_of,
    short,
    zero,
)

RAM = Block()
BIOS = Block(b"pc.bios", 70 * PAGE)
SIZES = {b"ram": 16, b"pc.bios": 70}
PLAIN = Stream(
    [part(data(0, 1, b"ram"), data(1, 2), zero(2), data(3, 3)), part(data(69, 4, b"pc.bios"))],
    [RAM, BIOS],
)
PAGES = {"ram": {0: 1, 1: 2, 3: 3}, "pc.bios": {69: 4}}

STRIDE = 8 + PAGE
"""From the contents of a page to those of the next one."""
FIRST = part(data(0, 1, b"ram"))

Write = Callable[[Stream | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a file."""

    def put(built: Stream | bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(built if isinstance(built, bytes) else built.build())
        return path

    return put


def holding(pages: dict[str, dict[int, int]]) -> dict[str, bytes]:
    """Return the RAM of blocks with some pages filled with a byte."""
    return {
        name: Block(size=SIZES[name.encode()] * PAGE, pages=held).content
        for name, held in pages.items()
    }


def again(path: Path, kind: str | None = None) -> Path:
    """Save a file and restore it."""
    snapmig.save(path, path.with_name("snap"), jobs=1)
    snapmig.restore(path.with_name("snap"), path.with_name("again"), format=kind, jobs=1)
    return path.with_name("again")


def test_it_is_recognised(write: Write) -> None:
    """The format of a file shows in its content."""
    path = write(PLAIN)
    snapmig.save(path, path.with_name("snap"), jobs=1)
    assert snapmig.info(path.with_name("snap")).source == "qemu-stream"


READ = {
    "plain": (PLAIN, PAGES),
    "data again": (
        Stream([part(data(5, 1, b"ram"), data(6, 2)), part(data(5, 9, b"ram"))]),
        {"ram": {5: 9, 6: 2}},
    ),
    "zero after data": (
        Stream([part(data(5, 1, b"ram"), data(6, 2)), part(zero(5, b"ram"))]), {"ram": {6: 2}},
    ),
    "data after zero": (
        Stream([part(zero(5, b"ram"), zero(6), zero(7)), part(data(6, 3, b"ram"))]),
        {"ram": {6: 3}},
    ),
    "zeros inside a run": (
        Stream([part(*[data(n, n + 1, None if n else b"ram") for n in range(16)]),
                part(zero(4, b"ram"), zero(5))]),
        {"ram": {n: n + 1 for n in range(16) if n not in (4, 5)}},
    ),
    "any order": (
        Stream([part(data(9, 1, b"ram"), data(3, 2), data(15, 3), data(0, 4))]),
        {"ram": {9: 1, 3: 2, 15: 3, 0: 4}},
    ),
    "blocks in turns": (
        Stream([part(data(0, 1, b"ram"), data(7, 2, b"pc.bios"), data(1, 3, b"ram"), data(2, 4))],
               [RAM, BIOS]),
        {"ram": {0: 1, 1: 3, 2: 4}, "pc.bios": {7: 2}},
    ),
    "flushes of multifd": (
        Stream([part(data(0, 1, b"ram"), struct.pack(">Q", FLUSH), data(1, 2))]),
        {"ram": {0: 1, 1: 2}},
    ),
    "flushes of QEMU 8.1": (
        Stream([part(data(0, 1, b"ram")), part(struct.pack(">Q", FLUSH), data(1, 2, b"ram"))],
               list_end=(FLUSH, EOS), last=part(struct.pack(">Q", FLUSH), kind=3)),
        {"ram": {0: 1, 1: 2}},
    ),
    "a background snapshot": (
        Stream([part(data(0, 1, b"ram")), part(data(1, 2, b"ram"))], last=b""),
        {"ram": {0: 1, 1: 2}},
    ),
    "a background snapshot with early state": (
        Stream([device(4), part(data(0, 1, b"ram"))], early=device(1), last=b""),
        {"ram": {0: 1}},
    ),
    "a command between": (
        Stream([b"\x08\0\x0b\0\0", part(data(0, 1, b"ram"))]), {"ram": {0: 1}},
    ),
    "a command with data": (
        Stream([b"\x08\0\2\0\4abcd", part(data(0, 1, b"ram"))]), {"ram": {0: 1}},
    ),
    "state before RAM": (
        Stream([part(data(0, 1, b"ram"))], early=device(1)), {"ram": {0: 1}},
    ),
    "state behind the list": (
        Stream([device(1), device(4), part(data(0, 1, b"ram"))]), {"ram": {0: 1}},
    ),
    "state before and behind": (
        Stream([device(4), part(data(0, 1, b"ram"))], early=device(1)), {"ram": {0: 1}},
    ),
    "pages in the end": (
        Stream([part(data(0, 1, b"ram"))], last=part(data(1, 2, b"ram"), kind=3)),
        {"ram": {0: 1, 1: 2}},
    ),
    "a block of zeros": (
        Stream([part(data(0, 1, b"ram"), zero(0, b"pc.bios"))], [RAM, BIOS]),
        {"ram": {0: 1}, "pc.bios": {}},
    ),
    "a block never sent": (
        Stream([part(data(0, 1, b"ram"))], [RAM, BIOS]), {"ram": {0: 1}, "pc.bios": {}},
    ),
    "a block left out": (
        Stream([part(data(0, 1, b"pc.bios"))],
               [replace(RAM, gpa=0), replace(BIOS, gpa=0xFFFC0000)], [b"x-ignore-shared"]),
        {"pc.bios": {0: 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_pages_are_sorted(write: Write, kind: str) -> None:
    """A block has the last copy of each page; a block left out is absent."""
    stream, pages = READ[kind]
    assert holding(pages) == ram_of(write(stream))


@pytest.mark.parametrize("kind", READ)
def test_restored_stream_has_the_ram(write: Write, kind: str) -> None:
    """A restored stream has the same RAM, found by a walk over its records."""
    stream, pages = READ[kind]
    restored = again(write(stream)).read_bytes()
    assert holding(pages) == walk(restored, stream)


@pytest.mark.parametrize("kind", READ)
def test_what_is_not_ram_is_kept(write: Write, kind: str) -> None:
    """The start of a stream and everything after RAM are restored byte for byte."""
    stream, _ = READ[kind]
    before, restored = stream.build(), again(write(stream)).read_bytes()
    listed = len(replace(stream, sections=[], last=b"", tail=b"").build())
    assert (before[:listed], ending()) == (restored[:listed], restored[-len(ending()) :])


def walk(content: bytes, stream: Stream) -> dict[str, bytes]:
    """Return the RAM in a restored stream, by reading record after record."""
    at = len(replace(stream, sections=[], last=b"", tail=b"").build())
    sent = [] if b"x-ignore-shared" in stream.capabilities else stream.blocks
    found = {block.name.decode(): bytearray(block.size) for block in sent}
    name = ""
    while content[at] != 3:
        if content[at] == 4:
            at = content.index(footer(int.from_bytes(content[at + 1 : at + 5])), at) + 5
            continue
        if content[at] == 8:
            at += 5 + int.from_bytes(content[at + 3 : at + 5])
            continue
        at, name = walk_part(content, at + 5, name, found)
    return {name: bytes(held) for name, held in found.items()}


def walk_part(content: bytes, at: int, name: str, found: dict[str, bytearray]) -> tuple[int, str]:
    """Read the pages of a section; return its end, and the block of the last page."""
    while not (word := int.from_bytes(content[at : at + 8])) & EOS:
        at += 8
        if not word & CONTINUE:
            length = content[at]
            name = content[at + 1 : at + 1 + length].decode()
            at += 1 + length
        held = found.setdefault(name, bytearray(SIZES[name.encode()] * PAGE))
        start = word & ~(PAGE - 1)
        size = PAGE if word & DATA else 1
        held[start : start + PAGE] = content[at : at + size].ljust(PAGE, b"\0")
        at += size
    return at + 13, name


def test_block_never_sent_is_in_a_mapped_ram_file(write: Write) -> None:
    """A zero block, such as virtio-mem's with nothing plugged, is in the written file."""
    stream, pages = READ["a block never sent"]
    assert holding(pages) == ram_of(again(write(stream), "mapped-ram"), "mapped-ram")


def test_zero_blocks_are_not_sent_in_vain(write: Write) -> None:
    """Without x-ignore-shared a restored stream has no records of zero pages."""
    restored = again(write(READ["a block of zeros"][0])).read_bytes()
    assert short(b"pc.bios") not in restored[restored.index(footer(RAM_ID)) :]


def test_flushes_behind_the_list_are_kept(write: Write) -> None:
    """The words that end the list of RAM blocks are restored unchanged, each of 8 bytes."""
    stream, _ = READ["flushes of QEMU 8.1"]
    words = struct.pack(">QQ", FLUSH, EOS) + footer(RAM_ID)
    assert words in again(write(stream)).read_bytes()


def test_mapped_ram_files_have_no_flush(write: Write) -> None:
    """A mapped-ram file is written without flushes, an error to QEMU there."""
    mapped = again(write(READ["flushes of QEMU 8.1"][0]), "mapped-ram").read_bytes()
    assert struct.pack(">Q", FLUSH) not in mapped


LENGTHS = st.builds(
    lambda *parts: int.from_bytes(parts),
    st.sampled_from([0, 0, 0, 1]),
    *[st.one_of(st.sampled_from([0, 6, 7, 0x7B, 0xFF]), st.integers(0, 255)) for _ in range(3)],
).filter(lambda length: length > 1)


@given(length=LENGTHS, before=st.binary(max_size=12))
def test_any_length_of_a_description(length: int, before: bytes) -> None:
    """The end mark is found for any length of a description, and after any bytes."""
    head = before + b"\0\6" + struct.pack(">I", length) + b"{"
    size = len(head) + length - 1

    def read(offset: int, count: int) -> bytes:
        found = head[offset : offset + count]
        return found + b" " * (count - len(found))

    assert find_end_mark(read, 0, size) == len(before)


@pytest.mark.parametrize("length", [0x7B, 0x7B27, 0x17B27, 0x67B00, 0x60000, 0x10006, 0x17B7B])
def test_description_of_a_length(write: Write, length: int) -> None:
    """A valid file is read even if its description's length holds a brace, a zero or a six."""
    description = b'{"page_size": 4096}'.ljust(length)
    assert holding({"ram": {0: 1}}) == ram_of(write(Stream([FIRST], tail=ending(description))))


def test_restored_as_mapped_ram(write: Write) -> None:
    """A stream's RAM is the same in a mapped-ram file."""
    assert holding(PAGES) == ram_of(again(write(PLAIN), "mapped-ram"), "mapped-ram")


def test_device_states_are_kept(write: Write) -> None:
    """Sections before RAM and after the list of blocks are in a restored stream, in order."""
    early, late = device(1, b"early"), device(4, b"late")
    restored = again(write(Stream([late, part(data(0, 1, b"ram"))], early=early))).read_bytes()
    assert 0 < restored.index(early) < restored.index(short(b"ram")) < restored.index(late)


def test_old_machine_without_footers(write: Write) -> None:
    """A stream of a machine type that writes no footers is read."""
    whole = Stream([part(data(0, 1, b"ram"))]).build().replace(footer(RAM_ID), b"")
    assert holding({"ram": {0: 1}}) == ram_of(write(whole))


UNKNOWN = {
    "XBZRLE": (part(data(0, 1, b"ram"), struct.pack(">Q", 0x40 | CONTINUE)), "XBZRLE deltas"),
    "compressed": (part(struct.pack(">Q", 0x100) + short(b"ram")), "compressed pages"),
    "RDMA": (part(struct.pack(">Q", 0x80)), "RDMA hooks"),
    "other flags": (part(struct.pack(">Q", 0x400)), "flags 0x400"),
    "both kinds of page": (part(struct.pack(">Q", DATA | ZERO) + short(b"ram")), "flags 0xa"),
    "filled page": (part(zero(0, b"ram", 7)), "filled with a byte that is not zero"),
    "filled page in a run": (
        part(zero(0, b"ram"), zero(1), zero(2, None, 7)), "filled with a byte that is not zero",
    ),
    "device in parts": (part(number=9), "sends its state in parts"),
    "second start": (b"\1\0\0\0\7" + short(b"block"), "sends its state in parts"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_parts_of_streams(write: Write, kind: str) -> None:
    """Parts that QEMU can send but are unknown here are refused as unsupported, by name."""
    section, words = UNKNOWN[kind]
    path = write(Stream([section]))
    with pytest.raises(UnsupportedError, match=words) as caught:
        snapmig.save(path, path.with_name("snap"), jobs=1)
    assert (4, str(path)) == (caught.value.exit_code, caught.value.path)


MALFORMED = {
    "page past its block": (Stream([part(data(16, 1, b"ram"))]), "page 0x10000 is in no RAM block"),
    "zero past its block": (Stream([part(zero(16, b"ram"))]), "page 0x10000 is in no RAM block"),
    "page at the largest address": (
        Stream([part(struct.pack(">Q", (1 << 64) - 4096 | DATA) + short(b"ram") + page(1))]),
        "is in no RAM block",
    ),
    "page of no block": (Stream([part(data(0, 1))]), "is in no RAM block"),
    "page of another block": (Stream([part(data(0, 1, b"vga"))]), "block b'vga', which is not in"),
    "unknown section": (Stream([FIRST, b"\x33"]), "section type is 0x33"),
    "second configuration": (Stream([FIRST, b"\x07"]), "section type is 0x7"),
    "nothing after the list": (Stream([], last=b""), "there is no page of RAM in the stream"),
    "pages elsewhere": (
        Stream([part(struct.pack(">Q", FLUSH))], list_end=(FLUSH, EOS)), "go over connections",
    ),
    "zero pages alone": (Stream([part(zero(0, b"ram"))]), "there is no page of RAM"),
    "flushes without an end": (Stream([FIRST], list_end=(FLUSH,) * 40), "end of the RAM block"),
    "no end of the list": (Stream([FIRST], list_end=(FLUSH,)), "end of the RAM block list"),
    "bits of a flush and an end": (Stream([FIRST], list_end=(FLUSH | EOS,)), "end of the RAM bl"),
    "last device without an end": (
        Stream([FIRST], last=b"", tail=device(5)[:-5] + ending()[2 * len(device(5)) - 2 :]),
        "the end of a device's section can't be found",
    ),
    "end without a description": (Stream([FIRST], tail=device(5) + b"\0"), "no end mark"),
    "block of half a page": (
        Stream([FIRST], [replace(RAM, stated_size=PAGE * 3 // 2), replace(BIOS, stated_size=2048)]),
        "is not made of whole pages|is not",
    ),
    "block of nothing": (
        Stream([FIRST], [replace(RAM, stated_size=0)], total=PAGE), "'ram' has 0 bytes",
    ),
    "name twice": (Stream([FIRST], [RAM, RAM]), "two RAM blocks have the name 'ram'"),
    "name that is no text": (Stream([FIRST], [replace(RAM, name=b"\xff")]), "is not text"),
    "command past the end": (Stream([FIRST, b"\x08\0\x0b\xff\xff"]), "file ends|section type"),
    "only blocks left out": (
        Stream([part()], [replace(RAM, gpa=0)], [b"x-ignore-shared"]), "there is no RAM block",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_stream(write: Write, kind: str) -> None:
    """An impossible field is refused with the file's name and exit code 1."""
    path = write(MALFORMED[kind][0])
    with pytest.raises(SnapmigError) as caught:
        snapmig.save(path, path.with_name("snap"), format="qemu-stream", jobs=1)
    assert (1, str(path)) == (caught.value.exit_code, caught.value.path)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_stream_is_described(write: Write, kind: str) -> None:
    """The refusal describes the fault."""
    stream, words = MALFORMED[kind]
    path = write(stream)
    with pytest.raises(SnapmigError, match=words):
        snapmig.save(path, path.with_name("snap"), format="qemu-stream", jobs=1)


@pytest.mark.parametrize("bits", [40, 44, 48, 52, 55])
def test_absurd_ram_takes_little_memory(write: Write, bits: int) -> None:
    """A small file claiming very much RAM ends in one sentence, or is read, in 1 GiB."""
    path = write(Stream([FIRST], [replace(RAM, stated_size=1 << bits)]))
    limit = (1 << 30, 1 << 30)
    code = (
        "import resource, sys; from snapmig.commands import main; "
        f"resource.setrlimit(resource.RLIMIT_AS, {limit}); sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["save", path, path.with_name("snap"), "-j", "1", "--layout", "packed"]
    done = program.call([sys.executable, "-c", code, *arguments])
    done.fails(1, start=f"snapmig: {path}: ", lines=1)


def is_refused(path: Path, content: bytes) -> bool:
    """Return True if a file is refused by an error of its own kind with its name."""
    path.write_bytes(content)
    try:
        ram_of(path, "qemu-stream")
    except SnapmigError as error:
        return error.path == str(path)
    return False


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Wherever a stream ends too early, it is refused."""
    whole = PLAIN.build()
    edges = {*range(1, 200), *range(len(whole) - 400, len(whole)), *range(1, len(whole), 997)}
    let_in = [cut for cut in sorted(edges) if not is_refused(tmp_path / "cut", whole[:cut])]
    assert let_in == []


SMALL = Stream(
    [device(4), part(data(0, 1, b"ram"), zero(1), zero(2)), part(data(3, 2, b"ram"))],
    early=device(1),
).build()


def read_or_refused(path: Path, content: bytes) -> bool:
    """Return True if a file is read, or refused by an error of its own kind."""
    path.write_bytes(content)
    try:
        ram_of(path, "qemu-stream")
    except SnapmigError:
        return True
    return True


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SMALL)), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=4,
    ),
    near=st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, bytes]], near: bool
) -> None:
    """Whatever a stream says, it is read, or refused by an error of its own kind."""
    content = bytearray(SMALL)
    for at, change in changes:
        start = at % 240 if near else at
        if not RAM_SIZE <= start + len(change) <= RAM_SIZE + 40:
            content[start : start + len(change)] = change
    assert read_or_refused(tmp_path / "file", bytes(content))


RAM_SIZE = SMALL.index(short(b"ram") + struct.pack(">II", 0, 4)) + 12
"""Where the sizes of RAM stand: changed by tests with a limit on memory only."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.tuples(st.sampled_from(sorted(SIZES)), st.integers(0, 15),
                               st.integers(0, 3)), max_size=60)
)  # fmt: skip
def test_any_sequence_of_pages(tmp_path: Path, records: list[tuple[bytes, int, int]]) -> None:
    """Whatever pages follow one another, the last copy of each one is read."""
    sent = [data(n, v, name) if v else zero(n, name) for name, n, v in records]
    pages: dict[str, dict[int, int]] = {"ram": {}, "pc.bios": {69: 1}}
    for name, number, value in records:
        pages[name.decode()][number] = value
    (tmp_path / "file").write_bytes(
        Stream([part(data(69, 1, b"pc.bios"), *sent)], [RAM, BIOS]).build()
    )
    assert holding(pages) == ram_of(tmp_path / "file")


def test_a_page_one_stride_from_the_start_is_data(write: Write) -> None:
    """Missing pages stand at 0 in our table: data a stride from there doesn't continue them."""
    names = [bytes([65 + number]) * 200 for number in range(18)]
    blocks = [Block(name, PAGE) for name in names]

    def built(last: bytes) -> bytes:
        return Stream(
            [part(zero(0, b"ram"), data(1, 7))], [*blocks, Block(last, PAGE), RAM]
        ).build()

    last = b"x" * (STRIDE - built(b"").index(page(7)))
    content = built(last)
    assert content.index(page(7)) == STRIDE
    assert ram_of(write(content))["ram"][PAGE : 2 * PAGE] == page(7)
