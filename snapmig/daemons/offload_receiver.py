"""Receives a guest that Cloud Hypervisor hands over to be saved."""

from __future__ import annotations

import os
from typing import NamedTuple

from snapmig.daemons.offload import Command, Connection, Request
from snapmig.errors import SnapmigError

__all__ = ("HandedOver", "receive_guest")

_MOST_SLOTS = 4096

_AFTER = {
    None: (Command.START,),
    Command.START: (Command.MEMORY_FD,),
    Command.MEMORY_FD: (Command.MEMORY_FD, Command.CONFIG),
    Command.CONFIG: (Command.STATE,),
    Command.STATE: (Command.COMPLETE, Command.COMPLETE_PAUSED),
}
"""Commands that may come after each."""


class HandedOver(NamedTuple):
    """
    A guest that stands still until its sender is answered.

    :ivar files: descriptors by slot, to be closed by :meth:`close`
    """

    config: bytes
    state: bytes
    files: dict[int, int]

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.files.values():
            os.close(fd)
        self.files.clear()


def receive_guest(connection: Connection) -> HandedOver:
    """
    Return a guest once all of it is there; its last request is not answered yet.

    :raises SnapmigError: something else comes, or the sender gives up
    """
    files: dict[int, int] = {}
    payloads: dict[Command, bytes] = {}
    try:
        before: Command | None = None
        while before not in (Command.COMPLETE, Command.COMPLETE_PAUSED):
            if before is not None:
                connection.answer(ok=True)
            request = _next(connection, before)
            if request.command == Command.MEMORY_FD:
                slot, fd = connection.memory_fd(request)
                if slot in files or len(files) >= _MOST_SLOTS:
                    os.close(fd)
                    raise SnapmigError(f"memory slot {slot} comes twice, or there are too many")
                files[slot] = fd
            else:
                limit = {} if request.command in (Command.CONFIG, Command.STATE) else {"limit": 0}
                payloads[request.command] = connection.payload(request, **limit)
            before = request.command
    except BaseException:
        HandedOver(b"", b"", files).close()
        raise
    return HandedOver(payloads[Command.CONFIG], payloads[Command.STATE], files)


def _next(connection: Connection, before: Command | None) -> Request:
    request = connection.request()
    after = f"after {before.name}" if before is not None else "at the start"
    if request is None:
        raise SnapmigError(f"Cloud Hypervisor ends the connection {after}")
    if request.command == Command.ABANDON:
        connection.answer(ok=True)
        raise SnapmigError(f"Cloud Hypervisor abandons the guest's migration {after}")
    if request.command not in _AFTER[before]:
        expected = " or ".join(each.name for each in _AFTER[before])
        message = f"Cloud Hypervisor sends {request.command.name} {after}, expected {expected}"
        if request.command == Command.CONFIG and before == Command.START:
            message += ": it needs local=on, and the guest shared memory"
        raise SnapmigError(message)
    return request
