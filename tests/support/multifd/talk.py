"""The bytes of a migration's connections, in order, from a plan and a dialect."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import zstandard

from tests.support.multifd import wire
from tests.support.multifd.dialects import QEMU_10, Dialect
from tests.support.multifd.plan import Block, Packet, Plan, Round, contents
from tests.support.multifd.wire import PAGE, word

MAIN = "main"
SENT = "sent "
"""How gates begin that are open as soon as a step was sent, read or not."""
RAM_ID = 2
FOOTER = struct.pack(">BI", 0x7E, RAM_ID)
DESCRIPTION = json.dumps({"page_size": PAGE, "devices": []}).encode()


class Step(NamedTuple):
    """
    Bytes sent at once on one connection.

    :param kind: ``init``, ``packet``, ``sync``, ``empty`` or ``state`` on a channel; on main the
        part of the stream; ``stall``, ``close`` and ``die`` are deeds instead of bytes
    :param round: 0 for the first round, -1 before it
    :param waits: the gate that must be open before
    :param opens: the gate opened when the receiver has read it, or does not go on to read
    """

    kind: str
    data: bytes = b""
    round: int = -1
    waits: str = ""
    opens: str = ""


@dataclass(frozen=True)
class Line:
    """One connection: the main channel, or ``channel 0`` and so on."""

    name: str
    steps: tuple[Step, ...]

    @property
    def data(self) -> bytes:
        """All bytes of the connection."""
        return b"".join(step.data for step in self.steps)

    def find(self, kind: str, nth: int = 0) -> int:
        """Return the place of the nth step of a kind; negative ones count from the end."""
        return [at for at, step in enumerate(self.steps) if step.kind == kind][nth]


@dataclass(frozen=True)
class Talk:
    """
    All connections of a migration, the main channel first.

    :param return_path: the source waits for the receiver's word at the end, as QEMU does
    :param eager: the main channel begins before the others are connected
    """

    plan: Plan
    lines: tuple[Line, ...]
    return_path: bool = False
    eager: bool = False

    def line(self, name: str) -> Line:
        """Return a connection by name."""
        return next(line for line in self.lines if line.name == name)

    def with_line(self, changed: Line) -> Talk:
        """Return the talk with a connection replaced, or added if it is new."""
        if all(line.name != changed.name for line in self.lines):
            return replace(self, lines=(*self.lines, changed))
        lines = tuple(changed if line.name == changed.name else line for line in self.lines)
        return replace(self, lines=lines)

    def without(self, name: str) -> Talk:
        """Return the talk without a connection."""
        return replace(self, lines=tuple(line for line in self.lines if line.name != name))

    def edited(self, name: str, edit: Callable[[list[Step]], None]) -> Talk:
        """Return the talk with a connection's steps edited in place."""
        steps = list(self.line(name).steps)
        edit(steps)
        return self.with_line(Line(name, tuple(steps)))

    def changed(self, name: str, kind: str, change: Callable[[bytes], bytes], nth: int = 0) -> Talk:
        """Return the talk with the bytes of one step changed."""

        def edit(steps: list[Step]) -> None:
            at = self.line(name).find(kind, nth)
            steps[at] = steps[at]._replace(data=change(steps[at].data))

        return self.edited(name, edit)

    def inserted(self, name: str, kind: str, *new: Step, nth: int = 0, after: bool = False) -> Talk:
        """Return the talk with steps inserted before a step, or after it."""
        at = self.line(name).find(kind, nth) + after
        return self.edited(name, lambda steps: steps.__setitem__(slice(at, at), new))


def channel(number: int) -> str:
    """Return the name of a channel's connection."""
    return f"channel {number}"


@dataclass(frozen=True)
class Guest:
    """What a stream has besides RAM: bytes of a real guest's devices, or made-up ones."""

    machine: bytes | None = None
    early: bytes = b""
    devices: bytes = b""
    description: bytes | None = DESCRIPTION
    uuid: bytes = bytes(16)
    section: int = RAM_ID


def device(number: int, name: bytes, body: bytes = b"device state") -> bytes:
    """Return a device's full section."""
    head = struct.pack(">BIB", 4, number, len(name)) + name + struct.pack(">II", 0, 2)
    return head + body + struct.pack(">BI", 0x7E, number)


