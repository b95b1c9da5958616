"""
A plain receiver of recorded connections: their packets and words, and the RAM that they make.

It is slow and trusts nothing to be in order except what the protocol says.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import zstandard

from tests.support.multifd import wire
from tests.support.multifd.wire import PAGE

Place = tuple[str, int]


class WireError(Exception):
    """A connection holds something that is not in the protocol."""


@dataclass
class Epoch:
    """Pages between two barriers: contents by block and offset, empty for a zero page."""

    pages: dict[Place, bytes] = field(default_factory=dict)
    repeated: list[Place] = field(default_factory=list)
    """Pages that came twice: up to 7.2 the last of a full packet can be the next one's first."""
    unsure: set[Place] = field(default_factory=set)
    """Those of them with different contents, as a running guest makes them."""

    def add(self, block: str, offset: int, content: bytes) -> None:
        """Add a page."""
        place = block, offset
        if place in self.pages:
            self.repeated.append(place)
            if content != self.pages[place]:
                self.unsure.add(place)
        self.pages[place] = content


@dataclass
class Channel:
    """A channel's packets, taken apart."""

    number: int
    uuid: bytes
    epochs: list[Epoch]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Normal and zero pages of each packet that has any."""
    empty: int = 0
    """Packets with neither pages nor SYNC."""
    sync_with_pages: int = 0
    disordered: int = 0
    aligned: int = 0
    """Packets with pages of only one run of 128 pages."""
    stale: int = 0
    """Packets without pages that state a payload."""
    states: list[tuple[str, int, bytes]] = field(default_factory=list)

    @property
    def syncs(self) -> int:
        """Packets with SYNC."""
        return len(self.epochs) - 1


def read_channel(raw: bytes) -> Channel:
    """Return a recorded channel; its bytes are used up exactly."""
    magic, version, uuid, number = wire.INIT.unpack_from(raw)
    _expect(magic == wire.MAGIC and version == wire.VERSION, "no channel")
    found = Channel(number, uuid, [Epoch()])
    at = wire.INIT.size
    expand: Callable[[bytes, int], bytes] | None = None
    while at < len(raw):
        magic, version, flags = struct.unpack_from(">III", raw, at)
        _expect(magic == wire.MAGIC and version == wire.VERSION, f"no packet at {at}")
        if flags & wire.DEVICE_STATE:
            at = _read_state(raw, at, found)
            continue
        if expand is None and flags & 0x3E:
            expand = _expander(flags & 0x3E)
        at = _read_pages(raw, at, found, expand)
    return found


def _read_state(raw: bytes, at: int, found: Channel) -> int:
    *_, name, instance, size = wire.STATE_HEADER.unpack_from(raw, at)
    at += wire.STATE_HEADER.size
    found.states.append((_text(name), instance, raw[at : at + size]))
    _expect(at + size <= len(raw), "device state is cut short")
    return at + size


def _read_pages(
    raw: bytes, at: int, found: Channel, expand: Callable[[bytes, int], bytes] | None
) -> int:
    head = wire.HEADER.unpack_from(raw, at)
    flags, alloc, normal, size, _number, zero, _unused, name = head[2:]
    offsets = wire.OFFSETS.unpack_from(raw, at + wire.HEADER.size)
    at += wire.RAM_SIZE
    _expect(normal + zero <= alloc <= wire.PAGES or not normal + zero, "too many pages")
    _expect(flags & ~(wire.SYNC | 0x3E) == 0, f"flags {flags:#x}")
    if normal + zero:
        found.sizes.append((normal, zero))
        block, listed = _text(name), list(offsets[: normal + zero])
        found.disordered += listed[:normal] != sorted(listed[:normal])
        found.aligned += len({offset // PAGE // wire.PAGES for offset in listed}) == 1
        found.sync_with_pages += flags & wire.SYNC
        payload = raw[at : at + size] if normal else b""
        if expand is not None and normal:
            payload = expand(payload, normal * PAGE)
        _expect(len(payload) == normal * PAGE, "payload is not its pages")
        for index, offset in enumerate(listed):
            content = payload[index * PAGE : (index + 1) * PAGE]
            found.epochs[-1].add(block, offset, content)
        at += size if normal else 0
    else:
        found.stale += size > 0
        found.empty += not flags & wire.SYNC
    if flags & wire.SYNC:
        found.epochs.append(Epoch())
    return at


def _expander(flags: int) -> Callable[[bytes, int], bytes]:
    if flags == wire.ZLIB:
        inflate = zlib.decompressobj()
        return lambda data, size: inflate.decompress(data, size + 1)
    if flags == wire.ZSTD:
        # One stream of QEMU's, or a frame for each packet.
        zstd = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
        return lambda data, _size: zstd.decompress(data)
    raise WireError(f"compression {flags:#x}")


@dataclass
class Main:
    """The main channel, taken apart."""

    machine: bytes = b""
    commands: list[int] = field(default_factory=list)
    before: bytes = b""
    section: int = 0
    blocks: list[tuple[str, int]] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    """Flush and end words of each section of RAM, the list's first."""
    zeros: list[list[Place]] = field(default_factory=list)
    """Zero pages on main, between marks."""
    pages: dict[Place, bytes] = field(default_factory=dict)
    """Pages on main, of a migration without channels."""
    kinds: list[int] = field(default_factory=list)
    after: bytes = b""
    description: bytes = b""
    places: dict[str, int] = field(default_factory=dict)
    """Where parts begin: ``commands``, ``list``, ``sections``, ``devices`` and ``end``."""

    @property
    def flushes(self) -> bool:
        """True if marks are FLUSH words, else the ends of sections."""
        return "flush" in self.words[0]

    @property
    def marks(self) -> int:
        """The number of marks."""
        words = [one for section in self.words for one in section]
        return words.count("flush" if self.flushes else "end")


