"""``restore``: a snapshot to a guest RAM image."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from snapmig.container.format import PageKind
from snapmig.container.index import kind_counts
from snapmig.container.reader import SnapshotFile
from snapmig.errors import NoSpaceError, SnapmigError, UsageError
from snapmig.fleet.fleet import Fleet
from snapmig.geometry import PAGE_SIZE
from snapmig.images.target import TargetPlan
from snapmig.operations.progress import ProgressCallback, reporter
from snapmig.operations.settings import parse_jobs, same_file
from snapmig.system.files import (
    PartialFile,
    check_destination,
    descriptor_path,
    free_bytes,
    write_error,
)
from snapmig.system.libc import huge_page_size
from snapmig.units import format_size
from snapmig.work.counters import Counter
from snapmig.work.load import LoadTasks, RestoreHandler, RestorePlan

__all__ = ("RestoreResult", "restore")


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """
    What a restore did; sizes are in bytes.

    :param block: the only RAM block restored, None for all
    :param ram_size: length of the restored image
    """

    snapshot: str
    image: str
    block: str | None
    jobs: int
    ram_size: int
    data_pages: int
    zero_pages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Part:
    # What is restored: a range of RAM offsets and the packets that cover it.
    base: int
    size: int
    pages: int
    packets: range


def restore(
    snapshot: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    force: bool = False,
    in_place: bool = False,
    block: str | None = None,
    progress: ProgressCallback | None = None,
) -> RestoreResult:
    """
    Restore a snapshot's RAM to a raw image, RAM blocks one after the other.

    A new image appears under its name when it is complete and on stable storage; its zero pages
    are holes. With ``in_place`` an existing file of the same size receives the pages instead, for
    example the shared memory that a hypervisor has mapped; zero pages are made zero there. Each
    packet is checked before its pages are written, but an in-place restore that fails leaves the
    packets before it written.

    :param jobs: worker processes; default: the processors that this process may run on
    :param force: replace an existing image by a new file
    :param in_place: write into the existing image
    :param block: name of the only RAM block to restore
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :raises UsageError: an argument that makes no sense
    :raises CorruptSnapshotError: the snapshot is damaged
    :raises UnsupportedError: the snapshot needs what this version does not have
    :raises DestinationExistsError: the image exists, and neither ``force`` nor ``in_place``
    :raises NoSpaceError: the image does not fit on its filesystem
    :raises WorkerDiedError: a worker process was killed
    :raises OSError: the operating system's own refusals, with the path
    """
    started = time.monotonic()
    jobs = parse_jobs(jobs)
    if force and in_place:
        raise UsageError("force makes a new file, in-place keeps the old one: choose one")
    path = Path(image)
    with SnapshotFile(os.fspath(snapshot)) as source:
        part = _part(source, block)
        if same_file(path, Path(snapshot)):
            raise UsageError("image and snapshot are the same file", path=str(path))
        if in_place:
            data_pages = _restore_in_place(source, path, part, jobs, progress)
        else:
            data_pages = _restore_new(source, path, part, jobs, progress, force=force)
    return RestoreResult(
        snapshot=os.fspath(snapshot),
        image=str(path),
        block=block,
        jobs=jobs,
        ram_size=part.size,
        data_pages=data_pages,
        zero_pages=part.pages - data_pages,
        seconds=round(time.monotonic() - started, 3),
    )


def _part(source: SnapshotFile, block: str | None) -> _Part:
    geometry = source.geometry
    if block is None:
        pages = sum(-(-known.size // PAGE_SIZE) for known in geometry.blocks)
        return _Part(0, geometry.ram_size, pages, range(geometry.packet_count))
    names = [known.name for known in geometry.blocks]
    if block not in names:
        message = f"has no RAM block {block!r}, it has {', '.join(names[:20])}"
        raise UsageError(message, path=source.shown)
    number = names.index(block)
    packets = geometry.block_packets(number)
    size = geometry.blocks[number].size
    return _Part(geometry.block_start(number), size, -(-size // PAGE_SIZE), packets)


def _restore_new(
    source: SnapshotFile,
    path: Path,
    part: _Part,
    jobs: int,
    progress: ProgressCallback | None,
    *,
    force: bool,
) -> int:
    check_destination(path, force=force)
    source.check_index_digest()  # a damaged index would make nonsense of the space it asks for
    records = source.records[part.packets.start : part.packets.stop]
    needed = int(kind_counts(records)[PageKind.DATA]) * PAGE_SIZE
    free = free_bytes(path.parent)
    if needed > free:
        message = f"image needs {format_size(needed)}, its filesystem has {format_size(free)} free"
        raise NoSpaceError(message, path=str(path))
    with PartialFile(path, needed) as file:
        file.resize(part.size)
        target = TargetPlan(
            path=descriptor_path(file.fd),
            shown=str(path),
            needed=needed,
            in_place=False,
            huge_page_size=huge_page_size(str(path.parent)),
        )
        data_pages = _run_workers(source, target, part, jobs, progress)
        file.sync()
        file.commit(force=force)
    return data_pages


def _restore_in_place(
    source: SnapshotFile, path: Path, part: _Part, jobs: int, progress: ProgressCallback | None
) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise SnapmigError("image is not a regular file", path=str(path))
        if facts.st_size != part.size:
            message = f"image has {facts.st_size} bytes, the snapshot's RAM {part.size}"
            raise SnapmigError(message, path=str(path))
        target = TargetPlan(
            path=descriptor_path(fd),
            shown=str(path),
            needed=part.size,
            in_place=True,
            huge_page_size=huge_page_size(str(path)),
        )
        with _partly_restored(path):
            data_pages = _run_workers(source, target, part, jobs, progress)
            try:
                os.fsync(fd)
            except OSError as error:
                raise write_error(error, str(path), part.size) from error
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


def _run_workers(
    source: SnapshotFile,
    target: TargetPlan,
    part: _Part,
    jobs: int,
    progress: ProgressCallback | None,
) -> int:
    plan = RestorePlan(source.path_for_workers, source.shown, target, part.base)
    with Fleet(jobs, partial(RestoreHandler, plan)) as fleet:
        report = reporter(fleet, part.size, progress)
        fleet.run(LoadTasks(source, part.packets), report)
        report()
        return int(fleet.cells.total()[Counter.DATA_PAGES])
