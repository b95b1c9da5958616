"""Facts about dumps of LiME and AVML, built and read by hand."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapmig
from snapmig.errors import SnapmigError
from tests.support import ram, slots
from tests.support.lime_dumps import (
    AVML,
    FRAME,
    IDENTIFIER,
    avml,
    frame,
    header,
    lime,
    read_avml,
    stream,
)
from tests.support.outcome import Outcome
from tests.support.qemu_files import PAGE, page, ram_of

Call = Callable[..., Outcome]
KIB, MIB = 1 << 10, 1 << 20
LOW = ram.mixed(39 * PAGE)[: 38 * PAGE + 0x400]  # as below the EBDA of a PC: its end is no page's
HIGH = ram.mixed(64 * PAGE)
RECORDS = ((0x1000, LOW), (MIB, HIGH))
BLOCKS = {"ram@0x1000": LOW, "ram@0x100000": HIGH}
DUMPS = {"lime": lime(*RECORDS), "avml": avml(*RECORDS), "plain": avml(*RECORDS, plain=True)}


@pytest.mark.parametrize("kind", DUMPS)
def test_blocks_have_their_addresses(tmp_path: Path, kind: str) -> None:
    """Each range of addresses is a RAM block with its bytes."""
    (tmp_path / "d").write_bytes(DUMPS[kind])
    assert ram_of(tmp_path / "d") == BLOCKS


def test_records_side_by_side_are_one_block(tmp_path: Path) -> None:
    """They come in any order."""
    (tmp_path / "d").write_bytes(lime((MIB + 4 * PAGE, page(2)), (MIB, page(1) * 4)))
    assert ram_of(tmp_path / "d") == {"ram@0x100000": page(1) * 4 + page(2)}


def test_a_record_of_zeros_left_out_is_ram(tmp_path: Path) -> None:
    """AVML leaves out 16 MiB of zeros between others; a gap of another size is no RAM."""
    full = page(1) + bytes(16 * MIB - PAGE)
    records = ((0, full), (32 * MIB, page(3)), (64 * MIB, page(4)))
    (tmp_path / "d").write_bytes(lime(*records))
    result = snapmig.save(tmp_path / "d", tmp_path / "s", jobs=1)
    assert [block.size for block in snapmig.info(tmp_path / "s").blocks] == [32 * MIB + PAGE, PAGE]
    assert result.data_pages == 3


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Give a snapshot of RAM at addresses, a part of it zero."""
    content = ram.mixed(512 * KIB) + bytes(768 * KIB) + ram.mixed(256 * KIB, seed=2)[:-100]
    (tmp_path / "ram").write_bytes(content)
    places = ["ram=0x100000", "ram@768K=4G"]
    snapmig.save(
        tmp_path / "ram", tmp_path / "s", format="raw", address=places, packet_size="256K", jobs=1
    )
    return tmp_path / "s"


def pieces(folder: Path) -> dict[int, bytes]:
    """Return what stands at which address."""
    content = (folder / "ram").read_bytes()
    return {MIB: content[: 768 * KIB], 4 << 30: content[768 * KIB :]}


def test_lime_is_written(snapshot: Path, tmp_path: Path) -> None:
    """A dump has a record for each piece, with zeros."""
    snapmig.restore(snapshot, tmp_path / "d", format="lime", jobs=2)
    assert (tmp_path / "d").read_bytes() == lime(*pieces(tmp_path).items())


@pytest.mark.parametrize("jobs", [1, 2])
def test_avml_is_written(snapshot: Path, tmp_path: Path, jobs: int) -> None:
    """A dump has all RAM, by address, in records that AVML's way of reading finds."""
    snapmig.restore(snapshot, tmp_path / "d", format="avml", jobs=jobs)
    records = list(read_avml((tmp_path / "d").read_bytes()))
    expected = pieces(tmp_path)
    assert [start for start, _ in records] == sorted(start for start, _ in records)
    assert {
        base: b"".join(held for start, held in records if base <= start < base + len(content))
        for base, content in expected.items()
    } == expected


