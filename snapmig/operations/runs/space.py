"""
Whether a snapshot has room, looked at before the work.

A restore knows what it needs from the index. A save knows only what it needs at least: what a page
becomes shows when it is compressed. So only what can't fit for sure is refused. That a save may not
fit is no warning: its warnings come with its result, and then it has fitted.
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
    Refuse a snapshot whose tables alone, or whose slots where no holes are kept, do not fit.

    Object storage does not say what it has room for.

    :raises NoSpaceError: with what is needed and what is free
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
