"""Facts about the level that follows the speed of the destination."""

import numpy as np
import pytest

from snapmig.handlers.counters import Counter
from snapmig.handlers.level import SAMPLE_NS, AdaptiveLevel
from snapmig.workers.counters import COUNTERS

STEPS = (0, 1, 3, 6)


class Disk:
    """Counters of workers whose writing takes a share of their time."""

    def __init__(self, start=1, steps=STEPS):
        self.row = np.zeros(COUNTERS, np.int64)
        self.level = AdaptiveLevel(steps, start, lambda: self.row)

    def after(self, share, work=SAMPLE_NS):
        """Return the level after some more work."""
        self.row[Counter.WORK_NS] += work
        self.row[Counter.WRITE_NS] += int(work * share)
        return self.level()


@pytest.mark.parametrize("start", STEPS)
def test_it_starts_where_it_is_told(start):
    """Before there is anything to go by, the level is the first one."""
    assert start == Disk(start).level()


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, 0), (0.14, 0), (0.16, 1), (0.3, 1), (0.5, 1), (0.51, 3), (1.0, 3)],
)
def test_it_goes_one_step(share, expected):
    """Much writing gives a better level, little a faster one, and between them it stays."""
    assert expected == Disk().after(share)


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, [3, 6, 6, 6]), (0.0, [0, 0, 0, 0]), (0.3, [1, 1, 1, 1])]
)
def test_it_stays_in_its_range(share, expected):
    """After the last step there is none, in either direction."""
    disk = Disk()

    assert expected == [disk.after(share) for _ in range(4)]


def test_it_goes_back():
    """A destination that becomes fast is followed too."""
    disk = Disk()

    assert [disk.after(share) for share in (1, 1, 0, 0, 0, 1)] == [3, 6, 3, 1, 0, 1]


def test_it_waits_for_enough_work():
    """A little work decides nothing, and counts together with the next."""
    disk = Disk()

    assert [disk.after(1.0, SAMPLE_NS // 4) for _ in range(8)] == [1, 1, 1, 3, 3, 3, 3, 6]


def test_old_work_does_not_count():
    """Each decision is by the work since the last one."""
    disk = Disk()
    disk.after(1.0, 100 * SAMPLE_NS)

    assert disk.after(0.0) == 1


def test_one_step_is_no_choice():
    """A level that the user named stays, whatever the destination does."""
    disk = Disk(3, (3,))

    assert {disk.after(share) for share in (0, 1, 0.3)} == {3}


def test_it_counts_batches():
    """The number of batches of each level is known in the end."""
    disk = Disk()
    for share in (1, 1, 1, 0):
        disk.after(share)

    assert disk.level.batches == {3: 2, 6: 2}