def test_avml_goes_past_damage(snapshot: Path, tmp_path: Path, cli: Call) -> None:
    """A damaged packet is zeros in the dump, and is told of once."""
    content = bytearray(snapshot.read_bytes())
    offset = slots.read(snapshot).slots[0].offset
    content[offset + 100] ^= 0xFF
    snapshot.write_bytes(content)
    outcome = cli("restore", snapshot, tmp_path / "d", "--format", "avml", "--keep-going", "-j1")
    outcome.ends(3)
    assert outcome.err.count("packet 0: ") == 1
    first = next(iter(read_avml((tmp_path / "d").read_bytes())))
    expected = bytes(256 * KIB) + pieces(tmp_path)[MIB][256 * KIB :]
    assert first == (MIB, expected)


def test_avml_leaves_out_records_of_zeros(tmp_path: Path) -> None:
    """As AVML does, where readers find them again: all RAM of a dump comes back."""
    size = 48 * MIB + PAGE
    ram.write_sparse(tmp_path / "ram", size, {PAGE: page(1), size - PAGE: page(2)})
    snapmig.save(tmp_path / "ram", tmp_path / "s", jobs=1, address=["ram=4G"])
    snapmig.restore(tmp_path / "s", tmp_path / "d", format="avml", jobs=1)
    assert (tmp_path / "d").read_bytes().count(AVML + b"\x02\0\0\0") == 2
    snapmig.save(tmp_path / "d", tmp_path / "t", jobs=1)
    snapmig.restore(tmp_path / "t", tmp_path / "r", format="raw", jobs=1)
    assert (tmp_path / "r").read_bytes() == (tmp_path / "ram").read_bytes()


@pytest.mark.parametrize("kind", ["lime", "avml"])
def test_it_comes_back(snapshot: Path, tmp_path: Path, kind: str) -> None:
    """A dump written here is read as the same RAM at the same addresses."""
    snapmig.restore(snapshot, tmp_path / "d", format=kind, jobs=1)
    found = ram_of(tmp_path / "d")
    assert found == {f"ram@{at:#x}": content for at, content in pieces(tmp_path).items()}


@pytest.mark.parametrize("kind", ["lime", "avml"])
def test_without_an_address_it_is_refused(tmp_path: Path, cli: Call, kind: str) -> None:
    """Nothing is guessed."""
    (tmp_path / "ram").write_bytes(page(1))
    snapmig.save(tmp_path / "ram", tmp_path / "s", jobs=1)
    outcome = cli("restore", tmp_path / "s", tmp_path / "d", "--format", kind)
    outcome.fails(2, f"{kind} needs guest physical addresses, and none is known of RAM block 'ram'")


def one(content: bytes) -> bytes:
    """Return AVML's record of one page, with something else for its stream."""
    return header(0, PAGE, AVML) + content


def changed(at: int) -> bytes:
    """Return a dump of AVML with a byte changed."""
    content = bytearray(avml((0, page(7))))
    content[at] ^= 1
    return bytes(content)


