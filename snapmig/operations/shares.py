"""One snapshot made by several hosts: each saves a share of the packets, and one commits."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from snapmig.architectures import Architecture
from snapmig.attachments import source_attachments, store_attachments
from snapmig.container.format import Encoding, Layout, page_digests_size, record_size
from snapmig.container.index import kind_counts, record_dtype, records_sound
from snapmig.container.shares import MAX_SHARES, SharedFile, Shares, share_packets
from snapmig.container.writer import SnapshotWriter, WrittenSnapshot
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock, RamPiece
from snapmig.images.source import ImageSource
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.save import Saving
from snapmig.system.files import check_destination, pread_all, write_file
from snapmig.system.libc import punch_hole

__all__ = ("CommitResult", "abandon", "commit", "parse_share", "save_share")


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The committed snapshot; sizes are in bytes."""

    snapshot: str
    snapshot_id: str
    shares: int
    ram_size: int
    data_pages: int
    stored_size: int
    file_size: int
    disk_size: int
    seconds: float


def parse_share(text: str) -> tuple[int, int]:
    """
    Return the number of a share and their total, from a text such as ``2/3``.

    :raises UsageError: not of that form
    """
    share, _, shares = text.partition("/")
    if share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares) <= MAX_SHARES:
        return int(share), int(shares)
    raise UsageError(f"share is {text!r}, expected K/N with K from 1 to N, at most {MAX_SHARES}")


def save_share(
    source: ImageSource, path: Path, options: SaveOptions, share: tuple[int, int]
) -> SaveResult:
    """
    Save a share of an image's packets, for :func:`commit` to make the snapshot.

    :raises UsageError: options not possible for shares, or different from the other shares'
    :raises SnapmigError: another process writes this share
    """
    if options.layout != Layout.FIXED or options.parent is not None or options.attach:
        raise UsageError("shares have the fixed layout, no parent, and attachments of the source")
    saving = _ShareSaving(source, path, options, share)
    with saving:
        saving.look()
        saving.look_for_changes()
        source.check_unchanged()
        return saving.leave_mark()


