"""QEMU started with a monitor of its own, waiting for the guest of a snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from snapmig.errors import SnapmigError
from snapmig.system.foreground import Foreground
from snapmig.system.private_folder import PrivateFolder
from snapmig.system.signals import remarked

__all__ = ("Launched", "launched")

_START_S = 60.0
"""Seconds for QEMU to open its monitor: it allocates its memory before."""
_END_S = 0.5
"""Seconds for a QEMU without a monitor to end."""
_LOOK_S = 0.005


class Launched:
    """
    A QEMU that was started.

    :ivar monitor: path of its monitor's socket
    """

    def __init__(self, program: Foreground, name: str, monitor: Path) -> None:
        self._program = program
        self._name = name
        self.monitor = monitor

    def wait(self) -> int:
        """Wait for its end and return its exit status; 0 if it went to the background."""
        return self._program.wait() or 0

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """
        Tell a failure of the block by QEMU's end, if it ended.

        It opens its monitor before its devices, and a refused one closes that.
        """
        try:
            yield
        except SnapmigError:
            self._check(self._program.wait(_END_S))
            raise

    def wait_for_monitor(self) -> None:
        """
        Wait until its monitor can be reached.

        :raises SnapmigError: it ended, or takes too long
        """
        until = time.monotonic() + _START_S
        while not self.monitor.exists():
            self._check(self._program.ended())
            if time.monotonic() > until:
                raise SnapmigError(f"{self._name} opened no monitor in {_START_S:g} s")
            time.sleep(_LOOK_S)

    def _check(self, status: int | None) -> None:
        if status not in (None, 0):  # with -daemonize it goes on in the background
            reason = f"exit status {status}" if status >= 0 else f"signal {-status}"
            raise SnapmigError(f"{self._name} ended before the guest was restored: {reason}")


@contextmanager
def launched(words: Sequence[str]) -> Iterator[Launched]:
    """
    Start QEMU, waiting for a migration.

    It is ended if the block fails. Its monitor's socket goes with the block.

    :raises SnapmigError: it can't be started
    """
    with PrivateFolder() as folder:
        socket = folder.path.with_name("monitor")
        option = str(socket).replace(",", ",,")
        monitor = ("-qmp", f"unix:{option},server=on,wait=off")
        command = [*words, *monitor, "-incoming", "defer"]
        # What was said of its guest, such as that it waits, is true no longer.
        with Foreground(command) as program, remarked(f"{words[0]} was ended", alone=True):
            yield Launched(program, words[0], socket)
