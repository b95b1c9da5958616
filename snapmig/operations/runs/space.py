"""
Free space for a snapshot, checked before the work.

The index tells the exact size of a restored image. For a save only a minimum is known, since the
size of a page shows when it is compressed; so only a snapshot certain not to fit is refused. A save
that might not fit gets no warning: warnings come with the result, and by then it has fitted.
"""

from __future__ import annotations

from pathlib import Path

from snapmig.container.writer import SnapshotWriter
from snapmig.errors import NoSpaceError
from snapmig.stores.location import Location
from snapmig.system.files import free_bytes
from snapmig.units import format_size

__all__ = ("check_save_space",)


def check_save_space(writer: SnapshotWriter, place: Location) -> None:
    """
    Refuse a snapshot if its tables do not fit, or its slots on a filesystem without holes.

    The free space of object storage is unknown.

    :raises NoSpaceError: with the needed and the free bytes
    """
    if not isinstance(place, Path):
        return
    free, least = free_bytes(place.parent), writer.least_size
    if free < least:
        message = (
            f"no space left on the filesystem, up to {format_size(writer.plan.needed)} must fit "
            f"there, at least {format_size(least)}, and {format_size(free)} are free"
        )
        raise NoSpaceError(message, path=str(place))
