"""
A migration refused by its destination at the very end, after all data has arrived.

After a completed migration QEMU believes that the guest runs elsewhere, and migrates it again only
after it has run. A guest stopped by its owner must not run for that. If the destination refuses it,
the guest stays QEMU's own, in the state it had. So we are that destination, over the capability
return-path, and write the stream to a file. If we are killed, the effect is the same.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from snapmig.guests.monitor import Monitor, MonitorError
from snapmig.guests.watch import POLL_S, STILL_S, Watch
from snapmig.system.signals import raise_if_cancelled

__all__ = ("CAPABILITY", "copy_and_refuse")

CAPABILITY = "return-path"
_NAME = "snapmig-refused"
_QUIET_S = 0.01
_CLOSES_S = 30.0
_STEP = 1 << 20
_HEAD = 1 << 16
"""Bytes searched for the commands that open the path; more than those before them."""

_LONGEST_END = 16 << 20
"""More than a description of all devices takes: 0.3 MB for a PC."""

_OPENING = bytes.fromhex("08 0001 000008 0002 0004 00000001")
"""Two commands of the stream: open a return path, and answer ping 1 on it."""

_REFUSAL = struct.pack(">HHI", 1, 4, 1)
"""Message "shut" of the return path: its length, and a status other than 0."""


def copy_and_refuse(monitor: Monitor, fd: int) -> None:
    """
    Have QEMU write its stream to a file, and refuse the guest.

    The capability must be on. The guest is QEMU's again once the migration is at rest.

    :param fd: an empty file for the stream, without the commands that open the return path
    :raises MonitorError: QEMU could not, or its stream is not as expected
    :raises OSError: the file can't be written
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            monitor.send_descriptor(theirs.fileno(), "getfd", fdname=_NAME)
        monitor.execute("migrate", uri=f"fd:{_NAME}")
        copy = _Copy(monitor, ours, fd)
        # While the stream stands still, so does QEMU's main loop, and no command is answered. So
        # the monitor is asked only after the stream ended early, for the reason.
        while not copy.is_complete():
            if not copy.goes_on():
                _raise_reason(monitor)
        ours.sendall(_REFUSAL)
        copy.check_nothing_follows()


def _raise_reason(monitor: Monitor) -> None:
    watch = Watch(monitor, "migrate")
    end = time.monotonic() + _CLOSES_S
    while time.monotonic() < end and watch.look().status != "completed":
        time.sleep(POLL_S)
    raise MonitorError("QEMU's stream ended early", path=monitor.path)


class _Copy:
    def __init__(self, monitor: Monitor, source: socket.socket, fd: int) -> None:
        self._monitor = monitor
        self._source = source
        self._fd = fd
        self._head: bytes | None = b""
        self._end = bytearray()
        self._moved = time.monotonic()

    def goes_on(self) -> bool:
        """
        Copy the available data until nothing arrives for a moment; return False at its end.

        :raises MonitorError: nothing has arrived for too long
        """
        while self._is_readable():
            data = self._source.recv(_STEP)
            if not data:
                return False
            self._take(data)
            self._moved = time.monotonic()
            raise_if_cancelled()
        raise_if_cancelled()
        if time.monotonic() - self._moved > STILL_S["migrate"]:
            message = f"QEMU's stream moved nothing in {STILL_S['migrate']:.0f} s"
            raise MonitorError(message, path=self._monitor.path)
        return True

    def is_complete(self) -> bool:
        """
        Return True if the data ends as a stream does: with the whole description of the devices.

        The description follows its own length. One of the length's four bytes is the last NUL of
        the stream.
        """
        last = self._end.rfind(0)
        for start in range(max(2, last - 3), last + 1):
            kinds, length = self._end[start - 2 : start], self._end[start : start + 4]
            rest = len(self._end) - start - 4
            if kinds == b"\0\6" and rest > 0 and int.from_bytes(length) == rest:
                return self._head is None and self._end.endswith(b"}")
        return False

    def check_nothing_follows(self) -> None:
        """Refuse a stream that only looked complete: QEMU closes it after the refusal."""
        self._source.settimeout(_CLOSES_S)
        try:
            if not self._source.recv(_STEP):
                return
            message = "QEMU's stream continues after its end"
        except TimeoutError:
            message = f"QEMU did not end its stream in {_CLOSES_S:.0f} s"
        raise MonitorError(message, path=self._monitor.path)

    def _is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        return bool(poll.poll(1000 * _QUIET_S))

    def _take(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if _OPENING not in self._head[:_HEAD]:
                if len(self._head) > _HEAD:
                    message = "QEMU's stream does not open a return path where it is expected"
                    raise MonitorError(message, path=self._monitor.path)
                return
            before, _, behind = self._head.partition(_OPENING)
            data, self._head = before + behind, None
        self._end += data
        if len(self._end) > 2 * _LONGEST_END:  # only now and then, because it copies
            del self._end[:-_LONGEST_END]
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
