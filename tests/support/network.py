"""Two network namespaces, and between them a link: one that loses packets, or a narrow one."""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import carrier
from tests.support.requirements import lacks, requires

MTU = 4000
_DEVICE = Path("/dev/net/tun")
_TUNSETIFF, _TUN, _NO_HEAD = 0x400454CA, 1, 0x1000
_CLONE_NEWNET = 0x40000000
_ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""Of a range for tests of networks."""


@dataclass
class Link:
    """
    A link between two namespaces.

    :ivar names: of the namespaces
    :ivar addresses: of their ends
    :ivar carried: packets so far, on a bad link
    :ivar lost: packets that were dropped there
    """

    names: tuple[str, str]
    addresses: tuple[str, str] = (_ADDRESSES[0], _ADDRESSES[1])
    carried: int = 0
    lost: int = 0

    def sent(self, end: int) -> int:
        """Return the bytes that an end has sent so far, with the heads of packets."""
        link = ["ip", "-n", self.names[end], "-s", "-j", "link", "show"]
        devices = json.loads(subprocess.run(link, capture_output=True, check=True).stdout)
        return sum(one["stats64"]["tx"]["bytes"] for one in devices)

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
    if not _DEVICE.exists():
        lacks("/dev/net/tun")
    over = threading.Event()
    with ExitStack() as stack:
        link = stack.enter_context(_namespaces())
        ends = []
        for end, device in enumerate(_devices()):
            ends.append(_open_device(device))
            stack.callback(os.close, ends[-1])
            _place(link, end, device)
            _ip("-n", link.names[end], "link", "set", device, "mtu", str(MTU))
        carrier = threading.Thread(target=_carry, args=(link, ends, delay_s, loss, over))
        carrier.start()
        stack.callback(carrier.join)
        stack.callback(over.set)
        yield link


@contextmanager
def limited_link(rate: str) -> Iterator[Link]:
    """
    Join two new namespaces by a link with so much room in each direction; the kernel carries.

    :param rate: as ``tc`` knows it, such as ``1gbit``
    """
    requires("tc")
    with _namespaces() as link:
        one, other = _devices()
        _ip("link", "add", one, "type", "veth", "peer", "name", other)
        for end, device in enumerate((one, other)):
            _place(link, end, device)
            shaping = ("root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
            tc = ["tc", "-n", link.names[end], "qdisc", "add", "dev", device, *shaping]
            subprocess.run(tc, check=True)
        yield link


@contextmanager
def far_link(round_trip_s: float, rate: float) -> Iterator[Link]:
    """
    Join two new namespaces by a link with a delay and so much room in each direction.

    :param round_trip_s: that a packet and its answer take
    :param rate: bytes a second
    """
    if not _DEVICE.exists():
        lacks("/dev/net/tun")
    with ExitStack() as stack:
        link = stack.enter_context(_namespaces())
        ends = []
        for end, device in enumerate(_devices()):
            ends.append(carrier.open_device(device))
            stack.callback(os.close, ends[-1])
            _place(link, end, device)
            _ip("-n", link.names[end], "link", "set", "lo", "up")
        words = [*map(str, ends), str(round_trip_s / 2), str(rate)]
        command = [sys.executable, "-m", carrier.__name__, *words]
        process = subprocess.Popen(command, pass_fds=ends, stdin=subprocess.PIPE)
        stack.callback(process.wait)
        stack.callback(process.communicate)
        yield link


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Have this thread, and the processes that it starts, be in a namespace."""
    own_path, other_path = Path("/proc/thread-self/ns/net"), Path("/run/netns", name)
    with own_path.open() as own, other_path.open() as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def _namespaces() -> Iterator[Link]:
    requires("ip")
    own = f"snapmig-{os.getpid()}"
    link = Link((f"{own}-a", f"{own}-b"))
    with ExitStack() as stack:
        for name in link.names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        yield link


def _devices() -> tuple[str, str]:
    return f"sm{os.getpid()}a", f"sm{os.getpid()}b"


def _place(link: Link, end: int, device: str) -> None:
    name = link.names[end]
    _ip("link", "set", device, "netns", name)
    _ip("-n", name, "addr", "add", f"{link.addresses[end]}/30", "dev", device)
    _ip("-n", name, "link", "set", device, "up")


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
