"""The program ``snapmig``, and others, in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tests.support.outcome import Outcome

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "COLUMNS")
}
"""The environment without what changes how output is written."""

PROGRAM = (sys.executable, "-m", "snapmig")

LOW = 10
"""A tenth of what another process gets of a processor; at 19 it would be a seventieth."""


def run(*arguments: object, **options: Any) -> Outcome:
    """Run the program to its end."""
    return call([*PROGRAM, *arguments], **{"timeout": 60, "env": ENVIRONMENT, **options})


def call(command: Sequence[object], **options: Any) -> Outcome:
    """Run any program to its end; a stream that goes elsewhere is empty in the outcome."""
    streams = {} if {"stdout", "stderr"} & set(options) else {"capture_output": True}
    done = subprocess.run(list(map(str, command)), check=False, text=True, **streams, **options)
    return Outcome(done.returncode, done.stdout or "", done.stderr or "", command)


def start(*arguments: object, nice: int = LOW, **options: Any) -> subprocess.Popen[str]:
    """Start the program in its own session, at a low priority, so that we overtake it."""
    pipe = subprocess.PIPE
    streams = {"stdout": pipe, "stderr": pipe}
    options = {**streams, "text": True, "env": ENVIRONMENT, "start_new_session": True, **options}
    return subprocess.Popen(["nice", "-n", str(nice), *PROGRAM, *map(str, arguments)], **options)


def end(process: subprocess.Popen[str], timeout: float | None = None) -> Outcome:
    """Wait for the end of a process that was started, at a usual priority: others may need all."""
    with suppress(OSError):  # it has ended, or we may not
        os.setpriority(os.PRIO_PGRP, process.pid, 0)
    out, err = process.communicate(timeout=timeout)
    command = process.args if isinstance(process.args, list) else [process.args]
    return Outcome(process.returncode, out or "", err or "", command)
