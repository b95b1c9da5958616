"""Facts about how many packets a worker is given at a time."""

import numpy as np
import pytest

from snapmig.handlers.batch_size import (
    LARGEST,
    MIXED_NS,
    SMALLEST,
    BatchSizes,
    batch_packets,
    useful_workers,
)
from snapmig.handlers.counters import Counter
from snapmig.workers.counters import COUNTERS

MIB = 1 << 20
PACKET = MIB // 2


@pytest.mark.parametrize(
    ("left", "packets"),
    [
        pytest.param(1 << 40, 32, id="no more than 16 MiB"),
        pytest.param(512 * MIB, 32, id="16 MiB up to 512 MiB before the end"),
        pytest.param(256 * MIB, 16, id="a share of what is left after that"),
        pytest.param(128 * MIB, 8, id="4 MiB from 128 MiB on"),
        pytest.param(PACKET, 8, id="4 MiB where less is left"),
    ],
)
def test_batches_get_smaller_towards_the_end(left, packets):
    """All workers are done at nearly the same time, and most batches are large."""
    assert batch_packets(left // PACKET, PACKET) == packets


def test_many_workers_share_what_is_left():
    """With 128 workers batches get smaller 4 GiB before the end, since each has two of them."""
    assert batch_packets(4096 * MIB // PACKET, PACKET, workers=128) == 32
    assert batch_packets(2048 * MIB // PACKET, PACKET, workers=128) == 16
    assert batch_packets(2048 * MIB // PACKET, PACKET, workers=2) == 32


def test_the_largest_packets_are_batches_of_their_own():
    """A batch has one packet at least."""
    assert batch_packets(3, 4 * MIB) == 1
    assert batch_packets(1 << 20, 32 * MIB) == 1


def test_a_limit_keeps_batches_small():
    """Where much is left, too."""
    assert batch_packets(1 << 20, PACKET, SMALLEST) * PACKET == SMALLEST < LARGEST


def test_batches_grow_where_there_is_little_to_do() -> None:
    """Batches of packets that took no time are as large as any, and those of dense ones usual."""
    row = np.zeros(COUNTERS, np.int64)
    sizes = BatchSizes(PACKET, total=row.copy)
    left = 64 * 1024 * MIB // PACKET
    usual = sizes(left)
    row[Counter.RAM_BYTES], row[Counter.WORK_NS] = LARGEST, 1_000_000
    sparse = sizes(left)
    row[Counter.RAM_BYTES], row[Counter.WORK_NS] = 10 * LARGEST, 1_000_000_000
    dense = sizes(left)

    assert (usual, sparse, dense) == (LARGEST // PACKET, 128 * MIB // PACKET, LARGEST // PACKET)


def test_batches_of_a_mix_grow_to_a_limit() -> None:
    """Batches of codecs in turn start small, and stay below what others may have."""
    row = np.zeros(COUNTERS, np.int64)
    sizes = BatchSizes(PACKET, SMALLEST, 2, row.copy, LARGEST, MIXED_NS)
    left = 64 * 1024 * MIB // PACKET
    first = sizes(left)
    row[Counter.RAM_BYTES], row[Counter.WORK_NS] = 2 * SMALLEST, MIXED_NS
    fast = sizes(left)
    row[Counter.RAM_BYTES], row[Counter.WORK_NS] = 4 * SMALLEST, MIXED_NS + 1
    faster = sizes(left)

    assert (first, fast, faster) == (
        SMALLEST // PACKET,
        2 * SMALLEST // PACKET,
        LARGEST // PACKET,
    )


@pytest.mark.parametrize(
    ("sizes", "workers"),
    [([4096], 1), ([4 * MIB], 1), ([4 * MIB + 4096], 2), ([MIB, MIB, MIB], 3), ([64 * MIB], 8)],
)
def test_no_worker_starts_without_a_batch(sizes, workers):
    """A batch has 4 MiB at least, and is of one RAM block."""
    assert useful_workers(8, sizes) == workers
