"""Facts about a postcopy migration into memory in huge pages, with a scripted destination."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.migration.wire import MigrationError
from tests.support.multifd.plain import write_plain
from tests.support.multifd.plan import Block, Packet, Plan
from tests.support.multifd.wire import PAGE
from tests.support.postcopy import Destination, request, serve, serve_rest
from tests.support.sweep import sweep

MIB = 1 << 20
SIZE = 2 * MIB
RAM, ROM = Block(b"ram", 8 * MIB // PAGE), Block(b"rom", 300)
PLAN = Plan(
    (RAM, ROM),
    1,
    (
        (
            Packet(0, 0, tuple((page, page + 1) for page in range(3, 500, 7))),
            Packet(0, 0, tuple((page, page + 2) for page in range(1024, 1530, 100))),
            Packet(0, 1, tuple((page, page + 3) for page in range(0, 300, 11))),
        ),
    ),
)
"""Of the four huge pages of RAM the second and the last are zero."""
EXPECTED = {name.encode(): contents for name, contents in PLAN.expected().items()}
HUGE = {b"ram": SIZE}
PACKETS = ("64K", "512K", "2M", "4M")
WAYS = [(size, jobs) for size in PACKETS for jobs in (1, 2, 4)]
ESSENTIAL = [("64K", 1), ("512K", 2), ("4M", 2)]
"""A huge page of 32 packets goes through 4 buffers; 4 packets; half a packet."""


@pytest.fixture(scope="module")
def snapshots(shared_shm: Path) -> Callable[[str], Path]:
    """Give a function that returns a snapshot of a small made-up guest, by its packets' size."""
    image = shared_shm / "image"
    image.write_bytes(write_plain(PLAN, return_path=False).lines[0].data)

    def find(size: str) -> Path:
        path = shared_shm / size
        if not path.exists():
            snapmig.save(image, path, jobs=1, packet_size=size)
        return path

    return find


def whole(*numbers: int) -> set[tuple[bytes, int]]:
    """Return the places of all pages of some huge pages of RAM."""
    return {(b"ram", at) for each in numbers for at in range(each * SIZE, (each + 1) * SIZE, PAGE)}


def ram_of(end: Destination) -> set[tuple[bytes, int]]:
    """Return the places of all pages of RAM that came."""
    return {place for place in end.order if place[0] == b"ram"}


@pytest.mark.parametrize(("size", "jobs"), sweep(WAYS, lambda way: way in ESSENTIAL))
def test_whole_pages_come(snapshots: Callable[[str], Path], size: str, jobs: int) -> None:
    """Huge pages come whole and in order; packets of zeros do not come."""
    end, _ = serve(snapshots(size), jobs=jobs, page_sizes=HUGE)
    end.finish()  # it refuses parts
    came = whole(0, 1, 2, 3) if size == "4M" else whole(0, 2)
    assert (ram_of(end), end.ram) == (came, EXPECTED)


@pytest.mark.parametrize(("size", "jobs"), sweep(WAYS, lambda way: way in ESSENTIAL))
def test_pages_asked_for(snapshots: Callable[[str], Path], size: str, jobs: int) -> None:
    """Requests for pages, of zeros too, between those for small ones, are all answered once."""

    def script(end: Destination) -> None:
        for at in (3, 0, 3, 1, 2):
            end.send(request(at * SIZE, b"ram", SIZE) + request(at * 50 * PAGE, b"rom"))

    end, _ = serve(snapshots(size), script, jobs=jobs, page_sizes=HUGE)
    end.finish()
    assert (ram_of(end), end.ram) == (whole(0, 1, 2, 3), EXPECTED)


def test_a_page_larger_than_all_buffers(snapshots: Callable[[str], Path]) -> None:
    """A page of 128 packets comes whole through 4 buffers, while others are asked for."""
    script = request(0, b"ram", RAM.size)
    script += b"".join(request(at * PAGE, b"rom") for at in range(300))
    sizes = {b"ram": RAM.size}
    end, _ = serve(snapshots("64K"), lambda end: end.send(script), jobs=1, page_sizes=sizes)
    end.finish()
    assert (len(ram_of(end)), end.ram) == (RAM.pages, EXPECTED)


