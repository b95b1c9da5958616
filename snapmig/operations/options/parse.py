"""Parsers of arguments shared by verbs, from users' words to checked values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from snapmig.container.format import (
    MAX_PACKET_SIZE,
    MIN_PACKET_SIZE,
    Encoding,
    Layout,
    is_packet_size,
)
from snapmig.encodings.compressions import AUTO_COMPRESSION, COMPRESSIONS, Compression
from snapmig.errors import SnapmigError, UsageError
from snapmig.guests.name import Domain
from snapmig.migration.compression import WireCompression
from snapmig.stores.location import Location, ObjectUrl
from snapmig.units import format_size, parse_size

__all__ = (
    "BACKGROUND",
    "DOMAIN_PREFIX",
    "GUEST_FORMAT",
    "GUEST_PREFIX",
    "GUEST_PREFIXES",
    "POSTCOPY",
    "WINDOWS",
    "WIRES",
    "AcceleratorName",
    "CompressionName",
    "FormatName",
    "HuffmanName",
    "LayoutName",
    "Level",
    "LiveName",
    "ViaName",
    "WayIn",
    "WindowName",
    "WireName",
    "check_connect",
    "default_jobs",
    "guest_name",
    "is_guest",
    "is_waiting_guest",
    "parse_compression",
    "parse_connect",
    "parse_depth",
    "parse_guest",
    "parse_jobs",
    "parse_layout",
    "parse_level",
    "parse_live",
    "parse_packet_size",
    "parse_rate",
    "parse_via",
    "parse_way_in",
    "parse_window",
    "parse_wire",
    "window_bits",
)

AcceleratorName = Literal["auto", "isal", "python", "qat", "qpl", "qpl:software"]
CompressionName = Literal["zlib", "zstd", "lz4", "none", "auto"]
FormatName = Literal[
    "avml",
    "cloud-hypervisor",
    "elf",
    "firecracker",
    "kdump",
    "libvirt",
    "lime",
    "mapped-ram",
    "qemu-stream",
    "raw",
    "raw-by-address",
]
HuffmanName = Literal["dynamic", "fixed", "trained"]
LayoutName = Literal["fixed", "packed"]
Level = int | Literal["auto"]
LiveName = Literal["background"]
WireName = Literal["auto", "none", "zstd", "zlib"]
ViaName = Literal["shared", "multifd", "mapped-ram", "stream"]
WindowName = Literal["4k", "32k"]


WINDOWS = {"4k": 12, "32k": 15}
"""Names of deflate windows, and their sizes in bits."""

MAX_JOBS = 1024
MAX_DEPTH = 64

WAYS = SHARED, MULTIFD, MAPPED_RAM = "shared", "multifd", "mapped-ram"
"""Ways to a running guest's RAM: its shared files, QEMU's channels, or a file that QEMU writes."""

POSTCOPY = "postcopy"
"""The way of a guest that runs before its memory has come."""

STREAM = "stream"
WAYS_OUT = (*WAYS, STREAM)
"""Ways out of it: all of these, or a single stream."""

BACKGROUND = "background"
"""The value of the option ``live`` for a snapshot of the guest as it is at the start."""

WIRES = ("auto", "none", "zstd", "zlib")
"""Forms of pages sent to a QEMU: as they are, or compressed as its ``multifd-compression`` says."""

GUEST_PREFIX = "qmp:"
"""In place of an image: the guest behind the monitor whose socket follows."""

DOMAIN_PREFIX = "libvirt:"
"""In place of an image: the domain of libvirt's whose name or UUID follows."""

GUEST_PREFIXES = (GUEST_PREFIX, DOMAIN_PREFIX)

GUEST_FORMAT = "qemu-guest"
"""The format of a snapshot that was made of a running guest."""


def is_guest(image: object) -> bool:
    """
    Return True if an image is a running guest: ``qmp:SOCKET`` or ``libvirt:DOMAIN``.

    :raises UsageError: it names no socket, or no domain
    """
    if not isinstance(image, str) or not image.startswith(GUEST_PREFIXES):
        return False
    if image == GUEST_PREFIX:
        raise UsageError("expected qmp:SOCKET, the socket of QEMU's monitor", path=image)
    if image == DOMAIN_PREFIX:
        raise UsageError("expected libvirt:DOMAIN, a domain's name or UUID", path=image)
    return True


