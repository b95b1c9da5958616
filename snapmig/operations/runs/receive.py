"""
A guest received over QEMU's migration connections, into a snapshot.

The list of RAM blocks comes first, so the snapshot is opened while the migration waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial

from snapmig.architectures import Architecture
from snapmig.attachments import source_attachments
from snapmig.container.format import Layout
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.handlers.counters import Counter
from snapmig.handlers.receive import ReceiveHandler, ReceivePlan
from snapmig.handlers.receive_tasks import ParentPages, ReceiveTasks
from snapmig.handlers.staging import StagingTables
from snapmig.images.qemu.attachments import attach_vm_state
from snapmig.images.qemu.state import VmState
from snapmig.images.source import ImageReader
from snapmig.migration.connections import Connections
from snapmig.migration.main_channel import MainChannel
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.save import SaveRun, open_save_run
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.operations.runs.save_output import SaveOutput
from snapmig.stores.location import Location
from snapmig.workers.tasks import Handler

__all__ = ("HEAD_S", "Receiver", "open_receiver")

HEAD_S = 60.0
"""Seconds for the connections, and for everything before the pages."""
_STILL_S = 120.0
"""Seconds without a byte on any connection."""

_STREAM = "qemu-stream"


class MigrationSource:
    """The receiving end as a source of a save: RAM blocks, and no pages to read."""

    format = _STREAM
    paths: tuple[str, ...] = ()

    def __init__(self, state: VmState, shown: str) -> None:
        self.shown = shown
        self.blocks = tuple(RamBlock(block.name, block.length) for block in state.blocks)
        self.attachments: Mapping[str, bytes] = {}
        self.architecture: Architecture | None = None

    def opener(self) -> Callable[[], ImageReader]:
        """
        Refuse to read pages before they have come.

        :raises UsageError: always
        """
        raise UsageError("a Huffman table is trained from an image, not from a migration")

    def next_data(self, _start: int) -> int | None:
        """Return None: nothing can be read."""
        return None

    def check_unchanged(self) -> None:
        """Do nothing: it is read once."""

    def close(self) -> None:
        """Do nothing: its connections are their maker's."""


class Receiver:
    """
    A receive under way; :func:`open_receiver` makes it.

    :ivar source: for facts that become known meanwhile: addresses, architecture
    """

    def __init__(
        self,
        main: MainChannel,
        source: MigrationSource,
        run: SaveRun,
        tasks: ReceiveTasks,
    ) -> None:
        self.source = source
        self.run = run
        self._main = main
        self._tasks = tasks
        self._always_ready = os.eventfd(1, os.EFD_CLOEXEC)
        self._moved = time.monotonic()
        self._last: tuple[int, ...] = ()

    def close(self) -> None:
        """Release what it waits with."""
        os.close(self._always_ready)

    @property
    def rounds(self) -> int:
        """Number of passes over the RAM, the first included; 0 if not known."""
        return max(0, self._tasks.rounds - 1)

    def receive(self, check: Callable[[], None]) -> None:
        """
        Take the whole guest.

        :param check: called several times a second; raises if the migration failed
        :raises MigrationError: a connection ends, stands still, or sends something impossible
        :raises SnapmigError: any failure of a worker
        """
        self.run.receive(self._tasks, partial(self._poll, check), self._wakers)
        if not self._main.ended:
            raise RuntimeError("tasks ended before the migration")

    def finish(self, more: Mapping[str, bytes] | None = None) -> SaveResult:
        """
        Put the snapshot on stable storage, under its name.

        :param more: attachments besides those of the source
        :raises NoSpaceError: the destination's filesystem is full
        """
        result = self.run.finish({**source_attachments(self.source), **(more or {})})
        rewritten = int(self.run.counts()[Counter.REWRITTEN_BYTES])
        return replace(result, rounds=self.rounds or None, rewritten_size=rewritten)

    def attachments(self) -> dict[str, bytes]:
        """Return the state of all devices."""
        return attach_vm_state(self._main.state())

    def _wakers(self) -> Sequence[object]:
        if self._main.is_behind:  # since a barrier was passed, or a table was emptied
            return [self._always_ready]
        return [self._main] if self._main.is_readable else []

    def _poll(self, check: Callable[[], None]) -> None:
        self._main.receive()
        check()
        counts = self.run.counts()
        # Before anything is received workers write the records of empty packets.
        done = (int(counts[each]) for each in (Counter.RECEIVED_BYTES, Counter.EMPTY_PACKETS))
        seen = (self._main.received, *done)
        now = time.monotonic()
        if seen != self._last:
            self._last, self._moved = seen, now
        elif now - self._moved > _STILL_S:
            message = f"nothing came over any connection in {_STILL_S:.0f} s"
            raise MigrationError(message, path=self.source.shown)


@contextmanager
def open_receiver(
    connections: Connections,
    main: MainChannel,
    state: VmState,
    path: Location,
    options: SaveOptions,
) -> Iterator[Receiver]:
    """
    Open the snapshot of a guest that is about to come, and its workers.

    :param state: the head of the main connection
    :raises UsageError: the options don't fit a guest that is received
    """
    if options.layout != Layout.FIXED:
        raise UsageError("a guest is received packet by packet, so it needs the fixed layout")
    source = MigrationSource(state, main.shown)
    channels = connections.channels
    with ExitStack() as stack:
        tables = stack.enter_context(StagingTables(len(channels) + 2))
        secure = tuple(each for each in channels if isinstance(each, SecureConnection))
        make = partial(_plan_handler, tables.paths, target_page(state), secure)
        run = stack.enter_context(open_save_run(source, path, options, make_handler=make))
        pages = ParentPages(tables.paths[len(channels) :], run.geometry, run.stored_packets)
        main.begin(state, run.geometry, pages)
        tasks = ReceiveTasks(
            run.geometry,
            main,
            [-1 if secure else channel.fileno() for channel in channels],
            run.worker_count,
            tables.paths,
            pages,
            run.level,
        )
        with closing(Receiver(main, source, run, tasks)) as receiver:
            yield receiver


def target_page(state: VmState) -> int:
    """
    Return the bytes in a page of the guest's processors.

    :raises SnapmigError: no processor has such pages
    """
    bits = next((body for name, _, body in state.subsections if name.endswith("page-bits")), "")
    number = int(bits, 16) if bits else 12
    if not 12 <= number <= 16:
        raise SnapmigError(f"pages of the guest have 2^{number} bytes, expected 2^12 to 2^16")
    return 1 << number


def _plan_handler(
    tables: Sequence[str],
    page: int,
    secure: Sequence[SecureConnection],
    inputs: SaveInputs,
    output: SaveOutput,
) -> Callable[[], Handler]:
    plan = ReceivePlan(
        [] if inputs.parent is None else inputs.parent.plans,
        inputs.geometry,
        output.writer.plan,
        inputs.packet_settings(),
        tables,
        page,
        paced=len(inputs.options.steps) > 1,
        deltas=inputs.options.deltas,
        secure=secure,
    )
    return partial(ReceiveHandler, plan)
