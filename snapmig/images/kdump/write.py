"""
Write kdump-compressed dumps: headers, bitmaps, and pages compressed by zlib.

Every page of RAM has an entry in the table, at a place that follows from its address; all pages of
zeros have one place in common. Data pages go to the end of the file, whoever comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from snapmig.architectures import Architecture
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.elf.notes import core_notes, parse_notes
from snapmig.images.elf.vmcoreinfo import NOTE_NAME, text_value
from snapmig.images.kdump.header import BLOCK_SIZES, MAX_BITMAP_SIZE, Layout, saved_block_size
from snapmig.images.kdump.kept import ERASED, HEAD
from snapmig.images.kdump.new_header import NewHeader
from snapmig.images.kdump.pages import entry_type
from snapmig.images.kdump.placer import DumpPlacer
from snapmig.images.plan import Content, ImagePlan, warn_of_missing
from snapmig.images.spans import Span, piece_spans

__all__ = ("plan_dump",)


def plan_dump(content: Content, name: str) -> ImagePlan:
    """
    Return the plan of a dump.

    :param name: of the format, for messages
    :raises UsageError: no guest physical address is known, or not the architecture, or an address
        is not of a whole page or too high
    """
    missing = warn_of_missing(content.blocks, name)
    architecture = content.architecture
    if architecture is None:
        message = f"{name} needs the guest's architecture, which is not known: --arch names it"
        raise UsageError(message)
    spans = piece_spans(content.blocks)
    notes, saved = core_notes(content, architecture), content.attachments.get(HEAD, b"")
    layout = _layout(architecture, spans)
    size = _page_size(content, notes, saved, layout)
    _check_addresses(spans, size, name)
    bitmap = _bitmap(spans, size)
    erased = content.attachments.get(ERASED, b"")
    frames = -(-_top(spans) // size)
    header = NewHeader(layout, architecture, notes, erased, saved, size, frames)
    start = (1 + header.blocks) * size
    table = start + 2 * len(bitmap)
    width = entry_type(layout.order).itemsize
    counts = [-(-(span.stop - span.start) // size) for span in spans]
    firsts = accumulate(counts, initial=0)
    listed = [
        span._replace(offset=table + first * width)
        for span, first in zip(spans, firsts, strict=False)
    ]
    zeros = -(-(table + sum(counts) * width) // size) * size
    head = header.pack(2 * len(bitmap) // size)
    pieces = [(0, head), (start, bitmap), (start + len(bitmap), bitmap)]
    placer = DumpPlacer(listed, zeros, size, layout.order)
    return ImagePlan(zeros + size, (), pieces, placer, warnings=missing)


def _page_size(content: Content, notes: bytes, saved: bytes, layout: Layout) -> int:
    # As the kernel says, or the dump that was saved, if RAM lies in such pages.
    text = b"".join(
        notes[each.start : each.stop]
        for each in parse_notes(notes, layout.order)
        if each.name == NOTE_NAME
    )
    said = text_value(text, b"PAGESIZE")
    known = {str(size).encode(): size for size in BLOCK_SIZES}
    size = known.get(said) or saved_block_size(saved, layout) or PAGE_SIZE
    pieces = [piece for block in content.blocks for piece in block.pieces]
    fit = all(piece.offset % size == 0 == piece.gpa % size for piece in pieces)
    return size if fit else PAGE_SIZE


def _top(spans: Sequence[Span]) -> int:
    return max(span.offset + span.stop - span.start for span in spans)


def _check_addresses(spans: Sequence[Span], size: int, name: str) -> None:
    limit = MAX_BITMAP_SIZE * 8 * size
    if _top(spans) > limit:
        message = f"{name} has room for addresses below {limit:#x}, RAM ends at {_top(spans):#x}"
        raise UsageError(message)
    for span in spans:
        if span.offset % PAGE_SIZE:
            raise UsageError(f"{name} has whole pages, and RAM begins at {span.offset:#x}")


def _layout(architecture: Architecture, spans: Sequence[Span]) -> Layout:
    wide = architecture.bits == 64 or _top(spans) > 1 << 32
    return Layout(64 if wide else 32, "<" if architecture.little else ">")


def _bitmap(spans: Sequence[Span], size: int) -> bytes:
    # A bit for each page frame, in whole blocks.
    bits = bytearray(-(-_top(spans) // (8 * size * size)) * size)
    for start, stop, gpa in spans:
        first, after = gpa // size, -(-(gpa + stop - start) // size)
        low, high = first // 8, (after - 1) // 8
        for at in (low, high):
            bits[at] |= sum(1 << bit for bit in range(8) if first <= at * 8 + bit < after)
        bits[low + 1 : high] = b"\xff" * max(0, high - low - 1)
    return bytes(bits)
