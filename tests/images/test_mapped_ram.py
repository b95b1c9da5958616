"""Facts about QEMU's mapped-ram migration files, built by hand."""

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapmig
from snapmig.errors import ImageChangedError, SnapmigError
from snapmig.images.formats import open_image
from tests.support.qemu_files import (
    ALIGNMENT,
    FLUSH,
    PAGE,
    Block,
    Mapped,
    configuration,
    device,
    ending,
    footer,
    ram_end,
    ram_of,
    subsection,
)

IGNORE_SHARED = (b"x-ignore-shared", b"mapped-ram")
RAM = Block(pages={0: 1, 3: 2, 15: 3})
BIOS = Block(b"pc.bios", 70 * PAGE, {1: 4, 65: 5, 69: 6})
ROM = Block(b"0000:00:02.0/virtio-net-pci.rom", 2 * PAGE, {})
PLAIN = Mapped([RAM, BIOS, ROM])


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapped | bytes], Path]:
    """Give a function that writes a file."""

    def put(built: Mapped | bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(built if isinstance(built, bytes) else built.build())
        return path

    return put


Write = Callable[[Mapped | bytes], Path]


def again(path: Path, **options: int) -> bytes:
    """Save a file and restore it."""
    snapmig.save(path, path.with_name("snap"), jobs=1)
    snapmig.restore(path.with_name("snap"), path.with_name("again"), jobs=1, **options)
    return path.with_name("again").read_bytes()


def by_name(*blocks: Block) -> dict[str, bytes]:
    """Return the contents of blocks."""
    return {block.name.decode(): block.content for block in blocks}


def test_it_is_recognised(write: Write) -> None:
    """The format of a file shows in its content."""
    path = write(PLAIN)
    snapmig.save(path, path.with_name("snap"), jobs=1)
    assert snapmig.info(path.with_name("snap")).source == "mapped-ram"


def test_pages_come_by_the_bitmap(write: Write) -> None:
    """Each block has its pages, and zeros elsewhere."""
    assert by_name(RAM, BIOS, ROM) == ram_of(write(PLAIN))


def test_stale_bytes_never_appear(write: Write) -> None:
    """Bytes of a page whose bit is clear are not read: the page is zero."""
    stale = replace(RAM, stale={1: 0xEE, 2: 0xEE, 14: 0xEE})
    assert by_name(RAM) == ram_of(write(Mapped([stale])))


def test_stale_bytes_are_not_restored(write: Write) -> None:
    """Bytes of a page whose bit is clear are not in a restored file."""
    stale = replace(RAM, stale={1: 0xEE, 2: 0xEE, 14: 0xEE})
    assert Mapped([RAM], alignment=1 << 20).build() == again(
        write(Mapped([stale], alignment=1 << 20))
    )


@pytest.mark.parametrize(
    "mapped",
    [
        PLAIN,
        Mapped([RAM, BIOS, ROM], alignment=1 << 20),
        Mapped([replace(RAM, gpa=0), replace(BIOS, gpa=0xFFFC0000)], capabilities=IGNORE_SHARED),
        Mapped(
            [replace(RAM, gpa=0, left_out=True), replace(BIOS, gpa=1 << 32)],
            capabilities=IGNORE_SHARED,
        ),
        Mapped([Block(pages=dict.fromkeys(range(16), 9), page_size=1 << 16)]),
        Mapped([RAM], early=device(1, b"0000:00:02.0/virtio-mem-early")),
        Mapped([RAM], early=device(1, b"a", b"\x03ram" + bytes(7) + b"\4") + device(4)),
        Mapped([RAM], head=configuration(
            b"mapped-ram",
            more=subsection(b"configuration/target-page-bits", b"\0\0\0\x0c")
            + subsection(b"configuration/uuid", bytes(range(16))),
        )),
        Mapped([RAM], tail=footer(2) + device(9, b"dirty-bitmap") + ram_end() + ending()),
    ],
    ids=["plain", "as QEMU aligns", "addresses", "left out", "large pages", "early state",
         "early state that looks like RAM", "uuid", "other sections"],
)  # fmt: skip
def test_restored_as_it_was(write: Write, mapped: Mapped) -> None:
    """Everything outside of pages is kept, so that a file is restored byte for byte."""
    assert mapped.build() == again(write(mapped))


def test_left_out_blocks_are_not_zero_blocks(write: Write) -> None:
    """A block left out by x-ignore-shared is not in the snapshot at all."""
    blocks = [replace(RAM, gpa=0, left_out=True), replace(BIOS, gpa=1 << 32)]
    mapped = Mapped(blocks, capabilities=IGNORE_SHARED)
    assert by_name(BIOS) == ram_of(write(mapped))


def test_a_bit_is_a_page_of_the_target(write: Write) -> None:
    """With pages of 64 KiB a bit stands for all 64 KiB."""
    block = Block(size=64 * PAGE, pages=dict.fromkeys(range(16, 32), 9), page_size=1 << 16)
    assert by_name(block) == ram_of(write(Mapped([block])))


@pytest.mark.parametrize("kind", ["raw", "qemu-stream"])
def test_restored_in_other_forms(write: Write, kind: str) -> None:
    """The RAM is the same in every form."""
    path = write(PLAIN)
    snapmig.save(path, path.with_name("snap"), jobs=1)
    snapmig.restore(path.with_name("snap"), path.with_name("other"), format=kind, jobs=1)
    found = ram_of(path.with_name("other"), kind)
    assert RAM.content + BIOS.content + ROM.content == b"".join(found.values())


def test_one_block_taken_out(write: Write) -> None:
    """A block of any name can be restored alone."""
    path = write(PLAIN)
    snapmig.save(path, path.with_name("snap"), jobs=1)
    snapmig.restore(path.with_name("snap"), path.with_name("bios"), block="pc.bios", jobs=1)
    assert BIOS.content == path.with_name("bios").read_bytes()


CUT = "the stream has no end mark: the save was cut short, or is not done yet"


def test_killed_save(write: Write) -> None:
    """A file with all its pages, but no bitmap and no end, is refused with that reason."""
    path = write(Mapped([Block(stale=RAM.pages)], tail=b""))
    with pytest.raises(SnapmigError) as caught:
        snapmig.save(path, path.with_name("snap"), jobs=1)
    assert (1, f"{path}: {CUT}") == (caught.value.exit_code, str(caught.value))


def test_a_file_that_is_cut_while_it_is_read(write: Write) -> None:
    """The caller's process searches for data, and survives a truncated file."""
    path = write(PLAIN)
    image = open_image(str(path))
    os.truncate(path, 0)
    with pytest.raises(ImageChangedError, match="ends inside the bitmap"):
        image.next_data(0)


HEAD = configuration(b"mapped-ram")
BEYOND = 1 << 40
MALFORMED = {
    "version of the stream": (b"QEVM\0\0\0\2" + PLAIN.build()[8:], 1, "stream of version 3"),
    "no configuration": (b"QEVM\0\0\0\3\1" + PLAIN.build()[9:], 1, "configuration section"),
    "no machine": (Mapped([RAM], head=configuration(b"mapped-ram", machine=b"")), 1, "0 bytes"),
    "many capabilities": (
        HEAD[:-15] + b"\xff\xff\xff\xff" + PLAIN.build()[len(HEAD) - 11 :], 1, "4294967295 capab",
    ),
    "unknown configuration": (
        Mapped([RAM], head=configuration(b"mapped-ram", more=subsection(b"new", b""))), 4, "'new'",
    ),
    "no RAM": (HEAD + ending(), 1, "no RAM section"),
    "RAM without its flag": (Mapped([RAM], total=RAM.size - 4), 1, "expected its flag"),
    "RAM of 2^60 bytes": (Mapped([RAM], total=1 << 60), 1, "expected its flag and at most"),
    "more blocks than RAM": (Mapped([RAM, BIOS], total=17 * PAGE), 1, "are left of all"),
    "more RAM than blocks": (Mapped([RAM], total=1 << 30), 1, "name|bytes"),
    "block of nothing": (
        Mapped([replace(RAM, stated_size=0)], total=PAGE), 1, "'ram' has 0 bytes",
    ),
    "block of half a page": (
        Mapped([replace(RAM, stated_size=PAGE // 2)], total=PAGE), 1, "not made of whole pages",
    ),
    "block of 2^55 bytes": (Mapped([replace(RAM, stated_size=1 << 55)]), 1, "past|end|bitmap"),
    "block without a name": (Mapped([replace(RAM, name=b"")]), 1, "RAM block ''"),
    "name that is no text": (Mapped([replace(RAM, name=b"\xff\xfe")]), 1, "is not text"),
    "name with a zero byte": (Mapped([replace(RAM, name=b"a\0b")]), 1, "a.*b"),
    "name twice": (Mapped([RAM, RAM]), 1, "two RAM blocks have the name 'ram'"),
    "pages of nothing": (Mapped([replace(RAM, page_size=0)]), 1, "has pages of 0"),
    "pages of 2 KiB": (Mapped([replace(RAM, page_size=2048)]), 1, "has pages of 2048"),
    "pages of 12 KiB": (Mapped([replace(RAM, page_size=12288)]), 1, "has pages of 12288"),
    "pages larger than RAM": (Mapped([replace(RAM, page_size=1 << 40)]), 1, "has pages of"),
    "other header": (Mapped([replace(RAM, version=2)]), 4, "mapped-ram header is of version 2"),
    "bitmap before its header": (Mapped([replace(RAM, bitmap_offset=8)]), 1, "bitmap is at 0x8"),
    "bitmap past the end": (Mapped([replace(RAM, bitmap_offset=BEYOND)]), 1, "bitmap is at"),
    "bitmap at the largest offset": (
        Mapped([replace(RAM, bitmap_offset=(1 << 64) - 8)]), 1, "bitmap is at",
    ),
    "pages before the bitmap": (Mapped([replace(RAM, pages_offset=64)]), 1, "bitmap is at"),
    "pages of no offset": (Mapped([replace(RAM, pages_offset=0)]), 1, "bitmap is at"),
    "pages past the end": (Mapped([replace(RAM, pages_offset=BEYOND)]), 1, "cut short"),
    "pages at the largest offset": (
        Mapped([replace(RAM, pages_offset=(1 << 64) - 4096)]), 1, "cut short",
    ),
    "pages in those of another": (
        Mapped([RAM, replace(BIOS, bitmap_offset=ALIGNMENT, pages_offset=ALIGNMENT + PAGE)]), 1,
        "bitmap is at",
    ),
    "left out though nobody asked for it": (
        Mapped([RAM, replace(BIOS, left_out=True)]), 1, "bitmap is at 0x0, pages at 0x0",
    ),
    "no end of the list": (Mapped([RAM], list_end=FLUSH), 1, "end of the RAM block list"),
    "nothing but blocks left out": (
        Mapped([replace(RAM, gpa=0, left_out=True)], capabilities=IGNORE_SHARED), 1, "no RAM block",
    ),
    "no description": (Mapped([RAM], tail=footer(2) + ram_end() + device(5) + b"\0"), 1, "cut sh"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_file(write: Write, kind: str) -> None:
    """An impossible field is refused with the file's name and the exit code of its kind."""
    built, code, _ = MALFORMED[kind]
    path = write(built)
    with pytest.raises(SnapmigError) as caught:
        snapmig.save(path, path.with_name("snap"), format="mapped-ram", jobs=1)
    assert (code, str(path)) == (caught.value.exit_code, caught.value.path)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_file_is_described(write: Write, kind: str) -> None:
    """The refusal describes the fault."""
    built, _, words = MALFORMED[kind]
    path = write(built)
    with pytest.raises(SnapmigError, match=words):
        snapmig.save(path, path.with_name("snap"), format="mapped-ram", jobs=1)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_file_takes_little_memory(write: Write, kind: str) -> None:
    """A refusal comes before allocating memory by a number in the file."""
    path = write(MALFORMED[kind][0])
    tracemalloc.start()
    try:
        with pytest.raises(SnapmigError):
            snapmig.save(path, path.with_name("snap"), format="mapped-ram", jobs=1)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def is_refused(path: Path, content: bytes) -> bool:
    """Return True if a file is refused by an error of its own kind with its name."""
    path.write_bytes(content)
    try:
        ram_of(path, "mapped-ram")
    except SnapmigError as error:
        return error.path == str(path)
    return False


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Wherever a file ends too early, it is refused."""
    whole = Mapped([RAM, BIOS]).build()
    edges = {*range(1, 260), *range(len(whole) - 300, len(whole)), *range(1, len(whole), 4093)}
    let_in = [cut for cut in sorted(edges) if not is_refused(tmp_path / "cut", whole[:cut])]
    assert let_in == []


SMALL = Mapped([replace(RAM, gpa=0), replace(ROM, gpa=PAGE)], capabilities=IGNORE_SHARED,
               early=device(1), alignment=PAGE)  # fmt: skip
SMALL_FILE = SMALL.build()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
    )
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    """Whatever the description says, a file is read, or refused by an error of its own kind."""
    content = bytearray(SMALL_FILE)
    for at, change in changes:
        content[at : at + len(change)] = change
    (tmp_path / "file").write_bytes(content)
    try:
        found = ram_of(tmp_path / "file", "mapped-ram")
    except SnapmigError:
        return
    assert sum(map(len, found.values())) <= len(content)


@given(
    pages=st.dictionaries(st.integers(0, 99), st.integers(1, 255)),
    stale=st.dictionaries(st.integers(0, 99), st.integers(1, 255)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bitmap(tmp_path: Path, pages: dict[int, int], stale: dict[int, int]) -> None:
    """Whatever bits are set, exactly their pages come, beside a following block."""
    old = {number: value for number, value in stale.items() if number not in pages}
    block = Block(b"first", 100 * PAGE, pages, old)
    (tmp_path / "file").write_bytes(Mapped([block, RAM]).build())
    assert by_name(block, RAM) == ram_of(tmp_path / "file")
