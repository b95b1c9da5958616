"""Facts about kdump-compressed dumps as images to save."""

import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import drgn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import snapmig
from snapmig.errors import SnapmigError
from snapmig.geometry import RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.formats import open_image
from snapmig.images.kdump import contents
from tests.support.elf_cores import noise
from tests.support.kdumps import (
    COMPRESS,
    LZO,
    PAGE,
    PLAIN,
    SNAPPY,
    ZLIB,
    ZSTD,
    Kdump,
    flattened,
    records_file,
)

GIB, MIB = 1 << 30, 1 << 20
WORDS = b"".join(b"line %d of a page\n" % number for number in range(2000))
PAGES = {
    **{frame: WORDS[frame * 100 :][:PAGE] for frame in range(3)},
    3: bytes(PAGE),
    4: noise(1, 4),
    5: bytes(PAGE),
    **{frame: WORDS[frame * 10 :][:PAGE] for frame in range(256, 300)},
    1 << 20: noise(1, 9),
}
RAM = {
    0: b"".join(PAGES[frame] for frame in range(6)),
    256 * PAGE: b"".join(PAGES[frame] for frame in range(256, 300)),
    4 * GIB: PAGES[1 << 20],
}


def write(folder: Path, built: Kdump | bytes, name: str = "dump") -> Path:
    """Write a dump to a file."""
    (folder / name).write_bytes(built if isinstance(built, bytes) else built.build())
    return folder / name


def ram(path: Path, **options: Any) -> dict[int, bytes]:
    """Return the RAM of a dump's snapshot by address."""
    snapshot = path.with_suffix(".snap")
    snapmig.save(path, snapshot, force=True, **{"jobs": 1, **options})
    with snapmig.open(snapshot) as opened:
        found = [(block.pieces[0].gpa, block) for block in opened.blocks]
        return {gpa: opened.read(0, block.size, block.name) for gpa, block in found}


@pytest.mark.parametrize("compression", COMPRESS)
def test_pages_of_every_compression_are_read(tmp_path, compression):
    """zlib, LZO, snappy, zstd, and pages as they are where that is shorter."""
    assert ram(write(tmp_path, Kdump(PAGES, compression=compression))) == RAM


TEXT = b"""OSRELEASE=6.1.0
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffffffff82a10000
SYMBOL(init_top_pgt)=ffffffff82a10000
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
KERNELOFFSET=0
"""


@pytest.mark.parametrize("compression", [PLAIN, ZLIB, SNAPPY, ZSTD, LZO])
def test_the_dumps_of_these_tests_are_dumps(tmp_path, compression):
    """Libkdumpfile, inside drgn, reads the same pages."""
    notes = struct.pack("<3I", 11, len(TEXT), 0) + b"VMCOREINFO\0\0" + TEXT
    fields = {"info_offset": PAGE + 104 + 24, "info_size": len(TEXT)}
    path = write(tmp_path, Kdump(PAGES, compression=compression, notes=notes, fields=fields))
    program = drgn.Program()
    program.set_core_dump(path)
    for address, content in RAM.items():
        assert program.read(address, len(content), physical=True) == content


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("order", "<>")
def test_headers_of_every_width_and_byte_order_are_read(tmp_path, bits, order):
    """Nothing in a header says which it is."""
    assert ram(write(tmp_path, Kdump(PAGES, bits=bits, order=order))) == RAM


@pytest.mark.parametrize("block", [8192, 16384, 65536])
def test_pages_larger_than_ours_are_read(tmp_path, block):
    """Arm guests have pages of 16 and 64 KiB."""
    pages = {frame: (WORDS * 3)[frame * 7 :][:block] for frame in (0, 1, 2, 100)}
    content = b"".join(pages[frame] for frame in range(3))
    assert ram(write(tmp_path, Kdump(pages, block=block))) == {0: content, 100 * block: pages[100]}


def test_the_dumps_that_came_before_kdump_are_read(tmp_path):
    """Diskdump has the same tables, and no notes."""
    assert ram(write(tmp_path, Kdump(PAGES, magic=b"DISKDUMP", version=1))) == RAM


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_flattened_dump_is_read_whatever_its_order(tmp_path, jobs):
    """Records are put where they belong, also those that begin inside a page."""
    dump = Kdump(PAGES).build()
    cuts = [*range(100, len(dump), 1111)]
    order = [*range(1, len(cuts) + 1, 2), *range(0, len(cuts) + 1, 2)]
    assert ram(write(tmp_path, flattened(dump, cuts, order)), jobs=jobs) == RAM


def test_a_later_record_replaces_an_earlier_one(tmp_path):
    """Some writers go back, for headers above all."""
    dump = Kdump(PAGES).build()
    head, tail = (0, b"\xff" * 5000), (len(dump) - 500, b"\xee" * 500)
    records = [head, tail, (0, dump), (12, dump[12:60]), (30, dump[30:40])]
    assert ram(write(tmp_path, records_file(records))) == RAM


