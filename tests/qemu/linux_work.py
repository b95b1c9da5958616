"""
Work of a Linux guest while it is saved: added to the functions of the guests' workload.py.

Each pass has checksums of a buffer, of files in memory, and of programs read afresh from the disk,
and SQLite's own check of a database. None of them must ever change.
"""

import hashlib
import random
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.guests.workload import READY, WORK, write_database, write_logs, write_random

MIB = 1 << 20
PROGRAMS = ("bash", "busybox", "sha256sum")


def sum_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_database() -> str:
    """Return SQLite's findings in the database, or `ok`."""
    database = sqlite3.connect(WORK / "messages.sqlite")
    try:
        return str(database.execute("pragma integrity_check").fetchone()[0])
    finally:
        database.close()


def watch(buffer: bytes) -> None:
    """Count for ever."""
    number = 0
    files = sorted(path for path in WORK.rglob("*") if path.is_file())
    programs = [Path("/usr/bin", name) for name in PROGRAMS]
    while True:
        number += 1
        Path("/proc/sys/vm/drop_caches").write_text("3")
        sums = hashlib.sha256(buffer).hexdigest(), sum_of(files), sum_of(programs)
        print(f"count {number} sum {' '.join(sums)} {check_database()}", flush=True)
        time.sleep(0.1)


def work() -> None:
    """Fill some memory, report it, and count."""
    write_random(4 * MIB)
    write_logs(12 * MIB, random.Random(3))
    write_database(3 * MIB, random.Random(2))
    buffer = random.Random(5).randbytes(2 * MIB)
    print(READY, flush=True)
    watch(buffer)


if __name__ == "__main__":
    work()
