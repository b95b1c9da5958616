"""
Records of runs: what every benchmark measures, kept and written as lines of JSON.

A line has what was measured: ``operation`` and ``destination`` (the question), ``name`` and
``jobs`` (who answers it), ``role``, ``order`` (its place in tables), ``round``, ``warm_up``, and
figures whose names end with their units: ``wall_s``, ``cpu_s``, ``disk_bytes``. Beside these stand
the facts that figures depend on: ``image...``, ``machine_...``, ``version_...`` of snapmig and of
each peer, and ``git_commit``. ``type`` is ``measurement``, ``missing`` for a peer that is not here,
or what a benchmark concluded: ``choice``, ``costs``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.summary import Record, Results

__all__ = ("MEASUREMENT", "Records", "described", "read_records")

MEASUREMENT = "measurement"


class Records:
    """
    The records of a run; a context manager.

    :param path: a new file of results
    :param known: facts that go into each line
    """

    def __init__(self, path: Path, known: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.known = dict(known)
        self._kept: list[Record] = []

    def __enter__(self) -> Records:
        self._lines = self.path.open("w")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._lines.close()

    def keep(self, record: Record) -> None:
        """Keep what a run measured."""
        record = {**record, **self.known}
        self._kept.append(record)
        self.write(MEASUREMENT, record)

    def write(self, kind: str, record: Record) -> None:
        """Write a line of another type, with the facts."""
        self._lines.write(json.dumps({"type": kind, **record, **self.known}) + "\n")
        self._lines.flush()

    @property
    def results(self) -> Results:
        """All that was measured so far."""
        return Results(self._kept)


def described(operation: str, name: str, number: int, *, jobs: int, **fields: Any) -> Record:
    """
    Return a record with every field that tables ask for.

    :param number: of the round; negative for a warm-up
    :param fields: figures, and fields with other values than the usual ones
    """
    usual = {"role": "snapmig", "destination": None, "order": 0}
    known = {"operation": operation, "name": name, "jobs": jobs, "round": number}
    return {**usual, **known, "warm_up": number < 0, **fields}


def read_records(paths: Iterable[Path]) -> list[Record]:
    """
    Return the measurements in files of results.

    :raises ValueError: a line is none of theirs; with its place
    """
    found = []
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                record = json.loads(line)
                measured = record["type"] == MEASUREMENT
            except (ValueError, TypeError, KeyError) as error:
                message = f"{path}: line {number}: expected a record of a benchmark"
                raise ValueError(message) from error
            if measured:
                found.append(record)
    return found
