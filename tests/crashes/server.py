"""
Runs of the program in forked processes, where each would take half a second to start.

One line of JSON in: arguments. One line out: exit code, output, and processes that were left.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.crashes.shim import Control
from tests.support import processes

PR_SET_CHILD_SUBREAPER = 36
LEFT_S = 30.0


def run(arguments: list[str], control: Control | None, out: Path) -> dict[str, Any]:
    """Run the program in a process group of its own, and wait for all its processes."""
    pid = os.fork()
    if pid == 0:
        _run_here(arguments, control, out)
    _, status = os.waitpid(pid, 0)
    left = _reap()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": (out / "out").read_text(),
        "err": (out / "err").read_text(),
        "left": left,
    }


def _run_here(arguments: list[str], control: Control | None, out: Path) -> None:
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            fd = os.open(out / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(fd, number)
            os.close(fd)
        if control is not None:
            control.set_parent(os.getpid())
        from snapmig.commands.main import main

        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _reap() -> int:
    # Orphans are ours. They end with their parent, or they are what a test is looking for.
    end = time.monotonic() + LEFT_S
    left = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return left
        if pid == 0 and time.monotonic() > end:
            left += 1
            for child in _children():
                os.kill(child, signal.SIGKILL)
            end += LEFT_S
        elif pid == 0:
            time.sleep(0.001)


def _children() -> list[int]:
    return processes.children(os.getpid())


def main() -> None:
    """Serve until the input ends."""
    from snapmig.commands.main import VERBS

    for verb in VERBS:  # so that runs find them loaded
        import_module(f"snapmig.commands.{verb}")

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    out = Path(sys.argv[1])
    control = Control.opened(out / "control")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), control, out)), flush=True)


if __name__ == "__main__":
    main()
