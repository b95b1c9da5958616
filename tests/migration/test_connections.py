"""Facts about the acceptance of a migration's connections."""

import socket
from contextlib import ExitStack

import pytest

from snapmig.migration.connections import PrivateSocket, accept_all
from snapmig.migration.wire import MigrationError
from tests.support.multifd import wire

LOOKS = 200
"""More than there are in the time limit at the pace of one in 20 ms; a busy loop has thousands."""


@pytest.mark.parametrize("start", [b"Q", b"\x11\x22\x33", wire.init(0)[:63]], ids=len)
def test_too_few_bytes_are_waited_for_calmly(start):
    """A connection that can't be told yet is looked at now and then, not in a loop."""
    looks = []
    with PrivateSocket() as private, socket.socket(socket.AF_UNIX) as source:
        source.connect(private.uri.removeprefix("unix:"))
        source.sendall(start)

        with pytest.raises(MigrationError, match="expected 1 main"):
            accept_all(private.listener, 1, 0.5, lambda: looks.append(1))

    assert len(looks) < LOOKS


@pytest.mark.parametrize("start", [b"Q", wire.init(0)[:63]], ids=len)
def test_an_end_after_too_few_bytes_is_seen_at_once(start):
    """Such a connection that ends is an error before the time is up."""
    with PrivateSocket() as private, socket.socket(socket.AF_UNIX) as source:
        source.connect(private.uri.removeprefix("unix:"))
        source.sendall(start)
        source.close()

        with pytest.raises(MigrationError, match=f"ended after {len(start)} bytes"):
            accept_all(private.listener, 1, 60)


def test_a_silent_connection_too_many():
    """One that is there beside all that are expected is refused, though it has sent nothing."""
    with PrivateSocket() as private, ExitStack() as stack:
        path = str(private.path)
        for start in (b"QEVM", wire.init(0), b""):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(path)
            connection.sendall(start)
        with pytest.raises(MigrationError, match="more than 2 connections came"):
            accept_all(private.listener, 1, 60)
