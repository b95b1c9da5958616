"""Message and exit code of a failure."""

from __future__ import annotations

import errno

from snapmig.errors import SnapmigError
from snapmig.system.limits import out_of_memory

__all__ = ("describe",)


def describe(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message of any exception."""
    if isinstance(error, SnapmigError):
        return error.exit_code, str(error)
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM and error.filename is None:
            return 1, out_of_memory()
        where = f"{error.filename}: " if error.filename is not None else ""
        return 1, f"{where}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return 1, out_of_memory()
    if isinstance(error, ImportError):
        return 1, f"a part of the program can't be loaded: {error}"
    return 1, f"this is a bug in snapmig: {error!r}"
