"""Workers of a cluster and their jobs, from the client's side."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from snapmig.errors import WorkerDiedError

__all__ = ("Answer", "RemoteJob", "Worker", "first_cause", "lost", "read_worker")


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The outcome of a job.

    :param worker: name of the worker that ran it
    :param code: exit code of snapmig there
    :param result: its line of JSON on success
    :param message: the reason of a failure
    """

    worker: str
    code: int
    result: Mapping[str, Any] | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Worker:
    """
    A worker.

    :param places: number of jobs at a time for each host it serves
    """

    address: str
    name: str
    places: Mapping[str, int]


@dataclass
class RemoteJob:
    """
    A job given to a worker.

    :param events: its messages
    :param future: its future in Dask
    """

    worker: Worker
    events: SimpleQueue[Mapping[str, Any]]
    future: Any
    begun: bool = False

    def next_event(self, seconds: float) -> Mapping[str, Any] | None:
        """Return its next message, or None after a time-out."""
        with suppress(Empty):
            return self.events.get(timeout=seconds)
        return None


def first_cause(error: BaseException) -> str:
    """Return the message of an exception's first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def lost(worker: Worker) -> WorkerDiedError:
    """Return the error for a job lost with its worker."""
    return WorkerDiedError(f"worker {worker.name} was lost while it did this")


def read_worker(address: str, facts: Mapping[str, Any]) -> Worker:
    """Return a worker from the scheduler's description."""
    threads = int(facts["nthreads"])
    places = {
        host: min(int(count), threads) for host, count in facts["resources"].items() if count >= 1
    }
    return Worker(address, str(facts["name"]), places)
