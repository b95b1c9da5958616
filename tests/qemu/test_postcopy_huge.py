"""Facts about guests in huge pages that run before their memory has come."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import SnapmigError
from tests.qemu.test_postcopy import cut_off, listen, migration
from tests.support import filesystems
from tests.support import program as program_of_snapmig
from tests.support.guests.migration import wait_served
from tests.support.guests.qemu import IO_FAILURE
from tests.support.guests.resume import LAYOUT, Memory, Monitored, make_monitored
from tests.support.guests.saves import PRIVATE, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.processes import wait_for
from tests.support.sweep import sweep

pytestmark = [pytest.mark.guest, pytest.mark.root]

SIZES = ("64K", "512K", "4M")
JOBS = (1, 2, 4)
VIAS = ("multifd", "stream", "mapped-ram")
BUSY = Layout(ram=64 << 20, ticks=0)
"""All of its pages are written in each pass."""
HALF = LAYOUT.ram // 2
WAYS = [
    *((kind, size, jobs) for kind in ("shared", "multifd") for size in SIZES for jobs in JOBS),
    *(("child", "512K", jobs) for jobs in JOBS),
]
ESSENTIAL = [("multifd", "64K", 1), ("shared", "512K", 2)]


def memfd(name: str, size: int, more: str) -> str:
    """Return a memory backend without a path."""
    return f"memory-backend-memfd,id={name},size={size},share=on{more}"


def two_nodes(low: str) -> Memory:
    """Return memory of two backends, the first one with more words."""
    backends = [memfd("low", HALF, low), memfd("high", HALF, "")]
    return Memory(backends, "", ["-numa", "node,memdev=low", "-numa", "node,memdev=high"])


@contextmanager
def waiting(
    program: str, shm: Path, memory: Memory | None = None, layout: Layout = LAYOUT
) -> Iterator[Monitored]:
    """Give a QEMU with huge pages that waits for a guest."""
    memory = memory or Memory([memfd("ram", layout.ram, ",hugetlb=on,hugetlbsize=2M")])
    with (
        filesystems.huge_pages(layout.ram >> 21),
        make_monitored(program, shm, memory, layout, incoming=True) as guest,
    ):
        yield guest


def repacked(found: Saved, shm: Path, size: str) -> Path:
    """Return a snapshot of the same guest with packets of a size."""
    if size == "512K":
        return found.path
    snapmig.repack(found.path, shm / "repacked", packet_size=size, jobs=2)
    return shm / "repacked"


@pytest.mark.parametrize(("kind", "size", "jobs"), sweep(WAYS, lambda way: way in ESSENTIAL))
def test_counts_on(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str, size: str, jobs: int
) -> None:
    """A guest continues in huge pages while its memory comes, with every page right."""
    found = saved(kind)
    path = repacked(found, shm, size)
    with waiting(program, shm) as guest:
        result = snapmig.restore(path, guest.monitor, jobs=jobs, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert (result.via, tiny.goes_on(counted, found.state, LAYOUT)) == ("postcopy", True)


@pytest.mark.sweep
def test_pages_of_the_usual_size(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """Huge pages of which nobody named the size are the kernel's usual ones."""
    found = saved("multifd")
    with waiting(program, shm, Memory([memfd("ram", LAYOUT.ram, ",hugetlb=on")])) as guest:
        snapmig.restore(found.path, guest.monitor, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


@pytest.mark.sweep
@pytest.mark.parametrize("share", ["on", "off"])
def test_a_file(saved: Callable[[str], Saved], program: str, shm: Path, share: str) -> None:
    """A file on hugetlbfs has the pages of its filesystem."""
    found = saved("multifd")
    with filesystems.mounted("hugetlbfs", shm / "huge", "pagesize=2M") as place:
        backend = f"memory-backend-file,id=ram,size={LAYOUT.ram},share={share},mem-path={place}"
        with waiting(program, shm, Memory([backend])) as guest:
            guest.expected_words = re.compile("Discarding RAM in private file mappings")
            snapmig.restore(found.path, guest.monitor, postcopy=True)
            counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


def test_two_nodes_one_of_them_huge(program: str, shm: Path) -> None:
    """Of two backends each has its own pages."""
    with make_monitored(program, shm, two_nodes("")) as guest:
        before = tiny.wait_passes(guest, 2)[-1]
        snapmig.save(guest.monitor, shm / "snap", jobs=2, via="multifd")
        after = tiny.passes(guest.read_serial())[-1]
    with waiting(program, shm, two_nodes(",hugetlb=on,hugetlbsize=2M")) as guest:
        snapmig.restore(shm / "snap", guest.monitor, jobs=2, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)  # it stops at a wrong page
    assert before < counted[0] <= after + 2  # it may have been printing


@pytest.mark.parametrize("jobs", sweep([1, 2, 4], lambda jobs: jobs == 2))
def test_a_guest_that_writes_hard(program: str, shm: Path, jobs: int) -> None:
    """A guest that writes to all of its memory while that comes finds every page right."""
    memory = Memory([f"memory-backend-ram,id=ram,size={BUSY.ram}"])
    with make_monitored(program, shm, memory, BUSY) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, shm / "snap", jobs=2, via="multifd")
    with waiting(program, shm, layout=BUSY) as guest:
        options: dict[str, Any] = {"jobs": jobs, "bwlimit": "40M"}
        result = snapmig.restore(shm / "snap", guest.monitor, postcopy=True, **options)
        assert len(tiny.wait_passes(guest, 3, before=0)) >= 3
    assert result.packets_asked_for


