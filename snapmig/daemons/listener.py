"""A UNIX socket at a path, for one user's processes."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from snapmig.daemons.peer import Peer
from snapmig.errors import SnapmigError

__all__ = ("Listener", "is_readable", "wait_for_peer")

_BACKLOG = 64
_CHECK_MS = 200


class Listener:
    """
    A listening socket with mode 0600; a context manager that removes it.

    A socket left behind by a process that was killed is replaced, one in use is not.

    :param owner: uid that may connect, and will own the socket
    :raises SnapmigError: the path is taken, or not ours to use
    """

    def __init__(self, path: str, owner: int) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self._identity: tuple[int, int] | None = None
        try:
            self._bind(owner)
            self.socket.listen(_BACKLOG)
        except OSError as error:
            self.close()
            message = f"can't listen there: {error.strerror or error}"
            raise SnapmigError(message, path=path) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def accept(self) -> socket.socket:
        """Return the next connection; waits for it."""
        connection, _ = self.socket.accept()
        return connection

    def close(self) -> None:
        """Stop listening. Connections stay open."""
        self.socket.close()
        if self._identity is not None:
            with suppress(OSError):
                if _identity(self.path) == self._identity:  # not another's by now
                    Path(self.path).unlink()
            self._identity = None

    def _bind(self, owner: int) -> None:
        # Locked, so that of two that start at once neither takes the other's socket for a dead one.
        folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
        before = os.umask(0o177)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._remove_dead()
            self.socket.bind(self.path)
            self._identity = _identity(self.path)
            if owner != os.geteuid():
                os.chown(self.path, owner, -1)
        finally:
            os.umask(before)
            os.close(folder)

    def _remove_dead(self) -> None:
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise SnapmigError("exists and is not a socket", path=self.path)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    Path(self.path).unlink()
                    return
        raise SnapmigError("another process listens there", path=self.path)


def is_readable(listener: Listener, wait_ms: int) -> bool:
    """Return True if somebody has connected, after a wait at most."""
    poll = select.poll()
    poll.register(listener.socket, select.POLLIN)
    return bool(poll.poll(wait_ms))


def wait_for_peer(listener: Listener, allowed: frozenset[int], wait_s: float) -> socket.socket:
    """
    Return the first connection.

    :param allowed: uids that it may come from
    :raises SnapmigError: it comes from another, or none comes in time
    """
    deadline = time.monotonic() + wait_s
    while not is_readable(listener, _CHECK_MS):
        if time.monotonic() > deadline:
            raise SnapmigError(f"nobody connected in {wait_s:g} s", path=listener.path)
    connection = listener.accept()
    try:
        Peer(connection, allowed).close()
    except BaseException:
        connection.close()
        raise
    return connection


def _identity(path: str) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_dev, facts.st_ino