def test_what_is_in_no_record_is_zero(tmp_path):
    """A flattened dump may skip blocks of zeros."""
    dump = Kdump(PAGES).build()
    zeros = dump.index(bytes(3000), PAGE)
    records = [(zeros + 3000, dump[zeros + 3000 :]), (0, dump[:zeros])]
    assert ram(write(tmp_path, records_file(records))) == RAM


RECORDS = st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=80)), min_size=1)


@given(records=RECORDS, start=st.integers(0, 400), length=st.integers(0, 400))
@settings(max_examples=60)
def test_records_are_put_together_as_they_were_written(records, start, length):
    """Whatever overlaps: a file written in that order is the oracle."""
    written = bytearray()
    for at, data in records:
        written.extend(bytes(max(0, at + len(data) - len(written))))
        written[at : at + len(data)] = data
    with tempfile.NamedTemporaryFile() as file:
        file.write(records_file(records))
        file.flush()
        image = ImageFile(file.name)
        dump = contents.open_contents(image)
        found = dump.read(min(start, dump.size), min(length, dump.size - min(start, dump.size)))
        image.close()
    assert dump.size == len(written)
    assert found == written[start : start + length]


def test_frames_far_apart_are_found(tmp_path):
    """In bitmaps of several pieces, with pages in few of them, and left out between."""
    frames = [0, 7, 32_767, 32_768, 40_000, (1 << 23) - 1, 1 << 23, (1 << 24) + 5]
    pages = {frame: noise(1, frame) for frame in frames}
    path = write(tmp_path, Kdump(pages, left_out=[1, 32_769, (1 << 24) + 4]))
    found = ram(path, jobs=2)
    for frame, page in pages.items():
        gpa = max(start for start in found if start <= frame * PAGE)
        assert found[gpa][frame * PAGE - gpa :][:PAGE] == page
    assert sum(map(len, found.values())) == 11 * PAGE


def test_pages_that_were_left_out_are_zeros_with_a_warning(tmp_path):
    """Nothing else can be said of them."""
    path = write(tmp_path, Kdump(PAGES, left_out=[6, 7], dump_level=31))
    result = snapmig.save(path, tmp_path / "snap", jobs=1)
    assert "2 pages were left out when the dump was filtered" in result.warnings[0]
    assert ram(path)[0] == RAM[0] + bytes(2 * PAGE)


def test_zeros_left_out_need_no_warning(tmp_path):
    """A dump of level 1 lacks nothing else."""
    path = write(tmp_path, Kdump(PAGES, left_out=[6, 7], dump_level=1))
    assert snapmig.save(path, tmp_path / "snap", jobs=1).warnings == ()


def test_blocks_have_the_names_of_a_core(tmp_path):
    """So a dump and a core of a guest can be one another's parent."""
    image = open_image(str(write(tmp_path, Kdump(PAGES))))
    assert image.blocks == tuple(RamBlock.at(gpa, len(data)) for gpa, data in RAM.items())
    assert image.format == "kdump"
    image.close()


@pytest.mark.parametrize(
    ("machine", "size", "name"),
    [
        (b"aarch64", 0, "aarch64"),
        (b"i686", 0, "i386"),
        (b"", 336, "x86_64"),
        (b"Unknown", 392, "aarch64"),
    ],
)
def test_the_architecture_is_named_or_told_by_the_registers(tmp_path, machine, size, name):
    """QEMU names none, but writes notes with registers."""
    notes = struct.pack("<3I", 5, size, 1) + b"CORE\0\0\0\0" + bytes(size)
    path = write(tmp_path, Kdump(PAGES, machine=machine, notes=notes))
    snapmig.save(path, tmp_path / "snap", jobs=1)
    assert snapmig.info(tmp_path / "snap").architecture == name


def test_headers_and_notes_are_kept(tmp_path):
    """Nothing of a dump is lost."""
    dump = Kdump(PAGES, notes=b"registers" * 10)
    path = write(tmp_path, dump)
    snapmig.save(path, tmp_path / "snap", jobs=1)
    with snapmig.open(tmp_path / "snap") as snapshot:
        assert snapshot.attachments["source/kdump.notes"] == b"registers" * 10
        assert snapshot.attachments["source/kdump.head"] == dump.build()[: PAGE + 104]


