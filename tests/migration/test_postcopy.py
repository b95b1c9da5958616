"""Facts about a snapshot as the source of a postcopy migration, with a scripted destination."""

from __future__ import annotations

import os
import resource
import socket
import struct
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError, UsageError
from snapmig.migration.recovery import read_received
from snapmig.operations.runs.working_set import load_working_set, write_working_set
from tests.support.multifd.plain import write_plain
from tests.support.multifd.plan import Block, Packet, Plan
from tests.support.multifd.wire import PAGE
from tests.support.postcopy import Destination, request, serve, serve_rest

RAM, ROM = Block(b"ram", 1000), Block(b"rom", 3)
SPARSE = 40
"""Every so many pages of RAM one is not zero, and from page 600 on none."""
PLAN = Plan(
    (RAM, ROM),
    1,
    (
        (
            Packet(0, 0, tuple((page, page + 1) for page in range(0, 600, SPARSE))),
            Packet(0, 0, tuple((page, page + 2) for page in range(130, 140))),
            Packet(0, 1, ((0, 7), (1, 0), (2, 8))),
        ),
    ),
)
EXPECTED = {name.encode(): contents for name, contents in PLAN.expected().items()}


@pytest.fixture(scope="module")
def snapshot(shared_shm: Path) -> Path:
    """Give a snapshot of a small made-up guest."""
    image, path = shared_shm / "image", shared_shm / "snap"
    image.write_bytes(write_plain(PLAN, return_path=False).lines[0].data)
    snapmig.save(image, path, jobs=1)
    return path


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_all_pages_come(snapshot: Path, jobs: int) -> None:
    """The destination has each page that is not zero, once, whatever it asks for."""
    end, serving = serve(snapshot, jobs=jobs)
    end.finish()
    assert (list(serving.asked), end.ram) == ([], EXPECTED)


def test_a_page_asked_for_comes_with_its_packet(snapshot: Path) -> None:
    """A request is answered with all pages of the packet, those of zeros too."""
    end, serving = serve(snapshot, lambda end: end.send(request(650 * PAGE, b"ram")))
    end.finish()
    packet = {(b"ram", page * PAGE) for page in range(640, 768)}
    assert (list(serving.asked), packet <= set(end.order), end.ram) == ([5], True, EXPECTED)


def test_asked_for_twice_comes_once(snapshot: Path) -> None:
    """Requests repeated, and for other pages of the same packet, change nothing."""

    def script(end: Destination) -> None:
        end.send(request(0, b"ram"))
        for page in [*range(128), *range(128)]:
            end.send(request(page * PAGE, None))
        end.send(request(2 * PAGE, b"rom") * 50)

    end, serving = serve(snapshot, script)
    end.finish()  # it refuses a page that comes twice
    assert (sorted(serving.asked), end.ram) == ([0, 8], EXPECTED)


def test_a_flood_takes_no_memory(snapshot: Path) -> None:
    """A hundred thousand requests are answered like one of each packet."""
    flood = (
        request(0, b"ram")
        + b"".join(request(page * PAGE, None) for page in range(0, 1000, 7)) * 700
    )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end, serving = serve(snapshot, lambda end: end.send(flood))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    end.finish()
    assert (len(serving.asked), end.ram, grown < 64 << 10) == (8, EXPECTED, True)


