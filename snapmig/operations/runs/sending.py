"""A snapshot sent over the connections of a multifd migration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from snapmig.handlers.counters import Counter
from snapmig.handlers.load import LoadTasks
from snapmig.handlers.send import SendHandler, SendPlan, SendTasks, SyncTasks
from snapmig.migration.sender import STILL_S, MainSender
from snapmig.migration.source_stream import SourceStream
from snapmig.migration.wire import MigrationError, WireCompression
from snapmig.operations.progress import reporter
from snapmig.operations.runs.read import Reading

__all__ = ("send_over_channels",)

_END_S = 600.0


def send_over_channels(
    reading: Reading,
    stream: SourceStream,
    main: MainSender,
    channels: Sequence[int],
    compression: WireCompression,
    check: Callable[[], None],
) -> int:
    """
    Send a snapshot, wait until the destination has everything, and return its nonzero pages.

    :param main: with the stream's header sent already
    :param channels: descriptors of opened ones, a worker for each
    :param compression: of the channels
    :param check: called several times a second; raises if the migration failed
    :raises MigrationError: the destination refuses, has gone, or takes nothing
    :raises SnapmigError: any failure of a worker
    """
    plan = SendPlan(reading.plans, stream.block_names, compression, STILL_S)
    options, snapshot = reading.options, reading.snapshot
    main.send(stream.opening, check)
    make = partial(SendHandler, plan)
    with options.workers(len(channels), make, lambda _signal: "") as pool:
        report = reporter(pool, snapshot.geometry.ram_size, options.progress)

        def poll() -> None:
            check()
            main.take_answers()
            report()

        load = LoadTasks(snapshot, range(snapshot.geometry.packet_count))
        try:
            pool.run(SendTasks(load, channels), poll, ahead=reading.ahead)
            pool.run(SyncTasks(len(channels), stream.last_barriers), poll)
        except MigrationError:
            main.explain()
            raise
        report()
        main.send(stream.rest(), check)
        main.wait_for_end(_END_S, check)
        return int(pool.counters.total()[Counter.DATA_PAGES])
