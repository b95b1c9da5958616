"""The process at the other end of a UNIX socket."""

from __future__ import annotations

import os
import signal
import socket
import struct

from snapmig.errors import SnapmigError

__all__ = ("Peer",)

_CREDENTIALS = struct.Struct("=iII")  # pid, uid and gid, in the order of the processor
_SO_PEERPIDFD = 77
"""Since Linux 6.5; Python has no name for it."""


class Peer:
    """
    A process that has connected to us, held so that its pid can't become another's.

    :raises SnapmigError: it can't be seen from here, or runs as a user that may not connect
    """

    def __init__(self, connection: socket.socket, allowed: frozenset[int]) -> None:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, uid, _ = _CREDENTIALS.unpack(raw)
        if uid not in allowed:
            users = " or ".join(map(str, sorted(allowed)))
            raise SnapmigError(f"process {self.pid} runs as user {uid}, expected {users}")
        if self.pid <= 0:
            raise SnapmigError("the process that connected is in another pid namespace")
        self.fd = _pidfd(connection, self.pid)

    def kill(self) -> None:
        """
        End it.

        :raises SnapmigError: that is not permitted
        """
        try:
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)
        except ProcessLookupError:
            return
        except OSError as error:
            raise SnapmigError(f"can't end process {self.pid}: {error.strerror}") from error

    def close(self) -> None:
        """Let it go."""
        os.close(self.fd)


def _pidfd(connection: socket.socket, pid: int) -> int:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        pass  # an older kernel
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise SnapmigError(f"process {pid} connected and ended") from error
