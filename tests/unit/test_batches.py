"""Facts about how many packets a worker is given at a time."""

import pytest

from snapmig.handlers.batch_size import LARGEST, SMALLEST, batch_packets

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


def test_the_largest_packets_are_batches_of_their_own():
    """A batch has one packet at least."""
    assert batch_packets(3, 4 * MIB) == 1
    assert batch_packets(1 << 20, 32 * MIB) == 1


def test_a_limit_keeps_batches_small():
    """Where much is left, too."""
    assert batch_packets(1 << 20, PACKET, SMALLEST) * PACKET == SMALLEST < LARGEST
