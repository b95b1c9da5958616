"""
A save under way, from any source to any output.

Write all packets, once or twice, then finish. Leaving earlier removes the partial snapshot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from snapmig.attachments import NOTE_PACKET, StoredAttachment
from snapmig.container.format import Layout
from snapmig.errors import SnapmigError
from snapmig.geometry import Geometry
from snapmig.handlers.batch_size import (
    BATCH_NS,
    LARGEST,
    MIXED_NS,
    MOST,
    SMALLEST,
    BatchSizes,
    useful_workers,
)
from snapmig.handlers.codec_choice import CodecChoice
from snapmig.handlers.counters import Counter
from snapmig.handlers.save import SaveHandler, SavePlan
from snapmig.handlers.save_tasks import FIRST_LOOK, SAMPLE_LOOK, SECOND_LOOK, SaveTasks
from snapmig.images.source import ImageSource
from snapmig.operations.options.engine import failure_warnings
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.progress import TO_DISK, Progress, reporter
from snapmig.operations.runs.save_inputs import SaveInputs, open_inputs
from snapmig.operations.runs.save_output import Finish, OpenOutput, SaveOutput, whole_snapshot
from snapmig.operations.runs.save_result import Measured, make_result
from snapmig.operations.runs.save_warnings import (
    distant_parent,
    many_writes,
    missing_blocks,
    torn_image,
)
from snapmig.operations.runs.space import check_save_space
from snapmig.pages import Mask
from snapmig.stores.location import Location
from snapmig.system.libc import is_in_memory
from snapmig.workers.counters import COUNTERS, Row
from snapmig.workers.pool import Wakers, Workers
from snapmig.workers.tasks import Handler, TaskSource

__all__ = ("MakeHandler", "SaveRun", "open_save_run")

SAMPLE_STEP = 16
"""One packet in 16 is read again after a save; more of small images, fewer of huge ones: from
SAMPLE_LEAST to SAMPLE_MOST packets."""
SAMPLE_LEAST = 32
SAMPLE_MOST = 1024
SAMPLE_STRETCH = 64
"""Times as many packets in a batch of the sample as in others, at most: few of them are read."""

CATCH_UPS = 3
"""Passes over changed packets before the pause of a live save."""
FEW = 32
"""One changed packet in so many: to encode them takes a quarter of the time of looking at all."""


MakeHandler = Callable[[SaveInputs, SaveOutput], Callable[[], Handler]]
"""Returns what each worker calls for its handler."""


@contextmanager
def open_save_run(
    source: ImageSource,
    path: Location,
    options: SaveOptions,
    open_output: OpenOutput = whole_snapshot,
    make_handler: MakeHandler | None = None,
) -> Iterator[SaveRun]:
    """
    Open everything a save needs, workers included; close it at the end.

    :param source: stays the caller's to close
    :param make_handler: how workers get the pages; default: they read the source
    :raises UsageError: attachments, RAM blocks or a parent unfit for this snapshot
    :raises DestinationExistsError: the snapshot exists, and overwriting was not asked for
    :raises NoSpaceError: the snapshot can't fit
    """
    started = time.monotonic()
    with ExitStack() as stack:
        inputs = stack.enter_context(open_inputs(source, path, options))
        output = stack.enter_context(open_output(inputs))
        check_save_space(output.writer, path)
        handler = (make_handler or _read_image)(inputs, output)
        explain = partial(_explain_death, source)
        jobs = options.jobs
        if make_handler is None:
            jobs = useful_workers(jobs, (block.size for block in inputs.geometry.blocks))
        workers = stack.enter_context(options.workers(jobs, handler, explain))
        yield SaveRun(inputs, output, workers, started)


class SaveRun:
    """
    A save of one source to one output; :func:`open_save_run` makes it.

    :ivar warnings: for the user, a sentence each; callers may add to them
    :ivar changed: packets that the last pass wrote again
    """

    def __init__(
        self, inputs: SaveInputs, output: SaveOutput, workers: Workers, started: float
    ) -> None:
        options = inputs.options
        self._inputs = inputs
        self._output = output
        self._workers = workers
        self._started = started
        self._counts: Row = np.zeros(COUNTERS, np.int64)
        self._torn = 0
        self.changed = 0
        settings = options.settings
        in_memory = settings.adapts and _is_in_memory(inputs.path)
        self._takes_turns = settings.adapts and (workers.rate is not None or not in_memory)
        self._choice = CodecChoice(
            settings.codecs,
            settings.start,
            workers.size,
            workers.rate,
            workers.counters.total,
            in_memory=in_memory,
        )
        self._ram_size = len(inputs.geometry.ram_range(output.packets))
        self._report = reporter(workers, self._ram_size, options.progress)
        self.warnings = [
            *options.notes,
            *distant_parent(inputs),
            *output.warnings,
            *missing_blocks(inputs),
            *inputs.source.remarks,
        ]

    def write_pass(
        self,
        *,
        changed_only: bool = False,
        limited: bool = True,
        batch: Callable[[int], int] | None = None,
    ) -> None:
        """
        Save all packets, or only those changed since the pass before.

        :param limited: apply the limit on bytes written per second
        :param batch: as of :class:`SaveTasks`; default: by the time that batches take
        :raises SnapmigError: any failure of a worker
        """
        inputs, writer = self._inputs, self._output.writer
        tasks = SaveTasks(
            inputs.geometry,
            writer.plan,
            inputs.source.next_data,
            look=SECOND_LOOK if changed_only else FIRST_LOOK,
            argument=lambda: self._choice(tasks.waited_ns * self._workers.size),
            has_room=lambda: writer.has_room,
            advance=writer.advance,
            part=self._output.packets,
            batch=batch or self._batch_sizes(),
        )
        if changed_only:
            self._tell("saving what changed")
        poll = _silent if changed_only else self._report
        before = self._workers.counters.total()
        self._workers.run(tasks, poll, limited=limited)
        poll()
        self._count(since=before)
        if writer.plan.layout == Layout.PACKED:
            writer.end_packed_data(tasks.end)

    def catch_up(self) -> None:
        """
        Save changed packets again while the guest runs, as long as that leaves fewer for the pause.

        It also maps the pages that workers look at in the pause. Of a guest that writes to much of
        its memory all the time packets would only be written twice.

        :raises SnapmigError: any failure of a worker
        """
        sampled, changed = self._sample()
        if changed * 4 > sampled:
            return
        packets = before = self._inputs.geometry.packet_count
        for _ in range(CATCH_UPS):
            self.write_pass(changed_only=True)
            if self.changed * 2 > before or self.changed * FEW <= packets:
                return
            before = self.changed

    def receive(
        self, tasks: TaskSource, poll: Callable[[], None], wakers: Wakers, ahead: int = 1
    ) -> None:
        """
        Store packets that come by themselves.

        :param poll: called often, and when something is readable
        :param wakers: as in :meth:`~snapmig.workers.pool.Workers.run`
        :raises SnapmigError: any failure of a worker
        """

        def poll_and_report() -> None:
            poll()
            self._report()

        before = self._workers.counters.total()
        self._workers.run(tasks, poll_and_report, ahead=ahead, wakers=wakers)
        self._report()
        self._count(since=before)

    def _tell(self, phase: str) -> None:
        # What is done after the packets.
        progress = self._inputs.options.progress
        if progress is not None:
            stored = int(self._workers.counters.total()[Counter.STORED_BYTES])
            progress(Progress(self._ram_size, self._ram_size, stored, phase))

    def _count(self, since: Row) -> None:
        self._counts = self._workers.counters.total()
        self.changed = int((self._counts - since)[Counter.CHANGED_PACKETS])

    @property
    def geometry(self) -> Geometry:
        """The RAM of the snapshot."""
        return self._inputs.geometry

    @property
    def worker_count(self) -> int:
        """Number of workers."""
        return self._workers.size

    def codec(self) -> int:
        """Return the codec for the next batch, by its place."""
        return self._choice()

    def counts(self) -> Row:
        """Return the workers' counters, added up."""
        return self._workers.counters.total()

    def stored_packets(self, first: int, count: int) -> Mask:
        """Return a mask of consecutive packets: True for those stored with pages by now."""
        kinds = self._output.writer.written_records(first, count)["kinds"]
        return np.asarray(kinds.any(axis=1))

    def sample_changes(self) -> None:
        """
        Read a sample of the packets again, and warn if any changed.

        A guest that nobody paused stores through a mapping, so the file's times don't change.

        :raises SnapmigError: any failure of a worker
        """
        self._tell("reading a sample again")
        sampled, self._torn = self._sample()
        self.warnings += torn_image(sampled, self._torn)

    def _sample(self) -> tuple[int, int]:
        # The number of packets looked at again, and of those that changed.
        geometry = self._inputs.geometry
        packets = geometry.packet_count
        step = max(1, min(SAMPLE_STEP, packets // SAMPLE_LEAST), packets // SAMPLE_MOST)
        tasks = SaveTasks(
            geometry,
            self._output.writer.plan,
            self._inputs.source.next_data,
            look=SAMPLE_LOOK,
            argument=lambda: step,
            part=self._output.packets,
            batch=BatchSizes(geometry.packet_size // min(step, SAMPLE_STRETCH)),
        )
        before = self._workers.counters.total()
        self._workers.run(tasks, _silent, limited=False)
        found = self._workers.counters.total() - before
        return int(found[Counter.SAMPLED_PACKETS]), int(found[Counter.CHANGED_PACKETS])

    def warn_of_writes(self) -> None:
        """Warn if the guest wrote to so many packets that a live save gained little."""
        self.warnings += many_writes(self._counts, self.changed)

    def finish(
        self,
        attachments: Mapping[str, bytes | StoredAttachment],
        pause_seconds: float | None = None,
        created_ns: int | None = None,
    ) -> SaveResult:
        """
        Finish the output: add attachments, and give a snapshot its name.

        :param attachments: of the source, besides those of the options
        :param created_ns: time of the RAM's contents; default: now
        :raises NoSpaceError: the destination's filesystem is full
        """
        counts = self._counts
        failures = int(counts[Counter.ENGINE_FAILURES])
        self.warnings += failure_warnings(list(self._workers.notes), failures)
        if note := self._workers.counters.least(Counter.NOTE_PACKET):
            attachments = {**attachments, NOTE_PACKET: str(note - 1).encode()}
        self._tell("sending the last parts" if self._output.writer.is_remote else TO_DISK)
        written = self._output.finish(Finish(attachments, counts, created_ns))
        seconds = time.monotonic() - self._started
        measured = Measured(counts, self.changed, self._torn, seconds, pause_seconds, self.warnings)
        return make_result(self._inputs, self._output, written, measured)

    def _batch_sizes(self) -> BatchSizes:
        # Codecs that follow the destination take turns, unless nobody waits for it; an object's
        # packets wait on disk until they are sent, those of the packed layout in memory until they
        # have a place.
        remote = not isinstance(self._inputs.path, Path)
        packed = self._output.writer.plan.layout == Layout.PACKED
        return BatchSizes(
            self._inputs.geometry.packet_size,
            SMALLEST if self._takes_turns or remote else LARGEST,
            self.worker_count,
            None if remote or packed else self._workers.counters.total,
            LARGEST if self._takes_turns else MOST,
            MIXED_NS if self._takes_turns else BATCH_NS,
        )


def _is_in_memory(path: Location) -> bool:
    return isinstance(path, Path) and is_in_memory(str(path.parent))


def _read_image(inputs: SaveInputs, output: SaveOutput) -> Callable[[], Handler]:
    plan = SavePlan(
        inputs.source.opener(),
        [] if inputs.parent is None else inputs.parent.plans,
        inputs.geometry,
        output.writer.plan,
        inputs.packet_settings(),
        paced=inputs.options.settings.adapts,
        deltas=inputs.options.deltas,
        resumed=output.writer.resumed,
    )
    return partial(SaveHandler, plan)


def _explain_death(source: ImageSource, number: int) -> str:
    # A likely cause of a worker's death by a signal.
    if number == signal.SIGKILL:
        return " (the kernel's out-of-memory killer does that)"
    if number != signal.SIGBUS:
        return ""
    try:
        source.check_unchanged()
    except SnapmigError as error:
        return f" because the image changed under it ({error})"
    return " (the image's storage failed, or it shrank for a moment)"


def _silent() -> None:
    return
