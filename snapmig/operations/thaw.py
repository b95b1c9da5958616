"""``thaw``: all of a mount's RAM into the page cache, so that guests go on without the mount."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import SnapmigError, UsageError
from snapmig.mounts.mountpoint import find_mount
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.parse import parse_jobs
from snapmig.operations.progress import Progress, ProgressCallback
from snapmig.units import format_size

__all__ = ("ThawResult", "thaw")

_STEP = 4 << 20
_BLOCKS = "blocks"


@dataclass(frozen=True, slots=True)
class ThawResult:
    """
    Files read whole.

    :param path: the mount, or the one file of it
    :param size: bytes of all files
    :param seconds: of the whole
    :param warnings: sentences
    """

    path: str
    size: int
    seconds: float
    warnings: tuple[str, ...]


@checks_arguments
def thaw(
    path: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    progress: ProgressCallback | None = None,
) -> ThawResult:
    """
    Read all of a mounted snapshot's RAM blocks, or one file of the mount, into the page cache.

    What the kernel keeps there is served without the mount's server and without the snapshot, also
    holes. A hypervisor that copies what it maps is done sooner, and needs the mount no longer.

    :param path: a directory at which a snapshot is mounted, or a file there that a guest maps
    :param jobs: most reads side by side; default: as many as processors
    :param progress: called with the bytes done
    :raises UsageError: neither a mount of a snapshot nor a file there
    :raises SnapmigError: a packet is damaged, or the server has ended
    :raises OSError: a system call failed; with the path
    """
    threads, started = parse_jobs(jobs), time.monotonic()
    place = Path(os.path.abspath(path))
    files = _files(place)
    total = sum(file.stat().st_size for file in files)
    warnings = _warnings(total)
    done = 0
    pool = ThreadPoolExecutor(threads)
    try:
        for size in pool.map(_read, _pieces(files)):
            done += size
            if progress is not None:
                progress(Progress(total, done, 0))
    finally:
        pool.shutdown(cancel_futures=True)
    return ThawResult(str(place), total, time.monotonic() - started, warnings)


class _Piece(NamedTuple):
    file: Path
    start: int
    stop: int


def _files(place: Path) -> list[Path]:
    if place.is_file() and any(find_mount(folder) for folder in place.parents):
        return [place]
    if find_mount(place) is None:
        message = "is neither a mounted snapshot nor a file of one, expected a directory of mount"
        raise UsageError(message, path=str(place))
    if not (place / _BLOCKS).is_dir():
        raise UsageError("shows several snapshots, expected a file of one", path=str(place))
    return sorted((place / _BLOCKS).iterdir())


def _warnings(total: int) -> tuple[str, ...]:
    free = _available()
    if total <= free:
        return ()
    return (
        f"the host has {format_size(free)} of memory left for {format_size(total)} of RAM: "
        "the kernel will not keep all of it, and the mount stays in use",
    )


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, words = line.partition(":")
        if name == "MemAvailable":
            return int(words.split()[0]) << 10
    return 0


def _pieces(files: list[Path]) -> Iterator[_Piece]:
    for file in files:
        size = file.stat().st_size
        for start in range(0, size, _STEP):
            yield _Piece(file, start, min(size, start + _STEP))


def _read(piece: _Piece) -> int:
    place = piece.start
    try:
        with piece.file.open("rb", buffering=0) as file:
            while place < piece.stop:  # a read ends before a page that is damaged
                data = os.pread(file.fileno(), piece.stop - place, place)
                if not data:
                    raise SnapmigError(f"ends at {place:#x}", path=str(piece.file))
                place += len(data)
    except OSError as error:
        message = f"can't be read at {place:#x} ({error.strerror}): the mount's log says more"
        raise SnapmigError(message, path=str(piece.file)) from error
    return place - piece.start
