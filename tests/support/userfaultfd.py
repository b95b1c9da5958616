"""The kernel's setting for userfaultfd."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTING = Path("/proc/sys/vm/unprivileged_userfaultfd")


@contextmanager
def for_everybody(allowed: bool) -> Iterator[None]:
    """
    Allow its use without privileges, or not, and put the setting back afterwards.

    It is the machine's, and tests may run side by side: those that change it wait.
    """
    with _SETTING.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = _SETTING.read_text()
        _SETTING.write_text(f"{int(allowed)}\n")
        try:
            yield
        finally:
            _SETTING.write_text(before)
