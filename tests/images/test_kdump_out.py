"""Facts about kdump-compressed dumps made from snapshots."""

import struct
from pathlib import Path
from typing import Any

import drgn
import pytest

import snapmig
from snapmig import RamBlock, RamPiece
from snapmig.architectures import ARCHITECTURES
from tests.images.test_kdump import TEXT
from tests.support.elf_cores import Core, Segment, noise
from tests.support.kdumps import PAGE, Kdump, Read, read_dump

GIB, MIB = 1 << 30, 1 << 20
WORDS = b"".join(b"word %d " % number for number in range(100_000))[: 100 * PAGE]
DATA = WORDS + bytes(150 * PAGE) + noise(30) + bytes(2 * PAGE)
BLOCK = RamBlock.at(0, len(DATA), "ram")
NOTE = struct.pack("<3I", 11, len(TEXT), 0) + b"VMCOREINFO\0\0" + TEXT + bytes(-len(TEXT) % 4)
REGISTERS = struct.pack("<3I", 5, 336, 1) + b"CORE\0\0\0\0" + bytes(range(168)) * 2


def saved(folder: Path, *blocks: tuple[RamBlock, bytes], **options: Any) -> Path:
    """Save RAM blocks."""
    for number, (_, data) in enumerate(blocks):
        (folder / str(number)).write_bytes(data)
    files = [(block, folder / str(number)) for number, (block, _) in enumerate(blocks)]
    snapmig.save(files, folder / "snap", **{"arch": "x86_64", "jobs": 1, **options})
    return folder / "snap"


def dumped(snapshot: Path, **options: Any) -> Path:
    """Return the dump of a snapshot."""
    dump = snapshot.with_name("dump")
    snapmig.restore(snapshot, dump, **{"format": "kdump", "jobs": 1, "force": True, **options})
    return dump


