"""One snapshot made by several hosts: each saves a share of the packets, and one commits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from snapmig.architectures import Architecture
from snapmig.attachments import StoredAttachment, store_attachments
from snapmig.container.format import Encoding, Layout, Sealing, page_digests_size, record_size
from snapmig.container.index import record_dtype
from snapmig.container.record_checks import records_sound
from snapmig.container.shares import MAX_SHARES, SharedFile, Shares, share_packets
from snapmig.container.stored_index import count_records
from snapmig.container.writer import SnapshotWriter, WrittenSnapshot
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import Geometry, RamBlock, RamPiece
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.options.save import SaveOptions
from snapmig.operations.progress import TO_DISK, Progress, ProgressCallback
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.operations.runs.save_output import Finish, OpenOutput, SaveOutput
from snapmig.sealing.file_key import FileKey
from snapmig.sealing.key_table import COPIES, KeyTable
from snapmig.sealing.keyring import Keyring, Keys, KnownSeal, NewSeal
from snapmig.system.files import check_destination, pread_all
from snapmig.system.libc import punch_hole
from snapmig.system.partial import write_file
from snapmig.system.signals import remarked

_INDEX_STEP = 1 << 16
"""Records looked at in one go."""

__all__ = ("CommitResult", "abandon", "commit", "parse_share", "share_output")


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


def share_output(path: Path, options: SaveOptions, share: tuple[int, int]) -> OpenOutput:
    """
    Return the output of a save of a share's packets, for :func:`commit` to make the snapshot.

    :raises UsageError: options not possible for shares; on opening, different from the other
        shares'
    :raises SnapmigError: on opening, another process writes this share
    """
    if options.layout != Layout.FIXED or options.parent is not None or options.attach:
        raise UsageError("shares have the fixed layout, no parent, and attachments of the source")
    return partial(_open_share, shares=Shares(path), share=share)


@contextmanager
def _open_share(inputs: SaveInputs, shares: Shares, share: tuple[int, int]) -> Iterator[SaveOutput]:
    number, count = share
    plan, architecture = _plan(inputs, count), inputs.architecture
    shares.join({**plan, "architecture": None if architecture is None else list(architecture)})
    with shares.held(number):
        shares.drop_mark(number)
        facts = _Facts(inputs.geometry, inputs.window_bits, inputs.options.page_digests)
        seal = None if inputs.seal is None else _joined(shares, inputs.seal)
        remarks = remarked(f"share {number}/{count} is to be saved again, the others are kept")
        with remarks, _writer(shares, facts, seal) as writer:
            packets = share_packets(inputs.geometry, number, count)
            _clear(shares, writer, packets)
            yield _ShareOutput(shares, number, writer, packets, seal)


def _joined(shares: Shares, seal: NewSeal) -> KnownSeal:
    # The first share's key is that of all.
    key = FileKey.new(secret=seal.secret)
    own = KeyTable.of(seal.slots(key)).pack(key) * COPIES
    table = KeyTable.unpack(shares.key_table(own))
    return KnownSeal(seal.keyring.unlock(table, secret=seal.secret), table)


def _seal_of(shares: Shares, plan: Mapping[str, Any], keyring: Keyring | None) -> KnownSeal | None:
    if plan.get("sealing") == Sealing.NONE:
        return None
    secret = plan.get("sealing") == Sealing.ENCRYPTED
    try:
        table = KeyTable.unpack(shares.key_table(b""))
        return KnownSeal((keyring or Keyring(Keys())).unlock(table, secret=secret), table)
    except SnapmigError as error:
        error.path = error.path or str(shares.path)
        raise


class _ShareOutput:
    def __init__(
        self,
        shares: Shares,
        number: int,
        writer: SnapshotWriter,
        packets: range,
        seal: KnownSeal | None,
    ) -> None:
        self._hide = None if seal is None or not seal.known.secret else seal.known.seal_table
        self._shares = shares
        self._number = number
        self.writer = writer
        self.packets = packets
        # Packets of other shares can't be told from holes lost by the filesystem: no warning.
        self.warnings: list[str] = []

    def finish(self, facts: Finish) -> WrittenSnapshot:
        """Put the share on stable storage and mark it as done."""
        self.writer.sync()
        names = []
        if self._number == 1:
            for at, (name, content) in enumerate(facts.attachments.items()):
                kept = content if self._hide is None else self._hide(_whole(content))
                write_file(self._shares.folder / f"attachment-{at}", kept, force=True)
                names.append(name)
        self._shares.put_mark(self._number, {"attachments": names})
        status = os.stat(self._shares.data)
        return WrittenSnapshot(b"", status.st_size, status.st_blocks * 512, b"")


def _whole(content: bytes | StoredAttachment) -> bytes:
    return content if isinstance(content, bytes) else b"".join(content)


def _clear(shares: Shares, writer: SnapshotWriter, packets: range) -> None:
    # Remains of a killed run of this share; where holes can't be punched they are overwritten.
    if not packets:
        return
    plan, first, count = writer.plan, packets.start, len(packets)
    index_size = record_size(plan.packet_size)
    digests_size = page_digests_size(plan.packet_size)
    fd = os.open(shares.data, os.O_RDWR | os.O_CLOEXEC)
    try:
        punch_hole(fd, plan.index_offset + first * index_size, count * index_size)
        if plan.page_digests_offset:
            punch_hole(fd, plan.page_digests_offset + first * digests_size, count * digests_size)
        punch_hole(fd, plan.slot_offset(first), count * plan.packet_size)
    finally:
        os.close(fd)


@checks_arguments
def commit(
    snapshot: str | os.PathLike[str],
    *,
    force: bool = False,
    keys: Keys | None = None,
    progress: ProgressCallback | None = None,
) -> CommitResult:
    """
    Make a snapshot of its shares, once: a second commit finds none.

    :param force: replace an existing snapshot
    :param keys: of sealed shares
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
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
        seal = _seal_of(shares, plan, parse_keys(keys))
        with remarked("the shares are kept"), _writer(shares, facts, seal) as writer:
            result = _commit(
                shares, writer, facts, marks[1] or {}, progress, force=force, seal=seal
            )
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
    progress: ProgressCallback | None,
    *,
    force: bool,
    seal: KnownSeal | None,
) -> CommitResult:
    tell = progress or (lambda _: None)
    encodings, data_pages, stored = _look_at_index(shares, writer, facts.geometry, tell)
    tell(Progress(facts.geometry.ram_size, facts.geometry.ram_size, stored, TO_DISK))
    show = None if seal is None or not seal.known.secret else seal.known.open_table
    data_end = writer.end
    contents = {
        name: (shares.folder / f"attachment-{number}").read_bytes()
        for number, name in enumerate(mark["attachments"])
    }
    if show is not None:
        contents = {name: show(content) for name, content in contents.items()}
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
    shares: Shares, writer: SnapshotWriter, geometry: Geometry, tell: ProgressCallback
) -> tuple[int, int, int]:
    # The encodings in use, pages that are not zero, and stored bytes: of sound records only.
    plan, dtype = writer.plan, record_dtype(geometry.packet_size)
    places = (plan.data_offset, writer.end, plan.packet_size)
    encodings = pages = stored = 0
    with SharedFile(shares.data, shares.path, plan.needed) as file:
        for first in range(0, geometry.packet_count, _INDEX_STEP):
            count = min(_INDEX_STEP, geometry.packet_count - first)
            offset = plan.index_offset + first * dtype.itemsize
            raw = pread_all(file.fd, count * dtype.itemsize, offset)
            records = np.frombuffer(raw, dtype)
            if len(records) != count or not records_sound(
                records,
                np.arange(first, first + count),
                places,
                has_parent=False,
                has_page_digests=plan.page_digests_offset > 0,
                sealed=plan.key is not None,
            ):
                message = "the shares' index is damaged, write them again"
                raise SnapmigError(message, path=str(shares.path))
            counts = count_records(raw, geometry.packet_size)
            found = zip(Encoding, counts.encodings, strict=True)
            encodings |= sum(1 << kind for kind, number in found if number)
            pages += counts.pages_in_use
            stored += counts.stored_size
            done = len(geometry.ram_range(range(first + count)))
            tell(Progress(geometry.ram_size, done, stored))
    return encodings, pages, stored


def _writer(shares: Shares, facts: _Facts, seal: KnownSeal | None) -> SnapshotWriter:
    file = SharedFile(shares.data, shares.path, facts.geometry.ram_size)
    return SnapshotWriter(
        shares.path,
        facts.geometry,
        Layout.FIXED,
        facts.window_bits,
        file,
        page_digests=facts.page_digests,
        seal=seal,
    )


def _plan(inputs: SaveInputs, shares: int) -> dict[str, Any]:
    # The image and the way it is stored must be the same for all shares.
    options = inputs.options
    images = [os.stat(path) for path in inputs.source.paths]
    return {
        "shares": shares,
        "image": [[each.st_size, each.st_mtime_ns] for each in images],
        "format": inputs.source.format,
        "blocks": [
            {**asdict(block), "pieces": [asdict(piece) for piece in block.pieces]}
            for block in inputs.geometry.blocks
        ],
        "packet_size": inputs.geometry.packet_size,
        "compression": options.settings.compression,
        "codecs": [codec.name for codec in options.settings.codecs],
        "window_bits": inputs.window_bits,
        "page_digests": inputs.options.page_digests,
        "sealing": options.sealing,
    }
