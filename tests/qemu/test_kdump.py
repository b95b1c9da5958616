"""Facts about QEMU's compressed dumps: their snapshots have the pages of its ELF core."""

from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import snapmig
from tests.qemu.test_addresses import SMALL, WORDS, standing
from tests.support.guests import cores, migration
from tests.support.guests.qemu import PROGRAM, Guest
from tests.support.kdumps import read_dump
from tests.support.requirements import requires

pytestmark = pytest.mark.guest


def check(folder: Path, name: str) -> None:
    """Save a dump, and compare the core of its snapshot with QEMU's."""
    snapmig.save(folder / name, folder / f"{name}.snap", jobs=2)
    core = folder / f"{name}.core"
    snapmig.restore(folder / f"{name}.snap", core, format="elf", jobs=2)
    assert cores.ranges(core) == cores.ranges(folder / "elf")
    assert [*cores.differing(core, folder / "elf")] == []


def check_new(folder: Path, snapshot: Path) -> None:
    """Compare a dump made from a snapshot with QEMU's core, by a reader that is not ours."""
    snapmig.restore(snapshot, folder / "new", format="kdump", jobs=2)
    found = read_dump((folder / "new").read_bytes())
    core, size = (folder / "elf").read_bytes(), found.page_size
    expected = {
        at // size: core[offset + at - start : offset + at - start + size]
        for start, stop, offset in cores.loads(folder / "elf")
        for at in range(start, stop, size)
    }
    assert found.pages == expected
    with (folder / "elf").open("rb") as file:
        (notes,) = ELFFile(file).iter_segments("PT_NOTE")
        assert found.notes == notes.data()


def forms_of(guest: Guest) -> list[str]:
    """Return the compressed forms that this QEMU was built with, flattened and plain."""
    known = guest.execute("query-dump-guest-memory-capability")["formats"]
    return [form for form in known if form.startswith("kdump-")]


@pytest.mark.parametrize("name", ["q35", "virt of two nodes"])
def test_a_compressed_dump_has_the_pages_of_the_core(
    program: str, tmp_path: Path, name: str
) -> None:
    """Flattened and plain, with RAM in two places, on PCs and on Arm; and so has one of ours."""
    still = SMALL[name]
    requires(still.program)
    if still.program == PROGRAM:
        still = replace(still, program=program)
    with standing(tmp_path, still) as guest:
        guest.expected_words = WORDS
        migration.dump_memory(guest, tmp_path / "elf")
        forms = forms_of(guest)
        for form in forms:
            target = f"file:{tmp_path / form}"
            guest.execute("dump-guest-memory", paging=False, protocol=target, format=form)
    assert "kdump-zlib" in forms
    for form in forms:
        check(tmp_path, form)
    check_new(tmp_path, tmp_path / f"{forms[0]}.snap")
    snapmig.save(tmp_path / "elf", tmp_path / "elf.snap", jobs=2)
    (tmp_path / "new").unlink()
    check_new(tmp_path, tmp_path / "elf.snap")
