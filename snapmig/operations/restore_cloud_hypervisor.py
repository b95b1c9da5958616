"""``daemon cloud-hypervisor --connect``: a snapshot handed to a Cloud Hypervisor that waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

from snapmig.attachments import SOURCE_PREFIX, Attachments
from snapmig.container.reader import SnapshotFile
from snapmig.daemons.offload import Command, Connection
from snapmig.daemons.offload import connect as connect_to
from snapmig.daemons.offload_faults import FaultConnection
from snapmig.daemons.packet_source import PacketSource
from snapmig.daemons.slot_files import LazyFiles, SlotFiles
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats.cloud_hypervisor import STATE
from snapmig.images.handed_over import MIGRATION_CONFIG, SlotPlan, plan_slots
from snapmig.images.plan import ImagePlan
from snapmig.images.spans import SpanPlacer
from snapmig.images.target import TargetPlan
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.options.parse import parse_jobs
from snapmig.operations.options.peer import parse_timeout
from snapmig.operations.options.users import parse_user
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.random_access import CACHE, RandomAccess
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.restore_inputs import Part
from snapmig.operations.runs.restore_output import fill
from snapmig.sealing.keyring import Keys
from snapmig.system.background import spare_from_oom
from snapmig.system.files import descriptor_path
from snapmig.units import parse_size

__all__ = ("CONNECT_S", "HandOverResult", "restore_cloud_hypervisor")

CONNECT_S = 10.0
_ANSWER_S = 600.0
_CHECK_S = 0.2


@dataclass(frozen=True)
class HandOverResult:
    """
    Result of handing over a guest.

    :ivar running: false if it was left paused
    :ivar seconds_to_run: until Cloud Hypervisor had the guest
    :ivar faults: pages asked for, None if all memory was filled before
    """

    snapshot: str
    socket: str
    ram_size: int
    running: bool
    seconds_to_run: float
    faults: int | None
    packets_decoded: int | None
    seconds: float


@checks_arguments
def restore_cloud_hypervisor(
    connect: str,
    snapshot: str | os.PathLike[str],
    *,
    user: str | None = None,
    postcopy: bool = False,
    paused: bool = False,
    timeout: float | None = None,
    jobs: int | None = None,
    cache: int | str = CACHE,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    progress: ProgressCallback | None = None,
    notice: Callable[[str], None] | None = None,
) -> HandOverResult:
    """
    Hand a snapshot's guest to a Cloud Hypervisor that waits in ``receive-migration``.

    :param connect: path of the socket, where Cloud Hypervisor listens
    :param user: name or number of the user of Cloud Hypervisor; default: our own
    :param postcopy: let the guest run at once and fill its memory as it is asked for, which
        Cloud Hypervisor must have been told with ``memory_mode=postcopy``
    :param paused: leave it paused
    :param timeout: seconds until it listens; default: 10
    :param jobs: worker processes, or with ``postcopy`` threads
    :param cache: bytes of decoded packets kept with ``postcopy``

    :raises UsageError: an invalid argument, or a snapshot that lacks what a migration needs
    :raises CorruptSnapshotError: the snapshot is damaged
    :raises SnapmigError: Cloud Hypervisor refuses it, and any other failure
    """
    started = time.monotonic()
    path, wait_s = connect.removeprefix("unix:"), parse_timeout(timeout, CONNECT_S)
    last = Command.COMPLETE_PAUSED if paused else Command.COMPLETE
    run = _Run(path, wait_s, frozenset((0, parse_user(user))), last, notice)
    count = parse_jobs(jobs)
    faults = decoded = None
    if postcopy:
        access = RandomAccess(
            snapshot,
            jobs=count,
            cache=parse_size(cache),
            follow_remote_parents=follow_remote_parents,
            keys=keys,
        )
        with closing(access):
            file, ram_size = access.file, access.geometry.ram_size
            file.index.check_digest()
            spare_from_oom()
            source = PacketSource(access.packets, access.geometry, run.report)
            faults = run.lazily(file, source, count)
            decoded, shown = access.packets.decoded, file.shown
    else:
        options = read_options(
            count, AUTO, None, progress, follow_remote_parents=follow_remote_parents
        )
        with (
            SnapshotFile(os.fspath(snapshot), keys=parse_keys(keys)) as file,
            Reading(file, options) as reading,
        ):
            file.index.check_digest()
            run.filled(reading)
            ram_size, shown = file.geometry.ram_size, file.shown
    ended = time.monotonic()
    return HandOverResult(
        snapshot=shown,
        socket=path,
        ram_size=ram_size,
        running=not paused,
        seconds_to_run=round(run.ran - started, 3),
        faults=faults,
        packets_decoded=decoded,
        seconds=round(ended - started, 3),
    )


class _Run:
    # One hand-over, in the order of the protocol.
    def __init__(
        self,
        path: str,
        wait_s: float,
        allowed: frozenset[int],
        last: Command,
        notice: Callable[[str], None] | None,
    ) -> None:
        self._path = path
        self._wait_s = wait_s
        self._allowed = allowed
        self._last = last
        self.report = notice or (lambda _sentence: None)
        self.ran = 0.0

    def filled(self, reading: Reading) -> None:
        config, state, plans = _inputs(reading.snapshot)
        with ExitStack() as stack:
            files = stack.enter_context(SlotFiles(plans))
            for plan in plans:
                _fill_slot(reading, plan, files.fds[plan.slot])
            control = self._open(stack)
            self._send(control, files, config)
            self._finish(control, state)

    def lazily(self, file: SnapshotFile, source: PacketSource, jobs: int) -> int:
        config, state, plans = _inputs(file)
        with ExitStack() as stack:
            files = stack.enter_context(SlotFiles(plans))
            lazy = stack.enter_context(closing(LazyFiles(files, source, jobs)))
            control = self._open(stack)
            self._send(control, files, config)
            served = self._connect(None)
            faults = FaultConnection(served, lazy)
            faults.start()
            try:
                self._finish(control, state)
            except BaseException:
                served.end()
                faults.join()
                raise
            try:
                _join(faults)
            finally:
                if faults.is_alive():  # interrupted
                    self.report("the guest gets the rest of its memory before the end")
                    faults.join()
        if faults.error is not None:
            raise faults.error
        return faults.answered

    def _open(self, stack: ExitStack) -> Connection:
        return stack.enter_context(closing(self._connect(_ANSWER_S)))

    def _connect(self, answer_s: float | None) -> Connection:
        opened = connect_to(self._path, self._wait_s, self._allowed)
        return Connection(opened, self._path, answer_s)

    def _send(self, control: Connection, files: SlotFiles, config: bytes) -> None:
        control.send(Command.START)
        for slot, fd in files.fds.items():
            control.send_fd(slot, fd)
        control.send(Command.CONFIG, config)

    def _finish(self, control: Connection, state: bytes) -> None:
        control.send(Command.STATE, state)
        control.send(self._last)
        self.ran = time.monotonic()


def _join(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(_CHECK_S)  # signals come between


def _inputs(file: SnapshotFile) -> tuple[bytes, bytes, list[SlotPlan]]:
    attachments = Attachments(file, SOURCE_PREFIX, limited=True)
    if STATE not in attachments or MIGRATION_CONFIG not in attachments:
        message = (
            "has no guest as Cloud Hypervisor migrates it; one saved from a directory is restored "
            "with --format cloud-hypervisor"
        )
        raise UsageError(message, path=file.shown)
    config = attachments[MIGRATION_CONFIG]
    return config, attachments[STATE], plan_slots(file.shown, file.geometry, config)


def _fill_slot(reading: Reading, plan: SlotPlan, fd: int) -> None:
    if not plan.spans:
        return
    geometry = reading.snapshot.geometry
    first = geometry.packet_at(min(span.start for span in plan.spans))
    last = geometry.packet_at(max(span.stop for span in plan.spans) - 1)
    size = sum(span.stop - span.start for span in plan.spans)
    target = TargetPlan(
        path=descriptor_path(fd),
        shown=f"memory slot {plan.slot}",
        needed=plan.size,
        in_place=False,
        huge_page_size=None,
    )
    image = ImagePlan(plan.size, ())
    placer = SpanPlacer(plan.spans)
    part = Part(range(first, last + 1), size, -(-size // PAGE_SIZE), image, placer)
    fill(reading, target, part)
