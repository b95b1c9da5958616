"""
userfaultfd(2): page faults of another process, read and answered from here.

The numbers are those of Linux on every architecture with 64 bits that has the call.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from snapmig.errors import SnapmigError

__all__ = ("Event", "Userfault")

_COPY = 0xC028AA03
_ZEROPAGE = 0xC020AA04
_WAKE = 0x8010AA02
_UNREGISTER = 0x8010AA01

PAGEFAULT = 0x12
REMOVE = 0x15
UNMAP = 0x16
_NAMES = {0x13: "fork", 0x14: "remap"}
_NOT_MISSING = 0x2 | 0x4
"""Flags of faults at write-protected pages, and at pages of a file that are only not mapped."""

_MESSAGE = 32
_AT_ONCE = 128

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class _Copy(ctypes.Structure):
    _fields_ = (
        ("dst", ctypes.c_uint64),
        ("src", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("done", ctypes.c_int64),
    )


class _Zero(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("done", ctypes.c_int64),
    )


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("length", ctypes.c_uint64))


class Event(NamedTuple):
    """
    A message of the kernel.

    :ivar stop: end of a range that was given up; None for a fault
    """

    start: int
    stop: int | None


class Userfault:
    """
    The descriptor of another process's memory; closed by :meth:`close`.

    :param fd: taken over
    :raises SnapmigError: it is something else
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        name = os.readlink(f"/proc/self/fd/{fd}")
        if name != "anon_inode:[userfaultfd]":
            self.close()
            raise SnapmigError(f"descriptor is {name}, expected one of userfaultfd")
        os.set_blocking(fd, False)

    def close(self) -> None:
        """Close it. Faults wait for ever then, if the other process has kept its own."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def events(self) -> list[Event]:
        """
        Return all that wait.

        :raises SnapmigError: one of a kind that was not asked for
        """
        found: list[Event] = []
        while True:
            try:
                raw = os.read(self.fd, _MESSAGE * _AT_ONCE)
            except BlockingIOError:
                return found
            starts = range(0, len(raw), _MESSAGE)
            found.extend(_event(raw[at : at + _MESSAGE]) for at in starts)
            if len(raw) < _MESSAGE * _AT_ONCE:
                return found

    def copy(self, address: int, source: int, length: int) -> tuple[int, int]:
        """
        Put bytes where pages are missing, and wake whoever waits for them.

        :param source: their address in this process
        :returns: the number of bytes done, and 0 or the error that stopped it
        """
        request = _Copy(address, source, length, 0, 0)
        return self._done(_COPY, request)

    def zero(self, address: int, length: int) -> tuple[int, int]:
        """Put zero pages there, like :meth:`copy`; refused for huge pages."""
        return self._done(_ZEROPAGE, _Zero(address, length, 0, 0))

    def wake(self, address: int, length: int) -> None:
        """Wake whoever waits for pages of a range."""
        _libc.ioctl(self.fd, _WAKE, ctypes.byref(_Range(address, length)))

    def unregister(self, address: int, length: int) -> None:
        """Leave faults of a range to the kernel, which gives zero pages."""
        _libc.ioctl(self.fd, _UNREGISTER, ctypes.byref(_Range(address, length)))

    def _done(self, number: int, request: _Copy | _Zero) -> tuple[int, int]:
        if _libc.ioctl(self.fd, number, ctypes.byref(request)) == 0:
            return int(request.done), 0
        # A negative count is the error again.
        error = ctypes.get_errno()
        done = max(0, int(request.done))
        return done, 0 if done and error == errno.EAGAIN else error


def _event(raw: bytes) -> Event:
    kind = raw[0]
    first, second = (int.from_bytes(raw[at : at + 8], "little") for at in (8, 16))
    if kind == PAGEFAULT and not first & _NOT_MISSING:
        return Event(second, None)
    if kind in (REMOVE, UNMAP):
        return Event(first, second)
    what = f"{_NAMES.get(kind, hex(kind))} event" if kind != PAGEFAULT else "fault at a page in use"
    raise SnapmigError(f"userfaultfd tells of a {what}, expected faults and removals only")
