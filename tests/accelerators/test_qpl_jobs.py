"""
QPL's jobs in flight.

The library is the real one. What only a device does, being slow, being stuck, having full queues,
is put in front of its functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from snapmig.encodings import deflate
from snapmig.encodings.coders import EngineError
from snapmig.encodings.engines.qpl import jobs as qpl_jobs
from snapmig.encodings.engines.qpl import library as qpl_library
from snapmig.encodings.engines.qpl.jobs import Method, QplCoder
from snapmig.encodings.engines.qpl.library import Flag, Library, Operation, Route
from snapmig.encodings.engines.qpl.status import Status
from tests.support.requirements import requires

PLAINS = [bytes([number]) * 4096 + bytes(range(256)) * (number + 1) for number in range(8)]
DECOMPRESS = Method(Route.SOFTWARE, Operation.DECOMPRESS)
COMPRESS = Method(Route.SOFTWARE, Operation.COMPRESS, Flag.FIRST | Flag.LAST | Flag.DYNAMIC_HUFFMAN)


@pytest.fixture
def library() -> Library:
    """Give the library."""
    loaded = qpl_library.load()
    if isinstance(loaded, str):
        requires(qpl_library.SONAME)
    assert isinstance(loaded, Library)
    return loaded


class Instead:
    """The library with some functions replaced."""

    def __init__(self, library: Library, **functions: Callable[[int], int]) -> None:
        self._library = library
        self.c = self
        self._functions = functions

    def __getattr__(self, name: str) -> Any:
        return self._functions.get(name) or getattr(self._library.c, name)

    def check(self, status: int, what: str) -> None:
        """Do as the library does."""
        self._library.check(status, what)


def submit(coder: QplCoder, number: int) -> None:
    """Submit the stream of one of the byte strings, by number."""
    plain = PLAINS[number]
    coder.submit(number, deflate.compress(plain, 1, 12), len(plain))


def test_as_many_jobs_as_its_depth_are_in_flight(library):
    """Each result is its own, all of them there at the same time."""
    coder = QplCoder(library, DECOMPRESS, len(PLAINS))
    for number in range(len(PLAINS)):
        submit(coder, number)
    found = {done.key: done.result for done in (coder.reap() for _ in PLAINS)}
    assert found == dict(enumerate(PLAINS))


def test_jobs_beyond_its_depth_are_a_mistake(library):
    """Of the caller."""
    coder = QplCoder(library, DECOMPRESS, 2)
    submit(coder, 0)
    submit(coder, 1)
    with pytest.raises(RuntimeError):
        submit(coder, 2)


def test_reaping_nothing_is_a_mistake(library):
    """Of the caller."""
    with pytest.raises(RuntimeError):
        QplCoder(library, DECOMPRESS, 1).reap()


def test_buffers_are_used_again(library):
    """The output of the next job lies where that of the last one did."""
    coder = QplCoder(library, DECOMPRESS, 1)
    places = set()
    for number in (7, 3, 5):
        submit(coder, number)
        result = coder.reap().result
        places.add(ctypes.addressof(ctypes.c_char.from_buffer(result)))
    assert len(places) == 1


def test_jobs_are_reaped_as_they_complete(library):
    """One that takes longer does not hold up the others."""
    slow: dict[int, int] = {}

    def check(address: int) -> int:
        slow.setdefault(address, 5 if not slow else 0)
        slow[address] -= 1
        return Status.BEING_PROCESSED if slow[address] > 0 else Status.OK

    coder = QplCoder(Instead(library, qpl_check_job=check), DECOMPRESS, 3)
    for number in range(3):
        submit(coder, number)
    assert [coder.reap().key for _ in range(3)] == [1, 2, 0]


@pytest.fixture
def impatient(monkeypatch):
    """Have jobs time out at once."""
    monkeypatch.setattr(qpl_jobs, "TIMEOUT", 0.02)


def stuck(library: Library) -> Instead:
    """Return a library whose jobs never complete."""
    return Instead(library, qpl_check_job=lambda _: Status.BEING_PROCESSED)


@pytest.mark.usefixtures("impatient")
def test_a_stuck_job_is_an_error(library):
    """After some seconds."""
    coder = QplCoder(stuck(library), DECOMPRESS, 1)
    submit(coder, 3)
    done = coder.reap()
    assert (done.key, done.result) == (3, None)
    assert isinstance(done.error, EngineError)


@pytest.mark.usefixtures("impatient")
def test_memory_of_a_stuck_job_stays(library):
    """A device may write there yet, even when its coder is gone."""
    before = set(qpl_jobs._in_flight)
    coder = QplCoder(stuck(library), DECOMPRESS, 1)
    submit(coder, 0)
    coder.reap()
    del coder
    assert len(qpl_jobs._in_flight - before) == 1


def test_memory_of_a_completed_job_does_not(library):
    """Nothing is kept of it but by its coder."""
    before = set(qpl_jobs._in_flight)
    coder = QplCoder(library, DECOMPRESS, 1)
    submit(coder, 0)
    coder.reap()
    assert qpl_jobs._in_flight == before


@pytest.mark.usefixtures("impatient")
def test_after_a_stuck_job_no_other_is_waited_for(library, monkeypatch):
    """Its coder fails the next ones at once, however long a time it would have."""
    coder = QplCoder(stuck(library), DECOMPRESS, 1)
    submit(coder, 0)
    coder.reap()
    monkeypatch.setattr(qpl_jobs, "TIMEOUT", 1e9)
    submit(coder, 1)
    assert isinstance(coder.reap().error, EngineError)


def test_full_queues_are_tried_again(library):
    """Until there is room."""
    tries = iter([Status.QUEUES_ARE_BUSY] * 3)

    def submit_job(address: int) -> int:
        return next(tries, None) or library.c.qpl_submit_job(address)

    coder = QplCoder(Instead(library, qpl_submit_job=submit_job), DECOMPRESS, 1)
    submit(coder, 4)
    assert coder.reap().result == PLAINS[4]


def test_queues_that_stay_full_are_an_error(library, monkeypatch):
    """After so many tries."""
    monkeypatch.setattr(qpl_jobs, "SUBMISSIONS", 4)
    tries = []

    def submit_job(address: int) -> int:
        tries.append(address)
        return Status.QUEUES_ARE_BUSY

    coder = QplCoder(Instead(library, qpl_submit_job=submit_job), DECOMPRESS, 1)
    submit(coder, 4)
    assert "queues are full" in str(coder.reap().error)
    assert len(tries) == 4


def test_a_job_that_met_full_queues_half_way_starts_anew(library):
    """From nothing, so that no part of it is left out."""
    answers = iter([Status.QUEUES_ARE_BUSY])
    submissions = []

    def submit_job(address: int) -> int:
        submissions.append(address)
        return library.c.qpl_submit_job(address)

    replaced = Instead(
        library, qpl_submit_job=submit_job, qpl_check_job=lambda _: next(answers, Status.OK)
    )
    coder = QplCoder(replaced, DECOMPRESS, 1)
    submit(coder, 6)
    assert coder.reap().result == PLAINS[6]
    assert len(submissions) == 2


def test_a_job_that_can_not_start_anew_is_an_error(library):
    """As when a device goes away while its queues were full."""
    broken = []

    def init_job(route: int, address: int) -> int:
        return broken[0] if broken else library.c.qpl_init_job(route, address)

    replaced = Instead(
        library, qpl_init_job=init_job, qpl_submit_job=lambda _: Status.QUEUES_ARE_BUSY
    )
    coder = QplCoder(replaced, DECOMPRESS, 1)
    submit(coder, 1)
    broken.append(Status.NO_WORK_QUEUE)
    done = coder.reap()
    assert done.key == 1
    assert "no work queue" in str(done.error)


@pytest.mark.parametrize("status", [-1, Status.BEING_PROCESSED, Status.MORE_OUTPUT_NEEDED, 217])
def test_a_job_that_is_not_taken_is_an_error(library, status):
    """Whatever the reason, known or not; it is not asked after."""

    def check_job(_: int) -> int:
        raise AssertionError

    replaced = Instead(library, qpl_submit_job=lambda _: status, qpl_check_job=check_job)
    coder = QplCoder(replaced, DECOMPRESS, 1)
    submit(coder, 2)
    done = coder.reap()
    assert done.result is None
    assert isinstance(done.error, EngineError)


@pytest.mark.parametrize("sizes", [(b"", 10), (b"x", 0), (b"x", 1 << 31)])
def test_sizes_that_do_not_fit_its_counters_are_errors(library, sizes):
    """And no memory is taken for them."""
    coder = QplCoder(library, COMPRESS, 1)
    coder.submit(1, *sizes)
    assert isinstance(coder.reap().error, EngineError)


def test_jobs_of_another_layout_are_refused(library, monkeypatch):
    """A structure with other fields than the library's is noticed before a job is submitted."""

    class Longer(ctypes.Structure):
        _fields_ = (*qpl_library.JobFields._fields_, ("more", ctypes.c_char * 64))

    monkeypatch.setattr(qpl_library, "JobFields", Longer)
    with pytest.raises(EngineError, match="not laid out as those"):
        qpl_library.Job(library, Route.SOFTWARE)
