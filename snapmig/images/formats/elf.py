"""
ELF cores of guests, as QEMU's ``dump-guest-memory`` and ``virsh dump --memory-only`` write them.

RAM is what PT_LOAD segments say by physical address. A core that was made with paging has many of
them for the same RAM, one for each way in which the guest's page tables lead there. All other bytes
of a core, such as registers of the processors in notes, are kept as they are. See elf(5) and
dump/dump.c of QEMU.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from itertools import accumulate
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, PacketPlace, RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan, Placer
from snapmig.images.readers.files import Part
from snapmig.images.source import PartsImage
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask, runs

__all__ = ("NAME", "open_image", "plan_image", "recognises")

NAME = "elf"

PLACES = "elf.json"
REST = "elf.rest"

MAX_SEGMENTS = 1 << 18
MAX_RANGES = 4096
MAX_PLACES = 1 << 18
MAX_REST_SIZE = 128 << 20
"""Bytes of a core that are not RAM: headers and notes."""
MAX_ABSENT_SIZE = 1 << 40
"""RAM that a core speaks of but has no bytes for, which are zero."""

_CORE = 4
_LOAD = 1
_NOTE = 4
_READ_WRITE_EXECUTE = 7
_X86_64 = 62
_MANY_SEGMENTS = 0xFFFF
"""Stands for a number of segments that does not fit, which the first section header has then."""
_MAX_FILE_SIZE = (1 << 63) - 1
_LAST = np.uint64((1 << 64) - 1)

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SEGMENT_FIELDS = {
    64: ("type:u4", "flags:u4", "offset:u8", "vaddr:u8", "paddr:u8", "filesz:u8", "memsz:u8",
         "align:u8"),
    32: ("type:u4", "offset:u4", "vaddr:u4", "paddr:u4", "filesz:u4", "memsz:u4", "flags:u4",
         "align:u4"),
}  # fmt: skip


class Load(NamedTuple):
    """A segment of RAM: its addresses, and where its first ``stored`` bytes are in the file."""

    start: int
    stop: int
    stored: int
    offset: int


class Span(NamedTuple):
    """A range of RAM offsets, and where a file has it."""

    start: int
    stop: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Header:
    # What an ELF header says of the segment table.
    width: int
    little: bool
    offset: int
    count: int


class _Places(msgspec.Struct):
    # Of a core that was saved: its length, and its spans.
    size: int
    places: Annotated[list[tuple[int, int, int]], msgspec.Meta(max_length=MAX_PLACES)]


class SpanPlacer(Placer):
    """
    Puts packets into a file that has some ranges of RAM, each of them at any place.

    :param spans: where; RAM in none of them is left out, RAM in several is written to each
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        super().__init__((), ())
        self._spans = sorted(spans)
        self._starts = [span.start for span in self._spans]
        self._reach = list(accumulate((span.stop for span in self._spans), max))

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Write a packet's data pages, ``(n, 4096)`` in order, where ``mask`` says."""
        done = 0
        for first, count in runs(mask):
            at = first * PAGE_SIZE
            # The last page may be cut short by the end of its block.
            content = data[done : done + count].reshape(-1)[: place.length - at]
            start = place.ram_offset + at
            for low, high, offset in self._between(start, start + content.size):
                store.write(offset, content[low - start : high - start])
            done += count

    def zero(self, store: Store, place: PacketPlace, mask: Mask) -> None:
        """Make zero what ``mask`` says is not data, in a file that held something before."""
        for first, count in runs(~mask):
            at = first * PAGE_SIZE
            start = place.ram_offset + at
            stop = start + min(count * PAGE_SIZE, place.length - at)
            for low, high, offset in self._between(start, stop):
                store.zero(offset, high - low)

    def _between(self, start: int, stop: int) -> Iterator[Span]:
        number = bisect_left(self._starts, stop) - 1
        while number >= 0 and self._reach[number] > start:
            span = self._spans[number]
            low, high = max(start, span.start), min(stop, span.stop)
            if low < high:
                yield Span(low, high, span.offset + low - span.start)
            number -= 1


def recognises(file: ImageFile) -> bool:
    """Return whether a file is an ELF core."""
    if file.size < 64 or file.read(0, 4) != b"\x7fELF":
        return False
    return _CORE.to_bytes(2, "big" if file.read(5, 1) == b"\x02" else "little") == file.read(16, 2)


