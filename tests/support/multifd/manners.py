"""
Destinations that break off, stall, refuse, err or attack.

Places on the main connection are those of :class:`tests.support.multifd.reader.Main` with ``whole``
for all of it; on a channel the first packet is a barrier, and the second one has pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.support.multifd import wire
from tests.support.multifd.answers import (
    PONG,
    RECV_BITMAP,
    RESUME_ACK,
    SHUT,
    SWITCHOVER_ACK,
    message,
    pong,
    request,
    shut,
)
from tests.support.multifd.destination import (
    ANY_CHANNEL,
    CLOSE,
    FLOOD,
    HOLD,
    LEAVE,
    SAY,
    STALL,
    Deed,
    Manner,
)
from tests.support.multifd.talk import MAIN
from tests.support.multifd.wire import PAGE

Places = Mapping[str, int]
Make = Callable[[Places], Manner]
FIRST_PACKET = wire.INIT.size + wire.RAM_SIZE
"""Bytes of a channel before its first packet with pages."""


def at(place: str, kind: str, data: bytes = b"", *, more: int = 0) -> Make:
    """Return a fault at a place of the main connection, or some bytes behind it."""
    return lambda places: Manner((Deed(MAIN, places[place] + more, kind, data),))


def on(size: int, kind: str, data: bytes = b"") -> Make:
    """Return a fault when the first channel has come so far."""
    return lambda _: Manner((Deed(ANY_CHANNEL, size, kind, data),))


def end(answer: bytes, *, leaves: bool = False) -> Make:
    """Return a fault at the end: other words than success."""
    return lambda _: Manner(answer=answer, leaves=leaves)


def _deaths() -> Iterator[tuple[str, Make]]:
    mains = [("start", 0), ("start", 3), ("start", 8), ("commands", 2), ("list", 0), ("list", 11),
             ("sections", 0), ("sections", 8), ("devices", 0), ("devices", 30), ("end", 0),
             ("end", 10), ("whole", -1)]  # fmt: skip
    channels = [0, 10, wire.INIT.size, wire.INIT.size + 5, FIRST_PACKET - 1, FIRST_PACKET,
                FIRST_PACKET + 5, FIRST_PACKET + 400, FIRST_PACKET + wire.RAM_SIZE,
                FIRST_PACKET + wire.RAM_SIZE + 100]  # fmt: skip
    for kind in (CLOSE, LEAVE):
        for place, more in mains:
            yield f"main: {kind} {more} bytes after {place}", at(place, kind, more=more)
        for size in channels:
            yield f"a channel: {kind} after {size} bytes", on(size, kind)


_ASKS = {
    "for pages": request(0, PAGE, b"pc.ram"),
    "for pages of no block": request(0, PAGE),
    "for pages twice": request(0, PAGE, b"pc.ram") * 2,
    "for pages outside of the block": request(1 << 40, PAGE, b"pc.ram"),
    "for pages of an unknown block": request(0, PAGE, b"nobody"),
    "for pages not aligned": request(0x800, 0x10, b"pc.ram"),
    "for pages without an end": request((1 << 64) - PAGE, (1 << 32) - 1, b"pc.ram"),
    "to be sent a bitmap": message(RECV_BITMAP, b"\x06pc.ram"),
    "to resume": message(RESUME_ACK, bytes(4)),
}

_GARBAGE = {
    "type 0": message(0, bytes(4)),
    "type 8": message(8, bytes(4)),
    "type 65535": b"\xff" * 64,
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "PONG without an end": message(PONG, length=0xFFFF),
    "PONG that is too long": message(PONG, bytes(512)),
    "PONG without a number": message(PONG),
    "PONG twice": pong(1) * 2,
    "SHUT without a number": message(SHUT),
    "SHUT that is too long": message(SHUT, bytes(8)),
    "SWITCHOVER_ACK with data": message(SWITCHOVER_ACK, bytes(4)),
    "SWITCHOVER_ACK without an end": message(SWITCHOVER_ACK) * 100,
}


def _sayings() -> Iterator[tuple[str, Make]]:
    for words, data in _GARBAGE.items():
        yield f"says {words} early", at("commands", SAY, data)
        yield f"says {words} during pages", on(FIRST_PACKET, SAY, data)
        yield f"says {words} at the end", end(data)
    for words, data in _ASKS.items():
        yield f"asks {words}", on(FIRST_PACKET, SAY, data)
        yield f"asks {words} at the end", end(data)


FAULTS: dict[str, Make] = {
    **dict(_deaths()),
    **dict(_sayings()),
    "nobody listens": lambda _: Manner(listens=False),
    "refuses at once": at("commands", SAY, shut(1)),
    "refuses during pages": on(FIRST_PACKET, SAY, shut(1)),
    "refuses and stalls": lambda _: Manner((
        Deed(ANY_CHANNEL, FIRST_PACKET, SAY, shut(1)), Deed(ANY_CHANNEL, FIRST_PACKET, HOLD))),
    "refuses and leaves": lambda _: Manner((
        Deed(ANY_CHANNEL, FIRST_PACKET, SAY, shut(1)), Deed(ANY_CHANNEL, FIRST_PACKET, LEAVE))),
    "refuses at the end": end(shut(1)),
    "refuses at the end and leaves": end(shut(0xFFFFFFFF), leaves=True),
    "refuses, then takes": end(shut(1) + shut(0)),
    "has everything at once": at("commands", SAY, shut(0)),
    "has everything during pages": on(FIRST_PACKET, SAY, shut(0)),
    "has everything before devices": at("sections", SAY, shut(0)),
    "leaves without a word": end(b"", leaves=True),
    "leaves in the middle of a word": end(shut(0)[:5], leaves=True),
    "floods with PONG": on(FIRST_PACKET, FLOOD, pong(1) * 1000),
    "floods with PONG at once": at("commands", FLOOD, pong(1) * 1000),
}  # fmt: skip
"""By name; a source can tell each of them without a time limit."""

STALLS: dict[str, Make] = {
    "reads nothing of main": at("start", STALL, more=8),
    "reads nothing of main's end": at("sections", STALL),
    "reads nothing of a channel": on(0, STALL),
    "reads nothing of a channel's pages": on(FIRST_PACKET + wire.RAM_SIZE + 100, STALL),
    "reads nothing at all": on(FIRST_PACKET, HOLD),
    "accepts nobody": lambda _: Manner(accepts=0),
    "accepts only main": lambda _: Manner(accepts=1),
    "never answers": end(b""),
    "answers half a word": end(shut(0)[:5]),
    "says only PONG": end(pong(1)),
}
"""By name; without an end of its own a source waits for ever."""
