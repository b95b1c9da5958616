"""``daemon cloud-hypervisor --listen``: a guest saved while Cloud Hypervisor hands it over."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

from snapmig.attachments import AttachmentSource, source_attachments
from snapmig.daemons.listener import Listener, wait_for_peer
from snapmig.daemons.offload import Connection
from snapmig.daemons.offload_receiver import receive_guest
from snapmig.errors import SnapmigError
from snapmig.images.handed_over import open_handed_over
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO, choose_coding
from snapmig.operations.options.keys import parse_keys, parse_sealing, prepare_keys
from snapmig.operations.options.parse import (
    AcceleratorName,
    CompressionName,
    LayoutName,
    Level,
    WindowName,
    parse_jobs,
    parse_layout,
    parse_packet_size,
)
from snapmig.operations.options.peer import parse_timeout
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.options.users import parse_user
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.save import open_save_run
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import Location, parse_location, parse_new
from snapmig.stores.opening import check_location

__all__ = ("WAIT_S", "receive_cloud_hypervisor")

WAIT_S = 600.0
_GONE = "Cloud Hypervisor was gone before it was told that the guest is saved"


@checks_arguments
def receive_cloud_hypervisor(  # noqa: PLR0913 - the words of the command line
    listen: str,
    snapshot: str | os.PathLike[str],
    *,
    user: str | None = None,
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
    layout: LayoutName | None = None,
    page_digests: bool = True,
    follow_remote_parents: bool = False,
    encrypt: bool = False,
    sign: bool = False,
    mixed_chain: bool = False,
    keys: Keys | None = None,
    attach: Mapping[str, AttachmentSource] | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    notice: Callable[[str], None] | None = None,
) -> SaveResult:
    """
    Save a guest that Cloud Hypervisor hands over with ``send-migration ...,local=on``.

    Its memory is read where it is, while it stands still. Cloud Hypervisor is answered, and ends or
    resumes the guest, once the snapshot is on stable storage; after a failure it keeps the guest.

    :param listen: path of the socket
    :param user: name or number of the user of Cloud Hypervisor; default: our own
    :param timeout: seconds to wait for it; default: 600

    The other arguments are those of :func:`snapmig.save`.

    :raises UsageError: an invalid argument
    :raises DestinationExistsError: the snapshot exists and ``force`` is not set
    :raises SnapmigError: nobody comes in time, or sends something else, and any other failure
    """
    owner, wait_s = parse_user(user), parse_timeout(timeout, WAIT_S)
    location = parse_new(snapshot)
    coding = choose_coding(compression, accelerator, level, window, "dynamic", depth)
    options = SaveOptions(
        jobs=parse_jobs(jobs),
        settings=coding.settings,
        notes=coding.notes,
        packet_size=None if packet_size is None else parse_packet_size(packet_size),
        layout=parse_layout(layout, location),
        attach={} if attach is None else attach,
        force=force,
        live=False,
        progress=progress,
        parent=None if parent is None else parse_location(parent),
        deltas=deltas,
        page_digests=page_digests,
        follow_remote_parents=follow_remote_parents,
        sealing=parse_sealing(keys, encrypt=encrypt, sign=sign),
        keyring=parse_keys(keys),
        mixed_chain=mixed_chain,
    )
    check_location(location, force=force)
    prepare_keys(options.keyring, options.sealing)
    with Listener(listen.removeprefix("unix:"), owner) as listener:
        if notice is not None:
            notice(f"waiting for Cloud Hypervisor at {listener.path}")
        accepted = wait_for_peer(listener, frozenset((0, owner)), wait_s)
        with closing(Connection(accepted, listener.path, wait_s)) as connection:
            return _save(connection, listener.path, location, options)


def _save(
    connection: Connection, shown: str, location: Location, options: SaveOptions
) -> SaveResult:
    with ExitStack() as stack:
        try:
            guest = stack.enter_context(closing(receive_guest(connection)))
            source = open_handed_over(shown, guest.config, guest.state, guest.files)
            stack.callback(source.close)
            with open_save_run(source, location, options) as run:
                run.write_pass()
                run.sample_changes()
                result = run.finish(source_attachments(source))
        except BaseException:
            connection.refuse()  # it keeps the guest then
            raise
    try:
        connection.answer(ok=True)
    except SnapmigError:
        return replace(result, warnings=(*result.warnings, _GONE))
    return result