def pages(data: bytes, first: int = 0) -> dict[int, bytes]:
    """Return pages by frame number."""
    return {first + at // PAGE: data[at : at + PAGE] for at in range(0, len(data), PAGE)}


def read(dump: Path, arch: str = "x86_64") -> Read:
    """Read a dump with a reader that knows zlib and nothing of ours."""
    known = ARCHITECTURES[arch]
    return read_dump(dump.read_bytes(), known.bits, "<" if known.little else ">")


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_dump_has_each_page_at_its_address(tmp_path, jobs):
    """Pages of two blocks, one of them above a gap; packets come in any order."""
    high = noise(300, 2)
    block = RamBlock.at(40 * MIB, len(high), "high")
    dump = dumped(saved(tmp_path, (block, high), (BLOCK, DATA)), jobs=jobs)
    assert read(dump).pages == pages(DATA) | pages(high, 40 * MIB // PAGE)


def test_libkdumpfile_reads_a_dump(tmp_path):
    """The library inside drgn finds the same bytes, and the kernel's note."""
    data = DATA + NOTE.ljust(PAGE, b"\0")
    program = drgn.Program()
    program.set_core_dump(dumped(saved(tmp_path, (RamBlock.at(0, len(data), "ram"), data))))
    assert program.read(0, len(data), physical=True) == data


def test_a_kernels_note_gives_the_header_its_names(tmp_path):
    """Some readers want to know the release before they read anything."""
    data = DATA + NOTE.ljust(PAGE, b"\0")
    found = read(dumped(saved(tmp_path, (RamBlock.at(0, len(data), "ram"), data))))
    assert found.words == ("Linux", "(none)", "6.1.0", "(none)", "x86_64", "(none)")
    assert (found.info, found.notes) == (TEXT, NOTE)


def test_pages_of_zeros_have_one_place(tmp_path):
    """They take no space of their own, and pages of text less than they are."""
    dump = dumped(saved(tmp_path, (BLOCK, DATA)))
    zeros = [at for at, page in enumerate(pages(DATA).values()) if not any(page)]
    assert len({read(dump).places[frame] for frame in zeros}) == 1
    assert dump.stat().st_size < len(DATA) - 200 * PAGE


@pytest.mark.parametrize("arch", ["i386", "arm", "aarch64", "s390x"])
def test_headers_are_of_the_guests_width_and_byte_order(tmp_path, arch):
    """A reader of that machine finds all fields."""
    found = read(dumped(saved(tmp_path, (BLOCK, DATA), arch=arch)), arch)
    assert found.pages == pages(DATA)
    assert found.words[4] == arch


def test_a_piece_at_two_addresses_is_listed_at_both(tmp_path):
    """Firmware of a PC is below 1 MiB and below 4 GiB."""
    pieces = (RamPiece(PAGE, PAGE, MIB - PAGE), RamPiece(0, 2 * PAGE, 40 * MIB))
    found = read(dumped(saved(tmp_path, (RamBlock("rom", 2 * PAGE, pieces), noise(2)))))
    both = pages(noise(2), 40 * MIB // PAGE) | pages(noise(2)[PAGE:], MIB // PAGE - 1)
    assert found.pages == both


def test_a_short_last_page_is_filled_up(tmp_path):
    """A dump has whole pages."""
    block = RamBlock.at(0, PAGE + 100, "ram")
    found = read(dumped(saved(tmp_path, (block, noise(2)[: PAGE + 100]))))
    assert found.pages == pages(noise(2)[: PAGE + 100].ljust(2 * PAGE, b"\0"))


def test_notes_of_a_core_stay(tmp_path):
    """Registers of the processors come from QEMU's core into the dump."""
    core = Core((Segment(0, DATA),), notes=REGISTERS + NOTE)
    (tmp_path / "core").write_bytes(core.build())
    snapmig.save(tmp_path / "core", tmp_path / "snap", jobs=1)
    found = read(dumped(tmp_path / "snap"))
    assert (found.notes, found.info, found.processors) == (REGISTERS + NOTE, TEXT, 1)


def test_a_dump_becomes_a_dump_with_the_same_notes_and_names(tmp_path):
    """Also of another compression before."""
    built = Kdump(pages(DATA), notes=REGISTERS)
    (tmp_path / "first").write_bytes(built.build())
    snapmig.save(tmp_path / "first", tmp_path / "snap", jobs=1)
    first = read(tmp_path / "first")
    found = read(dumped(tmp_path / "snap", format=None))
    assert (found.words, found.notes, found.pages) == (first.words, REGISTERS, pages(DATA))


def test_notes_of_a_dump_come_into_a_core(tmp_path):
    """An ELF core of its snapshot has the registers."""
    (tmp_path / "first").write_bytes(Kdump(pages(DATA), notes=REGISTERS).build())
    snapmig.save(tmp_path / "first", tmp_path / "snap", jobs=1)
    snapmig.restore(tmp_path / "snap", tmp_path / "core", format="elf", jobs=1)
    raw = (tmp_path / "core").read_bytes()
    offset, size = struct.unpack_from("<8xQ16xQ", raw, 64)
    assert raw[offset : offset + size] == REGISTERS


def test_damaged_packets_are_zeros(tmp_path):
    """With --keep-going their pages are listed all the same."""
    snapshot = saved(tmp_path, (BLOCK, DATA), compression="none", packet_size="64K")
    raw = bytearray(snapshot.read_bytes())
    raw[raw.index(WORDS[16 * PAGE :][:100])] ^= 1
    snapshot.write_bytes(raw)
    found = read(dumped(snapshot, keep_going=True))
    assert found.pages == pages(DATA) | pages(bytes(16 * PAGE), 16)


REFUSED: dict[str, tuple[RamBlock, dict[str, Any], str]] = {
    "no address": (RamBlock("ram", PAGE), {}, "none is known of RAM block 'ram'"),
    "inside a page": (RamBlock.at(100, PAGE, "ram"), {}, "RAM begins at 0x64"),
    "too high": (RamBlock.at(8 << 40, PAGE, "ram"), {}, "RAM ends at 0x80000001000"),
    "no architecture": (RamBlock.at(0, PAGE, "ram"), {"arch": None}, "--arch names it"),
}


@pytest.mark.parametrize(("block", "options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_dump_has_no_room_for_is_refused(tmp_path, cli, block, options, words):
    """In one sentence, and nothing is left."""
    snapshot = saved(tmp_path, (block, noise(1)), **options)
    cli("restore", "--format", "kdump", snapshot, tmp_path / "dump").fails(2, words)
    assert not (tmp_path / "dump").exists()


def test_a_dump_is_not_resumed(tmp_path, cli):
    """Its pages are where they came to be."""
    snapshot = saved(tmp_path, (BLOCK, DATA))
    outcome = cli("restore", "--resume", "--format", "kdump", snapshot, tmp_path / "dump")
    outcome.fails(2, "restored from its start")


def test_pages_are_as_large_as_the_guests(tmp_path):
    """A dump of a guest with pages of 64 KiB has such pages again, zeros inside included."""
    size = 64 << 10
    guest = {3: WORDS[:size], 4: bytes(size), 5: bytes(size - 5000) + noise(2)[:5000]}
    (tmp_path / "first").write_bytes(Kdump(guest, block=size, machine=b"aarch64").build())
    snapmig.save(tmp_path / "first", tmp_path / "snap", jobs=1)
    found = read(dumped(tmp_path / "snap", format=None), "aarch64")
    assert found.pages == guest


def test_the_kernel_says_how_large_pages_are(tmp_path):
    """Its note has the size, for guests of any source."""
    text = TEXT.replace(b"PAGESIZE=4096", b"PAGESIZE=16384")
    note = struct.pack("<3I", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
    data = DATA[: 16 * PAGE] + note.ljust(16384, b"\0")
    dump = dumped(saved(tmp_path, (RamBlock.at(1 << 30, len(data), "ram"), data), arch="aarch64"))
    found = read(dump, "aarch64").pages
    assert found == {
        (1 << 30) // 16384 + at: data[16384 * at : 16384 * (at + 1)] for at in range(5)
    }


@pytest.mark.parametrize("base", [b"-1", b"x", b"--5", b"9" * 5000])
def test_a_strange_note_does_not_matter(tmp_path, base):
    """Its numbers are the guest's."""
    text = TEXT.replace(b"phys_base)=0", b"phys_base)=" + base)
    note = struct.pack("<3I", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
    data = DATA + note.ljust(2 * PAGE, b"\0")
    assert read(dumped(saved(tmp_path, (RamBlock.at(0, len(data), "ram"), data)))).info == text


def test_a_kernels_text_without_a_note_becomes_one(tmp_path):
    """Some dumps have it beside the notes."""
    fields = {"notes_size": 0, "info_offset": PAGE + 104, "info_size": len(TEXT)}
    (tmp_path / "first").write_bytes(Kdump(pages(DATA), notes=TEXT, fields=fields).build())
    snapmig.save(tmp_path / "first", tmp_path / "snap", jobs=1)
    found = read(dumped(tmp_path / "snap"))
    assert (found.notes, found.info) == (NOTE, TEXT)


def test_what_was_erased_stays_listed(tmp_path):
    """Makedumpfile says what it has overwritten."""
    fields = {"notes_size": 0, "erased_offset": PAGE + 104, "erased_size": 11}
    (tmp_path / "first").write_bytes(
        Kdump(pages(DATA), notes=b"erase a.b 5", fields=fields).build()
    )
    snapmig.save(tmp_path / "first", tmp_path / "snap", jobs=1)
    raw = dumped(tmp_path / "snap").read_bytes()
    offset, size = struct.unpack_from("<2Q", raw, PAGE + 64)
    assert raw[offset : offset + size] == b"erase a.b 5"