def open_image(file: ImageFile) -> PartsImage:
    """
    Open an ELF core.

    :raises SnapmigError: cut short, or a field that can't be
    """
    loads = _read_loads(file, _read_header(file))
    blocks = _blocks(loads, file)
    spans = _join_spans(_spans(loads, blocks))
    parts = [Part(file.path, *span) for span in _once(spans)]
    gaps = list(_gaps(spans, file.size))
    size = sum(stop - start for start, stop in gaps)
    if size > MAX_REST_SIZE:
        message = f"{size} bytes are not in any segment of RAM, expected at most {MAX_REST_SIZE}"
        raise SnapmigError(message, path=file.shown)
    attachments = {
        PLACES: json.dumps({"size": file.size, "places": spans}).encode(),
        REST: b"".join(file.read(start, stop - start) for start, stop in gaps),
    }
    return PartsImage(NAME, blocks, parts, [file], attachments)


def plan_image(content: Content) -> ImagePlan:
    """
    Return how a snapshot becomes an ELF core.

    One that was made of a core becomes that again. Otherwise each RAM block with a guest physical
    address becomes a segment, the first of those that overlap.

    :raises UsageError: of none of several RAM blocks the guest physical address is known
    """
    return _plan_again(content) if PLACES in content.attachments else _plan_new(content)


def _read_header(file: ImageFile) -> _Header:
    structs_module, utils = _elftools()
    ident = file.read(0, 16)
    if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise SnapmigError("not an ELF file of 32 or 64 bits", path=file.shown)
    width, little = 32 * ident[4], ident[5] == 1
    structs = structs_module.ELFStructs(little_endian=little, elfclass=width)
    structs.create_basic_structs()
    header = utils.struct_parse(structs.Elf_Ehdr, BytesIO(file.read(0, 64 if width == 64 else 52)))
    if header["e_type"] != "ET_CORE":
        raise SnapmigError("ELF file is not a core", path=file.shown)
    size = _segment_type(width, little=little).itemsize
    if header["e_phentsize"] != size:
        message = f"segment headers have {header['e_phentsize']} bytes, expected {size}"
        raise SnapmigError(message, path=file.shown)
    count = header["e_phnum"]
    if count == _MANY_SEGMENTS:
        structs.create_advanced_structs(header["e_type"], header["e_machine"], "ELFOSABI_SYSV")
        length = structs.Elf_Shdr.sizeof()
        _check_inside(file, header["e_shoff"], length, "section header")
        section = file.read(header["e_shoff"], length)
        count = utils.struct_parse(structs.Elf_Shdr, BytesIO(section))["sh_info"]
    if count > MAX_SEGMENTS:
        message = f"{count} segments, expected at most {MAX_SEGMENTS}"
        raise SnapmigError(message, path=file.shown)
    return _Header(width, little, header["e_phoff"], count)


def _elftools() -> tuple[Any, Any]:
    try:
        return import_module("elftools.elf.structs"), import_module("elftools.common.utils")
    except ImportError as error:
        message = "ELF cores need pyelftools: pip install 'snapmig[elf]'"
        raise SnapmigError(message) from error


def _read_loads(file: ImageFile, header: _Header) -> list[Load]:
    kind = _segment_type(header.width, little=header.little)
    _check_inside(file, header.offset, header.count * kind.itemsize, "segment headers")
    raw = file.read(header.offset, header.count * kind.itemsize)
    table = np.frombuffer(raw, kind)
    table = table[(table["type"] == _LOAD) & (table["memsz"] > 0)]
    # Left out of the core on purpose, so not zero in the guest.
    absent = (1 << header.width) - 1
    table = table[(table["filesz"] > 0) | (table["offset"] != absent)]
    if not table.size:
        raise SnapmigError("core has no segment of RAM", path=file.shown)
    start, memory, stored, offset = (
        table[name].astype(np.uint64) for name in ("paddr", "memsz", "filesz", "offset")
    )
    # No sums here, for they could be more than 64 bits.
    bad = (stored > memory) | (start >= _LAST - memory)
    _check_none(file, table, bad, "has more bytes than memory, or ends beyond 64 bits")
    outside = (stored > file.size) | (offset > file.size - np.minimum(stored, file.size))
    _check_none(file, table, outside & (stored > 0), f"is not all before {file.size:#x}, the end")
    return list(map(Load, *(a.tolist() for a in (start, start + memory, stored, offset))))


def _check_none(file: ImageFile, table: Any, mask: Mask, words: str) -> None:
    if mask.any():
        entry = table[mask][0]
        message = f"segment of {entry['filesz']} bytes for address {entry['paddr']:#x} {words}"
        raise SnapmigError(message, path=file.shown, offset=int(entry["offset"]))


def _segment_type(width: int, *, little: bool) -> np.dtype[Any]:
    order = "<" if little else ">"
    fields = [field.split(":") for field in _SEGMENT_FIELDS[width]]
    return np.dtype([(name, order + kind) for name, kind in fields])


