"""Work in several processes that begin it together."""

import mmap
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

PATIENCE_S = 600


@dataclass(frozen=True)
class ParallelTime:
    """
    The time of processes, in seconds.

    :param slowest: from the first one's begin to the last one's end
    :param mean: what each of them worked on average; less than the slowest where they were uneven
    :param cpu: processor time of all of them
    """

    slowest: float
    mean: float
    cpu: float


def in_processes(
    jobs: int, work: Callable[[Any], None], prepare: Callable[[int], Any] = lambda number: number
) -> ParallelTime:
    """
    Fork processes; each prepares, waits for all others, and works; only the work is timed.

    :param prepare: gets the number of the process; its result goes to ``work``
    :raises RuntimeError: a process failed
    """
    with processes_at_work(jobs, work, prepare) as wait:
        return wait()


@contextmanager
def processes_at_work(
    jobs: int, work: Callable[[Any], None], prepare: Callable[[int], Any] = lambda number: number
) -> Iterator[Callable[[], ParallelTime]]:
    """
    Fork processes as `in_processes`, and give a function that waits for their ends.

    They are killed at the end of the block.
    """
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(jobs)
    processes, pipes = [], []

    def wait() -> ParallelTime:
        begins, ends, cpu = zip(*map(_receive, pipes), strict=True)
        worked = [end - begin for begin, end in zip(begins, ends, strict=True)]
        return ParallelTime(max(ends) - min(begins), sum(worked) / jobs, sum(cpu))

    try:
        for number in range(jobs):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (number, barrier, theirs, prepare, work)
            process = context.Process(target=_child, args=arguments, daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        yield wait
    finally:
        for process in processes:
            process.join(1)
            process.kill()
            process.join()


def populate(mapping: mmap.mmap, start: int, length: int) -> None:
    """Make the page tables of a mapped range complete, so that reading it faults no more."""
    populate_read = 22  # MADV_POPULATE_READ, Linux 5.14; Python has no name for it
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    with suppress(OSError):
        mapping.madvise(populate_read, first, start + length - first)


def _child(
    number: int,
    barrier: Any,
    pipe: Connection,
    prepare: Callable[[int], Any],
    work: Callable[[Any], None],
) -> None:
    prepared = prepare(number)
    barrier.wait(PATIENCE_S)
    begin, cpu = time.monotonic(), time.process_time()
    work(prepared)
    pipe.send((begin, time.monotonic(), time.process_time() - cpu))


def _receive(pipe: Connection) -> tuple[float, float, float]:
    if not pipe.poll(PATIENCE_S):
        raise RuntimeError("a process of a limit does not end")
    try:
        times: tuple[float, float, float] = pipe.recv()
    except EOFError as error:
        raise RuntimeError("a process of a limit failed") from error
    return times
