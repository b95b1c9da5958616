"""``save``: a guest RAM image to a snapshot."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from snapmig.container.format import DEFAULT_PACKET_SIZE, MAX_RAM_BLOCKS, Encoding, Layout
from snapmig.container.writer import SnapshotWriter, WrittenSnapshot
from snapmig.encodings.deflate import DEFAULT_LEVEL
from snapmig.encodings.packet import PacketSettings
from snapmig.errors import SnapmigError, UsageError
from snapmig.fleet.cells import Row
from snapmig.fleet.fleet import Fleet
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock, block_problem
from snapmig.images.raw import RawImage
from snapmig.images.source import ImageSource
from snapmig.operations.attachments import AttachmentSource, check_attachments, store_attachments
from snapmig.operations.progress import ProgressCallback, reporter
from snapmig.operations.settings import (
    parse_jobs,
    parse_layout,
    parse_level,
    parse_packet_size,
    parse_window,
    same_file,
)
from snapmig.system.files import check_destination
from snapmig.work.counters import Counter, encoding_counter
from snapmig.work.save import SaveHandler, SavePlan, SaveTasks

__all__ = ("ImageArgument", "SaveResult", "save")

ImageArgument = str | os.PathLike[str] | Sequence[tuple[RamBlock, str | os.PathLike[str]]]
"""A raw image, or the RAM blocks of a guest, each with the file that holds it."""


@dataclass(frozen=True, slots=True)
class SaveResult:
    """
    What a save did; sizes are in bytes.

    :param stored_size: all packets' stored bytes together
    :param disk_size: what the snapshot takes on its filesystem
    :param packets: how many packets are in which encoding
    :param warnings: what the user should know, a sentence each
    """

    image: str
    snapshot: str
    snapshot_id: str
    jobs: int
    ram_size: int
    data_pages: int
    zero_pages: int
    packets: dict[str, int]
    stored_size: int
    file_size: int
    disk_size: int
    seconds: float
    warnings: tuple[str, ...] = ()


def save(
    image: ImageArgument,
    snapshot: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    level: int = DEFAULT_LEVEL,
    window: str = "32k",
    packet_size: str | int = DEFAULT_PACKET_SIZE,
    layout: str = "fixed",
    attach: Mapping[str, AttachmentSource] | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> SaveResult:
    """
    Save a guest RAM image to a new snapshot file.

    The image must not change meanwhile: pause the guest. Nothing appears under the snapshot's
    name before it is complete and on stable storage.

    :param image: a raw file, or a list of RAM blocks with their files
    :param jobs: worker processes; default: the processors that this process may run on
    :param level: 0 to 3, of ISA-L
    :param window: ``4k`` or ``32k``: history that a decoder must keep
    :param packet_size: bytes, or words like ``512K``; a power of two from 64 KiB to 4 MiB
    :param layout: ``fixed`` or ``packed``
    :param attach: named byte strings, or files, to keep in the snapshot
    :param force: replace an existing file
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :raises UsageError: an argument that makes no sense
    :raises DestinationExistsError: the snapshot exists and ``force`` is not set
    :raises ImageChangedError: the image was written to meanwhile
    :raises NoSpaceError: the destination's filesystem is full
    :raises WorkerDiedError: a worker process was killed
    :raises SnapmigError: any other refusal
    :raises OSError: the operating system's own refusals, with the path
    """
    started = time.monotonic()
    jobs = parse_jobs(jobs)
    settings = PacketSettings(parse_level(level), parse_window(window))
    size, places = parse_packet_size(packet_size), parse_layout(layout)
    attach = {} if attach is None else attach
    check_attachments(attach)
    path = Path(snapshot)
    with ExitStack() as stack:
        source = _open_image(image)
        stack.callback(source.close)
        _check_paths(image, path, force=force)
        geometry = _geometry(source, size)
        writer = stack.enter_context(SnapshotWriter(path, geometry, places, settings.window_bits))
        warnings = _hole_warning(writer, places)
        counts, data_end = _run_workers(source, geometry, writer, settings, jobs, progress)
        source.check_unchanged()
        store_attachments(writer, attach)
        encodings = sum(1 << kind for kind in Encoding if counts[encoding_counter(kind)])
        written = writer.commit(data_end=data_end, encodings=encodings, force=force)
    return _result(source, path, geometry, counts, written, jobs, started, warnings)


def _open_image(image: ImageArgument) -> ImageSource:
    if isinstance(image, str | os.PathLike):
        return RawImage.open(os.fspath(image))
    if not image:
        raise UsageError("there is no RAM block")
    return RawImage([(block, os.fspath(path)) for block, path in image])


def _check_paths(image: ImageArgument, path: Path, *, force: bool) -> None:
    check_destination(path, force=force)
    sources = [image] if isinstance(image, str | os.PathLike) else [source for _, source in image]
    if any(same_file(Path(source), path) for source in sources):
        raise UsageError("image and snapshot are the same file", path=str(path))


def _geometry(source: ImageSource, packet_size: int) -> Geometry:
    if len(source.blocks) > MAX_RAM_BLOCKS:
        raise UsageError(f"{len(source.blocks)} RAM blocks, expected at most {MAX_RAM_BLOCKS}")
    if problem := block_problem(source.blocks):
        raise UsageError(problem, path=source.shown)
    return Geometry(source.blocks, packet_size)


def _hole_warning(writer: SnapshotWriter, layout: Layout) -> tuple[str, ...]:
    if layout == Layout.PACKED or writer.keeps_holes:
        return ()
    message = (
        f"{writer.plan.shown}: its filesystem keeps no holes, so the snapshot takes as much space "
        "as the RAM; the packed layout saves that"
    )
    return (message,)


def _run_workers(
    source: ImageSource,
    geometry: Geometry,
    writer: SnapshotWriter,
    settings: PacketSettings,
    jobs: int,
    progress: ProgressCallback | None,
) -> tuple[Row, int]:
    plan = SavePlan(source.opener(), geometry, writer.plan, settings)
    tasks = SaveTasks(geometry, writer.plan, source.next_data)
    with Fleet(jobs, partial(SaveHandler, plan), _explain(source)) as fleet:
        report = reporter(fleet, geometry.ram_size, progress)
        fleet.run(tasks, report)
        report()
        counts: Row = fleet.cells.total()
    if writer.plan.layout == Layout.PACKED:
        writer.end_packed_data(tasks.end)
    return counts, writer.end


def _explain(source: ImageSource) -> Callable[[int], str]:
    def explain(number: int) -> str:
        if number == signal.SIGBUS:
            try:
                source.check_unchanged()
            except SnapmigError as error:
                return f" because the image changed under it ({error})"
            return " (the image's storage failed, or it shrank for a moment)"
        return " (the kernel's out-of-memory killer does that)" if number == signal.SIGKILL else ""

    return explain


def _result(
    source: ImageSource,
    path: Path,
    geometry: Geometry,
    counts: Row,
    written: WrittenSnapshot,
    jobs: int,
    started: float,
    warnings: tuple[str, ...],
) -> SaveResult:
    data_pages = int(counts[Counter.DATA_PAGES])
    pages = int(np.sum([-(-block.size // PAGE_SIZE) for block in geometry.blocks]))
    return SaveResult(
        image=source.shown,
        snapshot=str(path),
        snapshot_id=written.snapshot_id.hex(),
        jobs=jobs,
        ram_size=geometry.ram_size,
        data_pages=data_pages,
        zero_pages=pages - data_pages,
        packets={kind.name.lower(): int(counts[encoding_counter(kind)]) for kind in Encoding},
        stored_size=int(counts[Counter.STORED_BYTES]),
        file_size=written.file_size,
        disk_size=written.disk_size,
        seconds=round(time.monotonic() - started, 3),
        warnings=warnings,
    )
