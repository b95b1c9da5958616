"""
Sources that break off, stall, err or attack: each a small change of a good talk.

``FAULTS`` are for talks of two channels without compression, of which the first begins with a
packet of pages; ``STALLS`` wait for a receiver's patience to end; ``COMPRESSED`` are for talks with
compression.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import zstandard

from tests.support.multifd import wire
from tests.support.multifd.plan import Block, contents
from tests.support.multifd.talk import MAIN, Line, Step, Talk, block_list, device
from tests.support.multifd.wire import PAGE, changed, command, with_offset, word

Change = Callable[[Talk], Talk]
Edit = Callable[[bytes], bytes]
FIRST, SECOND = "channel 0", "channel 1"
MANY_BLOCKS = 200_000
STATE_MIB = 300
"""More than any guest's devices have."""


def cut(line: str, kind: str, size: int, deed: str, nth: int = 0) -> Change:
    """
    Return a fault: a connection ends some bytes into a step.

    :param deed: ``close`` the connection, ``die`` with all of them, or ``stall``
    """

    def make(talk: Talk) -> Talk:
        found = talk.line(line)
        at = found.find(kind, nth)
        part = found.steps[at]._replace(data=found.steps[at].data[:size])
        return talk.with_line(Line(line, (*found.steps[:at], part, Step(deed))))

    return make


def on(line: str, kind: str, edit: Edit, nth: int = 0) -> Change:
    """Return a fault: one step has other bytes."""
    return lambda talk: talk.changed(line, kind, edit, nth)


def extra(line: str, kind: str, data: bytes, *, after: bool = False, nth: int = 0) -> Change:
    """Return a fault: there are more bytes before a step, or after it."""
    return lambda talk: talk.inserted(line, kind, Step("extra", data), nth=nth, after=after)


def fields(**values: int | bytes) -> Change:
    """Return a fault: the first packet of channel 0 has other values in its header."""
    return on(FIRST, "packet", lambda data: changed(data, **values))


def offset(place: int, value: int) -> Change:
    """Return a fault: the first packet of channel 0 has another offset in its list."""
    return on(FIRST, "packet", lambda data: with_offset(data, place, value))


def init(at: int, value: bytes, line: str = SECOND) -> Change:
    """Return a fault: a channel's first packet has other bytes somewhere."""
    return on(line, "init", lambda data: data[:at] + value + data[at + len(value) :])


def _payload(data: bytes, size: int, *, stated: bool) -> bytes:
    # A packet with more or fewer bytes of pages, which its header states or not.
    head, pages = data[: wire.RAM_SIZE], data[wire.RAM_SIZE :]
    pages = (pages + bytes(PAGE))[:size]
    return (changed(head, next_packet_size=size) if stated else head) + pages


def _listed(blocks: list[Block], total: int | None = None) -> Change:
    return on(MAIN, "list", lambda _: block_list(blocks, total))


def _resized(edit: Callable[[int], int]) -> Change:
    return lambda talk: _listed(list(talk.plan.blocks), edit(_size(talk)))(talk)


def _size(talk: Talk) -> int:
    return sum(block.size for block in talk.plan.blocks)


def _last_block(size: int, name: bytes | None = None) -> Change:
    # The list's last block has another size, in bytes, or another name.
    def make(talk: Talk) -> Talk:
        *others, last = talk.plan.blocks
        total = sum(block.size for block in others) + size
        entry = last.name if name is None else name
        data = block_list(others, total) + bytes([len(entry)]) + entry + struct.pack(">Q", size)
        return talk.changed(MAIN, "list", lambda _: data)

    return make


def endless_list(_data: bytes) -> bytes:
    """Return a list of more blocks than anybody has, of a size that could be."""
    entries = (
        b"\x08" + b"%08d" % number + struct.pack(">Q", PAGE) for number in range(MANY_BLOCKS)
    )
    return word(1 << 50 | wire.MEM_SIZE) + b"".join(entries)


def another_main(talk: Talk) -> Talk:
    """Connect a second main channel."""
    return talk.with_line(Line("main 2", talk.line(MAIN).steps[:2]))