def is_waiting_guest(image: object) -> bool:
    """
    Return True if the image of a restore is ``qmp:SOCKET``, a QEMU that waits for a guest.

    :raises UsageError: it names no socket, or a domain of libvirt's
    """
    if isinstance(image, str) and image.startswith(DOMAIN_PREFIX):
        message = (
            "libvirt loads a guest only from its own image: restore to a file in the format "
            "libvirt, then use virsh restore"
        )
        raise UsageError(message, path=image)
    return is_guest(image)


def parse_guest(image: str, connect: str | None = None) -> str | Domain:
    """
    Return the socket or domain named in place of an image.

    :param connect: URI of libvirt
    """
    if image.startswith(DOMAIN_PREFIX):
        return Domain(image.removeprefix(DOMAIN_PREFIX), connect)
    return image.removeprefix(GUEST_PREFIX)


def guest_name(guest: str | Domain) -> str:
    """Return the words for a guest that stand in place of an image."""
    if isinstance(guest, Domain):
        return f"{DOMAIN_PREFIX}{guest.name}"
    return f"{GUEST_PREFIX}{guest}"


def check_connect(image: object, connect: str | None) -> None:
    """
    Refuse a URI of libvirt that has no use or no form.

    :raises UsageError: with the reason
    """
    if connect is not None:
        if not isinstance(image, str) or not image.startswith(DOMAIN_PREFIX):
            raise UsageError("connect is for a guest of libvirt's, as libvirt:DOMAIN")
        parse_connect(connect)