VALID = Kdump(PAGES)
FLAT = flattened(VALID.build(), [5000, 9000])
BAD: dict[str, tuple[Kdump | bytes, str]] = {
    "only magic": (b"KDUMP   ", "no known width"),
    "header cut": (VALID.build()[:430], "no known width"),
    "bitmaps cut": (VALID.build()[: 2 * PAGE + 100], "is it cut"),
    "table cut": (VALID.build()[: 2 * PAGE + 2 * 135168 + 30], "table of 51 pages ends"),
    "version 0": (Kdump(PAGES, version=0), "no known width"),
    "version 7": (Kdump(PAGES, version=7), "no known width"),
    "blocks of 5000": (Kdump(PAGES, fields={"block": 5000}), "no known width"),
    "no sub header": (Kdump(PAGES, fields={"sub_blocks": 0}), "no known width"),
    "many sub headers": (Kdump(PAGES, fields={"sub_blocks": 0xFFFFFFFF}), "is it cut"),
    "few bitmaps": (Kdump(PAGES, fields={"bitmap_blocks": 2}), "no known width"),
    "huge bitmaps": (Kdump(PAGES, fields={"bitmap_blocks": 0xFFFFFFFE}), "expected at most"),
    "more frames": (Kdump(PAGES, fields={"mapnr": 1 << 40}), "no known width"),
    "incomplete": (Kdump(PAGES, status=9), "ran out of space"),
    "a part": (Kdump(PAGES, fields={"split": 1}), "makedumpfile --reassemble"),
    "no RAM": (Kdump({}), "no page of RAM"),
    "many ranges": (Kdump({}, left_out=range(0, 10_000, 2)), "more than 4096 ranges"),
    "notes outside": (Kdump(PAGES, fields={"notes_size": MIB * 60}), "ends at"),
    "huge notes": (Kdump(PAGES, fields={"notes_size": 1 << 40}), "at most"),
    "notes far away": (Kdump(PAGES, fields={"notes_offset": 1 << 63, "notes_size": 9}), "ends at"),
    "flattened, no records": (records_file([]), "no known width"),
    "flattened and cut": (FLAT[:-16], "expected 16 bytes"),
    "flattened, record cut": (FLAT[:-5000], "not before the end"),
    "flattened, another type": (FLAT[:23] + b"\2" + FLAT[24:], "another type or version"),
    "flattened, empty record": (records_file([(0, b"")]), "record of 0 bytes"),
    "flattened, negative place": (records_file([(-5, b"x")]), "record of 1 bytes"),
    "flattened, far away": (records_file([(1 << 62, b"x")]), "record of 1 bytes"),
}


@pytest.mark.parametrize(("built", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_dump_is_refused_in_one_sentence(tmp_path, cli, built, words):
    """Any fault is an error of ours, soon and without much memory."""
    path = write(tmp_path, built)
    tracemalloc.start()
    try:
        with pytest.raises(SnapmigError) as caught:
            open_image(str(path))
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 300
    cli("save", path, tmp_path / "snap").fails(1, words)


BAD_PAGES = {
    "no bytes": ({"size": 0}, "0 bytes, expected 1 to 4096"),
    "too many": ({"size": 5000}, "5000 bytes, expected 1 to 4096"),
    "behind the end": ({"offset": 1 << 40}, "not all before"),
    "before the start": ({"offset": -4}, "not all before"),
    "plain and short": ({"flags": 0}, "as they are, expected 4096"),
    "unknown compression": ({"flags": 0x40}, "compression is 0x40"),
    "two compressions": ({"flags": 3}, "compression is 0x3"),
    "another compression": ({"flags": 4}, "snappy does not give 4096 bytes"),
    "other bytes": ({"offset": 30}, "zlib does not give 4096 bytes"),
}


@pytest.mark.parametrize(("entry", "words"), BAD_PAGES.values(), ids=BAD_PAGES.keys())
def test_a_bad_page_is_named_by_its_address(tmp_path, cli, entry, words):
    """The save ends there, and leaves nothing."""
    path = write(tmp_path, Kdump(PAGES, entries={2: entry}))
    cli("save", path, tmp_path / "snap").fails(1, "page at address 0x2000: ", words)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("compression", [ZLIB, LZO, SNAPPY, ZSTD])
def test_a_page_that_swells_takes_no_memory(tmp_path, cli, compression):
    """Stored bytes are decompressed up to the size of a page, or are small anyway."""
    bomb = COMPRESS[compression](bytes(MIB // 2))[:PAGE]
    path = write(tmp_path, Kdump(PAGES, compression=compression, stored={2: bomb}))
    cli("save", path, tmp_path / "snap").fails(1, "does not give 4096 bytes")


def test_records_that_overlap_are_limited(tmp_path, monkeypatch):
    """They are sorted out one by one."""
    monkeypatch.setattr(contents, "MAX_OVERLAPS", 50)
    path = write(tmp_path, records_file([(at, b"xx") for at in range(60)]))
    with pytest.raises(SnapmigError, match="60 records overlap, expected at most 50"):
        open_image(str(path))


@pytest.mark.parametrize(
    ("compression", "package"), [(LZO, "lzallright"), (SNAPPY, "cramjam"), (ZSTD, "zstandard")]
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, compression, package):
    """The packages are an extra."""
    path = write(tmp_path, Kdump(PAGES, compression=compression))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SnapmigError, match=rf"package {package}: pip install 'snapmig\[kdump\]'"):
        snapmig.save(path, tmp_path / "snap", jobs=1)
