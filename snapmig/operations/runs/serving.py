"""A snapshot as the source of a postcopy migration: packets on one connection, as asked for."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Self

from snapmig.chains.read_ahead import TOGETHER, near_groups
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.handlers.serve import ReceivedPages, SectionBuffers, ServeHandler, ServePlan
from snapmig.handlers.serve_tasks import ServeTasks
from snapmig.images.plan import Content
from snapmig.images.qemu.state import VmState
from snapmig.migration.dialing import Connection
from snapmig.migration.postcopy import PostcopyStream, Request, RequestReader, zero_page
from snapmig.migration.recovery import RESUME, read_received
from snapmig.migration.sender import STILL_S, MainSender
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.engine import failure_warnings
from snapmig.operations.progress import reporter
from snapmig.operations.runs.read import Reading
from snapmig.pages import Mask, runs
from snapmig.workers.counters import Row
from snapmig.workers.pool import Workers
from snapmig.workers.tasks import TASKS_AHEAD

__all__ = ("Serving", "continued", "listed_blocks")

_END_S = 600.0
_SPARE_BUFFERS = 2

Check = Callable[[], None]


class Serving:
    """
    A snapshot being served, with the workers for it; a context manager.

    :param content: of the snapshot, with RAM blocks named as in the destination, and page sizes of
        its memory
    :param state: of the guest, with the pages that are a part of it
    :param received: pages that the destination has already, by RAM block's name
    :ivar stream: its header is to be sent as soon as there is a connection
    :ivar started: the guest runs, as far as we know, and depends on us
    :ivar asking: the guest has asked for pages, so it does
    :ivar before: packets sent before that
    :raises CorruptSnapshotError: a RAM block is not made of whole pages of its size
    """

    def __init__(
        self,
        reading: Reading,
        content: Content,
        state: VmState,
        received: Mapping[bytes, Mask] | None = None,
    ) -> None:
        self._reading = reading
        self._geometry = reading.snapshot.geometry
        state = _with_page_sizes(state, content)
        self.stream = PostcopyStream(state)
        blocks = [(block.name.encode(), block.page_size) for block in content.blocks]
        self._numbers = {name: number for number, (name, _) in enumerate(blocks)}
        self._names = [block.name.encode() for block in state.blocks]
        self._requests = RequestReader(state.blocks)
        self._zeros: set[Request] = set()
        self._small: list[bytes] = []
        self.started = self.asking = False
        self.before = 0
        jobs, frame = reading.options.jobs, self.stream.frame
        with ExitStack() as stack:
            count = 2 * jobs + _SPARE_BUFFERS
            buffers = SectionBuffers(count, self._geometry.packet_pages, frame)
            self._buffers = stack.enter_context(buffers)
            self._tasks = ServeTasks(reading.snapshot, [size for _, size in blocks], count)
            path = None
            if received is not None:
                masks = (_whole_pages(received[name], size) for name, size in blocks)
                path = stack.enter_context(ReceivedPages(self._geometry, masks)).path
            plan = ServePlan(reading.plans, blocks, frame, buffers.path, buffers.size, path)
            pool = reading.options.workers(jobs, partial(ServeHandler, plan), lambda _signal: "")
            self._pool = stack.enter_context(pool)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    @property
    def asked(self) -> Sequence[int]:
        """Packets that the guest asked for, in this order."""
        return self._tasks.order

    @property
    def counters(self) -> Row:
        """The workers' counters."""
        return self._pool.counters.total()

    def take(self, kind: int, body: bytes) -> None:
        """
        Take an answer of the destination.

        :raises MigrationError: it asks for something that does not exist
        """
        request = self._requests.read(kind, body)
        if request is None:
            return
        self.asking = True
        name = self._names[request.block]
        number = self._numbers.get(name)
        if number is not None:
            start = self._geometry.block_start(number)
            self._tasks.ask(self._geometry.packet_at(start + request.offset))
        elif request not in self._zeros:
            # A block whose pages are a part of the state: all but zeros came with it.
            self._zeros.add(request)
            self._small.append(zero_page(self.stream.frame, name, request.offset))

    def run(self, main: MainSender, first: Sequence[int], check: Check, running: Check) -> None:
        """
        Send everything, the guest's start before most of its memory, and wait for the end.

        :param main: with the stream's header sent already
        :param first: packets to be sent before the guest runs
        :param check: called several times a second before the guest runs; raises if the migration
            failed
        :param running: the same afterwards
        :raises MigrationError: the destination refuses, has gone, takes nothing, or asks for
            something that does not exist
        :raises SnapmigError: any failure of a worker
        """
        main.send(self.stream.opening, check)
        self._send_first(main, first, check)
        main.send(self.stream.run(self._missing()), check)
        self.started = True
        self._send_all(main, running)

    def resume(self, main: MainSender, check: Check) -> None:
        """
        Send what the destination lacks, when another source's connection was cut, and wait.

        :param main: the pages received have been asked for on it
        :param check: as of :meth:`run`
        :raises SnapmigError: as of :meth:`run`
        """
        self.started = True
        main.send(RESUME, check)
        self._send_all(main, check)

    def _send_first(self, main: MainSender, packets: Sequence[int], check: Check) -> None:
        self._tasks.filling = False
        ahead = self._reading.ahead
        if ahead > TASKS_AHEAD:
            # The guest runs when all of them are there, so their order is of no importance.
            self._tasks.ask_together(near_groups(sorted(packets), TOGETHER))
        else:
            ahead = 1
            for packet in packets:
                self._tasks.ask(packet)
        _Outlet(main, self._tasks, self._buffers, self._small, check).run(self._pool, ahead)
        self.before = len(self._tasks.order)
        self._tasks.order.clear()
        self._tasks.filling = True

    def _send_all(self, main: MainSender, check: Check) -> None:
        options, ram_size = self._reading.options, self._geometry.ram_size
        report = reporter(self._pool, ram_size, options.progress)

        def poll() -> None:
            check()
            report()

        outlet = _Outlet(main, self._tasks, self._buffers, self._small, poll)
        outlet.run(self._pool, self._reading.ahead)
        main.send(self.stream.end, poll)
        main.wait_for_end(_END_S, poll)
        report()
        failures = int(self._pool.counters.total()[Counter.ENGINE_FAILURES])
        self._reading.warnings += failure_warnings(list(self._pool.notes), failures)

    def _missing(self) -> list[tuple[bytes, list[tuple[int, int]]]]:
        return [(name, self._missing_of(number)) for name, number in self._numbers.items()]

    def _missing_of(self, number: int) -> list[tuple[int, int]]:
        geometry = self._geometry
        step, size = geometry.packet_size, geometry.blocks[number].size
        missing = runs(self._tasks.missing(geometry.block_packets(number)))
        spans = [(first * step, min((first + count) * step, size)) for first, count in missing]
        return [(start, stop - start) for start, stop in spans]