def one_more_channel(talk: Talk) -> Talk:
    """Connect a channel with the next free number, which sends SYNC packets as the others do."""
    steps = talk.line(SECOND).steps
    first = Step("init", wire.init(len(talk.lines) - 1))
    syncs = (Step("sync", changed(wire.packet(b"", (), payload_size=0), flags=wire.SYNC))
             for step in steps if step.kind == "sync")  # fmt: skip
    return talk.with_line(Line(f"channel {len(talk.lines) - 1}", (first, *syncs)))


def a_stranger(talk: Talk) -> Talk:
    """Connect something that speaks another protocol."""
    return talk.with_line(Line("stranger", (Step("init", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),)))


def one_sync_less(talk: Talk) -> Talk:
    """Leave out a channel's last SYNC."""
    at = talk.line(SECOND).find("sync", -1)
    return talk.edited(SECOND, lambda steps: steps.__delitem__(at))


def without(kind: str, nth: int = 0) -> Change:
    """Return a fault: main lacks a step."""

    def make(talk: Talk) -> Talk:
        at = talk.line(MAIN).find(kind, nth)
        return talk.edited(MAIN, lambda steps: steps.__delitem__(at))

    return make


def endless_devices(talk: Talk) -> Talk:
    """Send a device's state that is larger than any."""
    piece = bytes(1 << 20)
    start = device(9, b"endless")[:-5]
    steps = [Step("extra", start), *[Step("extra", piece)] * STATE_MIB]
    return talk.inserted(MAIN, "devices", *steps)


_RECORD = b"\x03ram"
_STATE = wire.device_state(b"vfio", 0, b"state")
_NAME = b"a" * 256


def _deaths() -> Iterator[tuple[str, Change]]:
    places = {
        MAIN: [("header", 2), ("configuration", 5), ("list", 0), ("list", 20), ("list end", 4),
               ("section", 3), ("section end", 9), ("devices", 0), ("devices", 20), ("end", 0),
               ("description", 0), ("description", 12)],
        FIRST: [("init", 0), ("init", 10), ("init", 64), ("packet", 5), ("packet", 400),
                ("packet", wire.RAM_SIZE), ("packet", wire.RAM_SIZE + 100), ("sync", 50)],
    }  # fmt: skip
    for line, cuts in places.items():
        for kind, size in cuts:
            for deed in ("close", "die"):
                # Without a description a stream can be whole: old machine types have none.
                if (kind, size) != ("description", 0):
                    yield f"{line} {deed}s {size} bytes into {kind}", cut(line, kind, size, deed)


