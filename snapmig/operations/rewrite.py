"""``merge``, ``rebase`` and ``repack``: save a snapshot again, without its guest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from snapmig.attachments import StoredAttachment, source_format
from snapmig.chains.image import SnapshotSource
from snapmig.chains.lookup import PARENT_NAME, PARENT_SEALING
from snapmig.container.format import Encoding, Layout, Sealing
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import AUTO_COMPRESSION, COMPRESSIONS
from snapmig.errors import KeyRequiredError, UsageError
from snapmig.handlers.load_tasks import IndexBatches
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO, choose_coding
from snapmig.operations.options.keys import SEALINGS, SealingName, parse_keys
from snapmig.operations.options.parse import (
    WINDOWS,
    AcceleratorName,
    CompressionName,
    LayoutName,
    Level,
    WindowName,
    parse_jobs,
    parse_layout,
    parse_packet_size,
)
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.read import Reading, ReadOptions, read_options
from snapmig.operations.runs.save import open_save_run
from snapmig.sealing.keyring import Keyring, Keys
from snapmig.stores.location import Location, ObjectUrl, parse_location, parse_new, same_location

__all__ = ("merge", "rebase", "repack")

PathLike = str | os.PathLike[str]


@checks_arguments
def merge(
    snapshot: PathLike,
    out: PathLike,
    *,
    page_digests: bool | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> SaveResult:
    """
    Make an independent snapshot of one with parents.

    :param out: the file to make, with the encoding and layout of ``snapshot``
    :param page_digests: store a digest of each page; default: as ``snapshot`` does
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots; the new one is sealed likewise, for these keys
    :param jobs: worker processes; default: the processors available to this process
    :param force: replace an existing file
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :raises SnapmigError: a parent is missing, or an error listed for :func:`snapmig.save`
    """
    wishes = _Wishes(
        jobs, progress, follow_remote_parents, page_digests, force=force, keyring=parse_keys(keys)
    )
    return _rewrite(snapshot, out, None, wishes)


@checks_arguments
def rebase(
    snapshot: PathLike,
    *,
    parent: PathLike,
    deltas: bool | None = None,
    page_digests: bool | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    jobs: int | None = None,
    progress: ProgressCallback | None = None,
) -> SaveResult:
    """
    Replace a snapshot by one with the same contents and another parent.

    It gets a new id, so its own children need a rebase too.

    :param deltas: store changed pages as differences from the parent's, as :func:`snapmig.save`
        does; default: only if ``parent`` has no page digests
    :param page_digests: store a digest of each page; default: as now
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots; the new one is sealed likewise, for these keys
    :raises UsageError: ``parent`` builds on ``snapshot``, or has other RAM blocks
    :raises SnapmigError: a parent is missing, or an error listed for :func:`snapmig.save`
    """
    ring = parse_keys(keys)
    wishes = _Wishes(
        jobs, progress, follow_remote_parents, page_digests, deltas=deltas, force=True, keyring=ring
    )
    with ExitStack() as stack:
        file = stack.enter_context(SnapshotFile(os.fspath(snapshot), keys=ring))
        other = stack.enter_context(SnapshotFile(os.fspath(parent), keys=ring))
        with Reading(other, wishes.reading()) as reading:
            ids = [each.superblock.snapshot_id for each in reading.chain]
        if file.superblock.snapshot_id in ids:
            raise UsageError(f"builds on {file.shown}, or is it", path=other.shown)
    return _rewrite(snapshot, snapshot, parse_location(parent), wishes)


@checks_arguments
def repack(  # noqa: PLR0913 - the options of the command line
    snapshot: PathLike,
    out: PathLike,
    *,
    compression: CompressionName | None = None,
    accelerator: AcceleratorName = AUTO,
    level: Level | None = None,
    window: WindowName | None = None,
    depth: int | None = None,
    packet_size: str | int | None = None,
    layout: LayoutName | None = None,
    deltas: bool | None = None,
    page_digests: bool | None = None,
    sealing: SealingName | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> SaveResult:
    """
    Make a snapshot with the same contents in another form; settings not given stay as they are.

    A parent is kept.

    :param level: compression level, or ``auto``; default: the compression's own
    :param depth: packets in flight per worker, for an asynchronous accelerator
    :param deltas: store changed pages as differences from the parent's, as in :func:`rebase`
    :param page_digests: store a digest of each page; default: as ``snapshot`` does
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots; the new one is sealed likewise, for these keys
    :param sealing: ``encrypted``, ``signed`` or ``none`` instead; a parent is kept only where it is
        sealed in the same way
    :raises UsageError: an invalid argument
    :raises SnapmigError: a parent is missing, or an error listed for :func:`snapmig.save`
    """
    wishes = _Wishes(
        jobs, progress, follow_remote_parents, page_digests, compression, accelerator, level,
        window, depth, packet_size, layout, deltas, force, parse_keys(keys), _sealing(sealing),
    )  # fmt: skip
    with SnapshotFile(os.fspath(snapshot), keys=wishes.keyring) as file, ExitStack() as stack:
        reading = stack.enter_context(Reading(file, wishes.reading()))
        parent = parse_location(reading.chain[1].shown) if len(reading.chain) > 1 else None
    return _rewrite(snapshot, out, parent, wishes)


@dataclass(frozen=True, slots=True)
class _Wishes:
    # The requested form; None for no change.
    jobs: int | None
    progress: ProgressCallback | None
    follow_remote_parents: bool
    page_digests: bool | None
    compression: CompressionName | None = None
    accelerator: AcceleratorName = AUTO
    level: Level | None = None
    window: WindowName | None = None
    depth: int | None = None
    packet_size: str | int | None = None
    layout: LayoutName | None = None
    deltas: bool | None = None
    force: bool = False
    keyring: Keyring | None = None
    sealing: Sealing | None = None

    def reading(self) -> ReadOptions:
        follow = self.follow_remote_parents
        return read_options(self.jobs, AUTO, None, None, follow_remote_parents=follow)


def _rewrite(
    snapshot: PathLike, out: PathLike, parent: Location | None, wishes: _Wishes
) -> SaveResult:
    with SnapshotFile(os.fspath(snapshot), keys=wishes.keyring) as file, ExitStack() as stack:
        # A damaged record could pass for a packet of zeros.
        file.index.check_digest()
        place = parse_new(out)
        in_place = same_location(place, parse_location(snapshot))
        reading = stack.enter_context(Reading(file, wishes.reading()))
        if any(same_location(place, parse_location(each.shown)) for each in reading.chain[1:]):
            raise UsageError("is a parent of the snapshot", path=os.fspath(out))
        source = SnapshotSource(file, reading.plans, source_format(file))
        if in_place:
            source.paths = ()  # a new file takes its name when it is complete
        options = _options(reading.chain, place, parent, wishes)
        with open_save_run(source, place, options) as run:
            run.warnings += reading.warnings
            run.write_pass(batch=_batches(file, place, options))
            return run.finish(_attachments(file), created_ns=file.superblock.created_ns)


def _batches(
    file: SnapshotFile, place: Location, options: SaveOptions
) -> Callable[[int], int] | None:
    # Large ones of a sparse guest, for each takes its time in every file of a chain; None where
    # they must be small, or are of other packets.
    follows = options.settings.adapts or isinstance(place, ObjectUrl)
    if follows or options.packet_size != file.geometry.packet_size:
        return None
    return IndexBatches(file.index, file.geometry.packet_count)


def _options(
    chain: Sequence[SnapshotFile], place: Location, parent: Location | None, wishes: _Wishes
) -> SaveOptions:
    file = chain[0]
    block = file.superblock
    size = block.packet_size
    if wishes.packet_size is not None:
        size = parse_packet_size(wishes.packet_size)
    digests = file.page_digests is not None if wishes.page_digests is None else wishes.page_digests
    compression = wishes.compression or _compression(chain)
    window: str | None = wishes.window
    if window is None and compression == "zlib":
        window = min((bits, name) for name, bits in WINDOWS.items() if bits >= block.window_bits)[1]
    coding = choose_coding(
        compression, wishes.accelerator, wishes.level, window, "dynamic", wishes.depth
    )
    return SaveOptions(
        jobs=parse_jobs(wishes.jobs),
        settings=coding.settings,
        notes=coding.notes,
        packet_size=size,
        layout=_layout(file, place, wishes.layout),
        attach={},
        force=wishes.force,
        live=False,
        progress=wishes.progress,
        parent=parent,
        deltas=wishes.deltas,
        page_digests=digests,
        follow_remote_parents=wishes.follow_remote_parents,
        sealing=_seal_as(file, wishes),
        keyring=wishes.keyring,
    )


def _sealing(name: SealingName | None) -> Sealing | None:
    if name is None:
        return None
    if name not in SEALINGS:
        raise UsageError(f"sealing is {name!r}, expected one of {', '.join(SEALINGS)}")
    return Sealing[name.upper()]


def _seal_as(file: SnapshotFile, wishes: _Wishes) -> Sealing:
    sealing = file.sealing if wishes.sealing is None else wishes.sealing
    if sealing != Sealing.NONE and wishes.keyring is None:
        message = f"needs a key for a new snapshot that is {sealing.name.lower()}"
        raise KeyRequiredError(message, path=file.shown)
    return sealing


def _layout(file: SnapshotFile, place: Location, wish: str | None) -> Layout:
    if wish is None and not isinstance(place, ObjectUrl):
        return file.layout
    return parse_layout(wish, place)


def _compression(chain: Sequence[SnapshotFile]) -> str:
    # The compression of a snapshot's packets, or again a choice where it has several. A small
    # increment may have none: then its parents' one, or else zlib.
    used = [file.superblock.encodings for file in chain]
    for encodings in used:
        names = [
            each.name
            for each in COMPRESSIONS.values()
            if each.encoding != Encoding.RAW and encodings >> each.encoding & 1
        ]
        if names:
            return names[0] if len(names) == 1 else AUTO_COMPRESSION
    return "none" if any(encodings >> Encoding.RAW & 1 for encodings in used) else "zlib"


def _attachments(file: SnapshotFile) -> Mapping[str, StoredAttachment]:
    return {
        entry.name: StoredAttachment(file, entry)
        for entry in file.attachments
        if entry.name not in (PARENT_NAME, PARENT_SEALING)
    }