BAD = {
    "outside": (request(1000 * PAGE, b"ram"), "at 0x3e8000 of RAM block 'ram', which has 4096000"),
    "far outside": (request(2**64 - PAGE, b"ram"), "RAM block 'ram', which has 4096000"),
    "misaligned": (request(100, b"ram"), "at 0x64 of RAM block 'ram', expected a page of 4096"),
    "too long": (request(0, b"ram", 1 << 21), "asks for 2097152 bytes at 0x0"),
    "nothing": (request(0, b"ram", 0), "asks for 0 bytes at 0x0"),
    "unknown block": (request(0, b"nobody"), "RAM block 'nobody', which is not in the list"),
    "no block": (request(0, None), "names no RAM block"),
    "unprintable": (request(0, b"\x1b[2J\xff"), "which is not in the list"),
    "cut name": (struct.pack(">HHQIB", 3, 13, 0, PAGE, 9), "names a RAM block in 13 bytes"),
    "short": (struct.pack(">HHQ", 4, 8, 0), "asks for pages in 8 bytes, expected 12"),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "sends message 18245 of 21536 bytes"),
    "refusal": (struct.pack(">HHI", 1, 4, 1), "the destination refused the guest"),
    "early end": (struct.pack(">HHI", 1, 4, 0), "has everything before it was sent"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_answer_is_one_sentence(snapshot: Path, name: str) -> None:
    """What no QEMU asks for ends the migration with its reason."""
    data, words = BAD[name]

    def script(end: Destination) -> None:
        end.send(data)
        end.wait_for_close()

    with pytest.raises(SnapmigError) as caught:
        serve(snapshot, script)
    text = str(caught.value)
    assert (words in text, "\n" in text, "\x1b" in text) == (True, False, False), text


def test_a_destination_that_goes(snapshot: Path) -> None:
    """Its connection's end is an error at once."""
    with pytest.raises(SnapmigError, match=r"closed the main connection|connection failed"):
        serve(snapshot, lambda end: end.cut())


def test_a_working_set_comes_before_the_guest_runs(snapshot: Path) -> None:
    """Its packets are sent whole before, and not discarded."""
    end, serving = serve(snapshot, first=(1, 3))
    end.finish()
    early = {page // PAGE // 128 for _, page in end.order[: end.at_run]}
    kept = [(0, 128 * PAGE), (256 * PAGE, 128 * PAGE), (512 * PAGE, 488 * PAGE)]
    assert (early, list(serving.asked), end.ram) == ({1, 3}, [], EXPECTED)
    assert end.discarded == {b"ram": kept, b"rom": [(0, 3 * PAGE)]}


def test_only_what_is_missing_is_sent_again(snapshot: Path) -> None:
    """After a connection that was cut, pages received are left out, in every packet."""
    draw = np.random.default_rng(1)
    received = {b"ram": draw.random(1000) < 0.5, b"rom": np.array([True, False, False])}
    end = serve_rest(snapshot, lambda end: end.send(request(650 * PAGE, b"ram")), received)
    end.finish()
    for name, mask in received.items():
        expected = np.frombuffer(EXPECTED[name], np.uint8).reshape(-1, PAGE).copy()
        expected[mask] = 0
        assert bytes(end.ram[name]) == expected.tobytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack(">HH", 5, 4) + b"\3xyz", "RAM block not asked for"),
        (struct.pack(">HH", 5, 4) + b"\3ram" + struct.pack(">Q", 1 << 60), "expected 128"),
        (struct.pack(">HH", 5, 4) + b"\3ram" + struct.pack(">Q", 128) + bytes(136), "no end mark"),
        (b"", "closed the connection"),
    ],
)
def test_a_wrong_list_of_pages(data: bytes, words: str) -> None:
    """A list of received pages is checked before it is used."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(data)
        theirs.close()
        with pytest.raises(SnapmigError, match=words):
            read_received(ours, [(b"ram", 1000 * PAGE)], lambda *_: None)


def test_working_set_file(snapshot: Path, tmp_path: Path) -> None:
    """Packets written are read in their order."""
    with SnapshotFile(os.fspath(snapshot)) as file:
        write_working_set(tmp_path / "set", file.geometry, [5, 1, 3])
        assert load_working_set(tmp_path / "set", file.geometry) == (5, 1, 3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"[5]", b"[9]", "has packet 9, the snapshot has 9"),
        (b"[5]", b"[-1]", "not a working set"),
        (b"[5]", b'"x"', "not a working set"),
        (b"rom", b"rum", "other RAM blocks"),
        (b"524288", b"65536", "other packets"),
        (b"{", b"\xff", "not a working set"),
    ],
)
def test_a_working_set_that_does_not_fit(
    snapshot: Path, tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    """A file of something else is a usage error, before anything is sent."""
    path = tmp_path / "set"
    with SnapshotFile(os.fspath(snapshot)) as file:
        write_working_set(path, file.geometry, [5])
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        with pytest.raises(UsageError, match=words):
            load_working_set(path, file.geometry)
