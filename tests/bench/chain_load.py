"""
The steady load of a guest whose snapshots build on each other: it runs inside the guest.

It begins where the guest's workload, whose module lies beside it there, has filled memory.

Each step changes about :data:`SHARE` of the guest's memory and takes a second, where the machine
is fast enough: records of a program, rows of a database, files and logs. A batch job goes through
them in order, so that what changes lies together; random access changes as much all over.
"""

import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

READY = "snapmig-load: ready"
STEP = "snapmig-load: step %d."
BATCH_STEPS = 12
"""Steps of the batch job; random access after them."""
SHARE = 0.007
STEP_SECONDS = 1.0

# What each kind of work has of the pages of a step, and how much of it changes one.
RECORDS, ROWS, FILES, LOGS = 0.4, 0.2, 0.2, 0.2
RECORDS_A_PAGE = 6
ROWS_A_PAGE = 40
EVERY = 4
"""Of the rows that the batch job goes through, it changes each fourth."""
LOG_STEPS = 4
"""Steps after which the log starts again in a new file, the old one removed."""
PAGE = 4096


class Load:
    """
    The changes, and the progress of the batch job.

    :param records: the dictionaries that the workload made
    :param pages: to change in a step, about
    """

    def __init__(self, folder: Path, records: list[Any], pages: int, lines: Iterator[str]) -> None:
        self._source = random.Random(6)
        self._folder = folder
        self._records = records
        self._pages = pages
        self._lines = lines
        self._database = sqlite3.connect(folder / "messages.sqlite", isolation_level=None)
        self._database.executescript("pragma synchronous = off; pragma journal_mode = off")
        (self._rows,) = self._database.execute("select max(id) from messages").fetchone()
        self._files = sorted((folder / "copies").iterdir(), key=lambda path: int(path.name))
        self._next = {"record": 0, "row": 0, "file": 0}

    def step(self, number: int) -> None:
        """Change the pages of one step."""
        in_order = number <= BATCH_STEPS
        self._change_records(int(self._pages * RECORDS), in_order=in_order)
        self._change_rows(int(self._pages * ROWS), in_order=in_order)
        self._write_files(int(self._pages * FILES))
        self._write_log(int(self._pages * LOGS), number)

    def _change_records(self, pages: int, *, in_order: bool) -> None:
        # In order all records of a page are changed, else one of them.
        for record in self._some("record", pages * (RECORDS_A_PAGE if in_order else 1), in_order):
            found = self._records[record]
            found["key"] = self._source.getrandbits(62)
            found["tags"][2] = self._source.random()

    def _change_rows(self, pages: int, *, in_order: bool) -> None:
        # The length stays, so that a row stays on its page.
        change = "update messages set text = substr(text, 5) || substr(text, 1, 4) where id = ?"
        rows = self._some("row", pages * (ROWS_A_PAGE if in_order else 1), in_order)
        self._database.execute("begin")
        self._database.executemany(
            change, ((row,) for row in rows if row % EVERY == 0 or not in_order)
        )
        self._database.execute("commit")

    def _write_files(self, pages: int) -> None:
        # Others' contents over those of a file, as a new version of a program is installed.
        left = pages * PAGE
        while left > 0 and self._files:
            (at,) = self._some("file", 1, in_order=True)
            path = self._files[at]
            content = self._files[at - 1].read_bytes()[: min(left, path.stat().st_size)]
            with path.open("r+b") as stream:
                stream.write(content)
            left -= len(content) + PAGE

    def _write_log(self, pages: int, number: int) -> None:
        path = self._folder / f"load.{number // LOG_STEPS}"
        with path.open("a") as stream:
            while stream.tell() < pages * PAGE * (number % LOG_STEPS + 1):
                stream.write(next(self._lines))
        if number >= LOG_STEPS:
            old = self._folder / f"load.{number // LOG_STEPS - 1}"
            old.unlink(missing_ok=True)

    def _some(self, kind: str, count: int, in_order: bool) -> Iterator[int]:
        total = {"record": len(self._records), "row": self._rows, "file": len(self._files)}[kind]
        if not in_order:
            return (self._source.randrange(total) for _ in range(count))
        first = self._next[kind]
        self._next[kind] = (first + count) % total
        return (at % total for at in range(first, first + count))


def main() -> None:
    """Fill memory as the workload does, then change it step by step for ever."""
    import workload  # the other file of the archive that this runs from

    records = workload.fill()
    lines = workload.log_blocks(1 << 40, random.Random(7))
    load = Load(workload.WORK, records, int(workload.memory("MemTotal") * SHARE / PAGE), lines)
    print(READY, flush=True)
    number = 0
    while True:
        number += 1
        started = time.monotonic()
        load.step(number)
        took = time.monotonic() - started
        print(STEP % number, f"{took:.2f} s", flush=True)
        time.sleep(max(0.0, STEP_SECONDS - took))


if __name__ == "__main__":
    sys.exit(main())
