"""
A save under way: a source, workers and a partial snapshot, whatever the source is.

Enter, look at all packets once or twice, finish. Leaving without that removes what was written.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from snapmig.architectures import Architecture
from snapmig.attachments import StoredAttachment, check_attachments, store_attachments
from snapmig.chains.lookup import PARENT_NAME, geometry_problem, parent_hint
from snapmig.container.format import (
    DEFAULT_PACKET_SIZE,
    MAX_PIECES,
    MAX_RAM_BLOCKS,
    Encoding,
    Layout,
)
from snapmig.container.reader import SnapshotFile
from snapmig.container.writer import SnapshotWriter, WrittenSnapshot
from snapmig.encodings.coders import EngineError
from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.engines import train
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock, block_problem
from snapmig.handlers.batch_size import LARGEST, SMALLEST
from snapmig.handlers.counters import Counter, encoding_counter
from snapmig.handlers.level import AdaptiveLevel
from snapmig.handlers.sample import sample_packets
from snapmig.handlers.save import SaveHandler, SavePlan
from snapmig.handlers.save_tasks import FIRST_LOOK, SAMPLE_LOOK, SECOND_LOOK, SaveTasks
from snapmig.images.qemu.attachments import left_out
from snapmig.images.source import ImageSource
from snapmig.operations.options.addresses import inherit_pieces, place_blocks
from snapmig.operations.options.engine import AUTO, failure_warnings
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.progress import reporter
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.space import check_save_space
from snapmig.stores.location import (
    Location,
    is_near,
    parse_location,
    relative_name,
    same_location,
)
from snapmig.stores.opening import check_location
from snapmig.units import format_size
from snapmig.workers.counters import CELLS, Row

__all__ = ("Saving",)

SAMPLE_PACKETS = 64
"""Packets, 32 MiB of RAM, that a Huffman table is made from."""

SAMPLE_STEP = 16
"""Of so many packets, one is looked at again after a save; of small images more, of huge ones
fewer: from SAMPLE_LEAST to SAMPLE_MOST."""
SAMPLE_LEAST = 32
SAMPLE_MOST = 1024


class Saving:
    """
    A save of one source to one snapshot; a context manager.

    :param source: stays the caller's to close
    :raises UsageError: attachments or RAM blocks that can't be stored
    :raises DestinationExistsError: the snapshot exists, and overwriting was not asked for
    """

    def __init__(self, source: ImageSource, path: Location, options: SaveOptions) -> None:
        self._started = time.monotonic()
        self._source = source
        self._path = path
        self._options = options
        self._counts: Row = np.zeros(CELLS, np.int64)
        self._part: range | None = None
        self._torn = 0
        self._left_out = left_out(source.attachments, source.blocks)
        self._stack = ExitStack()
        self.warnings: list[str] = list(options.notes)
        check_attachments(options.attach)
        check_location(path, force=options.force)
        if any(same_location(parse_location(name), path) for name in source.paths):
            raise UsageError("image and snapshot are the same file", path=str(path))

    def __enter__(self) -> Saving:
        with ExitStack() as stack:
            options = self._options
            self._parent = self._open_parent(stack)
            self._geometry = Geometry(self._placed_blocks(), self._packet_size)
            self._check_parent()
            self._writer = self._open_writer(stack)
            check_save_space(self._writer, self._path)
            self._warn_of_holes()
            self._warn_of_missing_blocks()
            plan = SavePlan(
                self._source.opener(),
                [] if self._parent is None else self._parent.plans,
                self._geometry,
                self._writer.plan,
                self._trained(options.settings),
                paced=len(options.steps) > 1,
                deltas=options.deltas,
            )
            self._fleet = stack.enter_context(
                options.workers(options.jobs, partial(SaveHandler, plan), self._explain)
            )
            start = options.settings.deflate.level
            self._level = AdaptiveLevel(options.steps, start, self._counted)
            self._report = reporter(self._fleet, self._ram_size, options.progress)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def look(self, *, again: bool = False) -> None:
        """
        Save all packets, or those that changed since they were saved.

        :raises SnapmigError: whatever failed in a worker
        """
        plan = self._writer.plan
        tasks = SaveTasks(
            self._geometry,
            plan,
            self._source.next_data,
            look=SECOND_LOOK if again else FIRST_LOOK,
            level=self._level,
            has_room=lambda: self._writer.has_room,
            advance=self._writer.advance,
            part=self._part,
            largest=self._largest_batch(),
        )
        self._tasks = tasks
        # What changed is saved while the guest stands still: that is no time for a limit.
        self._fleet.run(tasks, _silent if again else self._report, limited=not again)
        if not again:
            self._report()
        self._counts = self._fleet.cells.total()
        if plan.layout == Layout.PACKED:
            self._writer.end_packed_data(tasks.end)

    def look_for_changes(self) -> None:
        """
        Tell when packets are not what they were when they were saved, from a sample of them.

        A guest that nobody paused stores through a mapping, which changes no time of the file.

        :raises SnapmigError: whatever failed in a worker
        """
        packets = self._geometry.packet_count
        step = max(1, min(SAMPLE_STEP, packets // SAMPLE_LEAST), packets // SAMPLE_MOST)
        tasks = SaveTasks(
            self._geometry,
            self._writer.plan,
            self._source.next_data,
            look=SAMPLE_LOOK,
            level=lambda: step,
            part=self._part,
        )
        self._fleet.run(tasks, _silent, limited=False)
        total = self._fleet.cells.total()
        self._torn = int(total[Counter.CHANGED_PACKETS])
        if self._torn:
            self.warnings.append(
                f"the image was written to while it was read: {self._torn} of the "
                f"{total[Counter.SAMPLED_PACKETS]} packets that were looked at again have changed, "
                "so the snapshot is not of one moment; pause the guest first"
            )

    def _largest_batch(self) -> int:
        # A level that follows the destination's speed looks at it after each batch, and an object's
        # packets wait on disk until they are sent.
        follows = len(self._options.steps) > 1 or not isinstance(self._path, Path)
        return SMALLEST if follows else LARGEST

    def finish(
        self,
        attachments: Mapping[str, bytes | StoredAttachment],
        pause_seconds: float | None = None,
        created_ns: int | None = None,
    ) -> SaveResult:
        """
        Add attachments, and make it a snapshot.

        :param attachments: what the source needs besides those of the options
        :param created_ns: the moment that the RAM is of, when it is not now
        :raises NoSpaceError: the destination's filesystem is full
        """
        data_end = self._writer.end
        store_attachments(self._writer, {**attachments, **self._options.attach, **self._hint()})
        counts = self._counts
        failures = int(counts[Counter.ENGINE_FAILURES])
        self.warnings += failure_warnings(list(self._fleet.notes), failures)
        encodings = sum(1 << kind for kind in Encoding if counts[encoding_counter(kind)])
        written = self._writer.commit(
            data_end=data_end,
            encodings=encodings,
            force=self._options.force,
            created_ns=created_ns,
            parent=None if self._parent is None else self._parent.snapshot.superblock,
            blocks=self._placed_blocks(),
            architecture=self._architecture,
        )
        return self._result(written, pause_seconds)

    def _result(self, written: WrittenSnapshot, pause_seconds: float | None) -> SaveResult:
        counts, settings = self._counts, self._options.settings
        data_pages = int(counts[Counter.DATA_PAGES])
        pages = sum(-(-block.size // PAGE_SIZE) for block in self._geometry.blocks)
        return SaveResult(
            image=self._source.shown,
            format=self._source.format,
            snapshot=str(self._path),
            snapshot_id=written.snapshot_id.hex(),
            parent=None if self._options.parent is None else str(self._options.parent),
            jobs=self._options.jobs,
            compression=settings.compression,
            accelerator=settings.engine if settings.encoding == Encoding.DEFLATE else None,
            window_bits=self._window_bits,
            levels={str(level): count for level, count in sorted(self._level.batches.items())},
            page_digests=self._writer.plan.page_digests_offset > 0,
            ram_size=self._geometry.ram_size,
            data_pages=data_pages,
            zero_pages=pages - data_pages,
            same_pages=int(counts[Counter.SAME_PAGES]),
            delta_pages=int(counts[Counter.DELTA_PAGES]),
            packets={kind.name.lower(): int(counts[encoding_counter(kind)]) for kind in Encoding},
            stored_size=int(counts[Counter.STORED_BYTES]),
            file_size=written.file_size,
            disk_size=written.disk_size,
            seconds=round(time.monotonic() - self._started, 3),
            pause_seconds=None if pause_seconds is None else round(pause_seconds, 4),
            changed_packets=int(counts[Counter.CHANGED_PACKETS]) if self._options.live else None,
            torn_packets=self._torn,
            left_out_blocks=tuple(item.name for item in self._left_out),
            warnings=tuple(self.warnings),
        )

    def _counted(self) -> Row:
        # The counters, where waiting for object storage is writing, too.
        row = self._fleet.cells.total()
        waited = self._tasks.waited_ns * self._options.jobs
        row[[Counter.WORK_NS, Counter.WRITE_NS]] += waited
        return row

    def _open_writer(self, stack: ExitStack) -> SnapshotWriter:
        return stack.enter_context(
            SnapshotWriter(
                self._path,
                self._geometry,
                self._options.layout,
                self._window_bits,
                page_digests=self._page_digests,
            )
        )

    @property
    def _ram_size(self) -> int:
        return self._geometry.ram_size

    def _open_parent(self, stack: ExitStack) -> Reading | None:
        path = self._options.parent
        if path is None:
            return None
        if same_location(path, self._path):
            raise UsageError("parent and snapshot are the same file", path=str(path))
        snapshot = stack.enter_context(SnapshotFile(str(path)))
        snapshot.index.check_digest()
        snapshot.keep_page_digests()
        if not is_near(self._path, relative_name(path, self._path)):
            self.warnings.append(
                f"{path} is neither beside {self._path} nor below: whoever reads the new snapshot "
                "finds it only when following remote parents is asked for"
            )
        follow = self._options.follow_remote_parents
        options = read_options(self._options.jobs, AUTO, None, None, follow_remote_parents=follow)
        reading = stack.enter_context(Reading(snapshot, options))
        if any(same_location(parse_location(each.shown), self._path) for each in reading.chain):
            raise UsageError("is a parent of the new snapshot", path=str(self._path))
        return reading

    def _placed_blocks(self) -> tuple[RamBlock, ...]:
        # With the addresses that are known by now; of a running guest they may be others later.
        _check_source(self._source)
        blocks = self._source.blocks
        if self._parent is not None:
            blocks = inherit_pieces(blocks, self._parent.snapshot.geometry.blocks)
        placed = place_blocks(blocks, self._options.addresses)
        if sum(len(block.pieces) for block in placed) > MAX_PIECES:
            raise UsageError(f"RAM has more than {MAX_PIECES} pieces", path=self._source.shown)
        return placed

    @property
    def _architecture(self) -> Architecture | None:
        known = self._options.architecture or self._source.architecture
        if known is None and self._parent is not None:
            return self._parent.snapshot.architecture
        return known

    @property
    def _packet_size(self) -> int:
        if self._options.packet_size is not None:
            return self._options.packet_size
        if self._parent is not None:
            return self._parent.snapshot.geometry.packet_size
        return DEFAULT_PACKET_SIZE

    @property
    def _page_digests(self) -> bool:
        if self._options.page_digests is not None:
            return self._options.page_digests
        return self._parent is not None and self._parent.snapshot.page_digests is not None

    def _check_parent(self) -> None:
        if self._parent is None:
            return
        parent = self._parent.snapshot
        if problem := geometry_problem(self._geometry, parent.geometry):
            raise UsageError(problem, path=self._source.shown)

    def _hint(self) -> dict[str, bytes]:
        parent = self._options.parent
        return {} if parent is None else {PARENT_NAME: parent_hint(self._path, parent)}

    @property
    def _window_bits(self) -> int:
        return self._options.settings.deflate.window_bits

    def _trained(self, settings: PacketSettings) -> PacketSettings:
        # With a Huffman table made for this image, where that is asked for.
        if settings.deflate.huffman != "trained":
            return settings
        samples = sample_packets(self._source.opener()(), self._geometry, SAMPLE_PACKETS)
        try:
            histogram = train(settings.engine, list(samples))
        except EngineError as error:
            raise SnapmigError(f"{settings.engine} can't train a table: {error}") from error
        return settings._replace(deflate=settings.deflate._replace(histogram=histogram))

    def warn_of_writes(self) -> None:
        """Tell when the guest wrote to so many packets that a live save gained little."""
        counts = self._counts
        stored = sum(int(counts[encoding_counter(kind)]) for kind in Encoding) or 1
        changed = int(counts[Counter.CHANGED_PACKETS])
        empty = int(counts[encoding_counter(Encoding.EMPTY)])
        if changed * 2 > stored - empty:
            self.warnings.append(
                f"{changed} of {stored - empty} packets changed while the guest ran, so it stood "
                "still nearly as long as if it were not live; smaller packets may help"
            )

    def _warn_of_missing_blocks(self) -> None:
        if missing := self._left_out:
            blocks = ", ".join(f"{item.name!r} of {format_size(item.size)}" for item in missing)
            self.warnings.append(
                f"{self._source.shown}: was made with x-ignore-shared and does not have RAM "
                f"{blocks}, nor does the snapshot; save the running guest as qmp:SOCKET"
            )

    def _warn_of_holes(self) -> None:
        if self._options.layout == Layout.FIXED and not self._writer.keeps_holes:
            message = (
                f"{self._path}: its filesystem keeps no holes, so the snapshot takes as much "
                "space as the RAM; the packed layout saves that"
            )
            self.warnings.append(message)

    def _explain(self, number: int) -> str:
        # What may have killed a worker with a signal.
        if number == signal.SIGKILL:
            return " (the kernel's out-of-memory killer does that)"
        if number != signal.SIGBUS:
            return ""
        try:
            self._source.check_unchanged()
        except SnapmigError as error:
            return f" because the image changed under it ({error})"
        return " (the image's storage failed, or it shrank for a moment)"


def _check_source(source: ImageSource) -> None:
    # Raw files are made into blocks by the caller, those of other formats say it themselves.
    kind = UsageError if source.format == "raw" else SnapmigError
    if len(source.blocks) > MAX_RAM_BLOCKS:
        message = f"{len(source.blocks)} RAM blocks, expected at most {MAX_RAM_BLOCKS}"
        raise kind(message, path=source.shown)
    if problem := block_problem(source.blocks):
        raise kind(problem, path=source.shown)


def _silent() -> None:
    return
