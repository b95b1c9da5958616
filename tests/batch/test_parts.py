"""Facts about what a batch is made of: the limit, lost packed batches, cancellations, space."""

import threading
from contextlib import contextmanager

import pytest

import snapmig
from snapmig.container.format import Layout
from snapmig.container.slots import SlotPlan
from snapmig.errors import CancelledError, NoSpaceError, SnapmigError
from snapmig.geometry import Geometry, RamBlock
from snapmig.handlers.save_tasks import Kind, SaveTasks
from snapmig.system.signals import Cancellation, HeldSignals, raise_if_cancelled
from snapmig.workers.rate_limit import RateLimiter
from snapmig.workers.tasks import Task
from tests.support import filesystems, ram

MIB = 1 << 20


class Clock:
    """A time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        """Return it."""
        return self.now


def test_a_pace_lets_nothing_wait_at_first():
    """Something may be written at once."""
    assert RateLimiter(1000, 0, Clock()).wait_s() == 0


def test_a_pace_makes_up_for_what_was_written():
    """Ten seconds' worth, less what may be saved up, is waited for."""
    clock = Clock()
    limiter = RateLimiter(1000, 0, clock)
    limiter.spend(10_000)

    assert limiter.wait_s() == pytest.approx(9.9)
    clock.now += 9.8
    assert limiter.wait_s() == pytest.approx(0.1)
    clock.now += 0.11
    assert limiter.wait_s() == 0


def test_a_pace_saves_up_little():
    """After an idle hour the rate is what it was."""
    clock = Clock()
    limiter = RateLimiter(1000, 0, clock)
    clock.now += 3600
    limiter.wait_s()
    limiter.spend(1000)

    assert limiter.wait_s() == pytest.approx(0.9)


@pytest.fixture
def packed():
    """Give the tasks of a packed save of 24 MiB in six batches, for two workers."""
    geometry = Geometry((RamBlock("ram", 24 * MIB),), 512 << 10)
    slots = SlotPlan("", Layout.PACKED, 512 << 10, 4096, 8192)
    return SaveTasks(geometry, slots, lambda start: start)


def _places(tasks):
    return [(worker, task.first, task.argument) for worker, task in tasks]


def test_encoded_batches_of_a_dead_worker_are_encoded_again(packed):
    """A batch that had no place yet is handed out again, before others, and the order is kept."""
    first, second = packed.next_for(0), packed.next_for(1)
    assert packed.finished(1, second, 50) == []
    packed.lost(1, [])

    again = packed.next_for(0)
    assert again == second
    assert _places(packed.finished(0, first, 100)) == [(0, first.first, 8192)]
    assert _places(packed.finished(0, again, 50)) == [(0, second.first, 8292)]


def test_a_place_that_was_given_is_kept(packed):
    """A batch that had its place, and was not written there, goes there from another worker."""
    first, second = packed.next_for(0), packed.next_for(1)
    packed.finished(1, second, 50)
    (_, place), (_, lost) = packed.finished(0, first, 100)
    packed.finished(0, place, 0)
    packed.lost(1, [lost])

    again = packed.next_for(0)
    assert _places(packed.finished(0, again, 50)) == [(0, second.first, 8292)]
    assert packed.end == 8342


def test_a_batch_that_is_larger_the_second_time_is_refused(packed):
    """Packets behind it have their places already."""
    first = packed.next_for(1)
    packed.finished(1, first, 100)
    packed.lost(1, [])

    with pytest.raises(SnapmigError, match="have 101 bytes when compressed again, 100 before"):
        packed.finished(0, packed.next_for(0), 101)


def test_tasks_that_were_not_begun_are_handed_out_again(packed):
    """Nothing is left out, and nothing done twice."""
    given = [packed.next_for(1), packed.next_for(1)]
    packed.lost(1, given)
    seen = []
    while (task := packed.next_for(0)) is not None:
        seen.append(task.first)
        for worker, place in packed.finished(0, task, 10):
            packed.finished(worker, place, 0)

    assert (sorted(seen), packed.end) == ([0, 8, 16, 24, 32, 40], 8192 + 60)


def test_a_worker_that_follows_a_dead_one_has_nothing_on_its_hands(packed):
    """It may hold as many batches as any other."""
    kept = [packed.next_for(1) for _ in range(3)]
    for task in kept[1:]:
        packed.finished(1, task, 10)
    assert packed.next_for(1) is None
    packed.lost(1, [])

    assert {packed.next_for(1), packed.next_for(1)} == set(kept[1:])


def test_a_place_is_no_task_of_its_own(packed):
    """A lost word of a place alone is not handed out: its batch is."""
    first = packed.next_for(1)
    ((_, place),) = packed.finished(1, first, 10)
    packed.lost(1, [place])

    assert packed.next_for(0) == Task(Kind.ENCODE, first.first, first.count, first.argument)


def _in_thread(work):
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - the outcome, whatever it is
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


@contextmanager
def _cancelled():
    cancellation = Cancellation()
    with cancellation.here():
        cancellation.cancel(CancelledError("enough"))
        yield


def test_a_cancellation_arrives_in_its_thread():
    """A loop that asks for it ends."""

    def work():
        with _cancelled():
            raise_if_cancelled()

    assert isinstance(_in_thread(work), CancelledError)


def test_a_cancellation_arrives_once():
    """The clean-up after it is not disturbed."""

    def work():
        with _cancelled():
            with pytest.raises(CancelledError):
                raise_if_cancelled()
            raise_if_cancelled()
            with HeldSignals():
                pass
            return "done"

    assert _in_thread(work) == "done"


def test_a_cancellation_waits_where_signals_do():
    """It arrives at the end of the outermost block that holds signals."""
    seen = []

    def work():
        with _cancelled(), HeldSignals():
            with HeldSignals():
                seen.append("inner")
            seen.append("outer")

    assert isinstance(_in_thread(work), CancelledError)
    assert seen == ["inner", "outer"]


def test_a_cancellation_is_let_in_where_signals_are():
    """It arrives inside of what lets signals in, and what ends there is not disturbed."""
    seen = []

    def work():
        with _cancelled(), HeldSignals() as held:
            try:
                with held.let_in():
                    seen.append("inside")
            finally:
                with HeldSignals():
                    seen.append("clean")

    assert isinstance(_in_thread(work), CancelledError)
    assert seen == ["clean"]


def test_a_thread_without_a_cancellation_is_not_ended():
    """Others' threads have none."""

    def work():
        raise_if_cancelled()
        with HeldSignals():
            return "done"

    assert _in_thread(work) == "done"


@pytest.mark.root
def test_a_save_whose_index_alone_does_not_fit_is_refused_at_once(shm, tmp_path):
    """The error says what is needed at least and what is free, and nothing is left."""
    ram.write_sparse(shm / "a", 4096 * MIB, {0: b"x"})
    with filesystems.mounted("tmpfs", tmp_path / "small", "size=64k") as place:
        with pytest.raises(NoSpaceError, match=r"at least [\d.]+ .iB, and [\d.]+ .iB are free"):
            snapmig.save(shm / "a", place / "s")

        assert list(place.iterdir()) == []
