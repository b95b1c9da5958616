"""``verify``: check a whole snapshot against its checksums and digests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from snapmig.attachments import StoredAttachment
from snapmig.chains.reader import ReadPlan
from snapmig.container.format import Sealing
from snapmig.container.index import Records
from snapmig.container.reader import SnapshotFile
from snapmig.container.rests import pages_of_record, wrong_rests
from snapmig.encodings.compressions import ReadSettings
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError
from snapmig.handlers.counters import Counter
from snapmig.handlers.load import VerifyHandler
from snapmig.handlers.load_tasks import DamageTasks
from snapmig.handlers.stored import StoredHandler
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.options.parse import AcceleratorName, WindowName, window_bits
from snapmig.operations.progress import Progress, ProgressCallback, reporter
from snapmig.operations.runs.lost import LostRange, damaged_ranges
from snapmig.operations.runs.read import Reading, ReadOptions, read_options, unproved
from snapmig.pages import Mask
from snapmig.sealing.keyring import Keys

__all__ = ("VerifyResult", "verify")

MAX_PROBLEMS = 100
"""Problems that a result describes; of more damaged packets only the number is given."""

_INDEX_STEP = 4096


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """
    The result of a verification.

    :param quick: packets were left unread
    :param packets: packets in the snapshot, 0 if it could not be opened
    :param damaged_packets: packets with a bad record, stored bytes or contents
    :param damaged: the guest RAM that is in them, up to a thousand of ``damaged_ranges`` ranges
    :param problems: a sentence for each problem, up to :data:`MAX_PROBLEMS`
    :param sealing: ``none``, ``signed`` or ``encrypted``
    :param locked: it is encrypted, and without a key only stored bytes were checked, for damage
    :param proved: a key has shown that it and its parents hold what was sealed, unless there are
        problems
    :param exit_code: 0, or the first problem's
    :param warnings: further messages for the user, a sentence each
    """

    snapshot: str
    quick: bool
    packets: int
    ram_size: int
    damaged_packets: int
    problems: tuple[str, ...]
    exit_code: int
    seconds: float
    warnings: tuple[str, ...] = ()
    sealing: str = "none"
    locked: bool = False
    proved: bool = False
    damaged_ranges: int = 0
    damaged: tuple[LostRange, ...] = ()

    @property
    def ok(self) -> bool:
        """True if no problem was found."""
        return self.exit_code == 0


@checks_arguments
def verify(
    snapshot: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    quick: bool = False,
    window: WindowName | None = None,
    accelerator: AcceleratorName = AUTO,
    depth: int | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    expect: str | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyResult:
    """
    Check a snapshot: superblock, tables, index, attachments, and every packet decoded.

    Page digests, if present, are compared with the pages. Parents are read only as far as
    the snapshot takes pages from them.

    Damage does not raise: it is collected in the result.

    :param jobs: worker processes; default: the processors available to this process
    :param quick: read no packet and no attachment; check only the index, and in a mappable block
        the zeros in place of pages not stored
    :param window: decode with no more history than ``4k`` or ``32k``, to prove the snapshot
        readable for accelerators with that window
    :param accelerator: an engine for deflate: ``auto``, or a name given by :func:`accelerators`
    :param depth: packets in flight at an asynchronous engine, per worker
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots; without one only the stored bytes of an encrypted snapshot
        are checked, for damage, and a signed one is not proved
    :param expect: the root that it must have, in hexadecimal digits: another one is a problem
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :raises UsageError: an invalid argument
    :raises StoreError: object storage can't be reached, or refused a request
    :raises WorkerDiedError: a worker process was killed
    :raises SnapmigError: a parent is missing, or a needed engine or library can't be used on this
        host; so there is no verdict, unless damage was found already
    :raises OSError: the snapshot can't be read
    """
    started = time.monotonic()
    follow = follow_remote_parents
    options = read_options(jobs, accelerator, depth, progress, follow_remote_parents=follow)
    bits = None if window is None else window_bits(window)
    path = os.fspath(snapshot)
    found = _Findings()
    packets = ram_size = 0
    locked = proved = False
    sealing = Sealing.NONE
    try:
        opened = SnapshotFile(path, keys=parse_keys(keys), locked=True, index_checked=False)
        with opened as source:
            packets, ram_size = source.geometry.packet_count, source.geometry.ram_size
            sealing, locked, proved = source.sealing, source.is_locked, source.is_proved
            if expect is not None:
                found.attempt(partial(_check_root, source, expect))
            source.index.check_holes()
            found.attempt(source.index.check_digest)
            if quick:
                _check_records(source, found, progress)
                found.warnings += unproved([source])
            elif locked:
                _check_stored(source, options, found)
            else:
                with Reading(source, options) as reading:
                    _check_packets(reading, bits, found)
                    proved = all(file.is_proved for file in reading.chain)
                if source.attachments:
                    reading.tell("checking attachments")
                for entry in source.attachments:
                    found.attempt(StoredAttachment(source, entry).check)
            found.locate(source)
    except OSError as error:
        error.filename = error.filename or path
        raise
    except SnapmigError as error:
        if not found.may_take(error):
            raise
        found.add(error)
    return VerifyResult(
        snapshot=path,
        quick=quick,
        packets=packets,
        ram_size=ram_size,
        damaged_packets=found.damaged_packets,
        problems=tuple(str(error) for error in found.errors),
        sealing=sealing.name.lower(),
        locked=locked,
        proved=proved,
        exit_code=found.errors[0].exit_code if found.errors else 0,
        seconds=round(time.monotonic() - started, 3),
        warnings=tuple(found.warnings),
        damaged_ranges=found.ranges,
        damaged=found.damaged,
    )


class _Findings:
    def __init__(self) -> None:
        self.errors: list[SnapmigError] = []
        self.packets: Mask | None = None
        self.damaged_packets = self.ranges = 0
        self.damaged: tuple[LostRange, ...] = ()
        self.warnings: list[str] = []

    def add(self, error: SnapmigError) -> None:
        if len(self.errors) < MAX_PROBLEMS:
            self.errors.append(error)

    def locate(self, source: SnapshotFile) -> None:
        if self.packets is not None:
            _, self.ranges, self.damaged = damaged_ranges(source, self.packets, whole=True)

    def may_take(self, error: SnapmigError) -> bool:
        # A missing parent or engine is no fact about the snapshot, so there is no verdict.
        # If damage was found already, it is reported together with this obstacle.
        if error.exit_code in (3, 4):
            return True
        hindrance = error.exit_code == 1 and not isinstance(error, StoreError)
        return hindrance and bool(self.errors)

    def attempt(self, check: Callable[[], object]) -> None:
        try:
            check()
        except StoreError:
            raise
        except SnapmigError as error:
            self.add(error)


def _check_records(
    source: SnapshotFile, found: _Findings, progress: ProgressCallback | None
) -> None:
    found.packets = damaged = np.zeros(source.geometry.packet_count, np.bool_)
    for first in range(0, source.geometry.packet_count, _INDEX_STEP):
        count = min(_INDEX_STEP, source.geometry.packet_count - first)
        packets = range(first, first + count)
        try:
            records = source.checked_records(first, count)
        except StoreError:
            raise
        except SnapmigError:
            errors = _wrong_records(source, packets)
        else:
            errors = wrong_rests(source, packets, partial(_stored_pages, records, first))
        for error in errors:
            found.damaged_packets += 1
            damaged[error.packet] = True
            found.add(error)
        if progress is not None:
            done = len(source.geometry.ram_range(range(first + count)))
            progress(Progress(source.geometry.ram_size, done, 0))


def _stored_pages(records: Records, first: int, number: int) -> Mask | None:
    return pages_of_record(records[number - first])


def _wrong_records(source: SnapshotFile, packets: range) -> Iterator[SnapmigError]:
    for packet in packets:
        try:
            source.packet(source.geometry.place(packet))
        except SnapmigError as error:
            yield error


def _check_root(source: SnapshotFile, expected: str) -> None:
    root = source.superblock.root.hex()
    if root != expected:
        message = f"root is {root}, expected {expected}: it is another snapshot, or an older one"
        raise CorruptSnapshotError(message, path=source.shown)


def _check_stored(source: SnapshotFile, options: ReadOptions, found: _Findings) -> None:
    settings = ReadSettings(source.superblock.window_bits)
    plan = ReadPlan(source.plan(), source.shown, settings)
    tasks = DamageTasks(source, range(source.geometry.packet_count))
    with options.workers(options.jobs, partial(StoredHandler, plan), lambda _signal: "") as pool:
        report = reporter(pool, source.geometry.ram_size, options.progress)
        pool.run(tasks, report)
        report()
        found.damaged_packets += int(pool.counters.total()[Counter.DAMAGED_PACKETS])
    found.packets = tasks.damaged
    for error in tasks.errors:
        found.add(error)


def _check_packets(reading: Reading, bits: int | None, found: _Findings) -> None:
    source = reading.snapshot
    source.keep_page_digests()
    for file in reading.chain[1:]:
        found.attempt(file.index.check_digest)
    plans = reading.plans
    if bits is not None:
        plans = [_with_window(plan, bits) for plan in plans]
    tasks = DamageTasks(source, range(source.geometry.packet_count))
    counters = reading.run(tasks, partial(VerifyHandler, plans), source.geometry.ram_size)
    found.damaged_packets += int(counters[Counter.DAMAGED_PACKETS])
    found.warnings += reading.warnings
    found.packets = tasks.damaged
    for error in tasks.errors:
        found.add(error)


def _with_window(plan: ReadPlan, bits: int) -> ReadPlan:
    least = min(bits, plan.settings.window_bits)
    return plan._replace(settings=plan.settings._replace(window_bits=least))
