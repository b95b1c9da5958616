"""Dumps of LiME, made in the guest by a kernel module, and uncompressed ones of AVML."""

from __future__ import annotations

from collections.abc import Iterator

from snapmig.errors import SnapmigError
from snapmig.images.file import ImageFile
from snapmig.images.lime.records import (
    HEADER_SIZE,
    Kind,
    Record,
    pack_header,
    place_records,
    read_header,
)
from snapmig.images.plan import Content, ImagePlan, warn_of_missing
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.images.spans import Span, SpanPlacer, piece_spans

__all__ = ("NAME", "open_image", "plan_image")

NAME = "lime"

_KIND = Kind("LiME", b"EMiL", 1)
_MAX_RECORDS = 1 << 20


def open_image(file: ImageFile) -> PartsImage:
    """
    Open a dump.

    :raises SnapmigError: cut short, or an impossible field
    """
    blocks, placed = place_records(_records(file), file)
    parts = [
        Part(file.path, ram, ram + record.stop - record.start, record.offset)
        for ram, record in placed
    ]
    return PartsImage(NAME, blocks, parts, [file])


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a dump: a record for each piece of RAM.

    :raises UsageError: no guest physical address is known
    """
    missing = warn_of_missing(content.blocks, NAME)
    headers, spans = [], []
    end = 0
    for start, stop, gpa in piece_spans(content.blocks):
        headers.append((end, pack_header(_KIND, gpa, stop - start)))
        spans.append(Span(start, stop, end + HEADER_SIZE))
        end += HEADER_SIZE + stop - start
    return ImagePlan(end, (), headers, SpanPlacer(spans), warnings=missing)


def _records(file: ImageFile) -> Iterator[Record]:
    at = count = 0
    while at < file.size:
        record = read_header(file, at, _KIND)
        count += 1
        at = record.offset + record.stop - record.start
        if count > _MAX_RECORDS:
            raise SnapmigError(f"more than {_MAX_RECORDS} records", path=file.shown)
        if at > file.size:
            message = f"record ends at {at:#x}, the file at {file.size:#x}: the dump was cut short"
            raise SnapmigError(message, path=file.shown, offset=record.offset - HEADER_SIZE)
        yield record
