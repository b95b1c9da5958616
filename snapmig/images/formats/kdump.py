"""
kdump-compressed dumps: of QEMU (``dump-guest-memory -z``), libvirt (``virsh dump``), makedumpfile.

Each page is compressed by itself and listed in a table, in the order of addresses. Headers, the
processors' registers and what else belongs to the dump are kept beside the RAM.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial

from snapmig.architectures import ARCHITECTURES, Architecture
from snapmig.errors import SnapmigError
from snapmig.geometry import RamBlock
from snapmig.images.elf.notes import guess_architecture
from snapmig.images.file import ImageFile
from snapmig.images.kdump.bitmap import Frames, read_bitmaps
from snapmig.images.kdump.contents import (
    DumpContents,
    SharedDump,
    open_contents,
    share_records,
)
from snapmig.images.kdump.header import Header, read_header
from snapmig.images.kdump.kept import NOTES, kept_parts
from snapmig.images.kdump.pages import FrameRange, PageReader, ReaderPlan, entry_type
from snapmig.images.kdump.write import plan_dump
from snapmig.images.plan import Content, ImagePlan, block_starts
from snapmig.images.readers.parts import FilesImage

__all__ = ("NAME", "open_image", "plan_image")

NAME = "kdump"

_ZEROS_LEFT_OUT = 1
"""The level of a dump that lacks pages of zeros and no others."""
_MACHINES = {
    ("x86_64",): "x86_64",
    ("i386", "i586", "i686"): "i386",
    ("aarch64",): "aarch64",
    ("armv6l", "armv7l", "armv8l"): "arm",
    ("riscv64",): "riscv64",
    ("loongarch64",): "loongarch64",
    ("ppc64le",): "ppc64le",
    ("s390x",): "s390x",
}
"""Architectures by the names that Linux has for them."""


def open_image(file: ImageFile) -> KdumpImage:
    """
    Open a dump.

    :raises SnapmigError: cut short, or an impossible field
    """
    dump = open_contents(file)
    header = read_header(dump)
    attachments = kept_parts(dump, header)
    frames = read_bitmaps(dump, header)
    try:
        end = header.table_offset + frames.stored.pages * entry_type("<").itemsize
        if end > dump.size:
            message = f"table of {frames.stored.pages} pages ends at {end:#x}, the dump at "
            raise SnapmigError(f"{message}{dump.size:#x}: is it cut short?", path=file.shown)
    except BaseException:
        frames.stored.close()
        raise
    return KdumpImage(file, dump, header, frames, attachments)


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a dump.

    :raises UsageError: no guest physical address is known, or not the architecture, or an address
        is not of a whole page or too high
    """
    return plan_dump(content, NAME)


class KdumpImage(FilesImage):
    """A dump with its tables in memory."""

    def __init__(
        self,
        file: ImageFile,
        dump: DumpContents,
        header: Header,
        frames: Frames,
        attachments: dict[str, bytes],
    ) -> None:
        self.format = NAME
        self.shown = file.shown
        self.paths = (file.shown,)
        self.files = (file,)
        self.attachments = attachments
        self.architecture = _architecture(header, attachments)
        self._dump = dump
        self._header = header
        self._stored = frames.stored
        self._records = share_records(dump)
        size = header.block_size
        self.blocks = tuple(
            RamBlock.at(first * size, (after - first) * size) for first, after in frames.ranges
        )
        starts = block_starts(self.blocks)
        self._ranges = [
            FrameRange(start, start + block.size, first)
            for start, block, (first, _) in zip(starts, self.blocks, frames.ranges, strict=True)
        ]
        if frames.left_out and header.sub.dump_level & ~_ZEROS_LEFT_OUT:
            self.remarks = (
                f"{file.shown}: {frames.left_out} pages were left out when the dump was filtered; "
                "they are zeros in the snapshot",
            )

    def opener(self) -> Callable[[], PageReader]:
        """Return a picklable function to open a reader in any process."""
        records = None if self._records is None else self._records.path
        plan = ReaderPlan(
            SharedDump(self.files[0].path, self._dump.size, self.shown, records),
            self._ranges,
            self._stored.path,
            self._stored.counts,
            self._header.block_size,
            self._header.table_offset,
            self._header.layout.order,
        )
        return partial(PageReader, plan)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on with its page in the file, or None."""
        size = self._header.block_size
        for own in self._ranges[bisect_right(self._ranges, start, key=_start) - 1 :]:
            inside = max(0, start - own.start) // size
            frame = self._stored.next_frame(own.frame + inside) if start < own.stop else None
            if frame is not None and (frame - own.frame) * size < own.stop - own.start:
                return max(start, own.start + (frame - own.frame) * size)
        return None

    def close(self) -> None:
        """Close file and tables."""
        self._stored.close()
        if self._records is not None:
            self._records.close()
        super().close()


def _start(place: FrameRange) -> int:
    return place.start


def _architecture(header: Header, attachments: dict[str, bytes]) -> Architecture | None:
    # QEMU does not name the machine, but its notes have registers.
    for names, machine in _MACHINES.items():
        if header.machine in names:
            return ARCHITECTURES[machine]
    return guess_architecture(attachments.get(NOTES, b""), header.layout.order)
