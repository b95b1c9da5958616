"""Answers the page faults of a guest that Cloud Hypervisor runs, over a connection of their own."""

from __future__ import annotations

import threading

from snapmig.daemons.offload import FAULT_ROLE, Command, Connection
from snapmig.daemons.slot_files import LazyFiles
from snapmig.errors import SnapmigError

__all__ = ("FaultConnection",)


class FaultConnection(threading.Thread):
    """
    A thread that answers until the other end has everything, or has ended.

    A packet that can't be read is an error of that request only: the hypervisor asks for all
    memory in the background, and ends its guest if the guest itself waits for these pages.

    :ivar answered: requests
    :ivar error: the first
    """

    def __init__(self, connection: Connection, files: LazyFiles) -> None:
        super().__init__(name="faults")
        self._connection = connection
        self._files = files
        self.answered = 0
        self.error: BaseException | None = None
        connection.write(FAULT_ROLE)

    def run(self) -> None:
        """Answer requests."""
        try:
            while self._answer():
                self.answered += 1
        except BaseException as error:  # noqa: BLE001 - the thread's end; raised by its owner
            self.error = self.error or error
        finally:
            self._connection.close()

    def _answer(self) -> bool:
        request = self._connection.request()
        if request is None:
            return False
        if request.command == Command.ABANDON:
            self._connection.answer(ok=True)
            return False
        if request.command != Command.PAGE_FAULT:
            raise SnapmigError(f"Cloud Hypervisor sends {request.command.name} among page faults")
        gpa, length = self._connection.page_range(request)
        try:
            self._files.fill(gpa, length)
        except (SnapmigError, OSError) as error:
            self.error = self.error or error
            self._connection.answer(ok=False)
        else:
            self._connection.answer(ok=True)
        return True
