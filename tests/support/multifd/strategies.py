"""Random talks for property tests: well-formed ones, and ones with bytes and steps out of place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.support.multifd.dialects import DIALECTS
from tests.support.multifd.plan import Block, Fill, Packet, Page, Plan
from tests.support.multifd.talk import Line, Step, Talk, write
from tests.support.multifd.wire import PAGES

NAMES = (b"pc.ram", b"0000:00:02.0/vga.vram", b"/rom@etc/acpi/tables", b"pc.bios", b"r")
SIZES = st.sampled_from([1, 3, 17, PAGES - 1, PAGES, PAGES + 1, 2 * PAGES, 300])


@st.composite
def plans(draw: Callable[[Any], Any]) -> Plan:
    """
    Draw a plan: some rounds of runs of pages, of which later ones write pages again.

    Blocks end in the middle of a run of 128 pages, packets have parts of such a run or of two, zero
    pages follow pages of data and the other way round, and channels may have nothing to send.
    """
    sizes = draw(st.lists(SIZES, min_size=1, max_size=len(NAMES)))
    blocks = tuple(Block(name, size) for name, size in zip(NAMES, sizes, strict=False))
    channels = draw(st.integers(1, 4))
    rounds = draw(st.lists(st.lists(_runs(blocks), max_size=6), min_size=1, max_size=4))
    packets = tuple(_round(runs, channels, draw) for runs in rounds)
    return Plan(blocks, channels, packets)


@st.composite
def _runs(draw: Callable[[Any], Any], blocks: tuple[Block, ...]) -> tuple[int, list[Page]]:
    block = draw(st.integers(0, len(blocks) - 1))
    start = draw(st.integers(0, blocks[block].pages - 1))
    count = draw(st.integers(1, blocks[block].pages - start))
    step = draw(st.sampled_from([1, 1, 2, 5]))
    fills: list[Fill] = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    pages = range(start, start + count, step)
    return block, [(page, fills[page % len(fills)]) for page in pages]


def _round(
    runs: list[tuple[int, list[Page]]], channels: int, draw: Callable[[Any], Any]
) -> tuple[Packet, ...]:
    seen: set[tuple[int, int]] = set()
    made = []
    for block, pages in runs:
        fresh = [page for page in pages if (block, page[0]) not in seen]
        seen |= {(block, number) for number, _ in fresh}
        size = draw(st.sampled_from([1, 7, PAGES]))
        as_data = draw(st.booleans())
        for at in range(0, len(fresh), size)[:40]:
            number = draw(st.integers(0, channels - 1))
            made.append(Packet(number, block, tuple(fresh[at : at + size]), as_data))
    return tuple(made)


@st.composite
def talks(draw: Callable[[Any], Any]) -> Talk:
    """Draw a plan, a release of QEMU, a compression, and whether there is a return path."""
    return write(
        draw(plans()),
        draw(st.sampled_from(DIALECTS)),
        compression=draw(st.sampled_from(["none", "none", "zlib", "zstd"])),
        return_path=draw(st.booleans()),
    )


@st.composite
def damaged(draw: Callable[[Any], Any], talk: Talk) -> Talk:
    """Draw a talk with one to three places that are not as they were."""
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(talk.lines))
        at = draw(st.integers(0, len(line.steps) - 1))
        change = draw(st.sampled_from([_flip, _overwrite, _cut_out, _repeat, _swap]))
        steps = list(line.steps)
        change(draw, steps, at)
        talk = talk.with_line(Line(line.name, tuple(steps)))
    return talk


def _flip(draw: Callable[[Any], Any], steps: list[Step], at: int) -> None:
    data = bytearray(steps[at].data)
    if data:
        # Most of a packet is pages, which may have any bytes: look at the headers rather.
        place = draw(st.integers(0, min(len(data), 400) - 1))
        data[place] ^= 1 << draw(st.integers(0, 7))
    steps[at] = steps[at]._replace(data=bytes(data))


def _overwrite(draw: Callable[[Any], Any], steps: list[Step], at: int) -> None:
    data = steps[at].data
    place = draw(st.integers(0, len(data)))
    junk = draw(st.binary(min_size=1, max_size=8))
    steps[at] = steps[at]._replace(data=data[:place] + junk + data[place + len(junk) :])


def _cut_out(draw: Callable[[Any], Any], steps: list[Step], at: int) -> None:
    data = steps[at].data
    start = draw(st.integers(0, len(data)))
    stop = draw(st.integers(start, len(data)))
    steps[at] = steps[at]._replace(data=data[:start] + data[stop:])


def _repeat(_draw: Callable[[Any], Any], steps: list[Step], at: int) -> None:
    steps.insert(at, steps[at])


def _swap(draw: Callable[[Any], Any], steps: list[Step], at: int) -> None:
    other = draw(st.integers(0, len(steps) - 1))
    steps[at], steps[other] = steps[other], steps[at]
