"""Two network namespaces, and between them a link that delays and loses packets."""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import lacks, requires

MTU = 4000
_DEVICE = Path("/dev/net/tun")
_TUNSETIFF, _TUN, _NO_HEAD = 0x400454CA, 1, 0x1000
_ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""Of a range for tests of networks."""


@dataclass
class Link:
    """
    A link between two namespaces.

    :ivar names: of the namespaces
    :ivar addresses: of their ends
    :ivar carried: packets so far
    :ivar lost: packets that were dropped
    """

    names: tuple[str, str]
    addresses: tuple[str, str] = (_ADDRESSES[0], _ADDRESSES[1])
    carried: int = 0
    lost: int = 0

    def command(self, end: int) -> list[str]:
        """Return the words before a command that runs at an end, 0 or 1."""
        return ["ip", "netns", "exec", self.names[end]]


@contextmanager
def bad_link(delay_s: float, loss: float) -> Iterator[Link]:
    """
    Join two new namespaces by a link that holds each packet for a while, and drops some.

    Not every kernel has ``netem``, so a thread carries the packets.

    :param loss: share of all packets
    """
    requires("ip")
    if not _DEVICE.exists():
        lacks("/dev/net/tun")
    own = f"snapmig-{os.getpid()}"
    link = Link((f"{own}-a", f"{own}-b"))
    over = threading.Event()
    with ExitStack() as stack:
        ends = []
        for name, address in zip(link.names, link.addresses, strict=True):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            device = f"sm{os.getpid()}{name[-1]}"
            ends.append(_open_device(device))
            stack.callback(os.close, ends[-1])
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/30", "dev", device)
            _ip("-n", name, "link", "set", device, "mtu", str(MTU), "up")
        carrier = threading.Thread(target=_carry, args=(link, ends, delay_s, loss, over))
        carrier.start()
        stack.callback(carrier.join)
        stack.callback(over.set)
        yield link


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _open_device(name: str) -> int:
    fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_HEAD))
    return fd


def _carry(link: Link, ends: list[int], delay_s: float, loss: float, over: threading.Event) -> None:
    drawn = random.Random(1)
    held: list[tuple[float, int, int, bytes]] = []
    while not over.is_set():
        wait = max(0.0, held[0][0] - time.monotonic()) if held else 0.1
        for fd in select.select(ends, [], [], wait)[0]:
            with suppress(BlockingIOError):
                packet = os.read(fd, 1 << 16)
                link.carried += 1
                if drawn.random() < loss:
                    link.lost += 1
                    continue
                other = ends[1 - ends.index(fd)]
                heapq.heappush(held, (time.monotonic() + delay_s, link.carried, other, packet))
        while held and held[0][0] <= time.monotonic():
            with suppress(BlockingIOError):
                os.write(held[0][2], held[0][3])
            heapq.heappop(held)
