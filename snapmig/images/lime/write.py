"""
Write AVML's dumps: records of up to 16 MiB of RAM, one right after the other.

How long a packet's frames are shows when it is compressed, and their place depends on those before
them. So workers go through the RAM twice: they note the lengths first, and write then. Records in
any order, or with padding, would need one pass, but AVML and volatility read neither. Volatility
also looks only at as many bytes of a record as it has of RAM: noise, a packet of it for example,
takes more, and is made up for by its neighbours.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE, PacketPlace
from snapmig.images.lime.frames import FRAME, IDENTIFIER, cramjam
from snapmig.images.lime.records import HEADER_SIZE, STEP, Kind, pack_header
from snapmig.images.plan import Content, ImagePlan, Placer, block_starts, warn_of_missing
from snapmig.images.spans import Span, piece_spans
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask
from snapmig.system.files import descriptor_path

__all__ = ("plan_dump",)

_TRAILER_SIZE = 8
_NUMBER_SIZE = 8

Numbers = npt.NDArray[np.int64]


class _Parts(NamedTuple):
    # Each a part of one packet and one piece of RAM, in the order of RAM offsets.
    starts: Numbers
    stops: Numbers
    gpas: Numbers


def plan_dump(content: Content, kind: Kind) -> ImagePlan:
    """
    Return the plan of a dump.

    :raises UsageError: no guest physical address is known
    :raises SnapmigError: the library is missing
    """
    missing = warn_of_missing(content.blocks, kind.name.lower())
    cramjam()
    size = content.packet_pages * PAGE_SIZE
    starts = block_starts(content.blocks)
    spans = sorted(piece_spans(content.blocks))
    cuts = [_cut(span, starts, size) for span in spans]
    parts = _Parts(
        np.concatenate([cut[:-1] for cut in cuts]),
        np.concatenate([cut[1:] for cut in cuts]),
        np.concatenate(
            [span.offset + cut[:-1] - span.start for span, cut in zip(spans, cuts, strict=True)]
        ),
    )
    return ImagePlan(0, (), (), _RecordPlacer(parts, kind), warnings=missing)


def _cut(span: Span, starts: Sequence[int], size: int) -> Numbers:
    # Where the records of a piece begin, and its end.
    base = max(start for start in starts if start <= span.start)
    first = base + (span.start - base) // size * size
    inner = np.arange(first + size, span.stop, size, dtype=np.int64)
    return np.concatenate([[span.start], inner, [span.stop]]).astype(np.int64)


class _RecordPlacer(Placer):
    # Notes how long the frames of each part are, then puts them to their places. Both are in a
    # memfd, a number of 8 bytes for each part.
    needs_all: ClassVar[bool] = True
    measured: ClassVar[bool] = True

    def __init__(self, parts: _Parts, kind: Kind) -> None:
        super().__init__((), ())
        self._parts = parts
        self._kind = kind
        self._settled = False
        fd = os.memfd_create("snapmig-records", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, fd)
        os.ftruncate(fd, len(parts.starts) * _NUMBER_SIZE)
        self._path = descriptor_path(fd)

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        pages = np.zeros((len(mask), PAGE_SIZE), np.uint8)
        pages[mask] = data
        plain = pages.reshape(-1)[: place.length]
        stop = place.ram_offset + place.length
        first, after = np.searchsorted(self._parts.starts, [place.ram_offset, stop]).tolist()
        numbers = np.memmap(self._path, np.int64, "r+")
        for number in range(first, after):
            start, end = int(self._parts.starts[number]), int(self._parts.stops[number])
            frames = _compress(plain[start - place.ram_offset : end - place.ram_offset])
            if self._settled:
                store.write(int(numbers[number]), np.frombuffer(frames, np.uint8))
            else:
                numbers[number] = len(frames)

    def settle(self) -> tuple[int, Iterator[tuple[int, bytes]]]:
        numbers = np.memmap(self._path, np.int64, "r+")
        sizes = self._parts.stops - self._parts.starts
        blank = np.flatnonzero(numbers == 0)
        zeros = {
            size: _compress(np.zeros(size, np.uint8)) for size in np.unique(sizes[blank]).tolist()
        }
        numbers[blank] = [len(zeros[size]) for size in sizes[blank].tolist()]
        is_blank = np.zeros(len(sizes), np.bool_)
        is_blank[blank] = True
        pieces: list[tuple[int, bytes]] = []
        at = 0
        for first, after in _kept(_groups(self._parts), is_blank, self._parts):
            lengths = numbers[first:after].copy()
            ends = at + HEADER_SIZE + len(IDENTIFIER) + np.cumsum(lengths)
            numbers[first:after] = ends - lengths
            size = int(sizes[first:after].sum())
            head = pack_header(self._kind, int(self._parts.gpas[first]), size)
            pieces.append((at, head + IDENTIFIER))
            pieces += [
                (int(numbers[number]), zeros[int(sizes[number])])
                for number in (first + np.flatnonzero(is_blank[first:after])).tolist()
            ]
            end = int(ends[-1])
            pieces.append((end, (end - at - HEADER_SIZE).to_bytes(_TRAILER_SIZE, "little")))
            at = end + _TRAILER_SIZE
        self._settled = True
        return at, iter(pieces)


def _groups(parts: _Parts) -> list[tuple[int, int]]:
    # Parts of one record each, in the order of addresses: side by side, up to the size of AVML's.
    # A part that is no whole number of frames is a record's last.
    sizes = (parts.stops - parts.starts).tolist()
    follows = (parts.gpas[:-1] + sizes[:-1] == parts.gpas[1:]).tolist()
    groups = []
    first = size = 0
    for number, length in enumerate(sizes):
        size += length
        after = number + 1
        if (
            after == len(sizes)
            or not follows[number]
            or size + sizes[after] > STEP
            or length % FRAME
        ):
            groups.append((first, after))
            first, size = after, 0
    return sorted(groups, key=lambda group: int(parts.gpas[group[0]]))


def _kept(
    groups: Sequence[tuple[int, int]], is_blank: Mask, parts: _Parts
) -> Iterator[tuple[int, int]]:
    # Leave out records of zeros as AVML does, where a reader of it finds them again: between others
    # of one range of addresses, after one of the full size.
    gpas = [int(parts.gpas[first]) for first, _ in groups]
    sizes = [int(parts.stops[after - 1] - parts.starts[first]) for first, after in groups]
    before = 0
    for number, (first, after) in enumerate(groups):
        inside = number + 1 < len(groups) and gpas[number + 1] == gpas[number] + sizes[number]
        if before == sizes[number] == STEP and inside and is_blank[first:after].all():
            continue
        yield first, after
        before = sizes[number] if inside else 0


def _compress(content: Bytes) -> bytes:
    return bytes(cramjam().snappy.compress(content.tobytes()))[len(IDENTIFIER) :]
