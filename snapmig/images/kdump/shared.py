"""Arrays shared with workers, each in a memfd."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError
from snapmig.system.files import descriptor_path

__all__ = ("SharedArray", "open_array")


class SharedArray:
    """
    An array of zeros that workers can open.

    :raises SnapmigError: no memory for it
    """

    def __init__(self, size: int, kind: Any) -> None:
        length = size * np.dtype(kind).itemsize
        self._fd = os.memfd_create("snapmig-kdump", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, length)
        try:
            self.array: npt.NDArray[Any] = np.frombuffer(mmap.mmap(self._fd, length), kind)
        except OSError as error:
            self.close()
            message = f"no memory for a table of {length} bytes: {error.strerror}"
            raise SnapmigError(message) from error

    @property
    def path(self) -> str:
        """A path for workers to open it."""
        return descriptor_path(self._fd)

    def close(self) -> None:
        """Close the memfd; it stays mapped where it is in use."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_array(path: str, kind: Any) -> npt.NDArray[Any]:
    """Map a shared array in a worker."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return np.frombuffer(mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ), kind)
    finally:
        os.close(fd)
