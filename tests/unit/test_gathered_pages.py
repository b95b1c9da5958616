"""Facts about pages of a stream, gathered into packets and stored by workers that play."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.handlers.gathered_pages import Gathered, GatheredPages
from snapmig.handlers.packet_buffers import PacketBuffers, SharedBuffers

PACKET = 64 << 10
PAGES = PACKET // PAGE_SIZE
BLOCKS = (RamBlock("pc.ram", 40 * PAGE_SIZE), RamBlock("rom", 3 * PAGE_SIZE))
GEOMETRY = Geometry(BLOCKS, PACKET)
ALL = 43
PACKETS = 4  # of 16, 16, 8 and 3 pages


class Storage:
    """Packets as a worker stores them: pages of a buffer over those stored before."""

    def __init__(self, most_pages: int | None = None) -> None:
        self.shared = SharedBuffers()
        self.shared.make_for(GEOMETRY)
        self.buffers = PacketBuffers(self.shared.path, PAGES)
        self.pages = GatheredPages(GEOMETRY, self.buffers, most_pages)
        self.ram = np.zeros((PACKETS, PAGES), np.uint8)
        self.stores = 0

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.buffers.close()
        self.shared.__exit__()

    def store(self, found: Gathered) -> None:
        """Store a packet; a page is known by its first byte here."""
        mask = self.buffers.masks[found.buffer]
        self.ram[found.packet][mask] = self.buffers.pages[found.buffer, mask, 0]
        self.stores += 1
        self.pages.finish(found)

    def store_ready(self) -> None:
        """Store all packets that are ready."""
        while (found := self.pages.next_ready()) is not None:
            self.store(found)

    def send(self, first: int, values: list[int]) -> None:
        """Send consecutive pages, zero pages as such."""
        for number, value in enumerate(values, first):
            if value:
                self.pages.take_pages(number, np.full((1, PAGE_SIZE), value, np.uint8))
            else:
                self.pages.take_zeros(number, 1)

    @property
    def contents(self) -> list[int]:
        """The first byte of each page of RAM."""
        return [*self.ram[:2].reshape(-1), *self.ram[2, :8], *self.ram[3, :3]]


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Give an empty storage."""
    with Storage() as storage:
        yield storage


def test_a_whole_packet_is_ready(storage: Storage) -> None:
    """A packet is given once its last page has come, whatever the order."""
    pages = np.random.default_rng(1).permutation(PAGES).tolist()
    for page in pages[:-1]:
        storage.send(page, [page + 1])
    early = storage.pages.next_ready()
    storage.send(pages[-1], [pages[-1] + 1])
    storage.store_ready()

    assert (early, storage.contents[:PAGES]) == (None, [*range(1, PAGES + 1)])


def test_zero_pages_count(storage: Storage) -> None:
    """Zero pages make a packet whole, those before its first data too."""
    storage.send(0, [0] * 10)
    storage.send(10, [7] * 6)
    storage.store_ready()

    assert (storage.stores, storage.contents[:PAGES]) == (1, [0] * 10 + [7] * 6)


def test_zero_packets_need_no_buffer(storage: Storage) -> None:
    """Packets of zeros are reported in runs."""
    storage.pages.take_zeros(0, 40)
    storage.pages.close_all()

    assert ([*storage.pages.zero_runs], storage.pages.next_ready()) == ([range(3)], None)


def test_a_zero_page_after_its_data(storage: Storage) -> None:
    """A page that became zero is cleared in its slot."""
    storage.send(0, [5] * PAGES)
    storage.store_ready()
    storage.send(3, [0])
    storage.pages.close_all()
    storage.store_ready()

    assert storage.contents[:PAGES] == [5, 5, 5, 0] + [5] * 12


def test_one_packet_is_stored_once_at_a_time(storage: Storage) -> None:
    """Newer pages of a packet wait until the older ones are stored."""
    storage.send(0, [1] * PAGES)
    storage.send(0, [2] * PAGES)
    first = storage.pages.next_ready()
    assert first is not None
    waits = storage.pages.next_ready()
    storage.store(first)
    storage.store_ready()

    assert (waits, storage.contents[:PAGES]) == (None, [2] * PAGES)


def test_full_memory_is_freed_by_the_fullest() -> None:
    """If nothing else helps, the packet with most pages goes first."""
    with Storage(most_pages=1024 + 20) as storage:
        storage.send(0, [1] * 15)
        storage.send(16, [2] * 8)
        assert storage.pages.full
        storage.send(32, [3])  # the last one is being filled
        storage.pages.close_fullest()
        found = storage.pages.next_ready()
        assert found is not None
        assert found.packet == 0


def test_a_block_may_end_in_a_small_packet(storage: Storage) -> None:
    """The last packets of blocks are whole with fewer pages."""
    storage.send(32, [9] * 8)
    storage.send(40, [8] * 3)
    storage.store_ready()

    assert (storage.stores, storage.contents[32:]) == (2, [9] * 8 + [8] * 3)


RUNS = st.lists(
    st.tuples(
        st.integers(0, ALL - 1),
        st.lists(st.integers(0, 255), min_size=1, max_size=40),
        st.booleans(),
    ),
    max_size=30,
)


@given(runs=RUNS, most_pages=st.sampled_from([1024 + 4, 1024 + 40, 1 << 16]))
def test_the_last_copy_of_each_page_wins(
    runs: list[tuple[int, list[int], bool]], most_pages: int
) -> None:
    """In any order, with any memory, and however far workers are behind."""
    expected = [0] * ALL
    with Storage(most_pages) as storage:
        for first, values, work in runs:
            end = 40 if first < 40 else ALL  # a run is of one block
            run = values[: end - first]
            while storage.pages.full:
                if storage.pages.is_idle:
                    storage.pages.close_fullest()
                storage.store_ready()
            storage.send(first, run)
            expected[first : first + len(run)] = run
            if work:
                storage.store_ready()
        storage.pages.close_all()
        storage.store_ready()
        storage.pages.zero_runs.clear()

        assert storage.contents == expected
        assert storage.pages.is_empty
