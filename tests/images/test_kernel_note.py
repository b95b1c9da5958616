"""Facts about the kernel's note VMCOREINFO: found in RAM, and put into cores."""

from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

import snapmig
from snapmig import RamBlock
from snapmig.operations.runs.kernel_note import noted
from snapmig.operations.runs.random_access import RandomAccess
from tests.support.builders import Attachment, Block, Snapshot
from tests.support.elf_cores import noise

PAGE = 4096
TEXT = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff82bf9b60\n"


def note(text: bytes = TEXT, size: int | None = None, order: str = "little") -> bytes:
    """Return a note as the kernel builds it, with a length that may be wrong."""
    numbers = (11, len(text) if size is None else size, 0)
    header = b"".join(number.to_bytes(4, order) for number in numbers)  # type: ignore[arg-type]
    return header + b"VMCOREINFO\0\0" + text


def paged(content: bytes) -> bytes:
    """Return contents filled up to whole pages."""
    return content + bytes(-len(content) % PAGE)


def core(directory: Path, data: bytes, arch: str = "x86_64", **options: Any) -> Path:
    """Return the core of a guest with this RAM, saved in packets of 16 pages."""
    (directory / "ram").write_bytes(data)
    block = RamBlock.at(0, len(data), "ram")
    snapshot = directory / "snap"
    snapmig.save(
        [(block, directory / "ram")], snapshot, arch=arch, jobs=1, packet_size="64K", **options
    )
    snapmig.restore(snapshot, directory / "core", format="elf", jobs=2)
    return directory / "core"


def notes(path: Path) -> list[tuple[str, bytes]]:
    """Return the notes of a core, as pyelftools reads them."""
    with path.open("rb") as file:
        segments = ELFFile(file).iter_segments("PT_NOTE")
        found = [each for segment in segments for each in segment.iter_notes()]
    return [(each.n_name, each.n_descdata) for each in found]


@pytest.mark.parametrize(("arch", "order"), [("x86_64", "little"), ("s390x", "big")])
def test_the_kernels_note_is_put_into_a_core(tmp_path, arch, order):
    """It is found at the start of a page, in the guest's byte order."""
    data = noise(3) + paged(note(order=order)) + noise(2)
    assert notes(core(tmp_path, data, arch)) == [("VMCOREINFO", TEXT)]


def test_a_note_does_not_move_the_ram(tmp_path):
    """The segments behind it have their bytes as before."""
    data = noise(3) + paged(note()) + noise(2)
    path = core(tmp_path, data)
    with path.open("rb") as file:
        (load,) = ELFFile(file).iter_segments("PT_LOAD")
        assert load.data() == data


def test_a_note_may_go_on_in_the_next_packet(tmp_path):
    """Its text is as long as its header says, across any border."""
    text = TEXT + b"".join(b"NUMBER(n%d)=%d\n" % (at, at) for at in range(500))
    data = noise(15) + paged(note(text)) + noise(1)
    assert notes(core(tmp_path, data)) == [("VMCOREINFO", text)]


def in_place(snapshot: Path) -> bytes | None:
    """Return the note of an open snapshot."""
    memory = RandomAccess(snapshot, jobs=1, cache=1 << 20)
    try:
        return noted(memory)
    finally:
        memory.close()


WRONG = {
    "inside a page": noise(1)[:24] + note(),
    "no length": note(size=0),
    "too long": note(size=1 << 20),
    "the longest": note(size=(1 << 32) - 1),
    "behind the text": note(size=len(TEXT) + 8, text=TEXT + b"\x80more\n\n"),
    "within a line": note(size=len(TEXT) - 3),
    "one line": note(TEXT.splitlines()[0] + b"\n"),
    "another type": note()[:8] + b"\1" + note()[9:],
    "only text": TEXT,
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_what_only_looks_like_it_is_no_note(tmp_path, content):
    """A guest may have such a page anywhere."""
    assert notes(core(tmp_path, noise(1) + paged(content) + noise(1))) == []


def test_the_note_is_found_among_wrong_ones(tmp_path):
    """Pages before it and behind do not matter."""
    wrong = b"".join(map(paged, WRONG.values()))
    data = wrong * 20 + paged(note()) + wrong * 20 + note(size=1 << 20)[:40]
    assert notes(core(tmp_path, data)) == [("VMCOREINFO", TEXT)]


def test_a_core_of_a_guest_without_such_a_kernel_has_no_note(tmp_path):
    """There is an empty segment for notes."""
    assert notes(core(tmp_path, noise(4))) == []


def test_damage_does_not_end_the_search(tmp_path):
    """With --keep-going the note is found behind a damaged packet."""
    core(tmp_path, noise(16) + paged(note()), compression="none")
    raw = bytearray((tmp_path / "snap").read_bytes())
    raw[raw.index(noise(16)[:64])] ^= 1
    (tmp_path / "snap").write_bytes(raw)
    result = snapmig.restore(
        tmp_path / "snap", tmp_path / "core", format="elf", jobs=1, keep_going=True, force=True
    )
    assert result.lost_pages == 16
    assert notes(tmp_path / "core") == [("VMCOREINFO", TEXT)]


def test_a_save_remembers_the_lowest_packet_with_a_note(tmp_path):
    """Any number of workers agree on it."""
    core(tmp_path, noise(40) + paged(note()) + noise(90) + paged(note()))
    for jobs in (1, 3):
        (tmp_path / "again").unlink(missing_ok=True)
        snapmig.repack(tmp_path / "snap", tmp_path / "again", jobs=jobs)
        with snapmig.open(tmp_path / "again") as snapshot:
            assert snapshot.attachments["source/note-packet"] == b"2"


def test_a_note_is_read_in_place(tmp_path):
    """Without a search, and across packets; a damaged packet has none."""
    text = TEXT + b"".join(b"NUMBER(n%d)=%d\n" % (at, at) for at in range(100))
    core(tmp_path, noise(15) + paged(note(text)) + noise(15), compression="none")
    found = [in_place(tmp_path / "snap")]
    raw = bytearray((tmp_path / "snap").read_bytes())
    raw[raw.index(b"VMCOREINFO")] ^= 1
    (tmp_path / "snap").write_bytes(raw)
    assert [*found, in_place(tmp_path / "snap")] == [text, None]


@pytest.mark.parametrize("hint", [b"0", b"99", b"junk", b"1" * 30])
def test_a_wrong_hint_does_not_matter(tmp_path, hint):
    """The note is looked for everywhere if it is not where the snapshot says."""
    built = Snapshot(
        [Block("ram", noise(40) + paged(note()))],
        attachments=[Attachment("source/note-packet", hint)],
    )
    (tmp_path / "snap").write_bytes(built.build())
    options = {"format": "elf", "address": ["ram=0"], "arch": "x86_64"}
    snapmig.restore(tmp_path / "snap", tmp_path / "core", jobs=1, **options)
    assert notes(tmp_path / "core") == [("VMCOREINFO", TEXT)]
