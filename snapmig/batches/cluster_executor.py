"""A batch's jobs on the hosts of a Dask cluster, each as its own snapmig process there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from snapmig.batches.executor import Executor
from snapmig.batches.jobs import PlannedJob
from snapmig.cluster.scheduler import Scheduler
from snapmig.errors import (
    CorruptSnapshotError,
    SnapmigError,
    UnsupportedError,
    UsageError,
    WorkerDiedError,
)
from snapmig.guests.wait import NoticeCallback
from snapmig.operations.options.save import SaveResult
from snapmig.operations.progress import Progress, ProgressCallback
from snapmig.operations.restore import RestoreResult
from snapmig.system.signals import raise_if_cancelled

if TYPE_CHECKING:
    from snapmig.cluster.client import Cluster
    from snapmig.cluster.members import Answer

__all__ = ("cluster_executor", "cluster_warnings", "command_line", "hosts_of")

_RESULTS: Mapping[str, type[SaveResult] | type[RestoreResult]] = {
    "save": SaveResult,
    "restore": RestoreResult,
}

_ERRORS = (UsageError, CorruptSnapshotError, UnsupportedError, WorkerDiedError)
_BY_CODE = {kind.exit_code: kind for kind in _ERRORS}


def hosts_of(jobs: Iterable[PlannedJob]) -> set[str]:
    """Return the hosts that jobs are for."""
    return {job.host for job in jobs if job.host is not None}


def cluster_warnings(scheduler: Scheduler) -> Iterator[str]:
    """Yield warnings about a scheduler's connection."""
    if not scheduler.encrypted and not scheduler.on_loopback:
        yield (
            f"{scheduler.address} is not encrypted: anybody in that network can read the "
            "traffic and run programs on its hosts; use tls:// to prevent that"
        )


@contextmanager
def cluster_executor(
    scheduler: Scheduler, jobs: Sequence[PlannedJob], workers: int | None, rate: int | None
) -> Iterator[Executor]:
    """
    Give an executor with the workers of a Dask cluster.

    :param workers: worker processes of each job, None for the processors of its host
    :param rate: bytes per second each job may write
    """
    options = [] if workers is None else [f"--jobs={workers}"]
    options += [] if rate is None else [f"--bwlimit={rate}"]
    with _cluster_class()(scheduler) as cluster:
        cluster.check(hosts_of(jobs))
        yield _ClusterExecutor(cluster, options)


class _ClusterExecutor:
    def __init__(self, cluster: Cluster, options: Sequence[str]) -> None:
        self._cluster = cluster
        self._options = options

    def room(self, job: PlannedJob, running: Iterable[PlannedJob]) -> bool:
        busy = Counter(each.host for each in running)
        return job.host is not None and busy[job.host] < self._cluster.places(job.host)

    def do(
        self,
        job: PlannedJob,
        note: ProgressCallback,
        notice: NoticeCallback,  # noqa: ARG002 - the worker's own stderr has them
    ) -> tuple[SaveResult | RestoreResult, str | None]:
        def progress(line: Mapping[str, Any]) -> None:
            total, done, stored = (line[f"{word}_bytes"] for word in ("total", "done", "stored"))
            note(Progress(total, done, stored, line.get("phase", "")))

        answer = self._cluster.run(
            str(job.host), command_line(job, self._options), progress, raise_if_cancelled
        )
        if answer.result is None:
            raise _failure(answer)
        try:
            return msgspec.convert(answer.result, _RESULTS[job.verb]), answer.worker
        except msgspec.ValidationError as error:
            message = f"worker {answer.worker} gave an invalid answer: {error}"
            raise SnapmigError(message) from error


def command_line(job: PlannedJob, options: Sequence[str]) -> list[str]:
    """
    Return the program's arguments for a job.

    :param options: options common to all jobs
    """
    argv = [job.verb, "--json", "--progress=json", *options]
    for name, value in job.arguments.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            argv += [f"{option}={key}={each}" for key, each in value.items()]
        elif isinstance(value, list):
            argv += [f"{option}={each}" for each in value]
        elif value is True:
            argv.append(option)
        elif value is not False:
            argv.append(f"{option}={value}")
    return [*argv, "--", job.source, job.destination]


def _failure(answer: Answer) -> SnapmigError:
    # As if raised here: the class has the exit code, and the message names the place already.
    message = answer.message or f"snapmig ended with exit code {answer.code} and no word"
    if answer.code < 0:
        return WorkerDiedError(f"{message} on worker {answer.worker}")
    return _BY_CODE.get(answer.code, SnapmigError)(message)


def _cluster_class() -> type[Cluster]:
    # Only here: Dask takes a second to import, and is an extra.
    try:
        from snapmig.cluster.client import Cluster  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("distributed", "dask"):
            raise
        message = "a cluster needs dask.distributed: pip install 'snapmig[cluster]'"
        raise SnapmigError(message) from error
    return Cluster
