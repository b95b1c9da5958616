"""``restore``: a snapshot to a guest RAM image, or into QEMU."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from snapmig.attachments import source_format
from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.guests.wait import MonitorWait, NoticeCallback, parse_monitor_timeout
from snapmig.images.plan import Placer
from snapmig.operations.options.addresses import Placing, parse_placing
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.options.parse import (
    GUEST_FORMAT,
    GUEST_PREFIX,
    AcceleratorName,
    FormatName,
    ViaName,
    WayIn,
    WireName,
    is_waiting_guest,
    parse_way_in,
)
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.kernel_note import find_kernel_note
from snapmig.operations.runs.lost import Losses, LostRange, check_keep_going, losses_of
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.restore_inputs import LIBVIRT_FORMAT, Part, plan_block, plan_whole
from snapmig.operations.runs.restore_output import restore_in_place, restore_new
from snapmig.operations.runs.resume import key_of
from snapmig.operations.runs.workers import WorkerGroup, choose_workers
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import check_new_name, parse_location, same_location
from snapmig.units import format_count, format_size

_MAX_XML_SIZE = 16 << 20

__all__ = ("LostRange", "RestoreResult", "restore", "with_losses")

BY_ADDRESS = ("avml", "elf", "kdump", "lime", "raw-by-address")
"""Formats with RAM at its guest physical addresses."""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """
    The result of a restore; sizes are in bytes.

    :param block: the only RAM block restored, None for all
    :param accelerator: the engine used for deflate, None if nothing was deflated
    :param ram_size: guest RAM restored
    :param qemu_arguments: with ``for_qemu``, the command to start a QEMU for the guest
    :param monitor_commands: with ``for_qemu``, commands for its monitor (HMP) after that
    :param mount_arguments: with ``lazy``, the command that mounts the snapshot before that
    :param via: the way into a waiting QEMU
    :param kept_packets: packets with pages that were right already; None without ``resume``
    :param seconds_to_run: with ``postcopy``, until the guest ran; None if it ran already
    :param packets_before_run: with ``postcopy``, packets of the working set sent before that
    :param packets_asked_for: with ``postcopy``, packets that the guest asked for afterwards
    :param warnings: messages for the user, a sentence each
    :param lost_pages: with ``keep_going``, pages that damage took away, zeros in their place
    :param lost_ranges: number of ranges they are in, the first thousand in ``lost``
    :param lost_attachments: with ``keep_going``, names of damaged attachments
    :param problems: with ``keep_going``, a sentence for each problem, up to 100
    :param exit_code: 0, or 3 if there are problems
    """

    snapshot: str
    image: str
    format: str
    block: str | None
    jobs: int
    accelerator: str | None
    ram_size: int
    data_pages: int
    zero_pages: int
    seconds: float
    qemu_arguments: tuple[str, ...] | None = None
    monitor_commands: tuple[str, ...] | None = None
    mount_arguments: tuple[str, ...] | None = None
    via: str | None = None
    kept_packets: int | None = None
    seconds_to_run: float | None = None
    packets_before_run: int | None = None
    packets_asked_for: int | None = None
    warnings: tuple[str, ...] = ()
    lost_pages: int = 0
    lost_ranges: int = 0
    lost: tuple[LostRange, ...] = ()
    lost_attachments: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    exit_code: int = 0


@checks_arguments
def restore(  # noqa: PLR0913 - the options of the command line
    snapshot: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    format: FormatName | None = None,  # noqa: A002 - the command line's word
    jobs: int | None = None,
    force: bool = False,
    resume: bool = False,
    in_place: bool = False,
    block: str | None = None,
    address: Mapping[str, int | str] | Sequence[str] = (),
    arch: str | None = None,
    for_qemu: bool = False,
    lazy: bool = False,
    keep_going: bool = False,
    domain_xml: str | os.PathLike[str] | None = None,
    accelerator: AcceleratorName = AUTO,
    depth: int | None = None,
    bwlimit: str | int | None = None,
    monitor_timeout: float | str | None = None,
    via: ViaName | None = None,
    wire: WireName | None = None,
    postcopy: bool = False,
    working_set: str | os.PathLike[str] | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    workers: WorkerGroup | None = None,
    progress: ProgressCallback | None = None,
    notice: NoticeCallback | None = None,
) -> RestoreResult:
    """
    Restore a snapshot to an image of the format it was saved from, or of another one.

    A raw image has the RAM blocks one after the other. ``qmp:SOCKET`` as image stands for a QEMU
    waiting with ``-incoming defer``: it receives the RAM and the device state, and then runs.

    A new image appears under its name once it is complete and on stable storage; its zero pages are
    holes. With ``in_place`` an existing file of the same size receives the pages instead, for
    example the shared memory of a hypervisor; zero pages are zeroed there. Each packet is checked
    before its pages are written, but a failed in-place restore leaves the earlier packets written.

    :param snapshot: a path, or ``s3://BUCKET/KEY``
    :param format: the image's format; default: the format of the saved image
    :param jobs: worker processes; default: the processors available to this process
    :param force: replace an existing image by a new file
    :param resume: keep what is restored if this restore ends early, beside the image's name, and
        leave alone what an earlier one restored, or the existing image has, as far as it is right
    :param in_place: write into the existing image
    :param block: name of the only RAM block to restore
    :param address: for formats by address: guest physical addresses instead of those in the
        snapshot, as for :func:`snapmig.save`
    :param arch: for ``elf`` and ``kdump``: the guest's architecture instead of the snapshot's
    :param for_qemu: make the directory ``image`` with all files for a new QEMU to resume the guest
    :param lazy: with ``for_qemu``, make only an empty directory in ``image``, for a mount of the
        snapshot from which the new QEMU maps its memory
    :param keep_going: go past damaged packets and attachments: zeros stand in place of the pages
        lost, and the result tells which they are; only for files, because a guest would run on with
        these zeros. Damage in the superblock or in a table, a file cut short or a missing parent
        can't be gone past
    :param domain_xml: a file with libvirt's definition of the guest, for the format ``libvirt``;
        default: the attachment ``domain.xml``
    :param accelerator: an engine for deflate: ``auto``, or a name given by :func:`accelerators`
    :param depth: packets in flight at an asynchronous engine, per worker
    :param bwlimit: bytes per second to write at most, a number or a text such as ``200M``
    :param monitor_timeout: seconds to wait for each answer of QEMU's monitor; default: 30
    :param via: the way into a waiting QEMU: its ``shared`` memory, ``multifd`` channels, or a
        ``mapped-ram`` file, a stream for QEMUs before 9.0; default: the first of them possible
    :param wire: form of the pages sent over multifd: ``none``, as they are, or ``zstd`` or
        ``zlib``, so that packets stored as such are passed on and others are compressed anew;
        ``auto`` is ``none``
    :param postcopy: let the guest run in a waiting QEMU at once, and send its memory meanwhile, the
        pages it needs first; until all are sent it depends on this process
    :param working_set: with ``postcopy``, a file with the packets that the guest asked for in an
        earlier run: they are sent before it runs; if there is no such file, it is made
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots
    :param workers: worker processes shared with other saves and restores, with their own
        ``bwlimit``
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :param notice: called with messages for the user during the run, such as a wait for a monitor
    :raises UsageError: an invalid argument
    :raises CorruptSnapshotError: the snapshot is damaged
    :raises UnsupportedError: the snapshot needs a feature unknown to this version
    :raises DestinationExistsError: the image exists, and neither ``force`` nor ``in_place`` is set
    :raises NoSpaceError: the image does not fit on its filesystem
    :raises MonitorError: QEMU's monitor can't be reached, or refused a command
    :raises StoreError: object storage can't be reached, or refused a request
    :raises WorkerDiedError: a worker process was killed
    :raises OSError: a system call failed; with the path
    """
    started = time.monotonic()
    to_guest = is_waiting_guest(image)
    if not to_guest:
        _check_image(image, for_qemu=for_qemu)
    given = choose_workers(bwlimit, workers)
    wait = MonitorWait(parse_monitor_timeout(monitor_timeout), notice)
    follow = follow_remote_parents
    options = read_options(
        jobs,
        accelerator,
        depth,
        progress,
        given,
        follow_remote_parents=follow,
        keep_going=keep_going,
    )
    if lazy and not for_qemu:
        raise UsageError("lazy is for restores for-qemu")
    way = parse_way_in(via, wire, postcopy, working_set, to_guest=to_guest and not for_qemu)
    wishes = _Wishes(format, block, domain_xml, parse_placing(address, arch), resume)
    if sum((force, in_place, for_qemu)) > 1:
        raise UsageError("force, in-place and for-qemu exclude each other")
    check_keep_going(keep_going=keep_going, to_guest=to_guest or for_qemu)
    opened = SnapshotFile(os.fspath(snapshot), keys=parse_keys(keys), index_checked=not keep_going)
    with opened as source, Reading(source, options) as reading:
        reading.check_index()
        if to_guest or for_qemu:
            if force or in_place or wishes != _Wishes():
                raise UsageError("a QEMU takes the whole snapshot as it is, without other options")
            restored = _to_qemu(reading, str(image), wait, way, started, lazy=lazy)
        else:
            restored = _to_image(reading, Path(image), wishes, force=force, in_place=in_place)
        losses = losses_of(reading) if keep_going else Losses()
        restored = restored._replace(zero_pages=restored.zero_pages - losses.lost_pages)
    return RestoreResult(
        snapshot=os.fspath(snapshot),
        image=os.fspath(image),
        block=block,
        jobs=options.jobs,
        accelerator=reading.accelerator,
        seconds=round(time.monotonic() - started, 3),
        warnings=tuple(reading.warnings),
        **restored._asdict(),
        **losses._asdict(),
    )


def with_losses(result: RestoreResult) -> str:
    """Return a sentence about a restore that kept going past damage."""
    attachments = len(result.lost_attachments)
    lost = [format_size(result.lost_pages * PAGE_SIZE)] if result.lost_pages else []
    lost += [format_count(attachments, "attachment")] if attachments else []
    what = f"restored without {' and '.join(lost)}: " if lost else ""
    return f"{what}{result.problems[0]}"


class _Wishes(NamedTuple):
    # The form of an image.
    format: str | None = None
    block: str | None = None
    domain_xml: str | os.PathLike[str] | None = None
    placing: Placing = Placing()
    resume: bool = False


class _Restored(NamedTuple):
    format: str
    ram_size: int
    data_pages: int
    zero_pages: int
    qemu_arguments: tuple[str, ...] | None = None
    monitor_commands: tuple[str, ...] | None = None
    mount_arguments: tuple[str, ...] | None = None
    via: str | None = None
    kept_packets: int | None = None
    seconds_to_run: float | None = None
    packets_before_run: int | None = None
    packets_asked_for: int | None = None


def _check_image(image: str | os.PathLike[str], *, for_qemu: bool) -> None:
    if not isinstance(parse_location(image), Path):
        raise UsageError("an image is a file, only snapshots are objects", path=os.fspath(image))
    if not for_qemu:
        check_new_name(os.fspath(image))


def _read_domain_xml(path: str | os.PathLike[str] | None, name: str) -> bytes | None:
    if path is None:
        return None
    if name != LIBVIRT_FORMAT:
        raise UsageError(f"a domain's XML is for the format {LIBVIRT_FORMAT}, not for {name}")
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_XML_SIZE:
        message = f"not a domain's XML: expected a file of at most {format_size(_MAX_XML_SIZE)}"
        raise UsageError(message, path=os.fspath(path))
    return Path(path).read_bytes()


def _check_no_source(image: Path, reading: Reading) -> None:
    if same_location(image, parse_location(reading.snapshot.shown)):
        raise UsageError("image and snapshot are the same file", path=str(image))
    if any(same_location(image, parse_location(each.shown)) for each in reading.chain[1:]):
        raise UsageError("is a parent of the snapshot", path=str(image))


def _to_qemu(
    reading: Reading, image: str, wait: MonitorWait, way: WayIn, started: float, *, lazy: bool
) -> _Restored:
    # Imported here because asyncio takes 30 ms.
    from snapmig.operations.runs.restore_for_qemu import map_for_qemu, restore_for_qemu  # noqa: PLC0415
    from snapmig.operations.runs.restore_guest import restore_guest  # noqa: PLC0415

    geometry = reading.snapshot.geometry
    pages = sum(-(-block.size // PAGE_SIZE) for block in geometry.blocks)
    if image.startswith(GUEST_PREFIX):
        socket = image.removeprefix(GUEST_PREFIX)
        into = restore_guest(reading, socket, wait, way, started)
        zero_pages = pages - into.data_pages
        served = {} if into.served is None else into.served.facts()
        sizes = geometry.ram_size, into.data_pages, zero_pages
        return _Restored(into.format, *sizes, via=into.via, **served)
    make = map_for_qemu if lazy else restore_for_qemu
    name, data_pages, arguments, commands, mount = make(reading, Path(image))
    counts = geometry.ram_size, data_pages, pages - data_pages
    return _Restored(name, *counts, arguments, commands, mount)


def _to_image(
    reading: Reading, image: Path, wishes: _Wishes, *, force: bool, in_place: bool
) -> _Restored:
    source, block, placing = reading.snapshot, wishes.block, wishes.placing
    name = _format(source, wishes.format, raw=in_place or block is not None)
    if any(placing) and name not in BY_ADDRESS:
        raise UsageError(f"addresses and architecture are for {', '.join(BY_ADDRESS)}")
    xml = _read_domain_xml(wishes.domain_xml, name)
    if block is None:
        goes_on, note = reading.options.keep_going, partial(find_kernel_note, reading)
        part = plan_whole(source, name, xml, placing, keep_going=goes_on, kernel_note=note)
    else:
        part = plan_block(source, block)
    reading.warnings += part.image.warnings
    _check_no_source(image, reading)
    key = None
    if wishes.resume:
        key = _resume_key(reading, name, part, wishes)
    if in_place:
        filled = restore_in_place(reading, image, part, resumed=wishes.resume)
    else:
        filled = restore_new(reading, image, part, force=force, resume=key)
    pages = filled.data_pages
    kept = filled.kept_packets if wishes.resume else None
    return _Restored(name, part.ram_size, pages, part.pages - pages, kept_packets=kept)


def _resume_key(reading: Reading, name: str, part: Part, wishes: _Wishes) -> str:
    if type(part.placer) is not Placer or part.image.member is not None:
        raise UsageError(f"an image of the format {name} is restored from its start, not resumed")
    known = reading.snapshot.superblock
    snapshot = (known.snapshot_id + known.index_digest).hex()
    return key_of({"snapshot": snapshot, "format": name, "block": wishes.block})


def _format(source: SnapshotFile, name: str | None, *, raw: bool) -> str:
    if raw:
        if name not in (None, "raw"):
            raise UsageError(f"{name} files are made new and whole, in-place and block are for raw")
        return "raw"
    if name is not None:
        return name
    saved_as = source_format(source)
    return "raw" if saved_as == GUEST_FORMAT else saved_as
