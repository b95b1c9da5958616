"""Ways to a monitor: its own socket here, libvirt in :mod:`snapmig.guests.domain`."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple, Protocol

from snapmig.errors import SnapmigError
from snapmig.printable import printable

__all__ = ("Connection", "MonitorError", "Peer", "Renewal", "SocketConnection", "words")

_LONGEST_WORDS = 500


class MonitorError(SnapmigError):
    """QEMU's monitor can't be reached, refused a command, or does not answer."""


class Peer(NamedTuple):
    """
    QEMU's process, as reported by the kernel for a socket, or by libvirt.

    :param pid: 0 if it is outside all process namespaces visible from here
    :param uid: its effective user when it began to listen
    """

    pid: int
    uid: int


class Renewal(NamedTuple):
    """
    A program that reaches a monitor: :mod:`snapmig.guests.bridge_process`.

    :param python: its interpreter
    :param program: its path
    :param plan: its argument, but for ``monitor``, the descriptor of its end of a socket pair
    """

    python: str
    program: str
    plan: dict[str, object]


class Connection(Protocol):
    """
    A way to a monitor.

    :ivar path: its name for people
    :ivar socket: speaks QMP once it is readable
    :ivar notice: words for a wait that lasts
    :ivar renewal: a program to reach it anew
    """

    path: str
    socket: socket.socket
    notice: str
    renewal: Renewal | None

    def try_to_connect(self) -> bool:
        """Return False if it must be tried again."""

    def find_peer(self) -> Peer | None:
        """Return QEMU's process, None if it is hidden; the socket must be readable."""

    def silence(self, limit_s: float) -> str:
        """Return a sentence for a monitor that did not greet in time."""

    def close(self) -> None:
        """Close the socket and whatever serves it."""


class SocketConnection:
    """
    The UNIX socket of QEMU's monitor.

    A monitor serves one client at a time; others can connect, but are greeted only after that one
    leaves.
    """

    renewal: Renewal | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.notice = f"monitor {printable(path)} does not answer; somebody else may hold it"

    def try_to_connect(self) -> bool:
        """Connect, unless its queue of clients is full."""
        try:
            self.socket.connect(self.path)
        except BlockingIOError:
            return False
        return True

    def find_peer(self) -> Peer:
        """Return the process that listens."""
        raw = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _gid = struct.unpack("iII", raw)
        return Peer(pid, uid)

    def silence(self, limit_s: float) -> str:
        """Return a sentence with the likely causes."""
        return (
            f"no QEMU monitor answers here in {limit_s:g} s: somebody else may hold it, as it "
            "takes one client at a time, or QEMU itself stands still"
        )

    def close(self) -> None:
        """Leave the monitor."""
        self.socket.close()


def words(text: str) -> str:
    """Return text received from the peer as one line of limited length."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_WORDS else f"{line[:_LONGEST_WORDS]}..."
