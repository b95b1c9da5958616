"""Facts about coders, and about engines that software stands behind."""

import pytest

from snapmig.encodings.coders import EngineError, Immediate
from snapmig.encodings.fallback import Failures, Fallback
from snapmig.errors import CorruptSnapshotError
from tests.support.coders import Late, always, failing, never


def twice(data, _size):
    """Return the data two times."""
    return data * 2


def run(coder, count):
    """Have a coder double numbers, with as many in flight as it takes; return results by key."""
    done, flying = [], 0
    for key in range(count):
        coder.submit(key, b"%d" % key, 0)
        flying += 1
        if flying == coder.depth:
            done.append(coder.reap())
            flying -= 1
    done += [coder.reap() for _ in range(flying)]
    assert len({job.key for job in done}) == count
    return {job.key: job.result for job in done}


def doubled(count):
    """Return what `run` should."""
    return {key: b"%d%d" % (key, key) for key in range(count)}


def guarded(function, depth=4):
    """Return an engine's coder with software behind it, the engine's own, and its failures."""
    engine = Late(function)
    engine.depth = depth
    failures = Failures()
    return Fallback("engine", engine, Immediate(twice), failures), engine, failures


def test_a_function_is_a_coder():
    """The value that a function returns is reaped under the key of the job."""
    coder = Immediate(twice)
    coder.submit(7, b"x", 0)

    assert coder.reap() == (7, b"xx", None)


@pytest.mark.parametrize("error", [EngineError("x"), CorruptSnapshotError("x")])
def test_an_error_of_a_function_is_reaped(error):
    """Errors of engines and of streams do not come out of submit."""

    def raises(_data, _size):
        raise error

    coder = Immediate(raises)
    coder.submit(7, b"x", 0)

    assert coder.reap() == (7, None, error)


def test_another_error_is_a_bug():
    """Anything else comes out at once."""

    def raises(_data, _size):
        raise LookupError

    with pytest.raises(LookupError):
        Immediate(raises).submit(7, b"x", 0)


@pytest.mark.parametrize("submitted", [0, 1])
def test_nothing_is_reaped_twice(submitted):
    """Where no job is in flight, there is nothing to wait for."""
    coder = Immediate(twice)
    for _ in range(submitted):
        coder.submit(7, b"x", 0)
        coder.reap()

    with pytest.raises(RuntimeError, match="no job"):
        coder.reap()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_an_engine_that_works_does_everything(depth):
    """Without a failure software is not asked, and nothing is noted."""
    coder, engine, failures = guarded(failing(twice, never), depth)

    assert run(coder, 20) == doubled(20)
    assert (len(engine.submitted), failures.count, failures.take()) == (20, 0, [])


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3, 4, 7, 50])
@pytest.mark.parametrize(
    "fails",
    [
        always,
        lambda call: call == 0,
        lambda call: call % 2,
        lambda call: call % 5 < 3,
        lambda call: call >= 6,
    ],
    ids=["always", "once", "every other", "three of five", "after a while"],
)
def test_no_job_is_lost(fails, count, depth):
    """However an engine fails, with jobs in flight or without, each job is done once."""
    coder, _, _ = guarded(failing(twice, fails), depth)

    assert run(coder, count) == doubled(count)


def test_failures_are_counted_and_told_once():
    """A reason is told once, however often it was the reason."""
    coder, _, failures = guarded(failing(twice, lambda call: call % 2), depth=1)
    run(coder, 10)

    assert (failures.count, failures.take(), failures.take()) == (5, ["engine: broke"], [])


def test_only_the_first_reasons_are_told():
    """An engine with many reasons fills no screen."""
    failures = Failures()
    told = []
    for number in range(10):
        failures.add(f"reason {number}")
        told += failures.take()

    assert (failures.count, told) == (10, ["reason 0", "reason 1", "reason 2"])


def test_after_three_failures_in_a_row_an_engine_is_left_alone():
    """Jobs in flight are reaped, and no more are submitted."""
    coder, engine, failures = guarded(failing(twice, always))
    run(coder, 50)

    assert (len(engine.submitted), failures.count) == (6, 6)


def test_failures_with_successes_between_are_not_in_a_row():
    """An engine that mostly works is kept."""
    coder, engine, _ = guarded(failing(twice, lambda call: call % 3), depth=1)
    run(coder, 50)

    assert len(engine.submitted) == 50


def test_corrupt_input_is_not_an_engines_failure():
    """Bytes that can't be decoded are for the caller to judge."""

    def raises(_data, _size):
        raise CorruptSnapshotError("not a stream")

    coder, _, failures = guarded(raises)
    coder.submit(1, b"x", 0)

    assert (coder.reap().error.message, failures.count) == ("not a stream", 0)


def test_what_a_caller_finds_wrong_is_done_again():
    """A result that is not what it should be is noted, and software's is returned."""
    coder, _, failures = guarded(lambda _data, _size: b"wrong")
    coder.submit(1, b"x", 0)
    coder.reap()
    done = coder.again(1, b"x", 0)
    coder.blame("wrong bytes")

    assert (done.result, failures.take()) == (b"xx", ["engine: wrong bytes"])


def test_an_engine_that_is_always_wrong_is_left_alone():
    """Wrong results in a row count like failures in a row."""
    coder, engine, failures = guarded(lambda _data, _size: b"wrong", depth=1)
    for key in range(20):
        coder.submit(key, b"x", 0)
        done = coder.reap()
        if done.result == b"wrong":
            coder.again(key, b"x", 0)
            coder.blame("wrong bytes")

    assert (len(engine.submitted), failures.count) == (3, 3)
