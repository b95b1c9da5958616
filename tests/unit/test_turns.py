"""Facts about a limit on threads doing the same at once."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from snapmig.stores.turns import Turns


class Room:
    """Threads that stay in it until they are let out; ``most`` is how many were in it at once."""

    def __init__(self, turns, threads):
        self.most = self.inside = 0
        self._turns = turns
        self._guard = threading.Lock()
        self._out = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(threads)
        self.stays = [self._pool.submit(self._stay) for _ in range(threads)]

    def _stay(self):
        with self._turns:
            with self._guard:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self._out.acquire()
            with self._guard:
                self.inside -= 1

    def let_out(self, count):
        """Let so many out."""
        self._out.release(count)

    def has(self, count):
        """Return whether so many are in it, soon."""
        end = time.monotonic() + 60
        while self.inside != count and time.monotonic() < end:
            time.sleep(0.001)
        return self.inside == count

    def close(self):
        """Let all out, and wait for them."""
        self._out.release(len(self.stays))
        self._pool.shutdown()


def test_no_more_than_the_limit_are_inside():
    """Each thread that leaves is followed by one more."""
    room = Room(Turns(2), 6)
    assert room.has(2)
    room.let_out(3)
    room.close()

    assert room.most == 2


def test_a_higher_limit_counts_at_once():
    """Waiting threads come in when the limit is raised."""
    turns = Turns(1)
    room = Room(turns, 4)
    assert room.has(1)
    turns.limit(3)

    assert room.has(3)
    room.close()


def test_a_lower_limit_waits_for_those_inside():
    """Nobody comes in until fewer are inside than a limit that was lowered."""
    turns = Turns(3)
    room = Room(turns, 6)
    assert room.has(3)
    turns.limit(1)
    room.let_out(2)

    assert room.has(1)
    room.close()
    assert room.most == 3


def test_the_end_lets_nobody_in():
    """Threads waiting at the end are told so, and those inside stay."""
    turns = Turns(1)
    room = Room(turns, 3)
    assert room.has(1)
    turns.end()
    room.close()

    results = [stay.exception() for stay in room.stays]
    assert sorted(map(type, results), key=str) == sorted(
        [CancelledError, CancelledError, type(None)], key=str
    )


def test_an_ended_limit_refuses():
    """Nobody comes in after the end."""
    turns = Turns(1)
    turns.end()

    with pytest.raises(CancelledError), turns:
        pass