BAD = {
    "a header cut": (lime(*RECORDS) + header(1 << 40, 1)[:31], 1, "file ends at"),
    "a record cut": (lime(*RECORDS)[:-1], 1, "the dump was cut short"),
    "a record of all addresses": (header(0, 1 << 60), 1, "expected them below 2^56"),
    "a record of 2^50 bytes": (header(0, 1 << 50) + page(0), 1, "the dump was cut short"),
    "backwards": (struct.pack("<4sIQQQ", b"EMiL", 1, 9, 5, 0), 1, "addresses 0x9 to 0x5"),
    "version 2": (header(0, PAGE, version=2) + page(0), 4, "version 2 of LiME, expected 1"),
    "no zeros at its end": (header(0, PAGE, rest=1) + page(0), 1, "expected the header"),
    "garbage after it": (lime(*RECORDS) + b"x" * 40, 1, "expected the header of a record of LiME"),
    "both kinds": (lime((0, page(1))) + avml((PAGE, page(1))), 1, "expected the header"),
    "an address twice": (
        lime((0, page(1) * 2), (PAGE, page(1))), 1, "two records have the address 0x1000"),
    "many ranges": (
        lime(*((at * 2 * PAGE, b"x") for at in range(4097))), 1, "4097 ranges of RAM, expected"),
    "much left out": (
        lime((0, bytes(16 * MIB)), (1 << 42, b"x")), 1, "are left out as zeros, expected at most"),
    "frames cut": (avml(*RECORDS)[:-9], 1, "file ends at"),
    "no stream": (one(bytes(100)), 1, "expected a stream of snappy frames"),
    "unknown frame": (one(IDENTIFIER + b"\x02\0\0\0" + bytes(9)), 4, "of type 0x2"),
    "small frames": (
        one(IDENTIFIER + frame(bytes(100)) * 50), 4, "has 100 bytes of RAM, expected 4096"),
    "a large frame": (
        one(IDENTIFIER + frame(bytes(FRAME * 2))), 4, "has 131072 bytes of RAM, expected 4096"),
    "a frame of 16 MiB": (
        one(IDENTIFIER + b"\0\xff\xff\xff" + bytes(9)), 4, "with 16777219 bytes, unknown here"),
    "another length": (one(stream(page(1))[:-8] + bytes(8)), 1, "bytes, its end says 0"),
    "another checksum": (changed(32 + 10 + 5), 1, "snappy frames are damaged: "),
    "another content": (changed(32 + 10 + 30), 1, "snappy frames are damaged: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_it_is_refused(tmp_path: Path, cli: Call, kind: str) -> None:
    """One sentence with the file's name, the right exit code, and nothing made."""
    content, code, words = BAD[kind]
    path = tmp_path / "d"
    path.write_bytes(content)
    outcome = cli("save", path, tmp_path / "s", "-j1")
    outcome.fails(code, words)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_the_missing_package_is_named(
    tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Without cramjam AVML's dumps can't be read or written, and the sentence says so."""
    (tmp_path / "d").write_bytes(lime(*RECORDS) if verb == "restore" else avml((0, page(1))))
    if verb == "restore":
        snapmig.save(tmp_path / "d", tmp_path / "s", jobs=1)
    monkeypatch.setitem(sys.modules, "cramjam", None)
    monkeypatch.chdir(tmp_path)
    words = {"save": ("d", "t"), "restore": ("s", "e", "--format", "avml")}[verb]
    cli(verb, *words).fails(1, "need the Python package cramjam: pip install 'snapmig[avml]'")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(sorted(DUMPS)),
    st.lists(st.tuples(st.integers(0, 100), st.binary(min_size=1, max_size=8)), min_size=1),
)
def test_any_header_is_read_or_refused(
    tmp_path: Path, kind: str, changes: list[tuple[int, bytes]]
) -> None:
    """Whatever the first record says, a dump is read, or refused by an error of our own."""
    content = bytearray(DUMPS[kind])
    for at, change in changes:
        content[at : at + len(change)] = change
    (tmp_path / "d").write_bytes(content)
    try:
        ram_of(tmp_path / "d", "lime" if kind == "lime" else "avml")
    except SnapmigError as error:
        assert error.path == str(tmp_path / "d")  # noqa: PT017


def test_addresses_can_be_given(tmp_path: Path, cli: Call) -> None:
    """A restore takes addresses that the snapshot lacks."""
    (tmp_path / "ram").write_bytes(page(5))
    snapmig.save(tmp_path / "ram", tmp_path / "s", jobs=1)
    words = ("restore", tmp_path / "s", tmp_path / "d", "--format", "lime")
    cli(*words, "--address", "ram=0x40000000").ok()
    assert (tmp_path / "d").read_bytes() == lime((0x40000000, page(5)))
