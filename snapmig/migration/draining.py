"""The end of channels whose migration was cancelled: what is on its way is read and dropped."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence

from snapmig.migration.tls import SecureConnection

__all__ = ("drain",)

_AT_ONCE = 1 << 20


def drain(channels: Sequence[socket.socket | SecureConnection], limit_s: float) -> None:
    """
    Drop what comes on channels until the other end has closed them, or for some seconds.

    QEMU 10.0 may wait for ever for an idle channel if another one ends just before a mark: the idle
    one sees that all is over, and does not say that it is done (``multifd_send_sync_main``).
    """
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            channel.setblocking(False)
            selector.register(channel, selectors.EVENT_READ, channel)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if not _drop(key.data):
                    selector.unregister(key.fileobj)


def _drop(channel: socket.socket | SecureConnection) -> bool:
    # False at the end.
    try:
        return bool(channel.recv(_AT_ONCE))
    except BlockingIOError:
        return True
    except OSError:
        return False
