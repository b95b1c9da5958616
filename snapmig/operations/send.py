"""``send``: a snapshot's guest, migrated into a QEMU whose monitor somebody else holds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.migration.compression import WireCompression
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.options.parse import (
    MULTIFD,
    POSTCOPY,
    STREAM,
    AcceleratorName,
    WireName,
    parse_wire,
)
from snapmig.operations.options.peer import (
    CHANNELS,
    parse_channels,
    parse_peer,
    parse_timeout,
    parse_uuid,
)
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.send_to_peer import Transfer, send_to_peer
from snapmig.operations.runs.serve_peer import continue_at_peer, serve_peer
from snapmig.operations.runs.workers import choose_workers
from snapmig.sealing.keyring import Keys

__all__ = ("PATIENCE_S", "SendResult", "send")

PATIENCE_S = 60.0
"""Seconds for the destination to listen, and then to load."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """
    The result of a send; sizes are in bytes.

    :param destination: its address
    :param via: ``multifd``, ``stream`` without channels, or ``postcopy``
    :param packets_before_run: as of a restore, None without ``postcopy``
    :param packets_asked_for: the same
    :param wire: form of the pages
    :param sent_size: pages as sent, with their headers
    :param accelerator: the engine used for deflate, None if nothing was deflated
    :param warnings: messages for the user, a sentence each
    """

    snapshot: str
    destination: str
    via: str
    channels: int
    wire: str
    jobs: int
    accelerator: str | None
    ram_size: int
    data_pages: int
    zero_pages: int
    sent_size: int
    seconds: float
    packets_before_run: int | None = None
    packets_asked_for: int | None = None
    warnings: tuple[str, ...] = ()


@checks_arguments
def send(  # noqa: PLR0913 - the words of the command line
    snapshot: str | os.PathLike[str],
    destination: str,
    *,
    channels: int | None = None,
    postcopy: bool = False,
    working_set: str | os.PathLike[str] | None = None,
    recover: bool = False,
    wire: WireName | None = None,
    uuid: str | None = None,
    tls: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    timeout: float | None = None,
    accelerator: AcceleratorName = AUTO,
    depth: int | None = None,
    bwlimit: str | int | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    progress: ProgressCallback | None = None,
) -> SendResult:
    """
    Migrate a snapshot's guest into a QEMU that waits for it, over multifd or one plain connection.

    The destination is a QEMU started with ``-incoming``, or :func:`snapmig.receive`. Its owner has
    set its capability multifd and its parameters multifd-channels and multifd-compression, and lets
    the guest run. The snapshot is only read. Each channel has a worker process of its own.

    :param snapshot: a path, or ``s3://BUCKET/KEY``
    :param destination: ``unix:PATH`` or ``tcp:ADDRESS:PORT``, the latter with ``tls`` or
        ``insecure`` unless it is this host's own
    :param channels: the destination's parameter multifd-channels; 0 for one without multifd;
        default: 2
    :param postcopy: let the guest run at once and send its memory meanwhile, the pages it needs
        first; the destination has the capability postcopy-ram
    :param working_set: with ``postcopy``, as of :func:`snapmig.restore`
    :param recover: with ``postcopy``, send the rest of the same snapshot after a failure; the
        destination's owner has used ``migrate-recover``
    :param wire: the destination's parameter multifd-compression: ``none``, ``zstd`` or ``zlib``;
        packets stored as such are passed on, others compressed anew. ``auto`` is ``none``, as
        QEMU's own default: a destination can't be asked
    :param uuid: of the waiting guest, compared by QEMU on each channel; default: none
    :param tls: a folder with the certificates of QEMU's ``tls-creds-x509`` for a client
    :param insecure: send to other hosts without TLS
    :param timeout: seconds to wait until the destination listens, and then until it loads;
        default: 60
    :param accelerator: an engine for deflate: ``auto``, or a name given by :func:`accelerators`
    :param depth: packets in flight at an asynchronous engine, per worker
    :param bwlimit: bytes per second to send at most, a number or a text such as ``200M``
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :raises UsageError: an invalid argument, or the snapshot has no device state of QEMU
    :raises CorruptSnapshotError: the snapshot is damaged
    :raises UnsupportedError: the snapshot needs a feature unknown to this version
    :raises MigrationError: the destination can't be reached, does not load, refuses, or goes away
    :raises StoreError: object storage can't be reached, or refused a request
    :raises WorkerDiedError: a worker process was killed
    :raises SnapmigError: any other failure
    """
    started = time.monotonic()
    peer = parse_peer(destination, tls, insecure=insecure, client=True)
    compression = parse_wire(wire)
    if postcopy:
        _check_postcopy(channels, compression, working_set, recover=recover)
    elif recover or working_set is not None:
        raise UsageError("recover and a working set are for postcopy")
    channels = 0 if postcopy else CHANNELS if channels is None else channels
    if not parse_channels(channels) and compression != WireCompression.NONE:
        raise UsageError("only multifd has compressed pages, expected channels")
    options = read_options(
        None if postcopy else max(channels, 1),
        accelerator,
        depth,
        progress,
        choose_workers(bwlimit, None),
        follow_remote_parents=follow_remote_parents,
    )
    identity, patience_s = parse_uuid(uuid), parse_timeout(timeout, PATIENCE_S)
    transfer = Transfer(peer, channels, compression, identity, patience_s)
    opened = SnapshotFile(os.fspath(snapshot), keys=parse_keys(keys))
    with opened as source, Reading(source, options) as reading:
        reading.check_index()
        before = asked = None
        if recover:
            serving = continue_at_peer(reading, peer, patience_s)
            counters, asked = serving.counters, len(serving.asked)
        elif postcopy:
            serving = serve_peer(reading, peer, patience_s, working_set)
            counters, before, asked = serving.counters, serving.before, len(serving.asked)
        else:
            counters = send_to_peer(reading, transfer)
    geometry, data_pages = source.geometry, int(counters[Counter.DATA_PAGES])
    return SendResult(
        snapshot=os.fspath(snapshot),
        destination=str(peer.address),
        via=POSTCOPY if postcopy else MULTIFD if channels else STREAM,
        channels=channels,
        wire=compression.name.lower(),
        jobs=options.jobs,
        accelerator=reading.accelerator,
        ram_size=geometry.ram_size,
        data_pages=data_pages,
        zero_pages=sum(-(-block.size // PAGE_SIZE) for block in geometry.blocks) - data_pages,
        sent_size=int(counters[Counter.WRITTEN_BYTES]),
        seconds=round(time.monotonic() - started, 3),
        packets_before_run=before,
        packets_asked_for=asked,
        warnings=tuple(reading.warnings),
    )


def _check_postcopy(
    channels: int | None,
    compression: WireCompression,
    working_set: object,
    *,
    recover: bool,
) -> None:
    if channels or compression != WireCompression.NONE:
        raise UsageError("postcopy has one connection, without channels and wire")
    if recover and working_set is not None:
        raise UsageError("a guest that runs already has no use for a working set")
