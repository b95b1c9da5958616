"""``receive``: a guest that its QEMU migrates to us, whoever holds its monitor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

from snapmig.architectures import find_architecture
from snapmig.attachments import VIA, AttachmentSource
from snapmig.errors import UsageError
from snapmig.guests.wait import NoticeCallback
from snapmig.migration.connections import Connections
from snapmig.migration.listening import Listener
from snapmig.migration.main_channel import MainChannel
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO, choose_coding
from snapmig.operations.options.keys import parse_keys, parse_sealing, prepare_keys
from snapmig.operations.options.parse import (
    MULTIFD,
    STREAM,
    AcceleratorName,
    CompressionName,
    Level,
    WindowName,
    parse_jobs,
    parse_layout,
    parse_packet_size,
)
from snapmig.operations.options.peer import (
    CHANNELS,
    parse_channels,
    parse_peer,
    parse_timeout,
)
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.receive import HEAD_S, open_receiver
from snapmig.operations.runs.workers import WorkerGroup, choose_workers
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import Location, parse_location, parse_new
from snapmig.stores.opening import check_location

__all__ = ("receive",)

FIRST_S = 600.0


@checks_arguments
def receive(  # noqa: PLR0913 - the words of the command line
    listen: str,
    snapshot: str | os.PathLike[str],
    *,
    channels: int = CHANNELS,
    tls: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    timeout: float | None = None,
    parent: str | os.PathLike[str] | None = None,
    deltas: bool | None = None,
    jobs: int | None = None,
    compression: CompressionName = "zlib",
    accelerator: AcceleratorName = AUTO,
    level: Level | None = None,
    window: WindowName | None = None,
    depth: int | None = None,
    packet_size: str | int | None = None,
    page_digests: bool = True,
    arch: str | None = None,
    follow_remote_parents: bool = False,
    encrypt: bool = False,
    sign: bool = False,
    mixed_chain: bool = False,
    keys: Keys | None = None,
    attach: Mapping[str, AttachmentSource] | None = None,
    force: bool = False,
    bwlimit: str | int | None = None,
    workers: WorkerGroup | None = None,
    progress: ProgressCallback | None = None,
    notice: NoticeCallback | None = None,
) -> SaveResult:
    """
    Save a guest that QEMU migrates here, over multifd channels or one plain connection.

    The migration is begun at the guest's monitor, by whoever holds it. If it has the capability
    ``return-path``, QEMU is told of success once the snapshot is on stable storage, so that a
    migration reported as completed is stored, and after a failure the guest runs on there.

    :param listen: ``unix:PATH`` or ``tcp:ADDRESS:PORT``, the latter with ``tls`` or ``insecure``
        unless it is this host's own
    :param snapshot: a path
    :param channels: the source's parameter multifd-channels; 0 for a migration without multifd
    :param tls: a folder with the certificates of QEMU's ``tls-creds-x509`` for a server
    :param insecure: allow other hosts to connect without TLS
    :param timeout: seconds to wait for the migration to begin; default: 600
    :param notice: called with the address once it can be connected to

    The other arguments are those of :func:`snapmig.save`.

    :raises UsageError: an invalid argument
    :raises MigrationError: none comes in time, or it sends something unexpected, or ends early
    :raises DestinationExistsError: the snapshot exists and ``force`` is not set
    :raises NoSpaceError: the destination's filesystem is full
    :raises WorkerDiedError: a worker process was killed
    :raises SnapmigError: any other failure
    """
    peer = parse_peer(listen, tls, insecure=insecure)
    if tls is not None and workers is not None:
        raise UsageError("with TLS a migration needs workers of its own")
    parse_channels(channels)
    first_s = parse_timeout(timeout, FIRST_S)
    location = parse_new(snapshot)
    coding = choose_coding(compression, accelerator, level, window, "dynamic", depth)
    options = SaveOptions(
        jobs=parse_jobs(jobs),
        settings=coding.settings,
        notes=coding.notes,
        packet_size=None if packet_size is None else parse_packet_size(packet_size),
        layout=parse_layout(None, location),
        attach={} if attach is None else attach,
        force=force,
        live=False,
        progress=progress,
        parent=None if parent is None else parse_location(parent),
        deltas=deltas,
        page_digests=page_digests,
        follow_remote_parents=follow_remote_parents,
        workers=choose_workers(bwlimit, workers),
        sealing=parse_sealing(keys, encrypt=encrypt, sign=sign),
        keyring=parse_keys(keys),
        mixed_chain=mixed_chain,
        architecture=None if arch is None else find_architecture(arch),
    )
    check_location(location, force=force)
    prepare_keys(options.keyring, options.sealing)
    with Listener(peer.address) as listener:
        if notice is not None:
            notice(f"waiting for a migration at {listener.address}, {_shown(channels)}")
        with closing(listener.accept(channels, peer.tls, first_s, HEAD_S)) as connections:
            return _store(listener, connections, location, options)


def _shown(channels: int) -> str:
    return f"with {channels} multifd channels" if channels else "without multifd"


def _store(
    listener: Listener,
    connections: Connections,
    location: Location,
    options: SaveOptions,
) -> SaveResult:
    channels = len(connections.channels)
    check = partial(listener.check_no_more, channels)
    main = MainChannel(connections.main, str(listener.address), multifd=channels > 0)
    with ExitStack() as stack:
        try:
            state = main.read_head(HEAD_S, check)
            opened = open_receiver(connections, main, state, location, options)
            receiver = stack.enter_context(opened)
            receiver.receive(check)
        except MigrationError:
            check()  # a channel too many is the better reason
            raise
        check()
        way = MULTIFD if channels else STREAM
        receiver.source.attachments = {**receiver.attachments(), VIA: way.encode()}
        result = receiver.finish()
    main.return_path.finish(taken=True)
    return replace(result, via=way)
