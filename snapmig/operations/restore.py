"""``restore``: a snapshot to a guest RAM image."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.attachments import source_format
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.restore_guest import Resumable, restore_for_qemu, restore_guest
from snapmig.operations.restoring import plan_block, plan_whole, restore_in_place, restore_new
from snapmig.operations.save_guest import FORMAT, GUEST_PREFIX
from snapmig.operations.settings import parse_jobs, same_file

__all__ = ("RestoreResult", "restore")


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """
    What a restore did; sizes are in bytes.

    :param block: the only RAM block restored, None for all
    :param ram_size: guest RAM that was restored
    :param qemu_arguments: with ``for_qemu``, the command that starts a QEMU for the guest
    :param monitor_commands: with ``for_qemu``, what its monitor (HMP) must be told then
    """

    snapshot: str
    image: str
    format: str
    block: str | None
    jobs: int
    ram_size: int
    data_pages: int
    zero_pages: int
    seconds: float
    qemu_arguments: tuple[str, ...] | None = None
    monitor_commands: tuple[str, ...] | None = None


def restore(
    snapshot: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the command line's word
    jobs: int | None = None,
    force: bool = False,
    in_place: bool = False,
    block: str | None = None,
    for_qemu: bool = False,
    progress: ProgressCallback | None = None,
) -> RestoreResult:
    """
    Restore a snapshot to an image of the format that it was saved from, or of another one.

    A raw image has the RAM blocks one after the other. ``qmp:SOCKET`` as image stands for a QEMU
    that waits with ``-incoming defer``: it gets the RAM and the device state, and runs.

    A new image appears under its name when it is complete and on stable storage; its zero pages
    are holes. With ``in_place`` an existing file of the same size receives the pages instead, for
    example the shared memory that a hypervisor has mapped; zero pages are made zero there. Each
    packet is checked before its pages are written, but an in-place restore that fails leaves the
    packets before it written.

    :param format: the image's format; default: that of the image that was saved
    :param jobs: worker processes; default: the processors that this process may run on
    :param force: replace an existing image by a new file
    :param in_place: write into the existing image
    :param block: name of the only RAM block to restore
    :param for_qemu: make the directory ``image`` with all that a new QEMU needs to resume
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :raises UsageError: an argument that makes no sense
    :raises CorruptSnapshotError: the snapshot is damaged
    :raises UnsupportedError: the snapshot needs what this version does not have
    :raises DestinationExistsError: the image exists, and neither ``force`` nor ``in_place``
    :raises NoSpaceError: the image does not fit on its filesystem
    :raises MonitorError: QEMU's monitor can't be reached, or refused something
    :raises WorkerDiedError: a worker process was killed
    :raises OSError: the operating system's own refusals, with the path
    """
    started = time.monotonic()
    jobs = parse_jobs(jobs)
    if sum((force, in_place, for_qemu)) > 1:
        raise UsageError("force, in-place and for-qemu exclude each other")
    made: Resumable | None = None
    with SnapshotFile(os.fspath(snapshot)) as source:
        to_guest = isinstance(image, str) and image.startswith(GUEST_PREFIX)
        others = format is not None or block is not None or force or in_place
        if (to_guest or for_qemu) and others:
            raise UsageError("a QEMU takes the whole snapshot as it is, without other options")
        if to_guest:
            socket = str(image).removeprefix(GUEST_PREFIX)
            name, data_pages = restore_guest(source, socket, jobs, progress)
            size, pages = source.geometry.ram_size, _pages(source)
        elif for_qemu:
            made = restore_for_qemu(source, Path(image), jobs, progress)
            name, data_pages = made.format, made.data_pages
            size, pages = source.geometry.ram_size, _pages(source)
        else:
            name = _format(source, format, raw=in_place or block is not None)
            part = plan_block(source, block) if block is not None else plan_whole(source, name)
            if same_file(Path(image), Path(snapshot)):
                raise UsageError("image and snapshot are the same file", path=str(image))
            if in_place:
                data_pages = restore_in_place(source, Path(image), part, jobs, progress)
            else:
                data_pages = restore_new(source, Path(image), part, jobs, progress, force=force)
            size, pages = part.ram_size, part.pages
    return RestoreResult(
        snapshot=os.fspath(snapshot),
        image=os.fspath(image),
        format=name,
        block=block,
        jobs=jobs,
        ram_size=size,
        data_pages=data_pages,
        zero_pages=pages - data_pages,
        seconds=round(time.monotonic() - started, 3),
        qemu_arguments=None if made is None else made.arguments,
        monitor_commands=None if made is None else made.monitor_commands,
    )


def _pages(source: SnapshotFile) -> int:
    return sum(-(-block.size // PAGE_SIZE) for block in source.geometry.blocks)


def _format(source: SnapshotFile, name: str | None, *, raw: bool) -> str:
    if raw:
        if name not in (None, "raw"):
            raise UsageError(f"{name} files are made new and whole, in-place and block are for raw")
        return "raw"
    saved_as = source_format(source)
    return name or ("raw" if saved_as == FORMAT else saved_as)
