"""Outputs of a restore: a new image, a nameless one, or an existing one, filled by workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.handlers.load import LoadTasks, RestoreHandler, RestorePlan
from snapmig.images.target import TargetPlan
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import Part
from snapmig.system.files import (
    NamelessFile,
    NewFile,
    PartialDirectory,
    PartialFile,
    check_destination,
    descriptor_path,
    fill_file,
    free_bytes,
    open_regular,
    write_error,
    write_file,
)
from snapmig.system.libc import huge_page_size
from snapmig.system.together import commit_together
from snapmig.units import format_size

__all__ = ("fill", "restore_in_place", "restore_nameless", "restore_new")


def restore_new(reading: Reading, path: Path, part: Part, *, force: bool) -> int:
    """
    Write a new image, visible once complete; return the number of nonzero pages.

    :raises NoSpaceError: it does not fit
    :raises DestinationExistsError: the image, or another file of it, exists
    """
    # A damaged index would make nonsense of the space it asks for.
    reading.snapshot.index.check_digest()
    if part.image.member is None:
        companions = {
            path.with_name(path.name + suffix): content
            for suffix, content in part.image.companions.items()
        }
        for destination in (path, *companions):
            check_destination(destination, force=force)
        with _written(reading, path, part) as (file, data_pages), ExitStack() as stack:
            others = []
            for companion, content in companions.items():
                others.append(stack.enter_context(PartialFile(companion, len(content))))
                fill_file(others[-1], content)
            commit_together([*others, file], force=force)
        return data_pages
    with PartialDirectory(path) as folder:
        inside = folder.partial_path / part.image.member
        with _written(reading, inside, part) as (file, data_pages):
            file.commit(force=False)
        for name, content in part.image.companions.items():
            write_file(folder.partial_path / name, content)
        folder.commit()
    return data_pages


@contextmanager
def restore_nameless(reading: Reading, folder: Path, part: Part) -> Iterator[tuple[int, int]]:
    """
    Write an image to a file without a name, for the duration of the ``with`` block.

    Yield its descriptor and the number of nonzero pages.

    :raises NoSpaceError: it does not fit
    """
    reading.snapshot.index.check_digest()
    with NamelessFile(folder, _check_room(reading, folder, str(folder), part)) as file:
        data_pages = _fill_new(reading, file, folder, part)
        yield file.fd, data_pages


@contextmanager
def _written(reading: Reading, path: Path, part: Part) -> Iterator[tuple[PartialFile, int]]:
    # A partial file with everything in it, synced, for the caller to commit.
    with PartialFile(path, _check_room(reading, path.parent, str(path), part)) as file:
        data_pages = _fill_new(reading, file, path.parent, part)
        file.sync()
        yield file, data_pages


def _check_room(reading: Reading, folder: Path, shown: str, part: Part) -> int:
    # Return the space needed by the image.
    needed = reading.snapshot.index.pages_in_use(part.packets) * PAGE_SIZE
    needed += sum(len(piece) for _, piece in part.image.pieces)
    needed += sum(len(content) for content in part.image.companions.values())
    free = free_bytes(folder)
    if needed > free:
        message = f"image needs {format_size(needed)}, its filesystem has {format_size(free)} free"
        raise NoSpaceError(message, path=shown)
    return needed


def _fill_new(reading: Reading, file: NewFile, folder: Path, part: Part) -> int:
    file.resize(part.image.size)
    for offset, piece in part.image.pieces:
        file.write(piece, offset)
    target = TargetPlan(
        path=descriptor_path(file.fd),
        shown=file.shown,
        needed=file.needed,
        in_place=False,
        huge_page_size=huge_page_size(str(folder)),
    )
    return fill(reading, target, part)


def restore_in_place(reading: Reading, path: Path, part: Part) -> int:
    """Write into an existing image of the same size; return the number of nonzero pages."""
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
        )
        with _partly_restored(path):
            data_pages = fill(reading, target, part)
            try:
                os.fsync(fd)
            except OSError as error:
                raise write_error(error, str(path), part.image.size) from error
    finally:
        os.close(fd)
    return data_pages


@contextmanager
def _partly_restored(path: Path) -> Iterator[None]:
    try:
        yield
    except SnapmigError as error:
        error.args = (f"{error.message}; {path} is only partly restored now",)
        raise
    except OSError as error:
        message = f"{error.strerror}; {path} is only partly restored now"
        raise SnapmigError(message, path=error.filename) from error
    except BaseException as error:
        error.add_note(f"{path} is only partly restored now")
        raise


def fill(reading: Reading, target: TargetPlan, part: Part) -> int:
    """Have workers write a part's pages into a file; return the number of nonzero pages."""
    plan = RestorePlan(reading.plans, target, part.placer)
    tasks = LoadTasks(reading.snapshot, part.packets)
    counters = reading.run(tasks, partial(RestoreHandler, plan), part.ram_size)
    return int(counters[Counter.DATA_PAGES])
