"""The one door to stores: open for reading, create, check a destination."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.stores.destination import Destination, FileDestination, ResumableDestination
from snapmig.stores.location import Location, ObjectUrl, parse_location
from snapmig.stores.source import ByteSource, FileSource, SourcePlan
from snapmig.system.files import check_destination

__all__ = ("check_location", "create", "load_s3", "open_source")


def open_source(name: str | SourcePlan, shown: str | None = None) -> ByteSource:
    """
    Open a file, or the object of an ``s3://`` URL.

    :param shown: name of the file in errors; default: its path
    :raises StoreError: the object can't be read
    :raises SnapmigError: not a regular file
    :raises OSError: the file can't be opened
    """
    plan = name if isinstance(name, SourcePlan) else SourcePlan(name)
    location = parse_location(plan.name)
    if not isinstance(location, ObjectUrl):
        return FileSource(plan.name, shown)
    load_s3()
    # Imported only here, because it takes 300 ms.
    from snapmig.stores.object import ObjectSource  # noqa: PLC0415

    return ObjectSource(location, plan)


def create(location: Location, needed: int, head: int, resume: str | None = None) -> Destination:
    """
    Begin a new file or object.

    :param needed: upper limit of the complete one's bytes
    :param head: bytes at its start, written last
    :param resume: of a snapshot that may be gone on with, the key of its settings
    :raises NoSpaceError: the filesystem is full
    :raises StoreError: object storage can't be reached
    """
    if isinstance(location, Path):
        if resume is not None:
            return ResumableDestination(location, needed, resume)
        return FileDestination(location, needed)
    load_s3()
    # Imported only here, because it takes 300 ms.
    from snapmig.stores.upload import PartialObject  # noqa: PLC0415

    return PartialObject(location, needed, head, resume=resume is not None)


def check_location(location: Location, *, force: bool) -> None:
    """
    Refuse a destination unfit for a new snapshot.

    :raises DestinationExistsError: it exists and ``force`` is not set
    :raises SnapmigError: no such directory or bucket, or not a regular file
    """
    if isinstance(location, Path):
        check_destination(location, force=force)
    else:
        load_s3().check_object(location, force=force)


def load_s3() -> Any:
    """
    Return the module for S3, imported only when needed.

    :raises SnapmigError: its library is missing
    """
    try:
        return import_module("snapmig.stores.s3")
    except ImportError as error:
        message = "s3:// needs the Python package botocore: pip install 'snapmig[s3]'"
        raise SnapmigError(message) from error
