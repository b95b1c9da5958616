"""Snapshots that others build on: found, checked, and opened as a chain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from snapmig.container.format import SUPERBLOCK_SIZE, Superblock
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError, UsageError
from snapmig.geometry import Geometry
from snapmig.operations.attachments import SOURCE_PREFIX, load_attachment
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import (
    Location,
    ObjectUrl,
    beside,
    load_s3,
    parse_location,
    relative_name,
)
from snapmig.system.files import pread_all

__all__ = ("PARENT_NAME", "geometry_problem", "open_parents", "parent_hint")

PARENT_NAME = SOURCE_PREFIX + "parent"
"""The attachment that tells the name of the parent's file."""

MAX_CHAIN = 1000
"""Snapshots in a chain: each has a file open in each worker."""
MAX_SEARCHED = 10_000
"""Files of a folder that a parent is looked for in when it is not where it was."""
MAX_SEARCHED_OBJECTS = 1000
"""Likewise objects under a prefix: a request each, of 4 KiB."""


def open_parents(snapshot: SnapshotFile, stack: ExitStack) -> list[SnapshotFile]:
    """
    Return a snapshot and those that it builds on, the youngest first.

    :param stack: closes the parents
    :raises SnapmigError: one is missing, or the chain is too long
    :raises CorruptSnapshotError: one is not what its child says
    """
    chain = [snapshot]
    while chain[-1].has_parent:
        if len(chain) == MAX_CHAIN:
            raise SnapmigError(f"has more than {MAX_CHAIN} parents", path=snapshot.shown)
        child = chain[-1]
        parent = stack.enter_context(SnapshotFile(str(_find(child))))
        _check(child, parent)
        chain.append(parent)
    return chain


def parent_hint(snapshot: Location, parent: Location) -> bytes:
    """Return how a new snapshot tells where its parent is: by name beside it, else absolute."""
    return os.fsencode(relative_name(parent, snapshot))


def geometry_problem(geometry: Geometry, parent: Geometry) -> str | None:
    """Return why a guest's RAM can't be compared with a parent's, or None when it can."""
    ours = [(block.name, block.size) for block in geometry.blocks]
    theirs = [(block.name, block.size) for block in parent.blocks]
    if ours != theirs:
        return f"RAM blocks are {_words(ours)}, the parent's {_words(theirs)}"
    if geometry.packet_size != parent.packet_size:
        return f"packets have {geometry.packet_size} bytes, the parent's {parent.packet_size}"
    return None


def _words(blocks: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name!r} of {size} bytes" for name, size in blocks[:20])


def _find(child: SnapshotFile) -> Location:
    place = parse_location(child.shown)
    wanted = child.superblock.parent_id
    hint = _hint(child)
    if hint is not None:
        try:
            named = beside(place, hint)
        except UsageError:
            named = None
        if named is not None and _id_of(named) == wanted:
            return named
    for each in _neighbours(place):
        if _id_of(each) == wanted:
            return each
    name = "" if hint is None else f", which was {hint} when it was saved"
    message = f"needs its parent {wanted.hex()}{name}; it is neither there nor beside it"
    raise SnapmigError(message, path=child.shown)


def _neighbours(place: Location) -> Iterator[Location]:
    if isinstance(place, ObjectUrl):
        yield from load_s3().ObjectClient(place).neighbours(MAX_SEARCHED_OBJECTS)
        return
    with os.scandir(place.absolute().parent) as entries:
        for _, entry in zip(range(MAX_SEARCHED), entries, strict=False):
            if entry.is_file():
                yield Path(entry.path)


def _hint(child: SnapshotFile) -> str | None:
    for entry in child.attachments:
        if entry.name == PARENT_NAME:
            return os.fsdecode(load_attachment(child, entry))
    return None


def _id_of(place: Location) -> bytes | None:
    # Of any file or object; None of what is no snapshot, or can't be read.
    if isinstance(place, ObjectUrl):
        try:
            start = load_s3().ObjectClient(place).start(SUPERBLOCK_SIZE).start
            return Superblock.unpack(start).snapshot_id
        except RefusedError:
            return None
        except StoreError:
            raise
        except SnapmigError:
            return None
    return _id_of_file(place)


def _id_of_file(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return Superblock.unpack(pread_all(fd, SUPERBLOCK_SIZE, 0)).snapshot_id
        finally:
            os.close(fd)
    except (OSError, ValueError, SnapmigError):
        return None


def _check(child: SnapshotFile, parent: SnapshotFile) -> None:
    found, expected = parent.superblock.index_digest, child.superblock.parent_digest
    if found != expected:
        message = (
            f"is not the parent that {child.shown} was made of: "
            f"its index has the digest {found.hex()}, expected {expected.hex()}"
        )
        raise CorruptSnapshotError(message, path=parent.shown)
    if problem := geometry_problem(child.geometry, parent.geometry):
        raise CorruptSnapshotError(problem, path=child.shown)