class _ShareSaving(Saving):
    def __init__(
        self, source: ImageSource, path: Path, options: SaveOptions, share: tuple[int, int]
    ) -> None:
        super().__init__(source, path, options)
        self._share, self._of = share
        self._shares = Shares(path)

    def _open_writer(self, stack: ExitStack) -> SnapshotWriter:
        geometry = self._geometry
        plan = _plan(self._source, self._options, geometry, self._of)
        architecture = self._architecture
        known = None if architecture is None else list(architecture)
        self._shares.join({**plan, "architecture": known})
        stack.enter_context(self._shares.held(self._share))
        self._shares.drop_mark(self._share)
        self._part = share_packets(geometry, self._share, self._of)
        facts = _Facts(geometry, self._window_bits, bool(self._options.page_digests))
        writer = stack.enter_context(_writer(self._shares, facts))
        self._clear(writer)
        return writer

    @property
    def _ram_size(self) -> int:
        if not self._part:
            return 0
        last = self._geometry.place(self._part.stop - 1)
        first = self._geometry.place(self._part.start)
        return last.ram_offset + last.length - first.ram_offset

    def _warn_of_holes(self) -> None:
        return  # the other shares' data can't be told from holes if holes are not kept

    def leave_mark(self) -> SaveResult:
        """Sync the share, and mark it done."""
        self._writer.sync()
        names = []
        if self._share == 1:
            for number, (name, content) in enumerate(source_attachments(self._source).items()):
                write_file(self._shares.folder / f"attachment-{number}", content, force=True)
                names.append(name)
        self._shares.put_mark(self._share, {"attachments": names})
        facts = os.stat(self._shares.data)
        written = WrittenSnapshot(b"", facts.st_size, facts.st_blocks * 512)
        result = self._result(written, None)
        zero_pages = -(-self._ram_size // PAGE_SIZE) - result.data_pages
        return replace(result, ram_size=self._ram_size, zero_pages=zero_pages)

    def _clear(self, writer: SnapshotWriter) -> None:
        # Data of an earlier, killed attempt at this share; without holes it is overwritten.
        if self._part:
            plan, size = writer.plan, record_size(self._geometry.packet_size)
            first, count = self._part.start, len(self._part)
            fd = os.open(self._shares.data, os.O_RDWR | os.O_CLOEXEC)
            try:
                punch_hole(fd, plan.index_offset + first * size, count * size)
                if plan.page_digests_offset:
                    size = page_digests_size(plan.packet_size)
                    punch_hole(fd, plan.page_digests_offset + first * size, count * size)
                punch_hole(fd, plan.slot_offset(first), count * plan.packet_size)
            finally:
                os.close(fd)


@checks_arguments
def commit(snapshot: str | os.PathLike[str], *, force: bool = False) -> CommitResult:
    """
    Make a snapshot of its shares, once: a second commit finds none.

    :param force: replace an existing snapshot
    :raises UsageError: no share was begun, or they are committed already
    :raises SnapmigError: shares are unfinished, or being saved again
    :raises DestinationExistsError: the snapshot exists and ``force`` is not set
    """
    started = time.monotonic()
    path = Path(snapshot)
    shares = Shares(path)
    plan = shares.plan()
    numbers = range(1, shares.count + 1)
    check_destination(path, force=force)
    with shares.held(*numbers):
        marks = {number: shares.mark(number) for number in numbers}
        missing = [str(number) for number, mark in marks.items() if mark is None]
        if missing:
            missed = f"share {missing[0]} is" if len(missing) == 1 else f"{', '.join(missing)} are"
            message = f"{missed} not done, of {len(numbers)} shares"
            raise SnapmigError(message, path=str(path))
        facts = _read_plan(shares, plan)
        with _writer(shares, facts) as writer:
            result = _commit(shares, writer, facts, marks[1] or {}, force=force)
        shares.remove()
    seconds = round(time.monotonic() - started, 3)
    return replace(result, seconds=seconds)


class _Facts(NamedTuple):
    # The facts that determine places in the partial file.
    geometry: Geometry
    window_bits: int
    page_digests: bool
    architecture: Architecture | None = None


def _read_plan(shares: Shares, plan: Mapping[str, Any]) -> _Facts:
    try:
        blocks = tuple(
            RamBlock(**{**each, "pieces": tuple(RamPiece(**piece) for piece in each["pieces"])})
            for each in plan["blocks"]
        )
        geometry = Geometry(blocks, plan["packet_size"])
        machine = plan["architecture"]
        architecture = None if machine is None else Architecture(*machine)
        digests = bool(plan["page_digests"])
        return _Facts(geometry, int(plan["window_bits"]), digests, architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise SnapmigError(f"its plan is damaged: {error!r}", path=str(shares.folder)) from error


@checks_arguments
def abandon(snapshot: str | os.PathLike[str]) -> None:
    """
    Remove all shares of an uncommitted snapshot.

    :raises UsageError: there are none
    :raises SnapmigError: one is being written
    """
    shares = Shares(Path(snapshot))
    with shares.held(*range(1, shares.count + 1)):
        shares.remove()


def _commit(
    shares: Shares,
    writer: SnapshotWriter,
    facts: _Facts,
    mark: Mapping[str, Any],
    *,
    force: bool,
) -> CommitResult:
    encodings, data_pages, stored = _look_at_index(shares, writer, facts.geometry)
    data_end = writer.end
    contents = {
        name: (shares.folder / f"attachment-{number}").read_bytes()
        for number, name in enumerate(mark["attachments"])
    }
    store_attachments(writer, contents)
    written = writer.commit(
        data_end=data_end, encodings=encodings, force=force, architecture=facts.architecture
    )
    return CommitResult(
        snapshot=str(shares.path),
        snapshot_id=written.snapshot_id.hex(),
        shares=shares.count,
        ram_size=facts.geometry.ram_size,
        data_pages=data_pages,
        stored_size=stored,
        file_size=written.file_size,
        disk_size=written.disk_size,
        seconds=0.0,
    )


def _look_at_index(
    shares: Shares, writer: SnapshotWriter, geometry: Geometry
) -> tuple[int, int, int]:
    # The encodings in use, pages that are not zero, and stored bytes: of sound records only.
    plan, dtype = writer.plan, record_dtype(geometry.packet_size)
    with SharedFile(shares.data, shares.path, plan.needed) as file:
        raw = pread_all(file.fd, geometry.packet_count * dtype.itemsize, plan.index_offset)
    records = np.frombuffer(raw, dtype)
    places = (plan.data_offset, writer.end, plan.packet_size)
    has_digests = plan.page_digests_offset > 0
    if len(records) != geometry.packet_count or not records_sound(
        records, 0, places, has_parent=False, has_page_digests=has_digests
    ):
        raise SnapmigError("the shares' index is damaged, write them again", path=str(shares.path))
    counts = np.bincount(records["encoding"], minlength=8)
    encodings = sum(1 << kind for kind in Encoding if counts[kind])
    kinds = kind_counts(records)
    stored = int(records["stored_size"].sum(dtype=np.int64))
    return encodings, int(kinds[1:].sum()), stored


def _writer(shares: Shares, facts: _Facts) -> SnapshotWriter:
    file = SharedFile(shares.data, shares.path, facts.geometry.ram_size)
    return SnapshotWriter(
        shares.path,
        facts.geometry,
        Layout.FIXED,
        facts.window_bits,
        file,
        page_digests=facts.page_digests,
    )


def _plan(
    source: ImageSource, options: SaveOptions, geometry: Geometry, shares: int
) -> dict[str, Any]:
    # The facts all shares must agree on: the image, and the form of the snapshot.
    facts = [os.stat(path) for path in source.paths]
    return {
        "shares": shares,
        "image": [[each.st_size, each.st_mtime_ns] for each in facts],
        "format": source.format,
        "blocks": [
            {**asdict(block), "pieces": [asdict(piece) for piece in block.pieces]}
            for block in geometry.blocks
        ],
        "packet_size": geometry.packet_size,
        "compression": options.settings.compression,
        "level": options.settings.deflate.level,
        "window_bits": options.settings.deflate.window_bits,
        "page_digests": bool(options.page_digests),
    }
