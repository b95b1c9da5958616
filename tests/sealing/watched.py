"""A program caught in the middle of its work, with its workers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import program
from tests.support.processes import children, wait_for


@contextmanager
def caught(*words: object, user: int = 0, **options: object) -> Iterator[tuple[int, list[int]]]:
    """Run the program, slowly, with two workers; give its process and theirs."""
    before = [] if not user else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    command = [*before, *program.PROGRAM, *words, "-j", 2, "--bwlimit", "40K"]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=program.ENVIRONMENT,
        **options,
    )
    try:
        workers = wait_for(lambda: two(process))
        yield process.pid, workers
    finally:
        process.kill()
        process.communicate()


def two(process: subprocess.Popen[str]) -> list[int]:
    """Return both workers once they have begun to work."""
    assert process.poll() is None, process.communicate()[0]
    found = children(process.pid)
    busy = [pid for pid in found if is_busy(pid)]
    return busy if len(busy) == 2 else []


def is_busy(pid: int) -> bool:
    """Return whether a worker has a handler: it has ended its imports and has the image mapped."""
    try:
        return "guest0.ram" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