DEVICES = device(5, b"timer") + device(6, b"cpu", bytes(range(256)) * 40)
PLAIN_GUEST = Guest(devices=DEVICES)


def write(
    plan: Plan,
    dialect: Dialect = QEMU_10,
    *,
    compression: str = "none",
    return_path: bool = True,
    guest: Guest = PLAIN_GUEST,
    states: Sequence[tuple[int, bytes, int, bytes]] = (),
) -> Talk:
    """
    Return the talk of a plan.

    :param states: device-state packets: channel, name, instance, data
    """
    channels = [_Channel(number, dialect, compression, guest) for number in range(plan.channels)]
    main = _Main(plan, dialect, guest)
    main.open(return_path=return_path)
    for one in channels:
        one.sync(-1)
    rounds = [_repeating(packets) if dialect.repeats else packets for packets in plan.rounds]
    for number, packets in enumerate(rounds):
        main.round(number, packets, last=number == len(plan.rounds) - 1)
        for one in channels:
            mine = [packet for packet in packets if packet.channel == one.number]
            one.round(number, plan.blocks, mine)
    main.close()
    for one in channels:
        if dialect.end_sync and not dialect.per_section:
            one.sync(len(plan.rounds))
            gate = f"{SENT}{one.number}"
            one.steps[-1] = one.steps[-1]._replace(opens=gate)
            main.wait(gate)
        mine = [state for state in states if state[0] == one.number]
        one.steps += [Step("state", wire.device_state(*state[1:])) for state in mine]
    lines = [Line(MAIN, tuple(main.steps))]
    lines += [Line(channel(one.number), tuple(one.steps)) for one in channels]
    return Talk(plan, tuple(lines), return_path, dialect.eager)


def _repeating(packets: Round) -> Round:
    made: list[Packet] = []
    for packet in packets:
        before = made[-1] if made else packet
        full = len(before.pages) == wire.PAGES > len(packet.pages) and before.pages[-1][1]
        if before is not packet and full and before.block == packet.block:
            packet = replace(packet, pages=(before.pages[-1], *packet.pages))
        made.append(packet)
    return tuple(made)


def records(plan: Plan, packets: Iterable[Packet]) -> Iterator[tuple[Block, int]]:
    """Yield the zero pages of packets."""
    for packet in packets:
        if not packet.zeros_as_data:
            yield from (
                (plan.blocks[packet.block], number) for number, fill in packet.pages if not fill
            )


@dataclass
class _Channel:
    number: int
    dialect: Dialect
    compression: str
    guest: Guest
    steps: list[Step] = field(default_factory=list)
    _count: int = 0
    _last: tuple[bytes, int] = (b"", 0)

    def __post_init__(self) -> None:
        self.steps.append(Step("init", wire.init(self.number, self.guest.uuid)))
        self._compress = compressor(self.compression)

    def sync(self, number: int, *, flags: int = wire.SYNC) -> None:
        kind = "sync" if flags else "empty"
        alloc = wire.PAGES if self.dialect.alloc_in_sync else 0
        block, size = self._last if self.dialect.stale_size else (b"", 0)
        self._add(kind, number, block, (), (), b"", flags, alloc, size)

    def round(self, number: int, blocks: Sequence[Block], packets: Sequence[Packet]) -> None:
        joined = self.dialect.sync_with_pages and bool(packets) and (number + self.number) % 2 == 0
        for at, packet in enumerate(packets):
            last = joined and at == len(packets) - 1
            self._pages(number, blocks[packet.block], packet, wire.SYNC if last else 0)
        self.sync(number, flags=0 if joined else wire.SYNC)

    def _pages(self, number: int, block: Block, packet: Packet, flags: int) -> None:
        normal, zero = _split(packet)
        if not self.dialect.zeros_in_packets:
            normal, zero = sorted(normal), []
        if not normal and not zero and not flags:
            return
        payload, size = b"", self._last[1] if self.dialect.stale_size else 0
        if normal:
            payload = self._compress(b"".join(contents(fill) for _, fill in normal))
            size = len(payload)
        if normal or zero:
            flags |= wire.COMPRESSIONS[self.compression]
        places = [PAGE * at for at, _ in normal], [PAGE * at for at, _ in zero]
        kind = "sync" if flags & wire.SYNC else "packet"
        self._add(kind, number, block.name, *places, payload, flags, wire.PAGES, size)

    def _add(self, kind, number, block, normal, zero, payload, flags, alloc, size):
        head = wire.packet(
            block,
            normal,
            zero,
            payload_size=size,
            flags=flags,
            number=self._count,
            alloc=alloc,
        )
        self._count += 1
        self._last = block, size
        self.steps.append(Step(kind, head + payload, number))


