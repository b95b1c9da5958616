"""Streams on one connection, without multifd: ordinary ones, and background snapshots."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from tests.support.multifd import wire
from tests.support.multifd.dialects import QEMU_10, Dialect
from tests.support.multifd.plan import Block, Packet, Plan, contents, whole
from tests.support.multifd.talk import MAIN, PLAIN_GUEST, Guest, Line, Step, Talk, block_list
from tests.support.multifd.wire import PAGE, word


def write_plain(
    plan: Plan,
    dialect: Dialect = QEMU_10,
    *,
    end_section: bool = True,
    return_path: bool = True,
    guest: Guest = PLAIN_GUEST,
) -> Talk:
    """
    Return a stream with all pages on the main channel, a section for each round.

    :param end_section: end RAM as a migration does; a background snapshot does not
    """
    machine = guest.machine or dialect.machine
    footer = struct.pack(">BI", 0x7E, guest.section)
    steps = [Step("header", b"QEVM" + struct.pack(">I", 3))]
    steps.append(Step("configuration", struct.pack(">BI", 7, len(machine)) + machine))
    if return_path:
        steps.append(Step("open return path", wire.command(wire.OPEN_RETURN_PATH)))
        steps.append(Step("ping", wire.command(wire.PING, struct.pack(">I", 1))))
    if guest.early:
        steps.append(Step("early", guest.early))
    start = struct.pack(">BI", 1, guest.section) + b"\x03ram" + struct.pack(">II", 0, 4)
    steps.append(Step("list", start + block_list(plan.blocks)))
    steps.append(Step("list end", word(wire.EOS) + footer))
    block: bytes | None = None
    for number, packets in enumerate(plan.rounds):
        last = end_section and number == len(plan.rounds) - 1
        steps.append(Step("section", struct.pack(">BI", 3 if last else 2, guest.section), number))
        for packet in packets:
            name = plan.blocks[packet.block].name
            for page, fill in packet.pages:
                steps.append(Step("page", _record(name, page, fill, name == block), number))
                block = name
        steps.append(Step("section end", word(wire.EOS) + footer, number))
    steps += [Step("devices", guest.devices), Step("end", b"\0")]
    if (text := guest.description) is not None:
        steps.append(Step("description", struct.pack(">BI", 6, len(text)) + text))
    return Talk(plan, (Line(MAIN, tuple(steps)),), return_path, eager=True)


def background(blocks: Sequence[Block], seed: int = 1, sections: int = 5) -> Plan:
    """Return a plan of a background snapshot: each page once, those that the guest writes first."""
    pages = [(p.block, page) for p in whole(blocks, 1, seed) for page in p.pages]
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(pages)).tolist()
    written = len(pages) // 4
    order = order[:written] + sorted(order[written:])
    sends = [Packet(0, pages[at][0], (pages[at][1],)) for at in order]
    size = -(-len(sends) // sections)
    rounds = tuple(tuple(sends[at : at + size]) for at in range(0, len(sends), size))
    return Plan(tuple(blocks), 1, rounds)


def _record(block: bytes, page: int, fill: int, same: bool) -> bytes:
    flags = (wire.DATA if fill else wire.ZERO) | (wire.CONTINUE if same else 0)
    name = b"" if same else bytes([len(block)]) + block
    return word(page * PAGE | flags) + name + (contents(fill) if fill else b"\0")
