"""The program ``snapmig`` in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "COLUMNS")
}
"""The environment without what changes how output is written."""

PROGRAM = (sys.executable, "-m", "snapmig")


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, with its output as text."""
    streams = {} if {"stdout", "stderr"} & set(options) else {"capture_output": True}
    options = {"text": True, "timeout": 60, "env": ENVIRONMENT, **streams, **options}
    return subprocess.run([*PROGRAM, *map(str, arguments)], check=False, **options)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start the program in its own session, at a low priority, so that we overtake it."""
    pipe = subprocess.PIPE
    streams = {"stdout": pipe, "stderr": pipe}
    options = {**streams, "text": True, "env": ENVIRONMENT, "start_new_session": True, **options}
    return subprocess.Popen(["nice", "-n", "19", *PROGRAM, *map(str, arguments)], **options)
