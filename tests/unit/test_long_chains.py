"""Facts about chains of sparse guests: what is read and decoded, and how often."""

import tracemalloc
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.chains import descent, lookup
from snapmig.chains.image import SnapshotSource
from snapmig.chains.reader import ChainReader, open_chain
from snapmig.container import reader as container_reader
from snapmig.container.reader import SnapshotFile
from snapmig.container.stored_index import StoredIndex
from snapmig.handlers.batch_size import batch_packets
from snapmig.handlers.load_tasks import IndexBatches, plan_tasks
from snapmig.images.source import read_batch
from snapmig.operations.runs.read import Reading, read_options
from tests.support import kinds, ram

PACKET = 64 << 10
PAGES = PACKET // ram.PAGE
PACKETS = 1024
EVERY = 8
"""One in so many packets has a page, or two."""
LENGTH = 5
"""Snapshots in the chain."""
OPTIONS = read_options(1, "auto", None, None)


def _content(number):
    # Of the RAM at the time of a snapshot.
    pages = ram.zeros(PACKETS * PAGES)
    pages[3 :: EVERY * PAGES] = ram.text(PACKETS // EVERY)
    for page in (6, 7):
        pages[page :: 2 * EVERY * PAGES] = ram.noise(PACKETS // EVERY // 2, page)
    for seed in range(1, number + 1):
        changed = slice(3 + seed * EVERY * PAGES, None, 16 * EVERY * PAGES)
        pages[changed] = ram.noise(len(pages[changed]), seed)
        first = 6 + 2 * seed * EVERY * PAGES
        pages[first : first + 2, :10] ^= seed  # stored as differences
        pages[3 + (100 + seed) * EVERY * PAGES] = 0  # one page of two, or all
    return pages


@pytest.fixture(scope="module")
def chain(shared_shm):
    """Give the snapshots of a chain, the oldest first."""
    names = [shared_shm / f"{number}.snap" for number in range(LENGTH)]
    for number, name in enumerate(names):
        content = _content(number)
        pieces = {at * ram.PAGE: content[at].tobytes() for at in np.flatnonzero(content.any(1))}
        image = ram.write_sparse(shared_shm / "image", content.nbytes, pieces)
        parent = names[number - 1] if number else None
        snapmig.save(image, name, parent=parent, packet_size=PACKET, deltas=True, jobs=1)
    return names


@pytest.fixture
def youngest(chain):
    """Give the youngest snapshot, open with its parents."""
    with SnapshotFile(str(chain[-1])) as file, Reading(file, OPTIONS) as reading:
        yield reading


@pytest.fixture
def checked(monkeypatch):
    """Count the records that are checked."""
    counts = Counter()
    check = container_reader.records_sound

    def count(records, *rest, **options):
        counts["records"] += len(records)
        return check(records, *rest, **options)

    monkeypatch.setattr(container_reader, "records_sound", count)
    return counts


def _ram(loaded):
    # All RAM, of the packets with pages.
    pages = ram.zeros(PACKETS * PAGES)
    for found in loaded:
        first = found.packet.packet * PAGES
        pages[first : first + PAGES][found.packet.in_use] = found.pages
    return pages


@pytest.mark.parametrize("many", [1, PACKETS])
def test_many_packets_are_found_as_few_are(youngest, monkeypatch, many):
    """With arrays or one by one, every page is right, wherever in the chain it is stored."""
    monkeypatch.setattr(descent, "_MANY", many)
    reader = open_chain(youngest.plans)

    found = _ram(reader.load_all(reader.packets(0, PACKETS)))

    assert np.array_equal(found, _content(LENGTH - 1))


def test_many_packets_may_come_in_any_order(youngest):
    """Packets asked for in another order are those asked for."""
    reader = open_chain(youngest.plans)
    packets = reader.packets(0, PACKETS)[::-1]

    assert np.array_equal(_ram(reader.load_all(packets)), _content(LENGTH - 1))


def test_the_chain_has_packets_of_every_kind(chain):
    """There are packets wholly in an older file, with differences, and with pages of two files."""
    found = {each.kinds for each in kinds.read(chain[-1])}
    pairs = {(each[3], each[6]) for each in found}

    assert pairs >= {(kinds.SAME, kinds.ZERO), (kinds.SAME, kinds.SAME)}
    assert {pair[1] for pair in pairs} >= {kinds.DELTA}


def test_records_of_packets_without_pages_are_not_checked_in_parents(youngest, checked):
    """In each parent only records of packets with pages are checked, each once."""
    reader = open_chain(youngest.plans)
    packets = reader.packets(0, PACKETS)
    in_use = [packet for packet in packets if not packet.stored_pages]
    checked.clear()

    for _ in descent.find_stored(reader._members[1:], in_use, []):
        pass

    assert 0 < checked["records"] <= (LENGTH - 1) * len(in_use)


@pytest.mark.parametrize("file", range(LENGTH - 1))
def test_a_damaged_record_in_a_parent_costs_its_packet_alone(chain, shm, file):
    """One wrong record of many is found, in any file, and all other packets are read."""
    for each in chain:
        (shm / each.name).write_bytes(each.read_bytes())
    damaged = 5 * EVERY  # has not changed since the first snapshot
    with SnapshotFile(str(shm / chain[file].name)) as sound:
        at = sound.superblock.index_offset + damaged * sound.superblock.record_size
    raw = bytearray((shm / chain[file].name).read_bytes())
    raw[at + 30] ^= 1
    (shm / chain[file].name).write_bytes(raw)

    with (
        SnapshotFile(str(shm / chain[-1].name)) as youngest,
        Reading(youngest, OPTIONS) as reading,
    ):
        reader = open_chain(reading.plans)
        found = list(reader.load_all(reader.packets(0, PACKETS)))

    lost = [each for each in found if each.pages is None]
    assert [each.packet.packet for each in lost] == [damaged]
    assert chain[file].name in str(lost[0].error)


def test_packets_of_a_merge_are_decoded_together(youngest, monkeypatch):
    """Reading a chain as an image decodes many packets at a time, and every page is right."""
    calls = []
    load_all = ChainReader.load_all

    def count(self, packets):
        calls.append(len(packets))
        return load_all(self, packets)

    monkeypatch.setattr(ChainReader, "load_all", count)
    reader = SnapshotSource(youngest.snapshot, youngest.plans, "raw").opener()()

    found = ram.zeros(PACKETS * PAGES)
    for group in read_batch(reader, 0, PACKETS * PACKET, PACKET):
        first = group.first * PAGES
        found[first : first + group.packets * PAGES][group.there] = group.pages

    assert np.array_equal(found, _content(LENGTH - 1))
    assert sum(calls) <= PACKETS // EVERY
    assert len(calls) == 1


@pytest.mark.parametrize("packet_size", [PACKET // 2, 3 * PACKET])
def test_a_chain_as_an_image_can_be_cut_anywhere(youngest, packet_size):
    """In batches that begin and end inside packets, every byte is right."""
    reader = SnapshotSource(youngest.snapshot, youngest.plans, "raw").opener()()
    found = bytearray(PACKETS * PACKET)
    for start in range(0, len(found), 5 * packet_size):
        for first, end in reader.extents(start, min(start + 5 * packet_size, len(found))):
            found[first:end] = reader.view(first, end).tobytes()

    assert found == _content(LENGTH - 1).tobytes()


def test_pages_between_many_others_are_read_as_one_range(shm):
    """A packet with every other page has one extent, and its gaps are zeros."""
    content = ram.noise(128)
    content[1::2] = 0
    snapmig.save(ram.write(shm / "image", content), shm / "snap", packet_size="512K", jobs=1)
    with SnapshotFile(str(shm / "snap")) as file, Reading(file, OPTIONS) as reading:
        reader = SnapshotSource(file, reading.plans, "raw").opener()()
        extents = list(reader.extents(0, content.nbytes))
        found = reader.view(*extents[0])

    assert extents == [(0, content.nbytes - ram.PAGE)]
    assert found.tobytes() == content[:-1].tobytes()


def test_an_index_is_looked_through_once_for_all_batches(youngest, monkeypatch):
    """The parts of an index with packets in use are found once, not again for every batch."""
    steps = []
    raw_steps = StoredIndex.raw_steps

    def count(self, packets=None):
        steps.append(packets)
        return raw_steps(self, packets)

    monkeypatch.setattr(StoredIndex, "raw_steps", count)
    source = SnapshotSource(youngest.snapshot, youngest.plans, "raw")
    found = [source.next_data(at * PACKET) for at in range(PACKETS)]

    in_use = _content(LENGTH - 1).reshape(PACKETS, -1).any(axis=1)
    expected = [
        next((n * PACKET for n in range(at, PACKETS) if in_use[n]), None) for at in range(PACKETS)
    ]
    assert found == expected
    assert len(steps) == 1


def test_open_files_are_counted_once_for_a_chain(chain, monkeypatch):
    """Opening a chain looks at the open files once, however many snapshots it has."""
    listed = []
    listdir = Path.iterdir

    def count(path):
        listed.append(str(path))
        return listdir(path)

    monkeypatch.setattr(Path, "iterdir", count)
    with SnapshotFile(str(chain[-1])) as file, ExitStack() as stack:
        assert len(lookup.open_parents(file, stack)) == LENGTH

    assert listed == ["/proc/self/fd"]


def test_indexes_of_a_chain_leave_no_memory_taken(chain):
    """A file whose index was read whole keeps no part of it: a chain may have a thousand files."""
    with ExitStack() as stack:
        files = [stack.enter_context(SnapshotFile(str(path))) for path in chain]
        files[0].index.check_digest()  # whatever is made once
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for file in files[1:]:
            file.index.check_digest()

        assert tracemalloc.get_traced_memory()[0] < files[0].superblock.record_size * PACKETS


def test_batches_of_a_sparse_snapshot_are_large(youngest):
    """A merge takes as many packets at once as a restore, and leaves none out."""
    batch = IndexBatches(youngest.snapshot.index, PACKETS)
    left, sizes = PACKETS, []
    while left:
        sizes.append(batch(left))
        left -= sizes[-1]

    tasks = plan_tasks(youngest.snapshot.index, range(PACKETS))
    assert sizes == [task.count for task in tasks]
    assert sizes[0] > batch_packets(PACKETS, PACKET)


def test_batches_go_on_behind_a_hole(youngest):
    """What is handed out as a hole is left out of the next batch."""
    tasks = list(plan_tasks(youngest.snapshot.index, range(PACKETS)))
    batch = IndexBatches(youngest.snapshot.index, PACKETS)

    assert batch(PACKETS - 5) == tasks[0].count - 5
