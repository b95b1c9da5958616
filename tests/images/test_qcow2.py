"""Facts about guests inside qcow2 images: images built by hand, of every shape and damage."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapmig
from snapmig.errors import SnapmigError
from tests.support.outcome import Outcome
from tests.support.qcow2_images import Disk, Snap
from tests.support.qemu_files import PAGE, Block, Mapped, Stream, data, page, part, zero
from tests.support.requirements import requires

RAM = Block(pages={0: 1, 3: 2, 9: 3})
STATE = Stream([part(data(0, 1, b"ram"), data(3, 2), zero(4), data(9, 3))]).build()

Call = Callable[..., Outcome]


def saved_ram(path: Path, content: bytes, name: str = "one") -> bytes:
    """Return the RAM of a guest in a disk image, saved and restored."""
    path.write_bytes(content)
    snapmig.save(path, path.with_name("s"), qcow2_snapshot=name, jobs=1, force=True)
    snapmig.restore(path.with_name("s"), path.with_name("r"), format="raw", jobs=1, force=True)
    return path.with_name("r").read_bytes()


SHAPES = {
    "512-byte clusters": Disk([Snap(STATE)], bits=9),
    "4 KiB clusters": Disk([Snap(STATE)]),
    "2 MiB clusters": Disk([Snap(STATE)], bits=21),
    "version 2": Disk([Snap(STATE)], version=2),
    "version 2 without extra data": Disk([Snap(STATE, extra=b"")], version=2),
    "subclusters": Disk([Snap(STATE)], bits=14, extended=True),
    "a dirty image": Disk([Snap(STATE)], features=1),
    "the second of two": Disk([Snap(name=b"disk", id=b"2"), Snap(STATE)]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ram_is_read(tmp_path: Path, shape: str) -> None:
    """The RAM is that of the stream, wherever its clusters are in the file."""
    assert saved_ram(tmp_path / "d", SHAPES[shape].build()) == RAM.content


def sparse_mapped(*, size: int = 4096, tail: int | None = None, bits: int = 9) -> Disk:
    """Return an image as of QEMU 11 with mapped-ram: no clusters of zeros, and a size too small."""
    state = Mapped([RAM]).build()[:tail]
    cluster = 1 << bits
    parts = [state[at : at + cluster] for at in range(0, len(state), cluster)]
    holes = [number for number, part in enumerate(parts) if not any(part)]
    return Disk([Snap(state, holes=holes, stated_size=size)], bits=bits)


@pytest.mark.parametrize("bits", [9, 16])
def test_mapped_ram_is_read(tmp_path: Path, bits: int) -> None:
    """Pages are read by their bitmap, to the last cluster, whatever size is stated."""
    assert saved_ram(tmp_path / "d", sparse_mapped(bits=bits).build()) == RAM.content


@pytest.mark.parametrize(("size", "tail"), [(4096, -1), (1 << 60, None)])
def test_mapped_ram_cut_short_is_refused(tmp_path: Path, size: int, tail: int | None) -> None:
    """A state without its end, and one of an impossible size, are refused."""
    with pytest.raises(SnapmigError, match=r"no end mark|more than any guest's"):
        saved_ram(tmp_path / "d", sparse_mapped(size=size, tail=tail).build())


def test_more_pages_than_there_are_is_refused(tmp_path: Path) -> None:
    """Pages that a bitmap names without a cluster for them take no memory of ours."""
    state = Mapped([Block(pages=dict.fromkeys(range(16), 0))]).build()
    parts = [state[at : at + 512] for at in range(0, len(state), 512)]
    holes = [number for number, part in enumerate(parts) if not any(part)]
    disk = Disk([Snap(state, holes=holes)], bits=9, size=1 << 15)
    with pytest.raises(SnapmigError, match="have more pages than the file"):
        saved_ram(tmp_path / "d", disk.build())


def test_the_state_stays_where_it_was(tmp_path: Path) -> None:
    """The disk has grown since, and the state is behind its old end."""
    content = bytearray(Disk([Snap(STATE)], bits=9).build())
    content[24:32] = struct.pack(">Q", 1 << 22)
    assert saved_ram(tmp_path / "d", bytes(content)) == RAM.content


LONG = Stream([part(*(data(at, 1 + at, None if at else b"ram") for at in range(16)))]).build()
MIDDLE = LONG.index(page(9)) // 512 + 1
"""A sector inside the page of nines."""


def without(bit: int) -> Callable[[list[int]], None]:
    """Return a change of the bitmap of subclusters that makes the sector in the middle zero."""

    def change(entries: list[int]) -> None:
        entries[MIDDLE // 32 * 2 + 1] ^= 1 << MIDDLE % 32 + bit

    return change


ZEROS = {
    "no cluster": Disk([Snap(LONG, holes=[MIDDLE])], bits=9),
    "a cluster of zeros": Disk([Snap(LONG, zeros=[MIDDLE])], bits=9),
    "no subcluster": Disk([Snap(LONG, change=without(0))], bits=14, extended=True),
    "a subcluster of zeros": Disk([Snap(LONG, change=without(32))], bits=14, extended=True),
}


@pytest.mark.parametrize("form", ZEROS)
def test_what_has_no_place_is_zero(tmp_path: Path, form: str) -> None:
    """A sector of a page that was never written, or is marked as zeros, is zeros."""
    start = MIDDLE * 512 - LONG.index(page(9))
    expected = page(9)[:start] + bytes(512) + page(9)[start + 512 :]
    assert saved_ram(tmp_path / "d", ZEROS[form].build())[8 * PAGE : 9 * PAGE] == expected


def test_a_snapshot_is_found_by_id(tmp_path: Path) -> None:
    """An ID names a snapshot, before a name that looks like one."""
    disk = Disk([Snap(b"no stream", name=b"2"), Snap(STATE, name=b"other", id=b"2")])
    assert saved_ram(tmp_path / "d", disk.build(), "2") == RAM.content


def test_device_state_is_kept(tmp_path: Path) -> None:
    """A restored stream is that of the stream alone."""
    saved_ram(tmp_path / "d", Disk([Snap(STATE)]).build())
    snapmig.restore(tmp_path / "s", tmp_path / "one", jobs=1)
    (tmp_path / "stream").write_bytes(STATE)
    snapmig.save(tmp_path / "stream", tmp_path / "t", jobs=1)
    snapmig.restore(tmp_path / "t", tmp_path / "two", jobs=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def put(at: int, value: int) -> Callable[[list[int]], None]:
    """Return a change of an entry of a table."""

    def change(entries: list[int]) -> None:
        entries[at] = value

    return change


def twice(entries: list[int]) -> None:
    """Let the last entry of an L1 table be that before it."""
    entries[-1] = entries[-2]


REFUSED = {
    "no such snapshot": (Disk([Snap(STATE, b"a"), Snap(b"", b"b")]), 2, "the image has: 'a', 'b'"),
    "no snapshot": (Disk([]), 2, "there is no qcow2 snapshot 'one', the image has: none"),
    "two of a name": (Disk([Snap(STATE), Snap(STATE, id=b"2")]), 2, "2 qcow2 snapshots have the"),
    "the disk alone": (Disk([Snap()]), 1, "'one' has no memory of a guest: QEMU keeps"),
    "encrypted": (Disk([Snap(STATE)], crypt=2), 4, "the qcow2 image is encrypted"),
    "data elsewhere": (Disk([Snap(STATE)], features=4), 4, "has its data in another file"),
    "unknown feature": (Disk([Snap(STATE)], features=1 << 40), 4, "features 0x10000000000"),
    "corrupt": (Disk([Snap(STATE)], features=2), 1, "marked as corrupt: repair it first"),
    "version 4": (Disk([Snap(STATE)], version=4), 4, "version 4, expected 2 or 3"),
    "no qcow2": (Disk([Snap(STATE)], magic=b"QFI\0"), 1, "this is not a qcow2 disk image"),
    "compressed": (Disk([Snap(STATE, change=put(1, 1 << 62))]), 4, "has compressed clusters"),
    "entry inside a cluster": (
        Disk([Snap(STATE, change=put(1, 0x1200))]), 1, "an entry inside a cluster"),
    "entry past the end": (
        Disk([Snap(STATE, change=put(1, 1 << 40))]), 1, "that ends at 0x10000001000, the file at"),
    "no stream": (Disk([Snap(b"x" * PAGE)]), 1, "not a QEMU migration stream"),
    "a stream cut short": (Disk([Snap(STATE[:-1])]), 1, "no end mark"),
    "a hole at its end": (Disk([Snap(STATE, holes=[3])]), 1, "no end mark"),
    "L2 table inside a cluster": (
        Disk([Snap(STATE, change_l1=put(-1, 0x1200))]), 1, "L2 table is at 0x1200"),
    "L2 table past the end": (
        Disk([Snap(STATE, change_l1=put(-1, 1 << 40))]), 1, "offset 0x10000000000: file ends at"),
    "one L2 table twice": (
        Disk([Snap(LONG, change_l1=twice)], bits=9), 1, "have the same L2 table"),
    "L1 table past the end": (Disk([Snap(STATE, l1_offset=1 << 40)]), 1, "past the file's end"),
    "L1 table too long": (Disk([Snap(STATE, l1_size=1 << 31)]), 1, "past the file's end"),
    "L1 table too short": (Disk([Snap(STATE, l1_size=1)]), 1, "needs 2 entries of an L1 table of"),
    "state of 2^60 bytes": (
        Disk([Snap(STATE, stated_size=1 << 60)]), 1, "more than any guest's"),
    "state of 2^63 bytes": (Disk([Snap(STATE, stated_size=1 << 63)]), 1, "no qcow2 image has"),
    "much extra data": (Disk([Snap(STATE, extra=bytes(1025))]), 1, "1025 extra bytes"),
    "snapshots without number": (Disk([Snap(STATE)], count=1 << 31), 1, "2147483648 snapshots"),
    "more snapshots than there are": (Disk([Snap(STATE)], count=65536), 1, "file ends at"),
    "snapshots past the end": (Disk([Snap(STATE)], table_offset=1 << 50), 1, "file ends at"),
    "clusters of 2^60 bytes": (Disk([Snap(STATE)], features=0), 1, "clusters have 2^60 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(tmp_path: Path, cli: Call, case: str) -> None:
    """One sentence with the file's name, the right exit code, and nothing made."""
    disk, code, words = REFUSED[case]
    content = bytearray(disk.build())
    if "2^60 bytes" in words:
        content[20:24] = struct.pack(">I", 60)
    path = tmp_path / "d.qcow2"
    path.write_bytes(content)
    outcome = cli("save", path, tmp_path / "s", "-j1", "--qcow2-snapshot", "one")
    outcome.fails(code, words)
    assert [*tmp_path.iterdir()] == [path]