def _split(packet: Packet) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    # QEMU swaps zero pages with those at the end of its list, which disorders the others.
    pages = list(packet.pages)
    if packet.zeros_as_data:
        return pages, []
    first, last = 0, len(pages) - 1
    while first <= last:
        if pages[first][1]:
            first += 1
        else:
            pages[first], pages[last] = pages[last], pages[first]
            last -= 1
    return pages[:first], pages[first:]


def compressor(name: str) -> Callable[[bytes], bytes]:
    """Return a function for the packets of one channel, which are one endless stream."""
    if name == "zlib":
        deflate = zlib.compressobj(1)
        return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    if name == "zstd":
        zstd = zstandard.ZstdCompressor(1).compressobj()
        return lambda data: zstd.compress(data) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return lambda data: data


class _Main:
    def __init__(self, plan: Plan, dialect: Dialect, guest: Guest) -> None:
        self.steps: list[Step] = []
        self._plan, self._dialect, self._guest = plan, dialect, guest
        self._footer = struct.pack(">BI", 0x7E, guest.section)
        self._block: bytes | None = None

    def open(self, *, return_path: bool) -> None:
        machine = self._guest.machine or self._dialect.machine
        self._add("header", b"QEVM" + struct.pack(">I", 3))
        self._add("configuration", struct.pack(">BI", 7, len(machine)) + machine)
        if return_path:
            self._add("open return path", wire.command(wire.OPEN_RETURN_PATH))
            self._add("ping", wire.command(wire.PING, struct.pack(">I", 1)))
        if self._guest.early:
            self._add("early", self._guest.early)
        start = struct.pack(">BI", 1, self._guest.section) + b"\x03ram" + struct.pack(">II", 0, 4)
        self._add("ram", start)
        self._add("list", block_list(self._plan.blocks))
        self._mark(-1)
        self._add("list end", word(wire.EOS) + self._footer)

    def round(self, number: int, packets: Round, *, last: bool) -> None:
        if last and self._dialect.switchover:
            self._add("switchover", wire.command(wire.SWITCHOVER_START))
        start = struct.pack(">BI", 3 if last else 2, self._guest.section)
        self._add("section", start, number)
        if not self._dialect.zeros_in_packets:
            zeros = [self._record(b.name, page) for b, page in records(self._plan, packets)]
            if zeros:
                self._add("zeros", b"".join(zeros), number)
        self._mark(number)
        if last and self._dialect.end_mark:
            self._mark(number)
        self._add("section end", word(wire.EOS) + self._footer, number)

    def close(self) -> None:
        self._add("devices", self._guest.devices)
        self._add("end", b"\0")
        text = self._guest.description
        if text is not None:
            self._add("description", struct.pack(">BI", 6, len(text)) + text)

    def wait(self, gate: str) -> None:
        # QEMU ends RAM when the channels have sent their last SYNC.
        at = Line(MAIN, tuple(self.steps)).find("section end", -1)
        self.steps.insert(at, Step("wait", waits=gate))

    def _record(self, block: bytes, page: int) -> bytes:
        if block == self._block:
            return word(page * PAGE | wire.ZERO | wire.CONTINUE) + b"\0"
        self._block = block
        return word(page * PAGE | wire.ZERO) + bytes([len(block)]) + block + b"\0"

    def _mark(self, number: int) -> None:
        if not self._dialect.per_section:
            self._add("mark", word(wire.FLUSH), number)

    def _add(self, kind: str, data: bytes, number: int = -1) -> None:
        self.steps.append(Step(kind, data, number))


def block_list(blocks: Iterable[Block], total: int | None = None) -> bytes:
    """Return the list of RAM blocks as its section has it."""
    listed = list(blocks)
    size = sum(block.size for block in listed) if total is None else total
    entries = [bytes([len(b.name)]) + b.name + struct.pack(">Q", b.size) for b in listed]
    return word(size | wire.MEM_SIZE) + b"".join(entries)
