"""
A guard: a process to resume the guest if we are killed while it is paused.

SIGKILL can't be handled, so without a guard the guest would stay paused for ever.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.guests.monitor import Monitor
from snapmig.system.children import start_apart

__all__ = ("Guard",)

_PROGRAM = Path(__file__).with_name("guard_process.py")
_ENDS_S = 5.0


class Guard:
    """
    A guard of the guest behind a monitor, from now on.

    :param resume: True if the guest must run afterwards
    :param undo: commands with their arguments, to restore QEMU's settings
    :param stream: a connection of a migration that must come to its end, and is read by the guard
        for that if we are killed
    :param private: a path of a socket to remove together with its folder then; empty for none
    :raises SnapmigError: it can't be started
    """

    def __init__(
        self,
        monitor: Monitor,
        *,
        resume: bool,
        undo: Sequence[tuple[str, dict[str, Any]]],
        stream: socket.socket | None = None,
        private: str = "",
    ) -> None:
        plan = {
            "parent": os.getpid(),
            "monitor": monitor.fileno(),
            "renewal": monitor.renewal,
            "resume": resume,
            "undo": list(undo),
            "stream": None if stream is None else stream.fileno(),
            "private": private,
        }
        fds = [each.fileno() for each in (monitor, stream) if each is not None]
        try:
            self._process = start_apart([str(_PROGRAM), json.dumps(plan)], fds)
        except OSError as error:
            message = f"can't start the process to guard the guest: {error.strerror}"
            raise SnapmigError(message, path=monitor.path) from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """End it, because the guest was resumed; the monitor is ours alone again."""
        self._process.tell(b".", _ENDS_S)

    def take_over(self) -> None:
        """Have it resume the guest now, because we can't; then it ends by itself."""
        self._process.tell(b"", 0)
