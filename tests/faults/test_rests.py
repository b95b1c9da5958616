"""Facts about the bytes in slots beside stored pages, visible to a guest that maps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from examples import map_snapshot
from tests.support import ram
from tests.support.outcome import Outcome

PACKET = 64 << 10
SIZE = 20 * PACKET
PLACES = {
    "between pages": (0, PACKET - 1),
    "before a page": (3, 0),
    "in the block's last packet": (19, 4097),
    "in an empty packet": (7, 12345),
}


@pytest.fixture
def mappable(shm: Path) -> Path:
    """Give an uncompressed snapshot of 20 packets, most of them empty."""
    pieces = {0: b"x", 3 * PACKET + 8192: b"y", SIZE - 5: b"z"}
    snapmig.save(
        ram.write_sparse(shm / "a", SIZE, pieces), shm / "s", compression="none", packet_size="64K"
    )
    return shm / "s"


def _spoil(path: Path, packet: int, offset: int) -> int:
    # Write a byte into a slot; return its offset in the file.
    (block,) = snapmig.info(path).blocks
    assert block.offset is not None
    with path.open("r+b") as file:
        file.seek(block.offset + packet * PACKET + offset)
        file.write(b"!")
        return file.tell() - 1


@pytest.mark.parametrize("options", [(), ("--quick",)], ids=["whole", "quick"])
@pytest.mark.parametrize(("packet", "offset"), PLACES.values(), ids=PLACES)
def test_a_byte_beside_the_stored_pages(mappable, cli, packet, offset, options):
    """Verify names packet and offset of a byte that should be zero."""
    at = _spoil(mappable, packet, offset)
    outcome = cli("verify", mappable, *options)

    outcome.fails(3, f"packet {packet}: offset {at:#x}: slot has a byte that is not zero")


def test_each_packet_is_told_of_once(mappable):
    """Two bytes in a slot are one damaged packet."""
    for place in ((0, 5000), (0, 40000), (7, 0)):
        _spoil(mappable, *place)
    found = snapmig.verify(mappable)

    assert (found.damaged_packets, len(found.problems)) == (2, 2)


def test_what_is_mapped_is_checked_before(
    mappable: Path, shm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example for mapping a snapshot refuses it, and writes nothing."""
    at = _spoil(mappable, 7, 1)
    code = map_snapshot.main([str(mappable), str(shm / "state")])

    assert (code, (shm / "state").exists()) == (3, False)
    assert f"packet 7: offset {at:#x}" in capsys.readouterr().err


def test_nothing_is_asked_beside_a_stream(shm: Path, cli: Callable[..., Outcome]) -> None:
    """Bytes after a stream are free for anything."""
    ram.write(shm / "a", ram.text(16))
    snapmig.save(shm / "a", shm / "s", packet_size="64K")
    with (shm / "s").open("r+b") as file:
        file.seek(2 * PACKET - 1)
        file.write(b"!")

    cli("verify", shm / "s").ok()
    cli("verify", shm / "s", "--quick").ok()


def test_holes_are_not_read(shm: Path) -> None:
    """Verifying a mappable snapshot with holes of 64 GiB allocates nothing."""
    ram.write_sparse(shm / "a", 64 << 30, {0: b"x"})
    snapmig.save(shm / "a", shm / "s", compression="none")
    before = ram.disk_bytes(shm / "s")

    assert snapmig.verify(shm / "s").ok
    assert ram.disk_bytes(shm / "s") == before