@contextmanager
def continued(
    reading: Reading, content: Content, state: VmState, connection: Connection
) -> Iterator[Serving]:
    """
    Serve a guest whose source was cut off.

    :param connection: on which the pages received of :func:`listed_blocks` have been asked for
    :raises MigrationError: the destination does not list them
    """
    early: list[tuple[int, bytes]] = []
    received = read_received(
        connection, listed_blocks(state), lambda kind, body: early.append((kind, body))
    )
    with Serving(reading, content, state, received) as serving:
        for answer in early:
            serving.take(*answer)
        yield serving


def listed_blocks(state: VmState) -> list[tuple[bytes, int]]:
    """Return names and sizes of all RAM blocks of the destination."""
    return [(block.name.encode(), block.length) for block in state.blocks]


def _with_page_sizes(state: VmState, content: Content) -> VmState:
    sizes = {block.name: block.page_size for block in content.blocks}
    for block in content.blocks:
        if block.size % block.page_size:
            message = (
                f"RAM block {block.name!r} has {block.size} bytes, expected whole pages of "
                f"{block.page_size}"
            )
            raise CorruptSnapshotError(message)
    blocks = (each._replace(page_size=sizes.get(each.name, PAGE_SIZE)) for each in state.blocks)
    return state._replace(blocks=tuple(blocks))


def _whole_pages(received: Mask, page_size: int) -> Mask:
    parts = received.reshape(-1, page_size // PAGE_SIZE)
    if (parts != parts[:, :1]).any():
        raise MigrationError(f"the destination lists parts of pages of {page_size} bytes")
    return received


class _Outlet:
    # Sections going out on the connection, while workers make others.
    def __init__(
        self,
        main: MainSender,
        tasks: ServeTasks,
        buffers: SectionBuffers,
        small: list[bytes],
        check: Check,
    ) -> None:
        self._main = main
        self._tasks = tasks
        self._buffers = buffers
        self._small = small
        self._check = check
        self._left = memoryview(b"")
        self._buffer: int | None = None
        self._moved = time.monotonic()

    def run(self, pool: Workers, ahead: int) -> None:
        with select.epoll() as poll:
            poll.register(self._main, select.EPOLLIN)

            def move() -> None:
                self._move()
                # Readable itself as soon as the connection takes more.
                poll.modify(self._main, select.EPOLLIN | (select.EPOLLOUT if self._left else 0))

            pool.run(self._tasks, move, ahead=ahead, wakers=lambda: [poll])
        self._main.send(bytes(self._left), self._check)

    def _move(self) -> None:
        self._main.take_answers()
        while (self._left or self._next()) and (sent := self._main.send_some(self._left)):
            self._left = self._left[sent:]
            self._moved = time.monotonic()
            if not self._left and self._buffer is not None:
                self._tasks.sent(self._buffer)
                self._buffer = None
        if self._left and time.monotonic() - self._moved > STILL_S:
            raise MigrationError(f"the destination took nothing in {STILL_S} s")
        self._check()

    def _next(self) -> bool:
        self._moved = time.monotonic()
        if self._small and not self._tasks.within:
            self._left = memoryview(b"".join(self._small))
            self._small.clear()
            return True
        ready = self._tasks.ready()
        if ready is not None:
            self._buffer = ready[0]
            self._left = self._buffers.content(*ready)
        return ready is not None
