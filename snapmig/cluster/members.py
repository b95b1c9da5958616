"""Workers of a cluster and the jobs that they have, as the client sees them."""

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
    How a job ended.

    :param worker: the name of the worker that did it
    :param code: the exit code of snapmig there
    :param result: its line of JSON, when it is done
    :param message: why it is not
    """

    worker: str
    code: int
    result: Mapping[str, Any] | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Worker:
    """
    A worker.

    :param places: for each host that it serves, how many jobs at a time it takes
    """

    address: str
    name: str
    places: Mapping[str, int]


@dataclass
class RemoteJob:
    """
    A job that was given to a worker.

    :param events: what it tells
    :param future: Dask's own of it
    """

    worker: Worker
    events: SimpleQueue[Mapping[str, Any]]
    future: Any
    begun: bool = False

    def next_event(self, seconds: float) -> Mapping[str, Any] | None:
        """Return what it told, None where it said nothing for so long."""
        with suppress(Empty):
            return self.events.get(timeout=seconds)
        return None


def first_cause(error: BaseException) -> str:
    """Return the words of what an exception comes from, without what was made of it since."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def lost(worker: Worker) -> WorkerDiedError:
    """Return the failure of a job whose worker is gone."""
    return WorkerDiedError(f"worker {worker.name} was lost while it did this")


def read_worker(address: str, facts: Mapping[str, Any]) -> Worker:
    """Return a worker of what a scheduler says of it."""
    threads = int(facts["nthreads"])
    places = {
        host: min(int(count), threads) for host, count in facts["resources"].items() if count >= 1
    }
    return Worker(address, str(facts["name"]), places)