def test_zero_pages_of_the_device_state(snapshots: Callable[[str], Path]) -> None:
    """A page asked for of a block that came with the state does not come within a huge one."""

    def script(end: Destination) -> None:
        for at in range(300):
            time.sleep(0.0005)
            end.send(request(at * PAGE, b"rom"))

    sizes = {b"ram": RAM.size}
    end, _ = serve(snapshots("64K"), script, jobs=1, page_sizes=sizes, blocks=1)
    end.finish()
    assert (len(ram_of(end)), end.ram[b"ram"]) == (RAM.pages, EXPECTED[b"ram"])


@pytest.mark.parametrize(
    ("size", "pages", "kept", "packets"),
    [
        ("64K", (0,), (SIZE, 3 * SIZE), 32),
        ("512K", (0,), (SIZE, 3 * SIZE), 4),
        ("4M", (2, 3), (0, 2 * SIZE), 1),
    ],
)
def test_a_working_set_is_rounded(
    snapshots: Callable[[str], Path],
    size: str,
    pages: tuple[int, ...],
    kept: tuple[int, int],
    packets: int,
) -> None:
    """Of a working set whole huge pages are sent before the guest runs, and not discarded."""
    end, serving = serve(snapshots(size), first=(1,), page_sizes=HUGE)
    end.finish()
    assert set(end.order[: end.at_run]) & ram_of(end) == whole(*pages)
    assert (end.discarded[b"ram"], serving.before, end.ram) == ([kept], packets, EXPECTED)


def test_the_rest_is_sent(snapshots: Callable[[str], Path]) -> None:
    """After a connection that was cut, huge pages received are left out."""
    received = {b"ram": np.repeat([True, False, False, True], SIZE // PAGE)}
    received[b"rom"] = np.arange(300) % 2 == 0
    script = request(SIZE, b"ram", SIZE) + request(3 * SIZE, b"ram", SIZE)
    end = serve_rest(snapshots("512K"), lambda end: end.send(script), received, HUGE)
    end.finish()
    assert ram_of(end) == whole(1, 2)
    for name, mask in received.items():
        expected = np.frombuffer(EXPECTED[name], np.uint8).reshape(-1, PAGE).copy()
        expected[mask] = 0
        assert bytes(end.ram[name]) == expected.tobytes()


def test_a_part_that_was_received(snapshots: Callable[[str], Path]) -> None:
    """A destination that claims to have a part of a huge page is refused."""
    received = {b"ram": np.arange(RAM.pages) == 5, b"rom": np.zeros(300, np.bool_)}
    with pytest.raises(MigrationError, match="parts of pages of 2097152 bytes"):
        serve_rest(snapshots("512K"), lambda _end: None, received, HUGE)


BAD = {
    "small": (
        request(0, b"ram"),
        "4096 bytes at 0x0 of RAM block 'ram', expected a page of 2097152",
    ),
    "misaligned": (request(PAGE, b"ram", SIZE), "at 0x1000 of RAM block 'ram', expected a page of"),
    "of another block": (request(0, b"rom", SIZE), "RAM block 'rom', expected a page of 4096"),
    "outside": (request(4 * SIZE, b"ram", SIZE), "which has 8388608"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_request(snapshots: Callable[[str], Path], name: str) -> None:
    """What no QEMU asks for ends the migration with its reason."""
    data, words = BAD[name]

    def script(end: Destination) -> None:
        end.send(data)
        end.wait_for_close()

    with pytest.raises(SnapmigError, match=words):
        serve(snapshots("512K"), script, page_sizes=HUGE)


def test_a_block_of_no_whole_pages(snapshots: Callable[[str], Path]) -> None:
    """A snapshot that claims huge pages behind a block of another size is damaged."""
    with pytest.raises(CorruptSnapshotError, match="'rom' has 1228800 bytes, expected whole pages"):
        serve(snapshots("512K"), page_sizes={b"rom": SIZE})
