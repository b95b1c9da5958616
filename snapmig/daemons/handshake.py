"""Firecracker's only message: its memory regions as JSON, with a descriptor of userfaultfd."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

import msgspec

from snapmig.errors import SnapmigError
from snapmig.system.userfaultfd import Userfault

__all__ = ("receive_handshake",)

_LARGEST = 1 << 18
_MOST_FDS = 8
_WAIT_S = 10.0


def receive_handshake(
    connection: socket.socket, wait_s: float = _WAIT_S
) -> tuple[Userfault, bytes]:
    """
    Return the descriptor that tells of faults, and the JSON beside it.

    :raises SnapmigError: nothing of the kind comes in time
    """
    fds: list[int] = []
    try:
        raw = _receive(connection, fds, time.monotonic() + wait_s)
        if len(fds) != 1:
            raise SnapmigError(f"{len(fds)} descriptors came with its message, expected 1")
        return Userfault(fds.pop()), raw
    except TimeoutError as error:
        raise SnapmigError(f"no list of memory regions came in {wait_s:g} s") from error
    except OSError as error:
        raise SnapmigError(f"connection was lost: {error.strerror}") from error
    finally:
        for fd in fds:
            with suppress(OSError):
                os.close(fd)


def _receive(connection: socket.socket, fds: list[int], deadline: float) -> bytes:
    # A stream may deliver a message in parts.
    raw = b""
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece, more, _, _ = socket.recv_fds(
            connection, _LARGEST, _MOST_FDS, socket.MSG_CMSG_CLOEXEC
        )
        fds += more
        raw += piece
        try:
            msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if not piece or len(raw) >= _LARGEST or len(fds) > _MOST_FDS:
                raise SnapmigError(f"its message is not JSON: {error}") from error
        else:
            return raw
