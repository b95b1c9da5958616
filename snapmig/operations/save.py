"""``save``: a guest RAM image, or a running guest, to a snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from snapmig.attachments import AttachmentSource, source_attachments
from snapmig.errors import UsageError
from snapmig.geometry import RamBlock
from snapmig.guests.limits import parse_live_limits
from snapmig.guests.wait import MonitorWait, NoticeCallback, parse_monitor_timeout
from snapmig.images.formats import open_image
from snapmig.images.formats.raw import open_blocks
from snapmig.images.source import ImageSource
from snapmig.operations.options.addresses import parse_placing
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO, choose_coding
from snapmig.operations.options.keys import parse_keys, parse_sealing, prepare_keys
from snapmig.operations.options.parse import (
    WAYS_OUT,
    AcceleratorName,
    CompressionName,
    FormatName,
    HuffmanName,
    LayoutName,
    Level,
    LiveName,
    ViaName,
    WindowName,
    check_connect,
    is_guest,
    parse_guest,
    parse_jobs,
    parse_layout,
    parse_live,
    parse_packet_size,
    parse_via,
)
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.progress import ProgressCallback, phase_reporter
from snapmig.operations.runs.save import open_save_run
from snapmig.operations.runs.save_output import OpenOutput, whole_snapshot
from snapmig.operations.runs.workers import WorkerGroup, choose_workers
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import Location, parse_location, parse_new

__all__ = ("ImageArgument", "SaveResult", "save")

ImageArgument = str | os.PathLike[str] | Sequence[tuple[RamBlock, str | os.PathLike[str]]]
"""A raw image, or the RAM blocks of a guest, each with the file that holds it."""


@checks_arguments
def save(  # noqa: PLR0913 - the words of the command line
    image: ImageArgument,
    snapshot: str | os.PathLike[str],
    *,
    format: FormatName | None = None,  # noqa: A002 - the command line's word
    base: Sequence[str | os.PathLike[str]] = (),
    qcow2_snapshot: str | None = None,
    parent: str | os.PathLike[str] | None = None,
    deltas: bool | None = None,
    jobs: int | None = None,
    compression: CompressionName = "zlib",
    accelerator: AcceleratorName = AUTO,
    level: Level | None = None,
    window: WindowName | None = None,
    huffman: HuffmanName = "dynamic",
    depth: int | None = None,
    packet_size: str | int | None = None,
    layout: LayoutName | None = None,
    page_digests: bool = True,
    address: Mapping[str, int | str] | Sequence[str] = (),
    arch: str | None = None,
    follow_remote_parents: bool = False,
    encrypt: bool = False,
    sign: bool = False,
    mixed_chain: bool = False,
    keys: Keys | None = None,
    attach: Mapping[str, AttachmentSource] | None = None,
    force: bool = False,
    resume: bool = False,
    live: bool | LiveName = False,
    via: ViaName | None = None,
    max_downtime: float | None = None,
    pause_after: float | None = None,
    share: str | None = None,
    bwlimit: str | int | None = None,
    connect: str | None = None,
    monitor_timeout: float | str | None = None,
    workers: WorkerGroup | None = None,
    progress: ProgressCallback | None = None,
    notice: NoticeCallback | None = None,
) -> SaveResult:
    """
    Save a guest RAM image, or a running guest, to a new snapshot: a file, or an object.

    The image must not change during the save: pause the guest. Otherwise the snapshot is readable,
    but mixes several moments; a sample of the packets is read again at the end to detect this.
    Nothing appears under the snapshot's name before it is complete and on stable storage.

    :param snapshot: a path, or ``s3://BUCKET/KEY``
    :param image: a file, or a list of RAM blocks with their raw files; or ``qmp:SOCKET`` for the
        guest behind that socket of QEMU's monitor, or ``libvirt:DOMAIN`` for one of libvirt's: it
        is paused, saved with its device state, and continued
    :param format: the image's format; default: detected from its content
    :param base: if ``image`` is a diff of Firecracker's, the files below it, the oldest first
    :param qcow2_snapshot: if ``image`` is a qcow2 file, the name or ID of the snapshot in it, made
        with ``savevm``, to take the memory from
    :param parent: an older snapshot of the guest; unchanged pages are not stored again
    :param deltas: store changed pages as differences from the parent's where that is smaller;
        default: only if the parent has no page digests, because then its pages are decoded anyway
    :param jobs: worker processes; default: the processors available to this process
    :param compression: ``zlib``, ``zstd``, ``lz4`` or ``none``
    :param accelerator: an engine for zlib: ``auto``, or a name given by :func:`accelerators`
    :param level: of the compression, or ``auto`` to follow the destination's speed
    :param window: of zlib, ``4k`` or ``32k``: history needed by a decoder
    :param huffman: of ``qpl`` accelerators: ``dynamic``, ``fixed`` or ``trained`` tables
    :param depth: packets in flight at an asynchronous accelerator, per worker
    :param packet_size: bytes, or a text such as ``512K``; a power of two from 64 KiB to 4 MiB;
        default: the parent's, or 512 KiB
    :param layout: ``fixed`` or ``packed``; default: fixed for files, packed for objects, the only
        layout possible there
    :param page_digests: store a digest of each page, so that later incremental saves and
        comparisons need not decode it
    :param address: guest physical addresses of RAM blocks, if the image lacks them: a mapping from
        ``BLOCK`` or ``BLOCK@OFFSET`` to the address, or a list of ``BLOCK[@OFFSET]=GPA``
    :param arch: the guest's architecture, such as ``aarch64``, if the image lacks it
    :param follow_remote_parents: look for the parents of ``parent`` anywhere, as named by
        snapshots; default: only beside it and below
    :param encrypt: let the snapshot be read with one of ``keys`` only
    :param sign: let those with one of ``keys`` see that nothing was changed
    :param mixed_chain: allow a parent that is not sealed, or in another way
    :param keys: to lock the snapshot with, and to open its parents
    :param attach: byte strings, or files, to keep in the snapshot, by name
    :param force: replace an existing file
    :param resume: keep what is saved if this save ends early, beside the snapshot's name, and take
        over what an earlier one kept, as far as it is still right; not of running guests
    :param live: let the guest run during a first pass, and pause it only to save changed pages;
        ``background``: save the guest as it is at the start, and let it run on
    :param via: the way to a running guest's RAM: ``shared`` files, QEMU's ``multifd`` channels, a
        ``mapped-ram`` file that QEMU writes first, or a single ``stream``; default: the first of
        them possible, in the background always a stream
    :param max_downtime: milliseconds that a guest saved live over multifd may stand still;
        default: as QEMU is set, usually 300
    :param pause_after: seconds after which such a guest is stopped, however much is left; default:
        300
    :param share: ``K/N``, to save only the K-th of N parts of the packets, beside other processes
        with the others on one filesystem; :func:`commit` then makes the snapshot
    :param bwlimit: bytes per second to write at most, a number or a text such as ``200M``; not
        applied to a live save while the guest is paused
    :param connect: URI of libvirt, such as ``qemu:///system``; default: libvirt's own
    :param monitor_timeout: seconds to wait for each answer of QEMU's monitor; default: 30
    :param workers: worker processes shared with other saves and restores, with their own
        ``bwlimit``
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :param notice: called with messages for the user during the run, such as a wait for a monitor
    :raises UsageError: an invalid argument
    :raises DestinationExistsError: the snapshot exists and ``force`` is not set
    :raises ImageChangedError: the image was written to during the save
    :raises NoSpaceError: the destination's filesystem is full
    :raises StoreError: object storage can't be reached, or refused a request
    :raises MonitorError: QEMU's monitor can't be reached, or refused a command
    :raises WorkerDiedError: a worker process was killed
    :raises SnapmigError: any other failure
    :raises OSError: a system call failed; with the path
    """
    location = parse_new(snapshot)
    check_connect(image, connect)
    coding = choose_coding(compression, accelerator, level, window, huffman, depth)
    placing = parse_placing(address, arch)
    options = SaveOptions(
        jobs=parse_jobs(jobs),
        settings=coding.settings,
        notes=coding.notes,
        packet_size=None if packet_size is None else parse_packet_size(packet_size),
        layout=parse_layout(layout, location),
        attach={} if attach is None else attach,
        force=force,
        resume=resume,
        live=parse_live(live),
        progress=progress,
        parent=None if parent is None else parse_location(parent),
        deltas=deltas,
        page_digests=page_digests,
        follow_remote_parents=follow_remote_parents,
        workers=choose_workers(bwlimit, workers),
        addresses=placing.addresses,
        sealing=parse_sealing(keys, encrypt=encrypt, sign=sign),
        keyring=parse_keys(keys),
        mixed_chain=mixed_chain,
        architecture=placing.architecture,
        monitor=MonitorWait(parse_monitor_timeout(monitor_timeout), notice),
        via=None if via is None else parse_via(via, WAYS_OUT),
        live_limits=parse_live_limits(max_downtime, pause_after),
    )
    if isinstance(image, str) and is_guest(image):
        if format is not None:
            raise UsageError("a running guest has no image format")
        if qcow2_snapshot is not None:
            raise UsageError("a running guest is no qcow2 file, name its disk image")
        if share is not None:
            raise UsageError("a running guest is saved by one host, without shares")
        if resume:
            raise UsageError("a running guest has other memory by now, only files are resumed")
        # Imported here because asyncio takes 30 ms.
        from snapmig.operations.runs.save_guest import save_guest  # noqa: PLC0415

        guest = parse_guest(image, connect)
        prepare_keys(options.keyring, options.sealing)
        return save_guest(guest, location, options)
    if live:
        raise UsageError("only a running guest can be saved live, as qmp:SOCKET or libvirt:DOMAIN")
    unpacked = phase_reporter(progress, "unpacking")
    with closing(_open_image(image, format, base, qcow2_snapshot, unpacked)) as source:
        open_output: OpenOutput = whole_snapshot
        if share is not None:
            if resume:
                raise UsageError("a share is saved from its start again, without resume")
            from snapmig.operations.shares import parse_share, share_output  # noqa: PLC0415 - rare

            open_output = share_output(_shared(location), options, parse_share(share))
        with open_save_run(source, location, options, open_output) as run:
            run.write_pass()
            run.sample_changes()
            source.check_unchanged()
            return run.finish(source_attachments(source))


def _shared(location: Location) -> Path:
    if isinstance(location, Path):
        return location
    raise UsageError("shares need a filesystem that all hosts have", path=str(location))


def _open_image(
    image: ImageArgument,
    format_name: str | None,
    base: Sequence[str | os.PathLike[str]],
    qcow2_snapshot: str | None,
    unpacked: Callable[[int, int], None],
) -> ImageSource:
    if qcow2_snapshot is not None:
        if format_name is not None or base or not isinstance(image, str | os.PathLike):
            raise UsageError("a qcow2 snapshot is in one file, and has neither a format nor a base")
        from snapmig.images.qcow2.image import open_saved_vm  # noqa: PLC0415 - rare

        return open_saved_vm(os.fspath(image), qcow2_snapshot)
    if base:
        if format_name not in (None, "firecracker") or not isinstance(image, str | os.PathLike):
            raise UsageError("only Firecracker's diff files have a base")
        from snapmig.images.formats.firecracker import open_layers  # noqa: PLC0415 - rare

        return open_layers([os.fspath(path) for path in (*base, image)])
    if isinstance(image, str | os.PathLike):
        return open_image(os.fspath(image), format_name, unpacked)
    if format_name not in (None, "raw"):
        raise UsageError("a list of RAM blocks with their files is always raw")
    if not image:
        raise UsageError("there is no RAM block")
    return open_blocks([(block, os.fspath(path)) for block, path in image])
