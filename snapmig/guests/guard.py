"""
A guard: a process that lets a guest go on when we are killed while it stands still.

Without one a guest would stay stopped for ever after SIGKILL, which no handler sees.
"""

from __future__ import annotations

import json
import os
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

    :param resume: whether the guest must run afterwards
    :param undo: commands with their arguments that make QEMU's settings what they were
    :raises SnapmigError: it can't be started
    """

    def __init__(
        self, monitor: Monitor, *, resume: bool, undo: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        plan = {
            "parent": os.getpid(),
            "monitor": monitor.fileno(),
            "resume": resume,
            "undo": list(undo),
        }
        try:
            self._process = start_apart([str(_PROGRAM), json.dumps(plan)], monitor.fileno())
        except OSError as error:
            message = f"no process can be started that guards the guest: {error.strerror}"
            raise SnapmigError(message, path=monitor.path) from error

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def dismiss(self) -> None:
        """End it, for the guest was let go; the monitor is only ours again."""
        self._process.tell(b".", _ENDS_S)

    def take_over(self) -> None:
        """Have it let the guest go now, for we can't; it ends by itself, also after our end."""
        self._process.tell(b"", 0)
