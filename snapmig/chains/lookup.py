"""Parents of snapshots: looked up, checked, and opened as a chain."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import chain as concatenate
from itertools import islice
from pathlib import Path
from typing import TypeVar

from snapmig.attachments import SOURCE_PREFIX, load_attachment
from snapmig.container.format import SUPERBLOCK_SIZE, PageKind, Superblock
from snapmig.container.head import SnapshotHead
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError, UsageError
from snapmig.geometry import Geometry
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import (
    Location,
    ObjectUrl,
    beside,
    is_near,
    parse_location,
    relative_name,
)
from snapmig.stores.opening import load_s3
from snapmig.system.files import open_regular, pread_all

__all__ = ("PARENT_NAME", "PARENT_SEALING", "geometry_problem", "open_parents", "parent_hint")

Opened = TypeVar("Opened", bound=SnapshotHead)

PARENT_NAME = SOURCE_PREFIX + "parent"
"""The attachment with the name of the parent's file."""

PARENT_SEALING = SOURCE_PREFIX + "parent-sealing"
"""The attachment with the sealing of a parent that is sealed in another way."""

MAX_CHAIN = 1000
"""Snapshots in a chain: each has a file open in each worker."""
FILES_PER_SNAPSHOT = 8
"""Open files per snapshot of a chain: the file and its mapped index, here and in a worker; a worker
has ours besides its own, and a comparison has two chains."""
OTHER_FILES = 256
MAX_SEARCHED = 10_000
"""Files of a folder searched for a parent missing from its old place."""
MAX_NAME = 4096
"""Bytes of the parent's name: no path is longer on Linux."""
MAX_SEARCHED_OBJECTS = 1000
"""Likewise objects under a prefix: a request each, of 4 KiB."""


def open_parents(
    snapshot: Opened, stack: ExitStack, *, follow_remote: bool = False
) -> list[Opened]:
    """
    Return a snapshot and its parents, the youngest first.

    A missing parent ends the chain if no page needs it. Otherwise it is a failure like any other
    missing file, exit code 1: the snapshot is sound, and can be read once the parent is back. If
    the parent file exists but is not the one this snapshot was built on, that is corruption, exit
    code 3.

    The parent's name in a snapshot is followed only to a file beside it or below. The name is
    untrusted input: a URL, for instance, would be requested with the reader's own keys.

    :param stack: closes the parents
    :param follow_remote: follow it anywhere
    :raises SnapmigError: one is missing, or the chain is too long
    :raises CorruptSnapshotError: one does not match its child's record, or builds on itself
    """
    chain = [snapshot]
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir()) if snapshot.has_parent else 0
    kind: type[Opened] = type(snapshot)
    while chain[-1].has_parent:
        if len(chain) == MAX_CHAIN:
            raise SnapmigError(f"builds on {MAX_CHAIN} snapshots or more", path=snapshot.shown)
        child = chain[-1]
        if child.superblock.parent_id in [each.superblock.snapshot_id for each in chain]:
            raise CorruptSnapshotError("builds on itself", path=snapshot.shown)
        found = _find(child, follow_remote=follow_remote)
        if found is None:
            break
        _allow_files(snapshot, len(chain) + 1, opened)
        parent = kind(
            str(found),
            keys=snapshot.keyring,
            locked=snapshot.allows_locked,
            index_checked=snapshot.index_checked,
        )
        stack.enter_context(parent)
        _check(child, parent)
        chain.append(parent)
    return chain


def parent_hint(snapshot: Location, parent: Location) -> bytes:
    """Return the parent's name to store in a new snapshot: relative if nearby, else in full."""
    return os.fsencode(relative_name(parent, snapshot))


def geometry_problem(geometry: Geometry, parent: Geometry) -> str | None:
    """Return why a guest's RAM can't be compared with a parent's, or None if it can."""
    ours = [(block.name, block.size) for block in geometry.blocks]
    theirs = [(block.name, block.size) for block in parent.blocks]
    if ours != theirs:
        return f"RAM blocks are {_words(ours)}, the parent's {_words(theirs)}"
    if geometry.packet_size != parent.packet_size:
        return f"packets have {geometry.packet_size} bytes, the parent's {parent.packet_size}"
    return None


