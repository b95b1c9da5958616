"""A program caught in the middle of its work, with its worker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import program
from tests.support.processes import children, wait_for


@contextmanager
def caught(*words: object, user: int = 0, **options: object) -> Iterator[tuple[int, int]]:
    """Run the program, slowly, with a worker; give its process and the worker's."""
    before = [] if not user else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    command = [*before, *program.PROGRAM, *words, "--bwlimit", "40K"]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=program.ENVIRONMENT,
        **options,
    )
    try:
        yield process.pid, wait_for(lambda: busy_worker(process))
    finally:
        process.kill()
        process.communicate()


def busy_worker(process: subprocess.Popen[str]) -> int | None:
    """Return the worker once it has begun to work: so small a guest has one."""
    assert process.poll() is None, process.communicate()[0]
    return next(filter(is_busy, children(process.pid)), None)


def is_busy(pid: int) -> bool:
    """Return whether a worker has a handler: it has ended its imports and has the image mapped."""
    try:
        return "guest0.ram" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