def test_an_image_in_use_is_refused(tmp_path: Path, cli: Call) -> None:
    """While a program of QEMU has it open for writing, a save is refused, and info says so."""
    requires("qemu-io")
    path = tmp_path / "d"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    with subprocess.Popen(["qemu-io", str(path)], stdin=-1, stdout=-1, bufsize=0) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(b"length\n")
        assert writer.stdout.readline()  # it has the image open
        outcome = cli("save", path, tmp_path / "s", "--qcow2-snapshot", "one")
        listed = cli("info", path).lines
        writer.stdin.write(b"quit\n")
        writer.communicate()
    outcome.fails(1, "in use by a QEMU that writes to it: end that guest first")
    assert "in use       a QEMU has it open for writing" in listed


def test_qemu_can_not_write_meanwhile(tmp_path: Path) -> None:
    """While we read an image, QEMU doesn't open it for writing, and does so afterwards."""
    from snapmig.images.qcow2.image import open_saved_vm

    requires("qemu-io")
    path = tmp_path / "d"
    path.write_bytes(Disk([Snap(STATE)]).build())
    command = ["qemu-io", "-c", "length", str(path)]
    image = open_saved_vm(str(path), "one")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    image.close()
    assert 'Failed to get "write" lock' in refused.stderr
    assert "lock" not in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_without_a_name_the_way_is_told(tmp_path: Path, cli: Call) -> None:
    """A disk image is not saved as RAM, and the sentence tells of snapshots inside."""
    (tmp_path / "d").write_bytes(Disk([Snap(STATE)]).build())
    cli("save", tmp_path / "d", tmp_path / "s").fails(4, "name a snapshot inside (info lists them)")


