"""A mount under way: in this process, or in one that goes on in the background."""

from __future__ import annotations

import os
import sys
import syslog
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import SnapmigError
from snapmig.mounts.session import MountOptions, serve
from snapmig.mounts.tree import Folder
from snapmig.printable import printable
from snapmig.system.background import run_in_background, spare_from_oom
from snapmig.system.libc import hide_memory
from snapmig.system.limits import forbid_core_dumps

__all__ = ("Report", "Serving", "run_mount")

_SWITCH_S = 0.0005
"""A thread with a packet waits that long for the interpreter: a tenth of the default, because each
packet takes 0.2 ms of it and 1.2 ms without it."""

_QUIET_S = 1.0
"""Until the images are planned unasked: a guest that starts from the mount needs none of them."""

Report = Callable[[str], None]
"""Takes a sentence."""


class Serving(NamedTuple):
    """
    A mount to be served.

    :param open_tree: opens everything in the process that serves; takes a report of damage
    """

    open_tree: Callable[[Report], AbstractContextManager[Folder]]
    directory: Path
    options: MountOptions
    log: Path | None


def run_mount(serving: Serving, *, foreground: bool, notice: Report) -> int:
    """
    Mount, and return the server's pid once the files can be read, in the foreground at the end.

    :param notice: in the foreground, takes what would go to the log
    :raises SnapmigError: it can't be opened, or not be mounted
    """
    if foreground:
        report = notice if serving.log is None else _to_file(serving.log)
        shown = f"{serving.options.shown} is mounted at {serving.directory}"
        _serve(serving, report, lambda: notice(shown))
        return os.getpid()

    def work(ready: Callable[[], None]) -> None:
        sys.setswitchinterval(_SWITCH_S)
        report = _to_syslog() if serving.log is None else _to_file(serving.log)
        _serve(serving, report, ready)

    return run_in_background(work)


def _serve(serving: Serving, report: Report, ready: Callable[[], None]) -> None:
    forbid_core_dumps()
    with serving.open_tree(report) as root:
        spare_from_oom()
        hide_memory()

        def ready_and_planned() -> None:
            ready()
            time.sleep(_QUIET_S)
            with suppress(SnapmigError, OSError):  # who looks gets the error
                list(root.names())

        serve(root, serving.directory, serving.options, ready=ready_and_planned, report=report)


def _to_file(path: Path) -> Report:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def report(sentence: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        os.write(fd, f"{stamp} {printable(sentence)}\n".encode("utf-8", "backslashreplace"))

    return report


def _to_syslog() -> Report:
    syslog.openlog("snapmig", syslog.LOG_PID, syslog.LOG_DAEMON)

    def report(sentence: str) -> None:
        line = printable(sentence).encode("utf-8", "backslashreplace").decode()
        syslog.syslog(syslog.LOG_ERR, line)

    return report