FAULTS: dict[str, Change] = {
    **dict(_deaths()),
    # Connections
    "main begins with garbage": on(MAIN, "header", lambda _: b"GET / HTTP/1.1\r\n\r\n"),
    "main begins like TLS": on(MAIN, "header", lambda _: bytes.fromhex("16030100e6010000")),
    "main is of another version": on(MAIN, "header", lambda _: b"QEVM\0\0\0\2"),
    "a channel begins with garbage": init(0, b"\xde\xad\xbe\xef"),
    "a channel is of another version": init(4, struct.pack(">I", 2)),
    "a channel has another guest's uuid": init(8, b"\x11" * 16),
    "a channel number comes twice": init(24, b"\0"),
    "a channel number is too high": init(24, b"\x02"),
    "a channel number is far too high": init(24, b"\xff"),
    "one channel too many": one_more_channel,
    "a second main channel": another_main,
    "a stranger connects": a_stranger,
    # Headers of packets
    "packet with another magic": fields(magic=0x11223345),
    "packet of another version": fields(version=2),
    "more pages than the list has": fields(pages_alloc=1),
    "a list longer than the packet": fields(pages_alloc=wire.PAGES + 1, normal_pages=129),
    "a list without an end": fields(pages_alloc=0xFFFFFFFF, normal_pages=0xFFFFFFFF),
    "normal and zero pages beyond the list": fields(zero_pages=wire.PAGES),
    "zero pages without an end": fields(zero_pages=0xFFFFFFFF),
    "payload is a byte short": on(FIRST, "packet", lambda data: _payload(
        data, len(data) - wire.RAM_SIZE - 1, stated=True)),
    "payload is a page long": on(FIRST, "packet", lambda data: _payload(
        data, len(data) - wire.RAM_SIZE + PAGE, stated=True)),
    "payload has no size": fields(next_packet_size=0),
    "payload has no end": fields(next_packet_size=0xFFFFFFFF),
    "offset outside of the block": lambda talk: offset(0, talk.plan.blocks[0].size)(talk),
    "offset far outside of the block": offset(0, 1 << 63),
    "offset that wraps around": offset(0, (1 << 64) - PAGE),
    "offset not of a page": offset(0, 0x800),
    "the same offset twice": on(FIRST, "packet", lambda data: with_offset(
        data, 1, struct.unpack_from(">Q", data, wire.HEADER.size)[0])),
    "unknown block": fields(ramblock=b"nobody"),
    "block without a name": fields(ramblock=b""),
    "block name without an end": fields(ramblock=_NAME),
    "block name that is not text": fields(ramblock=b"\xff\xfe"),
    "unknown flag": fields(flags=0x80),
    "all flags": fields(flags=0xFFFFFFFF),
    "zlib all of a sudden": fields(flags=wire.ZLIB),
    "zstd all of a sudden": fields(flags=wire.ZSTD),
    "qpl all of a sudden": fields(flags=wire.QPL),
    "uadk all of a sudden": fields(flags=wire.UADK),
    "qatzip all of a sudden": fields(flags=wire.QATZIP),
    "two compressions at once": fields(flags=wire.ZLIB | wire.ZSTD),
    # Device state
    "device state with SYNC": extra(FIRST, "packet", wire.device_state(
        b"vfio", 0, b"state", wire.DEVICE_STATE | wire.SYNC)),
    "device state of nobody": extra(FIRST, "packet", wire.device_state(_NAME, 0, b"state")),
    "device state without data": extra(FIRST, "packet", wire.device_state(b"vfio", 0, b"")),
    "device state without an end": extra(FIRST, "packet", _STATE[:272] + b"\xff" * 4),
    # Lists of blocks
    "an endless list of blocks": on(MAIN, "list", endless_list),
    "blocks are more than their sum": _resized(lambda size: size - PAGE),
    "blocks are less than their sum": _resized(lambda size: size + PAGE),
    "an absurd amount of RAM": _resized(lambda _: 1 << 60),
    "RAM beyond 64 bits": _resized(lambda _: (1 << 64) - PAGE),
    "no RAM": _listed([]),
    "a block of nothing": _last_block(0),
    "a block of an absurd size": _last_block(1 << 60),
    "a block of half a page": _last_block(0x800),
    "a block listed twice": lambda talk: _listed([*talk.plan.blocks, talk.plan.blocks[0]])(talk),
    "a block without a name in the list": _last_block(PAGE, b""),
    "a block name in the list that is not text": _last_block(PAGE, b"\xff\xfe"),
    # The main channel
    "no configuration": without("configuration"),
    "a machine type without an end": on(MAIN, "configuration", lambda data: data[:1] + b"\xff" * 4),
    "an unknown part of the configuration": extra(
        MAIN, "configuration", b"\x05\x03new\0\0\0\1", after=True),
    "another section's footer": on(MAIN, "list end", lambda data: data[:-4] + b"\0\0\0\x63"),
    "no footer": on(MAIN, "list end", lambda data: data[:-5]),
    "a section of nobody": on(MAIN, "section", lambda data: data[:1] + b"\0\0\0\x63"),
    "a page on main": extra(MAIN, "section", word(wire.DATA) + _RECORD + contents(1), after=True),
    "a zero page outside of its block": lambda talk: extra(MAIN, "section", word(
        talk.plan.blocks[0].size | wire.ZERO) + _name(talk) + b"\0", after=True)(talk),
    "a zero page of an unknown block": extra(
        MAIN, "section", word(wire.ZERO) + b"\x06nobody\0", after=True),
    "a zero page of no block": extra(
        MAIN, "section", word(wire.ZERO | wire.CONTINUE) + b"\0", after=True),
    "an XBZRLE page": extra(MAIN, "section", word(0x40) + _RECORD + bytes(8), after=True),
    "a compressed page": extra(MAIN, "section", word(0x100) + _RECORD + bytes(8), after=True),
    "an unknown word": extra(MAIN, "section", word(0x400), after=True),
    **{f"command {number}": extra(MAIN, "section", command(number))
       for number in (0, 3, 4, 5, 6, 7, 8, 9, 10, 12, 0xFFFF)},
    "a command without an end": extra(MAIN, "section", b"\x08\0\x02\xff\xff"),
    "a command cut short before RAM": extra(MAIN, "ram", b"\x08\0\x02"),
    "a ping cut short before RAM": extra(MAIN, "ram", b"\x08\0\x02\0\x04\0"),
    "a ping without a number": extra(MAIN, "section", command(wire.PING)),
    "an unknown section": extra(MAIN, "section", b"\x09" + bytes(40)),
    "a section of a device nobody began": extra(MAIN, "section", b"\x02\0\0\0\x63" + bytes(40)),
    "no end mark": without("end"),
    "bytes after the end": extra(MAIN, "description", b"more" * 25, after=True),
    "a description without an end": on(MAIN, "description", lambda data: data[:1] + b"\xff" * 4),
    "endless devices": endless_devices,
    # Barriers
    "one SYNC less than other channels": one_sync_less,
    "a mark without SYNC": extra(MAIN, "section end", word(wire.FLUSH), nth=-1),
}  # fmt: skip
"""By name; the receiver can tell each of them as soon as the source closes its connections."""

