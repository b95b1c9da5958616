"""
ELF cores of guests, as written by QEMU's ``dump-guest-memory`` and ``virsh dump --memory-only``.

PT_LOAD segments describe RAM by physical address. A core made with paging has many of them for the
same RAM, one for each way through the guest's page tables. All other bytes of a core, such as
registers of the processors in notes, are kept unchanged.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.elf.headers import Load, read_header, read_loads
from snapmig.images.elf.kept import PLACES, REST, gaps, load_kept
from snapmig.images.elf.write import plan_core
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.images.spans import Span, SpanPlacer

__all__ = ("NAME", "open_image", "plan_image")

NAME = "elf"

MAX_RANGES = 4096
MAX_REST_SIZE = 128 << 20
"""Bytes of a core that are not RAM: headers and notes."""
MAX_ABSENT_SIZE = 1 << 40
"""RAM described by a core without bytes for it, and therefore zero."""

_CORE = 4


def open_image(file: ImageFile) -> PartsImage:
    """
    Open an ELF core.

    :raises SnapmigError: cut short, or an impossible field
    """
    header = read_header(file)
    loads = read_loads(file, header)
    blocks = _blocks(loads, file)
    spans = _join_spans(_spans(loads, blocks))
    parts = [Part(file.path, *span) for span in _once(spans)]
    others = list(gaps(spans, file.size))
    size = sum(stop - start for start, stop in others)
    if size > MAX_REST_SIZE:
        message = f"{size} bytes are not in any segment of RAM, expected at most {MAX_REST_SIZE}"
        raise SnapmigError(message, path=file.shown)
    attachments = {
        PLACES: json.dumps({"size": file.size, "places": spans}).encode(),
        REST: b"".join(file.read(start, stop - start) for start, stop in others),
    }
    image = PartsImage(NAME, blocks, parts, [file], attachments)
    image.architecture = header.architecture
    return image


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into an ELF core.

    A snapshot made from a core becomes that core again. Otherwise each piece of RAM becomes a
    segment.

    :raises UsageError: no guest physical address is known, or not the architecture
    """
    return _plan_again(content) if PLACES in content.attachments else plan_core(content, NAME)


def _blocks(loads: Sequence[Load], file: ImageFile) -> tuple[RamBlock, ...]:
    ranges: list[tuple[int, int]] = []
    for start, stop in sorted((load.start, load.stop) for load in loads):
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], stop))
        else:
            ranges.append((start, stop))
    if len(ranges) > MAX_RANGES:
        message = f"{len(ranges)} ranges of RAM, expected at most {MAX_RANGES}"
        raise SnapmigError(message, path=file.shown)
    total = sum(stop - start for start, stop in ranges)
    if total > file.size + MAX_ABSENT_SIZE:
        message = f"core lists {total} bytes of RAM, but the file has {file.size} bytes"
        raise SnapmigError(message, path=file.shown)
    return tuple(RamBlock.at(start, stop - start) for start, stop in ranges)


def _spans(loads: Iterable[Load], blocks: tuple[RamBlock, ...]) -> Iterator[Span]:
    geometry = Geometry(blocks, PAGE_SIZE)
    addresses = [block.pieces[0].gpa for block in blocks]
    for load in loads:
        if load.stored:
            number = bisect_right(addresses, load.start) - 1
            start = geometry.block_start(number) + load.start - addresses[number]
            yield Span(start, start + load.stored, load.offset)


def _join_spans(spans: Iterable[Span]) -> list[Span]:
    # Segments with the same place in file and RAM, or adjacent in both, become one.
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.offset - span.start, span.start)):
        last = joined[-1] if joined else None
        shift = span.offset - span.start
        if last and last.offset - last.start == shift and span.start <= last.stop:
            joined[-1] = last._replace(stop=max(last.stop, span.stop))
        else:
            joined.append(span)
    return sorted(joined)


def _once(spans: Iterable[Span]) -> Iterator[Span]:
    # Take each byte of RAM from the first span to cover it.
    reached = 0
    for start, stop, offset in spans:
        first = max(start, reached)
        if first < stop:
            yield Span(first, stop, offset + first - start)
            reached = stop


def _plan_again(content: Content) -> ImagePlan:
    core = load_kept(content.attachments, content.ram_size)
    return ImagePlan(core.size, (), core.pieces, SpanPlacer(core.spans))
