"""What to say of a failure, and which exit code it is."""

from __future__ import annotations

from snapmig.errors import SnapmigError

__all__ = ("describe",)


def describe(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the sentence of any failure."""
    if isinstance(error, SnapmigError):
        return error.exit_code, str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return 1, f"{where}{error.strerror or error}"
    return 1, f"this is a bug in snapmig: {error!r}"
