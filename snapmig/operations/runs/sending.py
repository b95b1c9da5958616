"""A snapshot sent over the connections of a migration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from snapmig.handlers.counters import Counter
from snapmig.handlers.load_tasks import LoadTasks
from snapmig.handlers.send import BarrierTasks, PageTasks, SendHandler, SendPlan
from snapmig.migration.compression import WireCompression
from snapmig.migration.dialing import Connection
from snapmig.migration.sender import STILL_S, MainSender
from snapmig.migration.source_stream import SourceStream
from snapmig.migration.stream_sender import StreamParts
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.engine import failure_warnings
from snapmig.operations.progress import AT_PEER, reporter
from snapmig.operations.runs.read import Reading
from snapmig.workers.counters import Row

__all__ = ("send_over_channels",)

_END_S = 600.0


def send_over_channels(
    reading: Reading,
    stream: SourceStream,
    main: MainSender,
    channels: Sequence[Connection],
    compression: WireCompression,
    check: Callable[[], None],
    *,
    begin: Callable[[], None] = lambda: None,
    multifd: bool = True,
) -> Row:
    """
    Send a snapshot, wait until the destination has everything, and return the workers' counters.

    :param main: with the stream's header sent already
    :param channels: opened ones, a worker for each
    :param compression: of the channels
    :param check: called several times a second; raises if the migration failed
    :param begin: called before the first page, when everything before it is sent
    :param multifd: False: the only channel is the main connection, which has the pages too
    :raises MigrationError: the destination refuses, has gone, or takes nothing
    :raises SnapmigError: any failure of a worker
    """
    main.send(stream.opening, check)
    options, snapshot = reading.options, reading.snapshot
    make = partial(SendHandler, _plan(reading, stream, channels, compression, multifd=multifd))
    with options.workers(len(channels), make, lambda _signal: "") as pool:
        report = reporter(pool, snapshot.geometry.ram_size, options.progress)

        def poll(*, is_sent: bool = False) -> None:
            check()
            main.take_answers(is_sent=is_sent)
            report()

        load = LoadTasks(snapshot, range(snapshot.geometry.packet_count))
        count, descriptors = len(channels), [_descriptor(each) for each in channels]
        try:
            pool.run(BarrierTasks(descriptors, pool.size, 1), poll)
            if multifd:
                main.send(stream.mark, check)
            begin()
            pool.run(PageTasks(load, count), poll, ahead=reading.ahead)
            # A worker that has the main connection sends the last bytes.
            last = poll if multifd else partial(poll, is_sent=True)
            pool.run(BarrierTasks([-1] * count, pool.size, stream.last_barriers), last)
        except MigrationError:
            main.explain()
            raise
        report()
        reading.tell(AT_PEER)
        if multifd:
            main.send(stream.rest(), check)
        main.wait_for_end(_END_S, check)
        counters = pool.counters.total()
        reading.warnings += failure_warnings(
            list(pool.notes), int(counters[Counter.ENGINE_FAILURES])
        )
        return counters


def _plan(
    reading: Reading,
    stream: SourceStream,
    channels: Sequence[Connection],
    compression: WireCompression,
    *,
    multifd: bool,
) -> SendPlan:
    secure = [each for each in channels if isinstance(each, SecureConnection)]
    parts = None if multifd else StreamParts(stream.mark + stream.part, stream.after_part())
    return SendPlan(reading.plans, stream.block_names, compression, STILL_S, secure, parts)


def _descriptor(channel: Connection) -> int:
    # A channel with TLS is more than its descriptor: a worker has it from the fork.
    return -1 if isinstance(channel, SecureConnection) else channel.fileno()