def test_a_working_set(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """What a guest with ordinary pages asked for is sent before, in whole huge pages."""
    found, options = saved("multifd"), {"postcopy": True, "working_set": shm / "set"}
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        first = snapmig.restore(found.path, guest.monitor, jobs=2, bwlimit="20M", **options)
    with waiting(program, shm) as guest:
        second = snapmig.restore(found.path, guest.monitor, jobs=2, **options)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)
    assert (first.packets_asked_for or 0) <= (second.packets_before_run or 0)


@pytest.mark.parametrize("number", sweep([signal.SIGKILL, signal.SIGINT], lambda one: one == 9))
def test_a_killed_restore_is_continued(
    saved: Callable[[str], Saved], program: str, shm: Path, number: int
) -> None:
    """The guest waits, and gets the rest of its memory from the same command."""
    found = saved("multifd")
    with waiting(program, shm) as guest:
        guest.expected_words = IO_FAILURE
        cut_off(guest, found.path, number)
        snapmig.restore(found.path, guest.monitor, jobs=2, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


@pytest.mark.parametrize(
    "via", sweep(["multifd", "stream", "mapped-ram"], lambda via: via == "multifd")
)
def test_sent_to_somebody_elses_qemu(program: str, shm: Path, via: str) -> None:
    """A send takes the page sizes of the guest that was saved, also when it is continued."""
    memory = Memory([memfd("ram", LAYOUT.ram, ",hugetlb=on,hugetlbsize=2M")])
    path = shm / "snap"
    with (
        filesystems.huge_pages(LAYOUT.ram >> 21),
        make_monitored(program, shm, memory) as guest,
    ):
        before = tiny.wait_passes(guest, 2)[-1]
        snapmig.save(guest.monitor, path, jobs=2, via=via)
        after = tiny.passes(guest.read_serial())[-1]
    with waiting(program, shm) as guest:
        guest.expected_words = IO_FAILURE
        address = listen(guest)
        slowly = ("send", "--postcopy", "--bwlimit", "2M")
        process = program_of_snapmig.start(*slowly, path, address, nice=0)
        wait_served(guest)
        process.kill()
        process.communicate()
        wait_for(lambda: migration(guest) == "postcopy-paused")
        guest.execute("migrate-recover", uri=f"{address}-again")
        snapmig.send(path, f"{address}-again", postcopy=True, recover=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert before < counted[0] <= after + 2


def test_sent_with_other_pages(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """A destination with other pages than the saved guest had is told in one sentence."""
    found = saved("multifd")
    with waiting(program, shm) as guest:
        guest.expected_words = re.compile("matching RAM page sizes|load of migration failed")
        with pytest.raises(SnapmigError, match="memory in other pages than the saved guest's"):
            snapmig.send(found.path, listen(guest), postcopy=True)
