"""
Packed images, unpacked by the programs for it into a nameless file.

Workers need pages at any place, and several times, so an image can't be unpacked on its way. Zero
pages become holes: the file takes no more space than the guest's data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from snapmig.errors import NoSpaceError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.file import ImageFile
from snapmig.pages import as_pages, data_mask, runs
from snapmig.system.files import free_bytes
from snapmig.system.partial import NamelessFile
from snapmig.system.programs import FilterError, filter_pieces
from snapmig.units import format_size

__all__ = ("unpack",)

_STEP = 1 << 20
"""Bytes written at once."""

Check = Callable[[ImageFile, int], None]
"""Raises if what has been unpacked so far, and its size, is no image."""


def unpack(file: ImageFile, start: int, command: Sequence[str], check: Check) -> ImageFile:
    """
    Return what a program makes of a file, and close that.

    :param start: offset of the packed bytes, which end with the file
    :param file: its ``report`` is called with the bytes taken so far, and its size
    :param check: called now and then, since a few KiB may unpack to any number of bytes
    :raises SnapmigError: the program failed, or is not installed, or the check refuses
    :raises NoSpaceError: it would take more than nine tenths of the free space
    """
    folder = Path(os.environ.get("TMPDIR", "/var/tmp"))
    file.report(0, file.size)
    with NamelessFile(folder) as spool:
        os.lseek(file.fd, start, os.SEEK_SET)
        writer = _SparseWriter(spool, folder, file.shown)
        try:
            with closing(filter_pieces([*command], file.fd)) as pieces:
                for piece in pieces:
                    if writer.add(piece):
                        # The program shares our offset.
                        file.report(os.lseek(file.fd, 0, os.SEEK_CUR), file.size)
                        _checked(check, _reopen(spool, file.shown), writer.size)
        except FilterError as error:
            error.path = file.shown
            raise
        writer.end()
        file.report(file.size, file.size)
        file.check_unchanged()
        plain = _reopen(spool, file.shown)
    file.close()
    return plain


def _checked(check: Check, plain: ImageFile, size: int) -> None:
    try:
        check(plain, size)
    finally:
        plain.close()


def _reopen(spool: NamelessFile, shown: str) -> ImageFile:
    plain = ImageFile(f"/proc/self/fd/{spool.fd}")
    plain.shown = shown
    return plain


class _SparseWriter:
    # Writes all but zero pages, to a file that is one hole at first.
    def __init__(self, spool: NamelessFile, folder: Path, shown: str) -> None:
        self._spool = spool
        self._folder = folder
        self._shown = shown
        self._room = self._left = free_bytes(folder) * 9 // 10
        self._held = bytearray()
        self.size = 0

    def add(self, piece: bytes) -> bool:
        # True if it wrote.
        self._held += piece
        if len(self._held) < _STEP:
            return False
        self._write(len(self._held) // PAGE_SIZE * PAGE_SIZE)
        return True

    def end(self) -> None:
        self._write(len(self._held))

    def _write(self, size: int) -> None:
        content = np.frombuffer(bytes(self._held[:size]), np.uint8)
        del self._held[:size]
        for first, count in runs(data_mask(as_pages(content))):
            start = first * PAGE_SIZE
            data = content[start : start + count * PAGE_SIZE]
            self._left -= data.size
            if self._left < 0:
                raise NoSpaceError(
                    f"decompressed, it needs more than the {format_size(self._room)} available in "
                    f"{self._folder}; set TMPDIR to another directory",
                    path=self._shown,
                )
            self._spool.write(data, self.size + start)
        self.size += size
        self._spool.resize(self.size)
