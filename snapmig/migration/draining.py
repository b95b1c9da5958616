"""The end of connections whose migration was cancelled: what is on its way is read and dropped."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from snapmig.migration.tls import SecureConnection

__all__ = ("Connection", "drain")

Connection = socket.socket | SecureConnection
_AT_ONCE = 1 << 20
_MOMENT_S = 0.01


def drain(
    connections: Sequence[Connection],
    limit_s: float,
    listener: socket.socket | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """
    Drop what comes until the other end has closed all connections, or for some seconds.

    QEMU 7.2 and 10.0 may wait for ever for an idle channel if another one ends just before a mark:
    the idle one sees that all is over, and does not say that it is done
    (``multifd_send_sync_main``). If some have ended while others are being made, 7.2 may crash.

    :param listener: others may come here, so it lasts until it is over
    :param is_over: asked often; True if the other end is done with all of them
    """
    deadline = time.monotonic() + limit_s
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        for connection in connections:
            _add(selector, connection)
        if listener is not None:
            selector.register(listener, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline and not is_over():
            for key, _ in selector.select(_MOMENT_S):
                if listener is not None and key.fileobj is listener:
                    _add(selector, opened.enter_context(listener.accept()[0]))
                elif not _drop(key.data):
                    selector.unregister(key.fileobj)


def _add(selector: selectors.BaseSelector, connection: Connection) -> None:
    # QEMU 11 waits for the end of the main connection's return path; a thread of QEMU 7.2 for that
    # would live on, and disturb the next migration.
    if isinstance(connection, socket.socket):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, connection)


def _drop(connection: Connection) -> bool:
    # False at the end.
    try:
        return bool(connection.recv(_AT_ONCE))
    except BlockingIOError:
        return True
    except OSError:
        return False
