"""
The work of a Linux guest: run inside the guest by its own Python, never imported.

It fills memory with typical contents (text, databases, objects, file copies, a little random data),
frees some of it again, reports that it is ready and then counts, each pass with the SHA-256 of a
buffer that must never change.
"""

import gc
import gzip
import hashlib
import os
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

READY = "snapmig-guest: ready"
WORK = Path("/job")
# Share of each kind of work in the memory free at the start.
LOGS = 0.18
DATABASE = 0.11
RANDOM = 0.03
OBJECTS = 0.25
SCRATCH = 0.04
# Files are read and copied until this share of memory is free; the scratch share is freed after it.
FREE_AT_PEAK = 0.27
BUFFER_BYTES = 2 << 20
LINES = 4096
PASS_SECONDS = 1.0

HOSTS = ("web-1", "web-2", "db-1", "cache-1", "mail-1", "build-7")
PROGRAMS = ("nginx", "sshd", "postgres", "kernel", "cron", "systemd", "redis", "app")
# Each takes three numbers.
EVENTS = (
    "accepted connection from 10.1.%d.17 port %d, session %d",
    "GET /api/v1/items/%d?page=%d HTTP/1.1 200 %d",
    "checkpoint complete: wrote %d buffers, %d files added, %d removed",
    "session opened for user app (uid=%d) by pid %d, seat %d",
    "POST /login HTTP/1.1 302 %d upstream %d in %d ms",
    "job %d finished on worker %d after %d retries",
    "cache miss for key user:%d:profile:%d, fetched %d bytes",
)


def memory(name: str) -> int:
    """Bytes of a line of /proc/meminfo."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def say(text: str) -> None:
    """Write a line to the serial port with the time since the kernel started."""
    uptime = Path("/proc/uptime").read_text().split()[0]
    print(f"[{uptime}] {text}", flush=True)


def log_template(source: random.Random) -> str:
    """Log lines with places for a day and numbers: filling them in is one fast operation."""
    lines = []
    for number in range(LINES):
        clock = f"{number // 170:02d}:{number // 3 % 60:02d}:{number * 7 % 60:02d}"
        program = f"{source.choice(PROGRAMS)}[{source.randrange(30000)}]"
        text = f"DAY {clock} {source.choice(HOSTS)} {program}: {source.choice(EVENTS)}"
        lines.append(text)
    return "\n".join(lines) + "\n"


def log_blocks(size: int, source: random.Random) -> Iterator[str]:
    """Log text of about a size, one day in each block."""
    template = log_template(source)
    made = day = 0
    while made < size:
        date = f"2025-{day // 28 % 12 + 1:02d}-{day % 28 + 1:02d}"
        numbers = memoryview(source.randbytes(LINES * 3 * 2)).cast("H")
        block = template.replace("DAY", date) % tuple(numbers)
        made += len(block)
        day += 1
        yield block


def write_logs(size: int, source: random.Random) -> None:
    """Write logs, and the rotated ones compressed, as log rotation leaves them."""
    folder = WORK / "log"
    folder.mkdir()
    for number, text in enumerate(log_blocks(size, source)):
        block = text.encode()
        if number % 16 == 15:
            (folder / f"messages.{number}.gz").write_bytes(gzip.compress(block, 1))
        with (folder / f"messages.{number // 16}").open("ab") as stream:
            stream.write(block)


def write_random(size: int) -> None:
    """Write incompressible data, such as keys, media files and encrypted data."""
    with (WORK / "random").open("wb") as stream:
        for _ in range(max(1, size >> 20)):
            stream.write(os.urandom(1 << 20))


def write_database(size: int, source: random.Random) -> None:
    """Fill a table with log lines, make an index on part of them, and delete some."""
    database = sqlite3.connect(WORK / "messages.sqlite")
    database.executescript("pragma synchronous = off; pragma journal_mode = off")
    database.execute("create table messages (id integer primary key, text)")
    for block in log_blocks(int(size * 0.8), source):
        with database:
            lines = block.splitlines()
            database.executemany("insert into messages (text) values (?)", zip(lines, strict=True))
    with database:
        database.execute("create index recent on messages (text) where id % 8 = 0")
        database.execute("delete from messages where id % 16 = 3")
    total = database.execute("select count(*), sum(length(text)) from messages").fetchone()
    say(f"database holds {total[0]} messages of {total[1]} characters")
    database.close()


def make_objects(size: int, source: random.Random) -> list[object]:
    """Build lists, dictionaries, numbers and strings until they take up a size."""
    gc.disable()
    start = resident()
    made: list[object] = []
    while resident() - start < size:
        for number in range(LINES):
            word = source.getrandbits(62)
            record = {"id": number, "key": word, "name": f"user-{word & 0xFFFFF}", "next": None}
            record["tags"] = [HOSTS[word % 6], PROGRAMS[word % 8], (word >> 20) / 7.0]
            record["mail"] = f"{record['name']}@{HOSTS[word % 6]}.example"
            made.append(record)
    gc.freeze()
    return made


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def program_files() -> Iterator[Path]:
    """Give the files of the guest's own system."""
    for folder, folders, files in os.walk("/usr"):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink():
                yield path


