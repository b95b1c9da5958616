"""Outputs of a restore: a new image, a nameless one, or an existing one, filled by workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.handlers.load import RestoreHandler, RestorePlan
from snapmig.handlers.load_tasks import DamageTasks
from snapmig.images.target import TargetPlan
from snapmig.operations.progress import TO_DISK
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import Part
from snapmig.operations.runs.resume import DROPPED, RESUMABLE, remarking
from snapmig.system.files import (
    NewFile,
    check_destination,
    descriptor_path,
    free_bytes,
    open_regular,
    write_error,
)
from snapmig.system.libc import huge_page_size
from snapmig.system.partial import (
    NamelessFile,
    PartialDirectory,
    PartialFile,
    ResumableFile,
    fill_file,
    write_file,
)
from snapmig.system.together import commit_together
from snapmig.units import format_size

__all__ = ("fill", "restore_in_place", "restore_nameless", "restore_new")


class Filled(NamedTuple):
    """Numbers of a filled image: pages other than zero, and packets that it had already."""

    data_pages: int
    kept_packets: int


def restore_new(
    reading: Reading, path: Path, part: Part, *, force: bool, resume: str | None = None
) -> Filled:
    """
    Write a new image, visible once complete.

    :param resume: the key of its form, to go on with an earlier run

    :raises NoSpaceError: it does not fit
    :raises DestinationExistsError: the image, or another file of it, exists
    """
    if part.image.member is None:
        companions = {
            path.with_name(path.name + suffix): content
            for suffix, content in part.image.companions.items()
        }
        for destination in (path, *companions):
            check_destination(destination, force=force)
        with _written(reading, path, part, resume) as (file, filled), ExitStack() as stack:
            others = []
            for companion, content in companions.items():
                others.append(stack.enter_context(PartialFile(companion, len(content))))
                fill_file(others[-1], content)
            commit_together([*others, file], force=force)
        return filled
    with PartialDirectory(path) as folder:
        inside = folder.partial_path / part.image.member
        with _written(reading, inside, part) as (file, filled):
            file.commit(force=False)
        for name, content in part.image.companions.items():
            write_file(folder.partial_path / name, content)
        folder.commit()
    return filled


@contextmanager
def restore_nameless(reading: Reading, folder: Path, part: Part) -> Iterator[tuple[int, int]]:
    """
    Write an image to a file without a name, for the duration of the ``with`` block.

    Yield its descriptor and the number of nonzero pages.

    :raises NoSpaceError: it does not fit
    """
    with NamelessFile(folder, _check_room(reading, folder, str(folder), part)) as file:
        yield file.fd, _fill_new(reading, file, folder, part, to_disk=False).data_pages


@contextmanager
def _written(
    reading: Reading, path: Path, part: Part, resume: str | None = None
) -> Iterator[tuple[PartialFile, Filled]]:
    # A partial file with everything in it, synced, for the caller to commit.
    if resume is None:
        with PartialFile(path, _check_room(reading, path.parent, str(path), part)) as file:
            filled = _fill_new(reading, file, path.parent, part)
            reading.tell(TO_DISK)
            file.sync()
            yield file, filled
        return
    with ResumableFile(path, part.image.size, resume) as file, remarking(RESUMABLE):
        reading.warnings += [DROPPED] * file.dropped
        if not file.resumed:
            _check_room(reading, path.parent, str(path), part)
        filled = _fill_new(reading, file, path.parent, part, resumed=file.resumed)
        reading.tell(TO_DISK)
        file.sync()
        yield file, filled


def _check_room(reading: Reading, folder: Path, shown: str, part: Part) -> int:
    # Return the space needed by the image. Pages that it compresses may need hardly any.
    pages = reading.snapshot.index.counts(part.packets).pages_in_use * PAGE_SIZE
    others = sum(len(piece) for _, piece in part.image.pieces)
    others += sum(len(content) for content in part.image.companions.values())
    needed, free = pages + others, free_bytes(folder)
    if (others if part.placer.lists_pages else needed) > free:
        message = f"image needs {format_size(needed)}, its filesystem has {format_size(free)} free"
        raise NoSpaceError(message, path=shown)
    return needed


def _fill_new(
    reading: Reading,
    file: NewFile,
    folder: Path,
    part: Part,
    *,
    resumed: bool = False,
    to_disk: bool = True,
) -> Filled:
    file.resize(part.image.size)
    for offset, piece in part.image.pieces:
        file.write(piece[:], offset)
    target = TargetPlan(
        path=descriptor_path(file.fd),
        shown=file.shown,
        needed=file.needed,
        in_place=resumed,  # a packet without pages has no digest to compare
        huge_page_size=huge_page_size(str(folder)),
        to_disk=to_disk,
    )
    if part.placer.measured:
        known = list(reading.problems)
        fill(reading, target, part, phase="measuring")
        reading.problems = known  # the second time finds what is damaged again
        size, pieces = part.placer.settle()
        file.resize(size)
        for offset, piece in pieces:
            file.write(piece, offset)
    return fill(reading, target, part, resumed=resumed)


def restore_in_place(reading: Reading, path: Path, part: Part, *, resumed: bool = False) -> Filled:
    """
    Write into an existing image of the same size.

    :param resumed: leave alone what is right already
    """
    try:
        fd = open_regular(path, os.O_RDWR)
    except SnapmigError as error:
        raise SnapmigError(f"image is {error.message}", path=str(path)) from error
    try:
        facts = os.fstat(fd)
        if facts.st_size != part.image.size:
            message = f"image has {facts.st_size} bytes, the snapshot's RAM {part.image.size}"
            raise SnapmigError(message, path=str(path))
        target = TargetPlan(
            path=descriptor_path(fd),
            shown=str(path),
            needed=part.image.size,
            in_place=True,
            huge_page_size=huge_page_size(str(path)),
            to_disk=True,
        )
        with remarking(f"{path} is only partly restored now"):
            filled = fill(reading, target, part, resumed=resumed)
            reading.tell(TO_DISK)
            try:
                os.fsync(fd)
            except OSError as error:
                raise write_error(error, str(path), part.image.size) from error
    finally:
        os.close(fd)
    return filled


def fill(
    reading: Reading, target: TargetPlan, part: Part, *, resumed: bool = False, phase: str = ""
) -> Filled:
    """Have workers write a part's pages into a file, if resumed only those that are wrong."""
    goes_on = reading.options.keep_going
    plan = RestorePlan(reading.plans, target, part.placer, goes_on, resumed)
    tasks = DamageTasks(reading.snapshot, part.packets)
    counters = reading.run(tasks, partial(RestoreHandler, plan), part.ram_size, phase)
    reading.problems += tasks.errors
    reading.damaged = tasks.damaged
    return Filled(int(counters[Counter.DATA_PAGES]), int(counters[Counter.KEPT_PACKETS]))
