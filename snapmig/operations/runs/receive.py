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
from typing import NamedTuple

from snapmig.architectures import Architecture
from snapmig.attachments import source_attachments
from snapmig.container.format import MIN_PACKET_SIZE, Layout
from snapmig.errors import SnapmigError, UnsupportedError, UsageError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.handlers.counters import Counter
from snapmig.handlers.gathered_pages import GatheredPages
from snapmig.handlers.packet_buffers import PacketBuffers, SharedBuffers
from snapmig.handlers.receive import ReceiveHandler, ReceivePlan
from snapmig.handlers.receive_tasks import ParentPages, ReceiveTasks
from snapmig.handlers.staging import StagingTables, Waiting
from snapmig.handlers.stream_tasks import StreamTasks
from snapmig.images.qemu.attachments import attach_vm_state
from snapmig.images.qemu.state import VmState
from snapmig.images.source import ImageReader
from snapmig.migration.connections import Connections
from snapmig.migration.main_channel import MainChannel
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.save import MakeHandler, SaveRun, open_save_run
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
        self.blocks = tuple(
            RamBlock(block.name, block.length, page_size=block.page_size) for block in state.blocks
        )
        self.attachments: Mapping[str, bytes] = {}
        self.architecture: Architecture | None = None
        self.remarks: tuple[str, ...] = ()

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
        tasks: ReceiveTasks | StreamTasks,
    ) -> None:
        self.source = source
        self.run = run
        self._main = main
        self._tasks = tasks
        self._always_ready = os.eventfd(1, os.EFD_CLOEXEC)
        self._moved = time.monotonic()
        self._last: tuple[int, ...] = ()

    def close(self) -> None:
        """Release what it waits with, and the memory of what has come."""
        os.close(self._always_ready)
        self._main.release()

    @property
    def rounds(self) -> int:
        """Number of passes over the RAM, the first included; 0 if not known."""
        return max(0, self._tasks.rounds - 1)

    def receive(
        self,
        check: Callable[[], None],
        on_received: Callable[[], None] = lambda: None,
        wakers: Sequence[object] = (),
    ) -> None:
        """
        Take the whole guest.

        :param check: called several times a second while it comes; raises if the migration failed
        :param on_received: called as soon as all of it has come, before all of it is stored
        :param wakers: files; ``check`` is called at once if one of them is readable
        :raises MigrationError: a connection ends, stands still, or sends something impossible
        :raises SnapmigError: any failure of a worker
        """
        poll = partial(self._poll, check, on_received)
        self.run.receive(self._tasks, poll, partial(self._wakers, wakers), self._tasks.ahead)
        if not self._main.ended:
            raise RuntimeError("tasks ended before the migration")
        self._tell(on_received)

    def finish(
        self, more: Mapping[str, bytes] | None = None, created_ns: int | None = None
    ) -> SaveResult:
        """
        Put the snapshot on stable storage, under its name.

        :param more: attachments besides those of the source
        :param created_ns: time of the RAM's contents; default: now
        :raises NoSpaceError: the destination's filesystem is full
        """
        attachments = {**source_attachments(self.source), **(more or {})}
        result = self.run.finish(attachments, created_ns=created_ns)
        rewritten = int(self.run.counts()[Counter.REWRITTEN_BYTES])
        return replace(result, rounds=self.rounds or None, rewritten_size=rewritten)

    def attachments(self) -> dict[str, bytes]:
        """Return the state of all devices."""
        return attach_vm_state(self._main.state())

    def hurry(self) -> None:
        """Take what comes from now on as fast as possible, and store it later: the guest waits."""
        self._tasks.hurry()

    def _wakers(self, others: Sequence[object]) -> Sequence[object]:
        # Bytes may be here since a barrier was passed, or a table was emptied.
        if self._main.is_behind or (self._tasks.received and not self._tasks.told):
            return [self._always_ready]
        return [*others, *([self._main] if self._main.is_readable else [])]

    def _tell(self, on_received: Callable[[], None]) -> None:
        if not self._tasks.told:
            self._tasks.told = True
            on_received()

    def _poll(self, check: Callable[[], None], on_received: Callable[[], None]) -> None:
        self._main.receive()
        if self._tasks.received:
            self._tell(on_received)
            return
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
    open_tasks = _open_channels if connections.channels else _open_stream
    with ExitStack() as stack:
        opened = open_tasks(stack, connections, main, state)
        run = stack.enter_context(open_save_run(source, path, options, make_handler=opened.make))
        with closing(Receiver(main, source, run, opened.tasks(run))) as receiver:
            yield receiver


class _Opened(NamedTuple):
    # How workers get their handlers, and the parent the tasks for them.
    make: MakeHandler
    tasks: Callable[[SaveRun], ReceiveTasks | StreamTasks]


def _open_channels(
    stack: ExitStack, connections: Connections, main: MainChannel, state: VmState
) -> _Opened:
    secure = tuple(each for each in connections.channels if isinstance(each, SecureConnection))
    channels = [-1 if secure else channel.fileno() for channel in connections.channels]
    most = sum(-(-block.length // MIN_PACKET_SIZE) for block in state.blocks)
    staging = stack.enter_context(StagingTables(len(channels) + 1, most))
    tables = staging.paths

    def make(inputs: SaveInputs, output: SaveOutput) -> Callable[[], Handler]:
        plan = _plan(inputs, output)._replace(
            tables=tables,
            waiting=staging.waiting_path,
            target_page=target_page(state),
            secure=secure,
        )
        return partial(ReceiveHandler, plan)

    def tasks(run: SaveRun) -> ReceiveTasks:
        waiting = Waiting(staging.waiting_path)
        pages = ParentPages(
            tables[-1], waiting, run.geometry, lambda: main.marks, run.stored_packets
        )
        main.begin(state, run.geometry, pages)
        workers = run.worker_count
        return ReceiveTasks(run.geometry, main, channels, workers, tables, pages, run.codec)

    return _Opened(make, tasks)


def _open_stream(
    stack: ExitStack, _connections: Connections, main: MainChannel, state: VmState
) -> _Opened:
    if target_page(state) != PAGE_SIZE:
        message = "pages of the guest are larger than 4 KiB, which only multifd is received with"
        raise UnsupportedError(message, path=main.shown)
    shared = stack.enter_context(SharedBuffers())

    def make(inputs: SaveInputs, output: SaveOutput) -> Callable[[], Handler]:
        shared.make_for(inputs.geometry)
        return partial(ReceiveHandler, _plan(inputs, output)._replace(buffers=shared.path))

    def tasks(run: SaveRun) -> StreamTasks:
        buffers = PacketBuffers(shared.path, run.geometry.packet_pages)
        stack.callback(buffers.close)
        pages = GatheredPages(run.geometry, buffers)
        main.begin(state, run.geometry, pages)
        return StreamTasks(run.geometry, main, pages, run.codec)

    return _Opened(make, tasks)


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


def _plan(inputs: SaveInputs, output: SaveOutput) -> ReceivePlan:
    return ReceivePlan(
        [] if inputs.parent is None else inputs.parent.plans,
        inputs.geometry,
        output.writer.plan,
        inputs.packet_settings(),
        paced=inputs.options.settings.adapts,
        deltas=inputs.options.deltas,
    )
