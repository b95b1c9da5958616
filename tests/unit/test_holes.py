"""Facts about finding holes without touching them."""

import errno
import os

import pytest

from snapmig.system.holes import data_extents, next_data
from tests.support import ram

MIB = 1 << 20
PIECES = {1 * MIB: ram.noise(256).tobytes(), 5 * MIB: ram.noise(1).tobytes()}
EXTENTS = [(1 * MIB, 2 * MIB), (5 * MIB, 5 * MIB + 4096)]


@pytest.fixture(params=["disk", "memory"])
def sparse(request, tmp_path, shm):
    """Give a descriptor of a file of 8 MiB with two pieces of data."""
    place = {"disk": tmp_path, "memory": shm}[request.param]
    path = ram.write_sparse(place / "sparse", 8 * MIB, PIECES)
    with path.open("rb") as file:
        yield file.fileno()


def _fail(number):
    def lseek(*_arguments):
        raise OSError(number, os.strerror(number))

    return lseek


def test_extents_are_the_pieces_that_were_written(sparse):
    """The ranges that may hold data are those that were written."""
    assert list(data_extents(sparse, 0, 8 * MIB)) == EXTENTS


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, MIB, []),
        (0, MIB + 4096, [(MIB, MIB + 4096)]),
        (MIB + 5, 3 * MIB, [(MIB + 5, 2 * MIB)]),
        (2 * MIB, 5 * MIB, []),
        (6 * MIB, 8 * MIB, []),
        (MIB, MIB, []),
    ],
)
def test_extents_are_cut_to_the_range_asked_for(sparse, start, stop, expected):
    """No extent starts before or ends after the range."""
    assert expected == list(data_extents(sparse, start, stop))


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(0, MIB), (MIB, MIB), (MIB + 7, MIB + 7), (2 * MIB, 5 * MIB), (6 * MIB, 8 * MIB)],
)
def test_next_data(sparse, offset, expected):
    """The next data is where the next piece starts, or the stop after the last one."""
    assert expected == next_data(sparse, offset, 8 * MIB)


def test_next_data_does_not_look_beyond_its_stop(sparse):
    """Data after the stop is not reported."""
    assert next_data(sparse, 0, 4096) == 4096


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_filesystem_that_knows_no_holes_is_all_data(sparse, monkeypatch, number):
    """Where the question is not understood, everything may hold data."""
    monkeypatch.setattr(os, "lseek", _fail(number))

    assert list(data_extents(sparse, 0, 8 * MIB)) == [(0, 8 * MIB)]


def test_other_failures_are_not_hidden(sparse, monkeypatch):
    """An error of the disk is not taken for an answer."""
    monkeypatch.setattr(os, "lseek", _fail(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        list(data_extents(sparse, 0, 8 * MIB))


def test_looking_for_holes_allocates_nothing(shm):
    """A file in shared memory does not grow by being looked at."""
    path = ram.write_sparse(shm / "sparse", 64 * MIB, PIECES)
    before = ram.disk_bytes(path)
    with path.open("rb") as file:
        list(data_extents(file.fileno(), 0, 64 * MIB))

    assert before == ram.disk_bytes(path)
