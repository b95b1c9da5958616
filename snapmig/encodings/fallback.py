"""
An engine backed by software: failed jobs are repeated in software, and the run goes on.

Failures are noted for a warning. After several in a row the engine is no longer used.
"""

from __future__ import annotations

from collections import deque

from snapmig.encodings.coders import Coder, Done, EngineError
from snapmig.system.files import Buffer

__all__ = ("Failures", "Fallback")

FAILURES_IN_A_ROW = 3
"""Failures after which a worker does without an engine."""
MAX_NOTES = 3


class Failures:
    """
    Failures of engines in one worker.

    :ivar count: packets done by software instead
    """

    def __init__(self) -> None:
        self.count = 0
        self._notes: list[str] = []
        self._told = 0

    def add(self, sentence: str) -> None:
        """Note a failure. The first few are reported, the others counted."""
        self.count += 1
        if len(self._notes) + self._told < MAX_NOTES and sentence not in self._notes:
            self._notes.append(sentence)

    def take(self) -> list[str]:
        """Return the new sentences."""
        notes, self._notes = self._notes, []
        self._told += len(notes)
        return notes


class Fallback:
    """
    A coder of an engine, backed by software.

    :param name: the engine's, for the notes
    :param failures: collects a sentence for each failed job
    """

    def __init__(self, name: str, engine: Coder, software: Coder, failures: Failures) -> None:
        self.depth = engine.depth
        self._name = name
        self._engine = engine
        self._software = software
        self._failures = failures
        self._in_a_row = 0
        self._before = 0
        self._jobs: dict[int, tuple[Buffer, int]] = {}
        self._put_off: deque[int] = deque()

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """Start a job."""
        self._jobs[key] = data, size
        if self._in_a_row >= FAILURES_IN_A_ROW:
            self._put_off.append(key)
        else:
            self._engine.submit(key, data, size)

    def reap(self) -> Done:
        """Wait for one of the jobs in flight."""
        if self._put_off:
            key = self._put_off.popleft()
            return self.again(key, *self._jobs.pop(key))
        done = self._engine.reap()
        data, size = self._jobs.pop(done.key)
        # Faults found by the caller continue this count.
        self._before, self._in_a_row = self._in_a_row, 0
        if isinstance(done.error, EngineError):
            self.blame(str(done.error))
            return self.again(done.key, data, size)
        return done

    def blame(self, reason: str) -> None:
        """Count the last reaped job as failed and redone in software."""
        self._failures.add(f"{self._name}: {reason}")
        self._in_a_row = self._before + 1

    def again(self, key: int, data: Buffer, size: int) -> Done:
        """Repeat a job in software because the engine's result looks wrong."""
        self._software.submit(key, data, size)
        return self._software.reap()
