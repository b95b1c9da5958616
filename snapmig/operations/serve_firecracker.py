"""``daemon firecracker``: guests whose memory comes from a snapshot where they touch it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snapmig.chains.reader import REMOTE_AHEAD
from snapmig.daemons.listener import Listener
from snapmig.daemons.packet_source import PacketSource
from snapmig.daemons.service import FaultService
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.parse import parse_jobs
from snapmig.operations.options.users import parse_user
from snapmig.operations.runs.random_access import CACHE, RandomAccess
from snapmig.operations.runs.working_set import load_working_set, write_working_set
from snapmig.sealing.keyring import Keys
from snapmig.system.background import spare_from_oom
from snapmig.system.limits import forbid_core_dumps
from snapmig.units import parse_size

if TYPE_CHECKING:
    from snapmig.daemons.fault_server import ServedFaults

__all__ = ("ServeResult", "serve_firecracker")


@dataclass(frozen=True)
class ServeResult:
    """
    The last guest served.

    :ivar pid: of its process, 0 if none came
    :ivar faults: page faults answered
    :ivar removed_size: bytes that it gave up
    :ivar complete: it has all of its memory and goes on; otherwise it has ended
    """

    snapshot: str
    socket: str
    pid: int
    faults: int
    removed_size: int
    packets_asked_for: int
    packets_decoded: int
    complete: bool
    seconds: float


@checks_arguments
def serve_firecracker(
    listen: str,
    snapshot: str | os.PathLike[str],
    *,
    user: str | None = None,
    working_set: str | os.PathLike[str] | None = None,
    fill: bool = False,
    once: bool = False,
    jobs: int | None = None,
    cache: int | str = CACHE,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    notice: Callable[[str], None] | None = None,
) -> ServeResult:
    """
    Be the page-fault handler of Firecracker's microVMs, until interrupted.

    When interrupted it takes no more guests, and gives those that are there the rest of their
    memory first, so that they go on without it. A guest that can't get its memory is ended.

    :param listen: path of the socket, the ``backend_path`` of Firecracker's ``mem_backend``
    :param user: name or number of the user of Firecracker; default: our own
    :param working_set: a file with the packets to fill before they are asked for; made of those
        that the first guest asks for if it is not there
    :param fill: fill all memory in the background, and let guests go on alone then
    :param once: end with the first guest
    :param jobs: threads that answer faults of one guest; default: the processors available
    :param cache: bytes of decoded packets kept for all guests
    :param notice: called with sentences about guests

    :raises UsageError: an invalid argument
    :raises CorruptSnapshotError: the snapshot is damaged in its tables; with ``once`` also if a
        packet was
    :raises SnapmigError: any other failure
    """
    owner = parse_user(user)
    count = parse_jobs(jobs)
    started = time.monotonic()
    report = notice or (lambda _sentence: None)
    memory = RandomAccess(
        snapshot,
        jobs=2 * count,
        cache=parse_size(cache),
        follow_remote_parents=follow_remote_parents,
        keys=keys,
    )
    with closing(memory):
        memory.file.index.check_digest()  # a record of an older state of the file is refused
        _check_pages(memory.geometry, memory.file.shown)
        forbid_core_dumps()  # guests of other users may be in it
        spare_from_oom()
        recorder = _Recorder(working_set, memory.geometry, report)
        service = FaultService(
            PacketSource(memory.packets, memory.geometry, report),
            frozenset((0, owner)),
            first=recorder.known,
            fill=fill,
            jobs=count * REMOTE_AHEAD if memory.file.is_remote else count,
            report=report,
            ended=recorder.take,
        )
        with Listener(listen.removeprefix("unix:"), owner) as listener:
            service.run(listener, memory.file.shown, once=once)
        last, seconds = recorder.last, round(time.monotonic() - started, 3)
        return ServeResult(
            snapshot=memory.file.shown,
            socket=listener.path,
            pid=last.pid if last else 0,
            faults=last.faults if last else 0,
            removed_size=last.removed if last else 0,
            packets_asked_for=len(last.asked) if last else 0,
            packets_decoded=memory.packets.decoded,
            complete=bool(last and last.complete),
            seconds=seconds,
        )


class _Recorder:
    # Keeps the last guest's facts, and writes the file of the first one's packets.
    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        geometry: Geometry,
        report: Callable[[str], None],
    ) -> None:
        found = None if path is None else load_working_set(path, geometry)
        self._path = path if found is None else None
        self._geometry = geometry
        self._report = report
        self.known = found or ()
        self.last: ServedFaults | None = None

    def take(self, served: ServedFaults) -> None:
        self.last = served
        path, self._path = self._path, None
        if path is not None:
            try:
                write_working_set(path, self._geometry, served.asked)
            except (OSError, SnapmigError) as error:
                self._report(f"the working set was not kept: {error}")


def _check_pages(geometry: Geometry, shown: str) -> None:
    for block in geometry.blocks:
        if block.size % PAGE_SIZE:
            message = f"RAM block {block.name!r} has {block.size} bytes, expected whole pages"
            raise UsageError(f"{message} of {PAGE_SIZE}", path=shown)
