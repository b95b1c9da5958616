"""Free space for all results of a batch together, checked before the first job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from snapmig.batches.jobs import PlannedJob
from snapmig.container.reader import SnapshotFile
from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.options.parse import GUEST_PREFIX, GUEST_PREFIXES
from snapmig.stores.location import is_url
from snapmig.system.files import free_bytes
from snapmig.units import format_size

__all__ = ("check_batch_space",)


def check_batch_space(jobs: Iterable[PlannedJob]) -> Iterator[str]:
    """
    Compare the size of everything a batch makes with the free space; yield warnings.

    If all RAM fits, zero pages included, no index is read: from object storage it would have to be
    downloaded, and the indexes of all jobs would be in memory at once.

    :raises NoSpaceError: the images to restore can't all fit
    """
    for place in _filesystems(jobs):
        yield from _check(place)


@dataclass
class _Filesystem:
    # The batch's results on one filesystem.
    folder: Path
    saved: int = 0
    snapshots: list[str] = field(default_factory=list)


def _filesystems(jobs: Iterable[PlannedJob]) -> Iterable[_Filesystem]:
    found: dict[int, _Filesystem] = {}
    for job in jobs:
        if job.destination.startswith(GUEST_PREFIX) or is_url(job.destination):
            continue  # its free space is unknown
        folder = Path(job.destination).parent
        with suppress(OSError):  # the job itself will report it
            place = found.setdefault(os.stat(folder).st_dev, _Filesystem(folder))
            if job.verb == "save":
                place.saved += _allocated(job.source)
            elif not job.arguments.get("force") and not job.arguments.get("in_place"):
                place.snapshots.append(job.source)
    return found.values()


def _check(place: _Filesystem) -> Iterator[str]:
    folder, free = place.folder, free_bytes(place.folder)
    if place.saved + _together(_ram_size, place.snapshots) <= free:
        return
    restored = _together(_restored, place.snapshots)
    if restored > free:
        message = (
            f"images need {format_size(restored)} together, "
            f"their filesystem has {format_size(free)} free"
        )
        raise NoSpaceError(message, path=str(folder))
    if place.saved + restored > free:
        yield (
            f"{folder}: guests of up to {format_size(place.saved)} are saved here, and "
            f"{format_size(free)} are free: incompressible guests may not fit"
        )


def _allocated(path: str) -> int:
    if path.startswith(GUEST_PREFIXES):
        return 0
    facts = os.stat(path)
    return min(facts.st_size, facts.st_blocks * 512)


def _together(size: Callable[[str], int], paths: Iterable[str]) -> int:
    total = 0
    for path in paths:
        with suppress(OSError, SnapmigError):  # the job itself will say what is wrong
            total += size(path)
    return total


def _ram_size(path: str) -> int:
    with SnapshotFile(path, locked=True) as snapshot:
        return snapshot.geometry.ram_size


def _restored(path: str) -> int:
    with SnapshotFile(path, locked=True) as snapshot:
        return snapshot.index.counts().pages_in_use * PAGE_SIZE
