"""Options of reading a snapshot, and a reading under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from snapmig.chains.lookup import open_parents
from snapmig.chains.reader import REMOTE_AHEAD, ReadPlan
from snapmig.container.format import Sealing
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.handlers.batch_size import useful_workers
from snapmig.handlers.counters import Counter
from snapmig.operations.options.engine import choose_to_read, failure_warnings
from snapmig.operations.options.parse import parse_depth, parse_jobs
from snapmig.operations.progress import Progress, ProgressCallback, reporter
from snapmig.pages import Mask
from snapmig.workers.counters import Row
from snapmig.workers.pool import WorkerPool, Workers, WorkersMaker
from snapmig.workers.tasks import TASKS_AHEAD, Handler, TaskSource

__all__ = ("ReadOptions", "Reading", "read_options", "unproved")


class ReadOptions(NamedTuple):
    """Checked options common to restore and verify."""

    jobs: int
    accelerator: str
    depth: int | None
    progress: ProgressCallback | None
    workers: WorkersMaker = WorkerPool
    follow_remote_parents: bool = False
    keep_going: bool = False


def read_options(
    jobs: int | None,
    accelerator: str,
    depth: int | None,
    progress: ProgressCallback | None,
    workers: WorkersMaker = WorkerPool,
    *,
    follow_remote_parents: bool = False,
    keep_going: bool = False,
) -> ReadOptions:
    """
    Check them.

    :param workers: gives the worker processes
    :raises UsageError: an invalid value
    """
    checked = parse_jobs(jobs), accelerator, parse_depth(depth)
    return ReadOptions(*checked, progress, workers, follow_remote_parents, keep_going)


class Reading:
    """
    A snapshot being read, with its parents open; a context manager.

    :ivar warnings: messages for the user, a sentence each
    :ivar problems: damage that it kept going past
    :ivar damaged: true for each packet lost by that
    :ivar whole: bytes of RAM of all runs together, where there are several
    :raises SnapmigError: the engine can't be used on this host, or a parent is missing
    """

    def __init__(self, snapshot: SnapshotFile, options: ReadOptions) -> None:
        self.snapshot = snapshot
        self.options = options
        self.warnings: list[str] = []
        self.problems: list[SnapmigError] = []
        self.damaged: Mask | None = None
        self.whole: int | None = None
        self._last = Progress(snapshot.geometry.ram_size, snapshot.geometry.ram_size, 0)
        self._done = 0
        with ExitStack() as stack:
            follow = options.follow_remote_parents
            self.chain = open_parents(snapshot, stack, follow_remote=follow)
            self.settings = [self._choose(file) for file in self.chain]
            self.warnings += unproved(self.chain)
            self._stack = stack.pop_all()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    @property
    def accelerator(self) -> str | None:
        """The engine for deflate, None if nothing is deflated."""
        used = zip(self.chain, self.settings, strict=True)
        return next((each.engine for file, each in used if file.has_deflate), None)

    @property
    def plans(self) -> list[ReadPlan]:
        """Plans for workers to open the files."""
        return [
            ReadPlan(file.plan(), file.shown, each, file.key)
            for file, each in zip(self.chain, self.settings, strict=True)
        ]

    @property
    def ahead(self) -> int:
        """Number of tasks to announce to a worker: more if bytes come over a network."""
        return REMOTE_AHEAD if any(file.is_remote for file in self.chain) else TASKS_AHEAD

    def check_index(self) -> None:
        """
        Compare the digest of the snapshot's index, before anything is made of it.

        A parent's needs no such check: the digests of the snapshot's own records prove its pages.

        :raises CorruptSnapshotError: it is another, and the user did not ask to keep going
        """
        try:
            self.snapshot.index.check_digest()
        except CorruptSnapshotError as error:
            if not self.options.keep_going:
                raise
            self.problems.append(error)
            self.warnings.append(
                "the index is not the one that was committed: besides the packets found damaged, "
                "others may be of an older state"
            )

    def tell(self, phase: str) -> None:
        """Report what is done after the packets."""
        if self.options.progress is not None:
            self.options.progress(replace(self._last, phase=phase))

    def run(
        self,
        tasks: TaskSource,
        make_handler: Callable[[], Handler],
        ram_size: int,
        phase: str = "",
    ) -> Row:
        """
        Have workers do tasks, and keep their warnings. Return their counters.

        :param make_handler: called in each worker; must be picklable
        :param ram_size: bytes of RAM that are read
        :param phase: for what, if not for the purpose of the whole
        """
        options = self.options
        jobs = useful_workers(options.jobs, (block.size for block in self.snapshot.geometry.blocks))
        with options.workers(jobs, make_handler, lambda _signal: "") as pool:
            before, whole = 0, ram_size
            if self.whole is not None and not phase:
                before, whole = self._done, self.whole
                self._done += ram_size
            if not phase:
                self._last = Progress(whole, before + ram_size, 0)
            report = reporter(pool, whole, options.progress, before=before, phase=phase)
            if any(file.is_remote for file in self.chain):
                # Few reads need it, and its statistics take as long to load as all of this file.
                from snapmig.operations.runs.windowed import WORKER_AHEAD, Windowed  # noqa: PLC0415

                tasks = Windowed(tasks, self.chain, jobs, partial(_requests, pool))
                pool.run(tasks, report, ahead=WORKER_AHEAD)
            else:
                pool.run(tasks, report)
            report()
            counters = pool.counters.total()
            self.warnings += failure_warnings(
                list(pool.notes), int(counters[Counter.ENGINE_FAILURES])
            )
            return counters

    def _choose(self, file: SnapshotFile) -> ReadSettings:
        settings, warnings = choose_to_read(file, self.options.accelerator, self.options.depth)
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
        return settings


def _requests(pool: Workers) -> tuple[int, int]:
    total = pool.counters.total()
    return int(total[Counter.ARRIVED_BYTES]), int(total[Counter.REPEATED_REQUESTS])


def unproved(chain: Sequence[SnapshotFile]) -> list[str]:
    """Return a warning of each snapshot of a chain that is not sealed, if the user gave a key."""
    keyring = chain[0].keyring
    if keyring is None or not keyring.keys:
        return []
    return [
        f"{file.shown} is not sealed: a key proves nothing of it"
        for file in chain
        if file.sealing == Sealing.NONE
    ]
