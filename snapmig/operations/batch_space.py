"""Whether what all jobs of a batch make has room together, looked at before the first begins."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from snapmig.container.index import pages_in_use
from snapmig.container.reader import SnapshotFile
from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.batch_jobs import PlannedJob
from snapmig.operations.settings import GUEST_PREFIX
from snapmig.stores.location import is_url
from snapmig.system.files import free_bytes
from snapmig.units import format_size

__all__ = ("check_batch_space",)


def check_batch_space(jobs: Iterable[PlannedJob]) -> Iterator[str]:
    """
    Compare what all jobs of a batch make with what is free; yield warnings.

    :raises NoSpaceError: images to restore that can't all fit
    """
    saved: dict[int, int] = defaultdict(int)
    restored: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for job in jobs:
        if job.destination.startswith(GUEST_PREFIX) or is_url(job.destination):
            continue  # nobody says what is free there
        folder = Path(job.destination).parent
        with suppress(OSError, SnapmigError):  # the job itself will say what is wrong
            device = os.stat(folder).st_dev
            folders[device] = folder
            if job.verb == "save":
                saved[device] += _allocated(job.source)
            elif not job.words.get("force") and not job.words.get("in_place"):
                restored[device] += _restored(job.source)
    for device, folder in folders.items():
        free = free_bytes(folder)
        if restored[device] > free:
            message = (
                f"images need {format_size(restored[device])} together, "
                f"their filesystem has {format_size(free)} free"
            )
            raise NoSpaceError(message, path=str(folder))
        if saved[device] + restored[device] > free:
            yield (
                f"{folder}: guests of up to {format_size(saved[device])} are saved here, and "
                f"{format_size(free)} are free: what does not compress may not fit"
            )


def _allocated(path: str) -> int:
    if path.startswith(GUEST_PREFIX):
        return 0
    facts = os.stat(path)
    return min(facts.st_size, facts.st_blocks * 512)


def _restored(path: str) -> int:
    with SnapshotFile(path) as snapshot:
        return pages_in_use(snapshot.records) * PAGE_SIZE