def _allow_files(snapshot: SnapshotHead, count: int, opened: int) -> None:
    # Many systems allow 1024 open files per process, and more on request. The caller's own count
    # as well.
    needed = FILES_PER_SNAPSHOT * count + OTHER_FILES + opened
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < needed:
        if resource.RLIM_INFINITY != hard < needed:
            message = f"builds on {count - 1} snapshots or more, too many for {hard} open files"
            raise SnapmigError(message, path=snapshot.shown)
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _words(blocks: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name!r} of {size} bytes" for name, size in blocks[:20])


def _find(child: SnapshotHead, *, follow_remote: bool) -> Location | None:
    # The parent; None where it is missing and not needed.
    wanted = child.superblock.parent_id
    hint = _hint(child)
    places = _places(child)
    near = [place for place in places if hint and (follow_remote or is_near(place, hint))]
    for each in concatenate(_named(hint, near), *map(_neighbours, places)):
        if _id_of(each) == wanted:
            return each
    pages = child.index.counts().pages
    if not pages[PageKind.SAME_AS_PARENT] and not pages[PageKind.DELTA_AGAINST_PARENT]:
        return None
    where = " or ".join(str(beside(place, "")) for place in places)
    name = "" if hint is None else f", which was {hint!r} when it was saved"
    looked = f"it is neither there nor in {where}"
    if hint is not None and not near:
        looked = (
            f"it is not in {where}, and elsewhere, where that name leads, parents are looked for "
            "only when following remote parents is asked for"
        )
    raise SnapmigError(f"needs its parent {wanted.hex()}{name}; {looked}", path=child.shown)


def _places(child: SnapshotHead) -> list[Location]:
    # The path given by the user, and the target if it is a link.
    place = parse_location(child.shown)
    if isinstance(place, ObjectUrl):
        return [place]
    named, real = place.absolute(), place.resolve()
    return [named] if named.parent == real.parent else [named, real]


def _named(hint: str | None, places: list[Location]) -> Iterator[Location]:
    if hint is not None:
        for place in places:
            with suppress(UsageError):  # a malformed URL
                yield beside(place, hint)


def _neighbours(place: Location) -> Iterator[Location]:
    if isinstance(place, ObjectUrl):
        with suppress(RefusedError):  # the bucket's objects may be read, but not listed
            yield from load_s3().ObjectClient(place).neighbours(MAX_SEARCHED_OBJECTS)
    else:
        yield from _files(place.parent)


def _files(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, MAX_SEARCHED):
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
    except OSError:  # the folder's files may be opened, but not listed
        return


def _hint(child: SnapshotHead) -> str | None:
    # Only a hint: a damaged or overlong one counts as none.
    for entry in child.attachments:
        if entry.name == PARENT_NAME and 0 < entry.size <= MAX_NAME:
            try:
                return os.fsdecode(load_attachment(child, entry, limited=True))
            except StoreError:
                raise
            except SnapmigError:
                continue
    return None


def _id_of(place: Location) -> bytes | None:
    # None for anything but a readable snapshot.
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
        fd = open_regular(path)
        try:
            return Superblock.unpack(pread_all(fd, SUPERBLOCK_SIZE, 0)).snapshot_id
        finally:
            os.close(fd)
    except (OSError, ValueError, SnapmigError):
        return None


def _check(child: SnapshotHead, parent: SnapshotHead) -> None:
    found, expected = parent.superblock.root, child.superblock.parent_root
    if found != expected:
        message = (
            f"is not the parent that {child.shown} was made of: "
            f"its root is {found.hex()}, expected {expected.hex()}"
        )
        raise CorruptSnapshotError(message, path=parent.shown)
    if problem := geometry_problem(child.geometry, parent.geometry):
        raise CorruptSnapshotError(problem, path=child.shown)
