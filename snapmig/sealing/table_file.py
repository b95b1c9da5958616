"""The key table in its file: read, and changed without touching anything else."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.sealing.file_key import FileKey
from snapmig.sealing.key_table import COPIES, KEY_TABLE_SIZE, TABLE_SIZE, KeyTable
from snapmig.system.files import open_regular, pread_all, pwrite_all

__all__ = ("TableFile", "opened_table")


class TableFile:
    """
    The key table of a snapshot in a file.

    :param fd: of the snapshot
    :param offset: of the table
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    def read(self) -> KeyTable:
        """
        Return the table.

        :raises CorruptSnapshotError: it is damaged
        """
        return KeyTable.unpack(pread_all(self._fd, KEY_TABLE_SIZE, self._offset))

    def write(self, table: KeyTable, key: FileKey) -> None:
        """
        Write both copies, the one that readers take last: at any moment one of them is whole.

        A first copy that an earlier change left torn is written first, for readers take the second.
        """
        raw = table._replace(generation=table.generation + 1).pack(key)
        order = range(COPIES)
        for number in reversed(order) if self._first_is_sound() else order:
            pwrite_all(self._fd, raw, self._offset + number * TABLE_SIZE)
            os.fsync(self._fd)

    def _first_is_sound(self) -> bool:
        try:
            KeyTable.unpack(pread_all(self._fd, TABLE_SIZE, self._offset))
        except CorruptSnapshotError:
            return False
        return True


@contextmanager
def opened_table(path: str, offset: int) -> Iterator[TableFile]:
    """
    Open the key table of a snapshot to change it, one process at a time.

    :raises SnapmigError: another process changes it
    :raises OSError: it can't be opened for writing
    """
    fd = open_regular(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SnapmigError("another process changes its keys", path=path) from error
        yield TableFile(fd, offset)
    finally:
        os.close(fd)
