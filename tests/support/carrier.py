"""
Carries packets between two tun devices as a long link does: python -m tests.support.carrier.

Packets come as for devices that cut them into segments themselves, up to 64 KiB, so that 1 Gbit/s
takes a few percent of a processor.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

_DEVICE = Path("/dev/net/tun")
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TUN, _NO_HEAD, _SEGMENTS_HEAD = 1, 0x1000, 0x4000
_CHECKSUMS, _TCP = 1, 2
_LARGEST = 1 << 17
_QUEUE_S = 0.05
"""Of the link's time that may wait before it, or a round trip if that is more; then it drops."""


def open_device(name: str) -> int:
    """Make a tun device whose packets may be segments of TCP not yet cut."""
    fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    flags = _TUN | _NO_HEAD | _SEGMENTS_HEAD
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _CHECKSUMS | _TCP)
    os.set_inheritable(fd, True)
    return fd


class _Way:
    # One direction: packets on their way, with the moment of their arrival.
    def __init__(self, source: int, target: int, delay_s: float, rate: float) -> None:
        self._source, self._target = source, target
        self._delay_s, self._rate = delay_s, rate
        self._queue_s = max(_QUEUE_S, 2 * delay_s)
        self._free_at = 0.0
        self._held: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        with suppress(BlockingIOError):
            while packet := os.read(self._source, _LARGEST):
                now = time.monotonic()
                start = max(now, self._free_at)
                if start - now < self._queue_s:
                    self._free_at = start + len(packet) / self._rate
                    self._held.append((self._free_at + self._delay_s, packet))

    def give(self) -> float:
        # Returns the seconds until there is more to give.
        while self._held and self._held[0][0] <= time.monotonic():
            with suppress(OSError):  # the other end is full, or down
                os.write(self._target, self._held.popleft()[1])
        return max(0.0, self._held[0][0] - time.monotonic()) if self._held else 1.0


def main() -> None:
    """Carry until the end of the standard input."""
    one, other = (int(word) for word in sys.argv[1:3])
    delay_s, rate = (float(word) for word in sys.argv[3:5])
    ways = {one: _Way(one, other, delay_s, rate), other: _Way(other, one, delay_s, rate)}
    while True:
        wait = min(way.give() for way in ways.values())
        for fd in select.select([*ways, 0], [], [], wait)[0]:
            if fd == 0:
                return
            ways[fd].take()


if __name__ == "__main__":
    main()
