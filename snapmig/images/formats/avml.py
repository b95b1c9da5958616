"""Compressed dumps of AVML, made in the guest by a program: records of snappy frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from snapmig.errors import SnapmigError
from snapmig.geometry import RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.lime.frames import Frames, FramesReader, cramjam, find_frames
from snapmig.images.lime.records import Kind, Record, place_records, read_header
from snapmig.images.lime.write import plan_dump
from snapmig.images.plan import Content, ImagePlan
from snapmig.images.readers.parts import FilesImage
from snapmig.images.source import ImageReader

__all__ = ("NAME", "open_image", "plan_image")

NAME = "avml"

_KIND = Kind("AVML", b"AVML", 2)
_MAX_RECORDS = 1 << 20


def open_image(file: ImageFile) -> AvmlImage:
    """
    Open a dump.

    :raises SnapmigError: cut short, an impossible field, or the library is missing
    """
    cramjam()
    found = {}
    at = 0
    while at < file.size:
        record = read_header(file, at, _KIND)
        found[record], at = find_frames(file, record)
        if len(found) > _MAX_RECORDS:
            raise SnapmigError(f"more than {_MAX_RECORDS} records", path=file.shown)
    blocks, placed = place_records(found, file)
    frames = [Frames(ram, ram + _size(record), found[record]) for ram, record in placed]
    return AvmlImage(file, blocks, frames)


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a dump.

    :raises UsageError: no guest physical address is known
    :raises SnapmigError: the library is missing
    """
    return plan_dump(content, _KIND)


class AvmlImage(FilesImage):
    """
    A dump with its frames located.

    :param frames: of all records, by RAM offset
    """

    def __init__(
        self, file: ImageFile, blocks: Sequence[RamBlock], frames: Sequence[Frames]
    ) -> None:
        self.format = NAME
        self.shown = file.shown
        self.paths = (file.shown,)
        self.blocks = tuple(blocks)
        self.attachments: dict[str, bytes] = {}
        self.files = (file,)
        self._frames = frames

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function to open a reader in any process."""
        return partial(FramesReader, self.files[0].path, self.shown, self._frames)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on inside a record."""
        found = next((each.start for each in self._frames if each.stop > start), None)
        return None if found is None else max(start, found)


def _size(record: Record) -> int:
    return record.stop - record.start