@pytest.mark.parametrize("more", [("--format", "raw"), ("--base", "x")])
def test_it_has_neither_format_nor_base(tmp_path: Path, cli: Call, more: tuple[str, str]) -> None:
    """What belongs to other images is refused with it."""
    (tmp_path / "d").write_bytes(Disk([Snap(STATE)]).build())
    words = ("save", tmp_path / "d", tmp_path / "s", "--qcow2-snapshot", "one", *more)
    cli(*words).fails(2, "has neither a format nor a base")


def test_a_cut_image_is_refused(tmp_path: Path) -> None:
    """An image that ends inside the last cluster needed is not read as one with zeros."""
    content = Disk([Snap(STATE)], bits=9).build()
    first = content.index(b"QEVM")  # clusters lie in reverse order, so this is the last of them
    with pytest.raises(SnapmigError, match=r"file ends at|cut short"):
        saved_ram(tmp_path / "d", content[: first + 100])


WHOLE = Disk([Snap(name=b"disk", id=b"2"), Snap(STATE)], bits=9).build()
PLACES = [*range(104)] + [at for at in range(512, len(WHOLE)) if WHOLE[at] and at % 512 < 80]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.binary(min_size=1, max_size=8)),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_any_tables_are_read_or_refused(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    """Whatever its tables say, an image is listed and read, or refused by an error of our own."""
    from snapmig.images.qcow2.image import open_saved_vm

    content = bytearray(WHOLE)
    for at, change in changes:
        content[at : at + len(change)] = change
    (tmp_path / "d").write_bytes(content)
    for read in (snapmig.qcow2_info, lambda path: open_saved_vm(str(path), "one").close()):
        with suppress(SnapmigError):
            read(tmp_path / "d")


def test_qemu_reads_what_the_builder_makes(tmp_path: Path) -> None:
    """qemu-img lists the snapshots of an image built here."""
    requires("qemu-img")
    (tmp_path / "d").write_bytes(Disk([Snap(name=b"disk", id=b"7"), Snap(STATE)]).build())
    command = ["qemu-img", "snapshot", "-l", "-U", str(tmp_path / "d")]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert [line.split()[:2] for line in listed.splitlines()[2:]] == [["7", "disk"], ["1", "one"]]


def test_snapshots_are_listed(tmp_path: Path, cli: Call) -> None:
    """``info`` names each snapshot, with and without memory."""
    path = tmp_path / "d"
    path.write_bytes(Disk([Snap(name=b"\x1bdisk", id=b"7"), Snap(STATE)]).build())
    assert cli("info", path).lines[3:] == [
        r"snapshot     \x1bdisk (ID 7): 2023-11-14T22:13:20+00:00, the disk alone",
        "snapshot     one (ID 1): 2023-11-14T22:13:20+00:00, 12.3 KiB of memory and device state",
    ]