def _check_inside(file: ImageFile, offset: int, length: int, what: str) -> None:
    if offset + length > file.size:
        message = f"{what}: {length} bytes, but the file ends at {file.size:#x}: is it cut short?"
        raise SnapmigError(message, path=file.shown, offset=offset)


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
        message = f"core speaks of {total} bytes of RAM and has {file.size} bytes"
        raise SnapmigError(message, path=file.shown)
    return tuple(RamBlock(f"ram@{start:#x}", stop - start, start) for start, stop in ranges)


def _spans(loads: Iterable[Load], blocks: tuple[RamBlock, ...]) -> Iterator[Span]:
    geometry = Geometry(blocks, PAGE_SIZE)
    addresses = [block.gpa or 0 for block in blocks]
    for load in loads:
        if load.stored:
            number = bisect_right(addresses, load.start) - 1
            start = geometry.block_start(number) + load.start - addresses[number]
            yield Span(start, start + load.stored, load.offset)


def _join_spans(spans: Iterable[Span]) -> list[Span]:
    # Segments that put the same bytes of the file to the same RAM, or that follow each other in
    # both, become one.
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
    # Each byte of RAM from the first span that has it.
    reached = 0
    for start, stop, offset in spans:
        first = max(start, reached)
        if first < stop:
            yield Span(first, stop, offset + first - start)
            reached = stop


def _gaps(spans: Iterable[Span], size: int) -> Iterator[tuple[int, int]]:
    # The ranges of the file that no span has.
    reached = 0
    for offset, length in sorted((span.offset, span.stop - span.start) for span in spans):
        if reached < offset:
            yield reached, offset
        reached = max(reached, offset + length)
    if reached < size:
        yield reached, size


def _plan_again(content: Content) -> ImagePlan:
    rest = content.attachments.get(REST, b"")
    try:
        facts = msgspec.json.decode(content.attachments[PLACES], type=_Places)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptSnapshotError(f"attachment {PLACES} is not readable: {error}") from error
    size, spans = facts.size, [Span(*item) for item in facts.places]
    gaps = list(_gaps(spans, size))
    fit = all(
        0 <= start < stop <= content.ram_size and 0 <= offset <= size - (stop - start)
        for start, stop, offset in spans
    )
    if not fit or not 0 < size <= _MAX_FILE_SIZE or sum(b - a for a, b in gaps) != len(rest):
        message = f"attachments {PLACES} and {REST} do not fit each other and the RAM"
        raise CorruptSnapshotError(message)
    pieces, done = [], 0
    for start, stop in gaps:
        pieces.append((start, rest[done : done + stop - start]))
        done += stop - start
    return ImagePlan(size, (), pieces, SpanPlacer(spans))


def _plan_new(content: Content) -> ImagePlan:
    blocks = _addressed(content.blocks)
    geometry = Geometry(content.blocks, PAGE_SIZE)
    end = _HEADER.size + (1 + len(blocks)) * _SEGMENT.size
    # No notes: the registers of the processors are not known, and readers do without.
    segments = [_SEGMENT.pack(_NOTE, 0, end, 0, 0, 0, 0, 4)]
    spans = []
    for gpa, number in blocks:
        size = content.blocks[number].size
        # At a whole page, so that pages of zeros can be holes.
        offset = -(-end // PAGE_SIZE) * PAGE_SIZE
        flags = _READ_WRITE_EXECUTE
        segments.append(_SEGMENT.pack(_LOAD, flags, offset, gpa, gpa, size, size, PAGE_SIZE))
        start = geometry.block_start(number)
        spans.append(Span(start, start + size, offset))
        end = offset + size
    head = b"".join([_elf_header(len(segments)), *segments])
    return ImagePlan(end, (), [(0, head)], SpanPlacer(spans))


def _addressed(blocks: tuple[RamBlock, ...]) -> list[tuple[int, int]]:
    # Address and number of each block that can be a segment, by address. QEMU's tables for its
    # firmware are blocks at address 0 too: the RAM there comes before them.
    if len(blocks) == 1 and blocks[0].gpa is None:
        return [(0, 0)]
    taken: list[tuple[int, int]] = []
    for number, block in enumerate(blocks):
        if block.gpa is None or block.gpa + block.size >= 1 << 64:
            continue
        stop = block.gpa + block.size
        if all(stop <= gpa or gpa + blocks[other].size <= block.gpa for gpa, other in taken):
            taken.append((block.gpa, number))
    if not taken:
        message = f"{NAME} needs guest physical addresses, and this snapshot's RAM blocks have none"
        raise UsageError(message)
    return sorted(taken)


def _elf_header(segments: int) -> bytes:
    ident = b"\x7fELF" + bytes([2, 1, 1])  # 64 bits, little-endian, version 1
    return _HEADER.pack(
        ident, _CORE, _X86_64, 1, 0, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, segments,
        0, 0, 0,
    )  # fmt: skip