STALLS: dict[str, Change] = {
    "nothing comes on main": cut(MAIN, "header", 0, "stall"),
    "main stalls in its list": cut(MAIN, "list", 10, "stall"),
    "main stalls in a section": cut(MAIN, "section end", 4, "stall"),
    "main stalls in devices": cut(MAIN, "devices", 10, "stall"),
    "nothing comes on a channel": cut(SECOND, "init", 0, "stall"),
    "a channel stalls in its first packet": cut(SECOND, "init", 20, "stall"),
    "a channel stalls in a header": cut(FIRST, "packet", 100, "stall"),
    "a channel stalls in its pages": cut(FIRST, "packet", wire.RAM_SIZE + 10, "stall"),
    "a channel never sends its SYNC": cut(SECOND, "sync", 0, "stall"),
    "a channel never connects": lambda talk: talk.without(SECOND),
    "only a channel connects": lambda talk: talk.without(MAIN).without(SECOND),
}
"""By name; without an end of its own the receiver waits for ever."""


def _name(talk: Talk) -> bytes:
    name = talk.plan.blocks[0].name
    return bytes([len(name)]) + name


def _repacked(pack: Callable[[bytes], bytes]) -> Change:
    # The first packet's pages, packed by something else; its header states the new size.
    def edit(data: bytes) -> bytes:
        count = struct.unpack_from(">I", data, wire.FIELDS["normal_pages"][0])[0]
        stored = pack(contents(1) * count)
        return changed(data[: wire.RAM_SIZE], next_packet_size=len(stored)) + stored

    return on(FIRST, "packet", edit)


def _deflated(data: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    made = zlib.compressobj(1)
    return made.compress(data) + made.flush(mode)


_ZSTD = zstandard.ZstdCompressor(1)

COMPRESSED: dict[str, dict[str, Change]] = {
    "zlib": {
        "noise instead of zlib": _repacked(lambda data: contents(3)[: len(data)]),
        "a zlib stream with an end": _repacked(lambda data: _deflated(data, zlib.Z_FINISH)),
        "zlib of a byte less": _repacked(lambda data: _deflated(data[:-1])),
        "zlib of a byte more": _repacked(lambda data: _deflated(data + b"x")),
        "a bomb in zlib": _repacked(lambda _: _deflated(bytes(256 << 20))),
        "zstd instead of zlib": _repacked(_ZSTD.compress),
    },
    "zstd": {
        "noise instead of zstd": _repacked(lambda data: contents(3)[: len(data)]),
        "zstd of a byte less": _repacked(lambda data: _ZSTD.compress(data[:-1])),
        "zstd of a byte more": _repacked(lambda data: _ZSTD.compress(data + b"x")),
        "a bomb in zstd": _repacked(lambda _: _ZSTD.compress(bytes(256 << 20))),
        "zlib instead of zstd": _repacked(_deflated),
    },
}
"""By compression and name."""