def read_main(raw: bytes) -> Main:
    """Return a recorded main channel of a guest with no other iterable device than RAM."""
    _expect(raw[:9] == b"QEVM" + struct.pack(">IB", 3, 7), "no stream")
    length = int.from_bytes(raw[9:13])
    found = Main(machine=raw[13 : 13 + length], zeros=[[]])
    at = _read_commands(raw, 13 + length, found)
    start = raw.index(b"\x03ram" + struct.pack(">II", 0, 4), at)
    found.places = {"commands": 13 + length, "list": start + 12}
    found.before, found.section = raw[at : start - 5], int.from_bytes(raw[start - 4 : start])
    at = _read_list(raw, start + 12, found)
    block = ""
    at, block = _read_words(raw, at, found, block)
    found.places["sections"] = at
    while raw[at] in (2, 3, 8):
        if raw[at] == 8:
            at = _read_commands(raw, at, found)
            continue
        found.kinds.append(raw[at])
        _expect(raw[at + 1 : at + 5] == struct.pack(">I", found.section), "a section of others")
        at, block = _read_words(raw, at + 5, found, block)
    found_end = find_end(raw, at)
    _expect(found_end is not None, "no description of devices at the end")
    end = found_end or 0
    found.places |= {"devices": at, "end": end}
    found.after, found.description = raw[at:end], raw[end + 6 :]
    json.loads(found.description)
    return found


def find_end(raw: bytes | bytearray, start: int = 0) -> int | None:
    """Return where a whole stream has its end mark, None if more is to come."""
    at = len(raw)
    while (at := raw.rfind(b"\0\x06", start, at + 1)) >= 0:
        if int.from_bytes(raw[at + 2 : at + 6]) == len(raw) - at - 6:
            return at
    return None


def _read_commands(raw: bytes, at: int, found: Main) -> int:
    while raw[at] == 8:
        number, length = struct.unpack_from(">HH", raw, at + 1)
        found.commands.append(number)
        at += 5 + length
    return at


def _read_list(raw: bytes, at: int, found: Main) -> int:
    left = int.from_bytes(raw[at : at + 8]) - wire.MEM_SIZE
    at += 8
    while left > 0:
        end = at + 1 + raw[at]
        size = int.from_bytes(raw[end : end + 8])
        found.blocks.append((raw[at + 1 : end].decode(), size))
        at, left = end + 8, left - size
    _expect(left == 0, "blocks are not their sum")
    return at


def _read_words(raw: bytes, at: int, found: Main, block: str) -> tuple[int, str]:
    found.words.append([])
    while True:
        value = int.from_bytes(raw[at : at + 8])
        at += 8
        if value in (wire.FLUSH, wire.EOS):
            found.words[-1].append("flush" if value == wire.FLUSH else "end")
            if value == wire.FLUSH or not found.flushes:
                found.zeros.append([])
            if value == wire.EOS:
                break
            continue
        flags = value & (PAGE - 1)
        kind = flags & ~wire.CONTINUE
        _expect(kind in (wire.ZERO, wire.DATA), f"word {value:#x} on main")
        if not flags & wire.CONTINUE:
            block = raw[at + 1 : at + 1 + raw[at]].decode()
            at += 1 + raw[at]
        if kind == wire.DATA:
            found.pages[block, value - flags] = raw[at : at + PAGE]
            at += PAGE
            continue
        _expect(raw[at] == 0, "a page is filled with something else than zeros")
        found.zeros[-1].append((block, value - flags))
        at += 1
    _expect(raw[at : at + 5] == struct.pack(">BI", 0x7E, found.section), "no footer")
    return at + 5, block


def restored(
    main: Main, channels: Sequence[Channel], before: Mapping[str, int] | None = None
) -> dict[str, bytes]:
    """
    Return the RAM after all barriers.

    :param before: by block the byte that fills it before; default: zero
    """
    syncs = {channel.syncs for channel in channels} or {main.marks}
    _expect(len(syncs) == 1, "channels differ in their SYNCs")
    fills = before or {}
    ram = {name: bytearray([fills.get(name, 0)]) * size for name, size in main.blocks}
    unsure: set[Place] = set()
    for (block, offset), content in main.pages.items():
        ram[block][offset : offset + PAGE] = content
    for number in range(max(syncs) + 1):
        epoch = Epoch()
        for channel in channels:
            for place, content in channel.epochs[number].pages.items():
                epoch.add(*place, content)
        for place in main.zeros[number] if number < len(main.zeros) else ():
            epoch.add(*place, b"")
        unsure = unsure - epoch.pages.keys() | epoch.unsure
        for (block, offset), content in epoch.pages.items():
            _expect(offset % PAGE == 0 and offset < len(ram[block]), "page outside of its block")
            ram[block][offset : offset + PAGE] = content or bytes(PAGE)
    _expect(not unsure, f"pages twice, different, and not again: {unsure}")
    return {name: bytes(content) for name, content in ram.items()}


def _text(name: bytes) -> str:
    _expect(b"\0" in name, "name without an end")
    return name[: name.index(b"\0")].decode()


def _expect(true: bool, words: str) -> None:
    if not true:
        raise WireError(words)
