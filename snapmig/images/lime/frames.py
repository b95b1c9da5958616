"""
Streams of snappy frames, read at any place, through the cramjam package.

See snappy's framing_format.txt. A frame has a type, a length of 3 bytes, a checksum, and 64 KiB of
RAM, but for a record's last one. The parent notes where each begins, workers decode what they need.
"""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.images.file import ImageFile
from snapmig.images.lime.records import Record
from snapmig.images.source import ImageReader
from snapmig.pages import Bytes
from snapmig.system.files import pread_all

__all__ = ("FRAME", "IDENTIFIER", "Frames", "FramesReader", "cramjam", "find_frames")

FRAME = 64 << 10
"""Bytes of RAM in a frame."""
IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"
"""The frame at a stream's start."""
_COMPRESSED, _PLAIN = 0, 1
_MAX_FRAME = 2 * FRAME
"""Stored bytes; snappy adds a sixth to the worst of data."""
_HEAD_SIZE = 8
_TRAILER_SIZE = 8
"""Bytes after a stream with its length, AVML's own."""


class Frames(NamedTuple):
    """
    The frames of a record.

    :param start: RAM offset of the first one
    :param offsets: of each in the file, and the end of the last one
    """

    start: int
    stop: int
    offsets: Sequence[int]


def cramjam() -> Any:
    """
    Return the library.

    :raises SnapmigError: it is missing
    """
    try:
        return import_module("cramjam")
    except ImportError as error:
        message = "AVML's dumps need the Python package cramjam: pip install 'snapmig[avml]'"
        raise SnapmigError(message) from error


def find_frames(file: ImageFile, record: Record) -> tuple[array[int], int]:
    """
    Return the offsets of a record's frames, with the end of the last one, and the record's end.

    :raises SnapmigError: cut short, or an impossible field
    :raises UnsupportedError: frames of another size, or of a type not known here
    """
    at, left = record.offset, record.stop - record.start
    offsets = array("q")
    if file.read(at, len(IDENTIFIER)) != IDENTIFIER:
        raise SnapmigError("expected a stream of snappy frames", path=file.shown, offset=at)
    at += len(IDENTIFIER)
    while left > 0:
        head = file.read(at, _HEAD_SIZE)
        end = at + 4 + int.from_bytes(head[1:4], "little")
        if head[0] not in (_COMPRESSED, _PLAIN) or end - at > _MAX_FRAME:
            message = f"snappy frame is of type {head[0]:#x} with {end - at} bytes, unknown here"
            raise UnsupportedError(message, path=file.shown, offset=at)
        size = _frame_size(file, at, head[0], end)
        if size != min(left, FRAME):
            message = f"snappy frame has {size} bytes of RAM, expected {min(left, FRAME)}"
            raise UnsupportedError(message, path=file.shown, offset=at)
        offsets.append(at)
        left -= size
        at = end
    offsets.append(at)
    stated = int.from_bytes(file.read(at, _TRAILER_SIZE), "little")
    if stated != at - record.offset:
        message = f"stream of {at - record.offset} bytes, its end says {stated}"
        raise SnapmigError(message, path=file.shown, offset=at)
    return offsets, at + _TRAILER_SIZE


def _frame_size(file: ImageFile, at: int, kind: int, end: int) -> int:
    if kind == _PLAIN:
        return end - at - _HEAD_SIZE
    # Snappy's own head: the number of bytes, 7 bits at a time.
    size = 0
    for number, byte in enumerate(file.read(at + _HEAD_SIZE, 3)):
        size |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            break
    return size


class FramesReader(ImageReader):
    """
    Reads RAM from frames.

    :param path: the file
    :param frames: of all records, by RAM offset
    """

    def __init__(self, path: str, shown: str, frames: Sequence[Frames]) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False  # with the worker's handler
        self._shown = shown
        self._frames = frames
        self._starts = np.array([each.start for each in frames])
        self._library = cramjam()

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets with records, each in one of them."""
        number = max(0, int(np.searchsorted(self._starts, start, "right")) - 1)
        for each in map(self._frames.__getitem__, range(number, len(self._frames))):
            if each.start >= stop:
                return
            if each.stop > start:
                yield max(start, each.start), min(stop, each.stop)

    def view(self, start: int, stop: int) -> Bytes:
        """Return the decoded bytes of a range inside one extent."""
        record = self._frames[int(np.searchsorted(self._starts, start, "right")) - 1]
        first = (start - record.start) // FRAME
        after = -(-(stop - record.start) // FRAME)
        offset, end = record.offsets[first], record.offsets[after]
        stored = pread_all(self._fd, end - offset, offset)
        base = record.start + first * FRAME
        size = min(record.stop, record.start + after * FRAME) - base
        library = self._library
        try:
            plain = np.frombuffer(library.snappy.decompress(IDENTIFIER + stored), np.uint8)
        except library.DecompressionError as error:
            raise self._refuse(offset, f"snappy frames are damaged: {error}") from error
        if plain.size != size:
            raise self._refuse(offset, f"snappy frames have {plain.size} bytes, expected {size}")
        return plain[start - base : stop - base]

    def release(self, start: int, stop: int) -> None:
        """Do nothing: nothing is kept."""

    def _refuse(self, offset: int, words: str) -> SnapmigError:
        return SnapmigError(words, path=self._shown, offset=offset)