def parse_connect(uri: str) -> str:
    """
    Return a URI of libvirt.

    :raises UsageError: it has not the form of one
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\0]+", uri):
        raise UsageError(f"connect is {uri!r}, expected a URI like qemu:///system")
    return uri


def default_jobs() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def parse_jobs(jobs: int | None) -> int:
    """Return a number of worker processes, the default for None."""
    if jobs is None:
        return default_jobs()
    if not 1 <= jobs <= MAX_JOBS:
        raise UsageError(f"jobs is {jobs}, expected 1 to {MAX_JOBS}")
    return jobs


def parse_compression(name: str) -> Compression:
    """
    Return a compression given by name.

    :raises UsageError: there is none of that name
    :raises SnapmigError: its library is missing
    """
    if name not in COMPRESSIONS:
        names = " or ".join((*COMPRESSIONS, AUTO_COMPRESSION))
        raise UsageError(f"compression is {name!r}, expected {names}")
    COMPRESSIONS[name].require()
    return COMPRESSIONS[name]


def parse_level(level: int | str | None, compression: Compression) -> int | None:
    """Return a level of a compression, its default for None, and None for ``auto``."""
    if level is None:
        return compression.default_level
    if level == "auto":
        return None
    levels = compression.levels
    try:
        number = int(level)
    except ValueError:
        number = None
    if number not in levels:
        words = f"{levels[0]} to {levels[-1]} or auto" if len(levels) > 1 else f"{levels[0]}"
        raise UsageError(f"level of {compression.name} is {level}, expected {words}")
    return number


def parse_window(window: str | None, compression: Compression) -> int:
    """Return the bits of a window given by name, those of 32 KiB for None."""
    if window is None:
        return max(WINDOWS.values())
    if compression.encoding != Encoding.DEFLATE:
        raise UsageError(f"windows are for zlib, not for {compression.name}")
    return window_bits(window)


def parse_depth(depth: int | None) -> int | None:
    """Return a number of jobs in flight."""
    if depth is not None and not 1 <= depth <= MAX_DEPTH:
        raise UsageError(f"depth is {depth}, expected 1 to {MAX_DEPTH}")
    return depth


def window_bits(window: str) -> int:
    """Return the bits of a window given by name."""
    if window not in WINDOWS:
        raise UsageError(f"window is {window!r}, expected {' or '.join(WINDOWS)}")
    return WINDOWS[window]


def parse_via(way: str, ways: Sequence[str] = WAYS) -> str:
    """
    Return a way to a running guest's RAM.

    :raises UsageError: there is none of that name
    """
    if way not in ways:
        raise UsageError(f"via is {way!r}, expected {', '.join(ways)}")
    return way


def parse_live(live: bool | str) -> bool | LiveName:
    """
    Return whether a guest runs on while it is saved, and how.

    :raises UsageError: neither true, false nor :data:`BACKGROUND`
    """
    if live is True or live is False:
        return live
    if live != BACKGROUND:
        raise UsageError(f"live is {live!r}, expected true, false or {BACKGROUND!r}")
    return "background"


def parse_wire(form: str | None) -> WireCompression:
    """
    Return the form of pages on the wire, ``auto`` for None.

    That is pages as they are, with their digests compared. A QEMU that others have set up takes
    nothing else unless they have set ``multifd-compression``, which a source can't ask.

    :raises UsageError: there is none of that name
    """
    if form not in (None, *WIRES):
        raise UsageError(f"wire is {form!r}, expected {' or '.join(WIRES)}")
    return WireCompression[("none" if form in (None, "auto") else form).upper()]


def parse_way_in(
    via: str | None,
    wire: str | None,
    postcopy: bool,
    working_set: str | os.PathLike[str] | None,
    *,
    to_guest: bool,
) -> WayIn:
    """
    Return the way into a QEMU that waits.

    :param to_guest: False for an image, which has no guest to run
    :raises UsageError: a value is unknown, or two exclude each other
    """
    parsed = None if via is None else parse_via(via)
    compression = parse_wire(wire)
    if postcopy and not to_guest:
        raise UsageError("postcopy is for a QEMU that waits, as qmp:SOCKET")
    if postcopy and (parsed is not None or compression != WireCompression.NONE):
        raise UsageError("postcopy is a way of its own, without via and wire")
    if working_set is not None and not postcopy:
        raise UsageError("a working set is for postcopy")
    return WayIn(parsed, compression, postcopy, working_set)


class WayIn(NamedTuple):
    """
    The way into a QEMU that waits.

    :param via: one of :data:`WAYS`; None: the first possible
    :param compression: of pages sent over multifd
    :param postcopy: run the guest first
    :param working_set: file with the packets that it needs first
    """

    via: str | None = None
    compression: WireCompression = WireCompression.NONE
    postcopy: bool = False
    working_set: str | os.PathLike[str] | None = None


def parse_layout(layout: str | None, location: Location | None = None) -> Layout:
    """
    Return a layout given by name, the usual one of a place for None.

    :raises UsageError: there is none of that name, or it needs holes that objects do not have
    """
    remote = isinstance(location, ObjectUrl)
    if layout is None:
        return Layout.PACKED if remote else Layout.FIXED
    names = {kind.name.lower(): kind for kind in Layout}
    if layout not in names:
        raise UsageError(f"layout is {layout!r}, expected {' or '.join(names)}")
    if remote and names[layout] != Layout.PACKED:
        message = f"layout is {layout}, expected packed: an object has no holes"
        raise UsageError(message, path=str(location))
    return names[layout]


def parse_rate(rate: str | int) -> int:
    """
    Return a rate in bytes per second, given as a number or as text like ``200M``.

    :raises UsageError: not a size, or not positive
    """
    try:
        number = parse_size(rate)
    except SnapmigError as error:
        words = f"bwlimit is {rate!r}, expected bytes per second with an optional K, M, G or T"
        raise UsageError(words) from error
    if number <= 0:
        raise UsageError(f"bwlimit must be positive, got {rate!r}")
    return number


def parse_packet_size(size: str | int) -> int:
    """Return a packet size in bytes."""
    number = parse_size(size)
    if not is_packet_size(number):
        message = (
            f"packet size is {format_size(number)}, expected a power of two "
            f"from {format_size(MIN_PACKET_SIZE)} to {format_size(MAX_PACKET_SIZE)}"
        )
        raise UsageError(message)
    return number