def read_programs(free: int) -> None:
    """Read the system's files into the page cache until so much memory is free."""
    for path in program_files():
        with path.open("rb") as stream:
            while stream.read(1 << 20):
                pass
        if memory("MemFree") <= free:
            return


def copy_programs(free: int) -> None:
    """Copy the system's files until so much memory is free."""
    for number, path in enumerate(program_files()):
        if memory("MemFree") <= free:
            return
        shutil.copyfile(path, WORK / "copies" / str(number))


def in_child(work: Callable[[], None]) -> int:
    """Do work in a child process, so that both processors are busy."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except (OSError, sqlite3.Error, MemoryError) as error:
        say(f"failed: {error!r}")
    finally:
        os._exit(code)


def write_files(free: int) -> None:
    """Do all work on files."""
    write_random(int(free * RANDOM))
    write_database(int(free * DATABASE), random.Random(2))
    say("database written")


def wait_child(child: int) -> None:
    """Wait for a process and fail if it failed."""
    if os.waitpid(child, 0)[1]:
        raise SystemExit("snapmig-guest: failed")


def fill() -> list[object]:
    """Do all the work once; return everything to keep in memory."""
    total, free = memory("MemTotal"), memory("MemFree")
    say(f"work starts, {free >> 20} of {total >> 20} MiB free")
    child = in_child(lambda: write_files(free))
    scratch = WORK / "scratch"
    (WORK / "copies").mkdir()
    objects = make_objects(int(free * OBJECTS), random.Random(1))
    say(f"{len(objects)} objects made")
    write_logs(int(free * LOGS), random.Random(3))
    say("logs written")
    wait_child(child)
    scratch.write_bytes(random.Random(4).randbytes(4096) * int(free * SCRATCH / 4096))
    read_programs(int(total * FREE_AT_PEAK))
    say(f"files read, {memory('MemFree') >> 20} MiB free")
    copy_programs(int(total * FREE_AT_PEAK))
    scratch.unlink()
    say(f"files copied, {memory('MemFree') >> 20} MiB free")
    return objects


def count(buffer: bytes) -> None:
    """Count for ever."""
    number = 0
    while True:
        number += 1
        print(f"count {number} sum {hashlib.sha256(buffer).hexdigest()}", flush=True)
        time.sleep(PASS_SECONDS)


def main() -> None:
    """Fill memory, report it, and count."""
    kept = fill()
    buffer = random.Random(5).randbytes(BUFFER_BYTES)
    print(READY, flush=True)
    count(buffer)
    sys.exit(len(kept))


if __name__ == "__main__":
    main()
